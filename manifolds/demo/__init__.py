"""Real cells that travel with the package: a small subset of human CD34+ bone marrow (Setty et al. 2019)."""

from pathlib import Path


def demo_path() -> Path:
    """Path of the bundled ``.h5ad`` file: raw counts, all genes of the source file, author and computed labels."""
    return Path(__file__).with_name("marrow_setty2019.h5ad")

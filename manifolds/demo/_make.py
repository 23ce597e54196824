"""Drawing the bundled demo cells from the full data set: ``python -m manifoldzoo.manifolds.demo._make IN OUT``."""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

MAX_PER_GROUP = 36
SEED = 0


def draw(source: ad.AnnData) -> ad.AnnData:
    """Draw at most ``MAX_PER_GROUP`` cells of each 10x run and cell type, all genes and columns kept.

    Rare types are kept whole, the few lymphoid cells among them.
    """
    rng = np.random.default_rng(SEED)
    groups = source.obs.groupby(["donor", "cell_type"], observed=True, sort=True).indices
    chosen = [
        rows if len(rows) <= MAX_PER_GROUP else rng.choice(rows, MAX_PER_GROUP, replace=False)
        for _, rows in sorted(groups.items())
    ]
    cells = source[np.sort(np.concatenate(chosen))].copy()
    for column in cells.obs.select_dtypes("category"):
        cells.obs[column] = pd.Categorical(cells.obs[column].astype(str))
    # counts are small whole numbers; float32 as in the source file, sorted so that equal cells give equal bytes
    cells.X = sparse.csr_matrix(cells.X, dtype=np.float32)
    cells.X.sort_indices()
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    cells = draw(ad.read_h5ad(options.source))
    cells.write_h5ad(options.target, compression="gzip", compression_opts=9)
    print(f"{cells.n_obs} cells x {cells.n_vars} genes, {options.target.stat().st_size} bytes")


if __name__ == "__main__":
    main()

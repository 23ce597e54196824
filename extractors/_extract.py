"""Extraction from a recipe: the front door of this room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from ..cards._errors import BadInputError, MissingExtraError, NotFoundError
from ..cards._names import check_name, parse_version
from ..manifolds._manifold import Manifold
from ..manifolds._recipe import read_recipe, recipe_folder
from ..manifolds._ruler import read_stage_ruler

try:
    from ._interface import Progress, find_extractor
    from .checkpoints._scgpt import read_scgpt
except ImportError as error:
    raise MissingExtraError(
        f"Extraction needs {error.name!r}, which is not installed.", "Run `pip install 'manifoldzoo[extract]'`."
    ) from error


def reference_checkpoint() -> Path:
    """Folder of the bundled reference checkpoint: small, trained by this project, not scGPT's own weights."""
    return Path(__file__).with_name("reference") / "immune-mini"


def extract(
    recipe: str | Path,
    *,
    cells: Sequence[str | Path],
    checkpoint: str | Path | None = None,
    name: str | None = None,
    version: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> Manifold:
    """Extract a manifold from a checkpoint.

    Parameters
    ----------
    recipe
        Name of a bundled recipe, or a folder with ``recipe.toml``, ``stages.tsv``, ``edges.tsv`` and
        ``labels.tsv``.
    cells
        ``.h5ad`` files of raw counts with ``dataset``, ``donor``, ``tissue`` and ``cell_type`` in ``obs``.
    checkpoint
        Folder in scGPT's layout; the bundled reference checkpoint by default.
    name, version, seed
        The recipe's by default; give your own extraction a name of its own.
    progress
        Called as ``progress(step, done, total)``.

    Returns
    -------
    The manifold, not yet saved and not yet validated.

    Raises
    ------
    NotFoundError
        If a file, recipe or extractor does not exist.
    CheckpointError
        If the checkpoint cannot be read.
    PanelError, ScaleError, GeneError
        If the cells do not make a panel.
    FormatError
        If the recipe is not valid.
    BadInputError, ReferenceSyntaxError
        If no cells are given, or the name or version is none.
    """
    if isinstance(cells, str | Path):
        raise BadInputError(f"cells is the single path {str(cells)!r}, expected a list.", "Put it in brackets.")
    if not cells:
        raise BadInputError("No cells were given.", "Name at least one .h5ad file.")
    for path in cells:
        if not Path(path).is_file():
            raise NotFoundError(f"There is no file {str(path)!r}.", "Check the path.")
    folder = recipe_folder(recipe)
    read = read_recipe(folder)
    called = read.name if name is None else check_name(name)
    numbered = read.version if version is None else str(parse_version(version))
    source = read_scgpt(Path(checkpoint) if checkpoint is not None else reference_checkpoint())
    extractor = find_extractor(read.extractor)
    # one BLAS thread, so that the number of cores does not change the bytes; PyTorch keeps its own
    with threadpool_limits(limits=1, user_api="blas"):
        manifold = extractor.extract(
            read,
            source,
            read_stage_ruler(folder),
            folder / "labels.tsv",
            [Path(path) for path in cells],
            seed=read.seed if seed is None else seed,
            progress=progress,
        )
    # named last, so that the card still tells which recipe was followed
    card = manifold.card.model_copy(update={"name": called, "version": numbered})
    return Manifold.build(card, manifold.genes, manifold.tensors, manifold.vectors)

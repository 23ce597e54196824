"""Extraction from a recipe: the front door of this room."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from threadpoolctl import threadpool_limits

from ..cards._card import Card, Control, ControlKind
from ..cards._errors import BadInputError, MissingExtraError, PluginError
from ..cards._names import check_name, parse_version
from ..manifolds._manifold import Manifold
from ..manifolds._panel_spec import find_file, read_panel_set
from ..manifolds._recipe import Recipe, read_recipe, recipe_folder, table_folder
from ..manifolds._ruler import StageRuler, read_stage_ruler
from ..manifolds._ruler_interface import Ruler
from ..manifolds._ruler_recipe import InteractionRecipe

try:
    from ._extraction_files import extraction_files
    from ._interface import Job, Progress, find_extractor
    from ._plugins import find_plugin
    from .checkpoints._families import read_checkpoint
    from .interactions._build import BuiltRuler, build_interaction_ruler
    from .interactions._resource import PACKAGE
except ImportError as error:
    raise MissingExtraError(
        f"Extraction needs {error.name!r}, which is not installed.", "Run `pip install 'manifoldzoo[extract]'`."
    ) from error

RULERS = "manifoldzoo.rulers"


def reference_checkpoint() -> Path:
    """Folder of the bundled reference checkpoint: small, trained by this project, not scGPT's own weights."""
    return Path(__file__).with_name("reference") / "immune-mini"


def extract(
    recipe: str | Path,
    *,
    cells: Sequence[str | Path] | None = None,
    checkpoint: str | Path | None = None,
    family: str | None = None,
    name: str | None = None,
    version: str | None = None,
    seed: int | None = None,
    control: ControlKind | None = None,
    control_seed: int = 0,
    panels: str | Path | None = None,
    data: str | Path | None = None,
    n_untrained: int = 0,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Manifold:
    """Extract a manifold from a checkpoint.

    Parameters
    ----------
    recipe
        Name of a bundled recipe, or a folder with ``recipe.toml`` and, unless the recipe names a base that has them,
        ``labels.tsv`` (``programs.tsv`` where cells are scored) and, unless it names the ruler of an installed package,
        ``stages.tsv`` and ``edges.tsv``.
    cells
        ``.h5ad`` files of raw counts with ``dataset``, ``donor``, ``tissue`` and ``cell_type`` in ``obs``; by default
        the files of those panels of the specification that have the role ``extraction``.
    checkpoint
        Folder of a model of a supported family; the bundled reference checkpoint by default.
    family
        Of the model, such as ``scgpt``, ``geneformer`` or ``cell2sentence``; seen from the files by default.
    name, version, seed
        The recipe's by default; give your own extraction a name of its own.
    control
        Destroy something on purpose and do all the rest alike: ``random-init`` (the architecture with fresh weights),
        ``shuffled-weights`` (entries permuted within each weight matrix), ``spectrum-matched`` (an operator with the
        same singular values and random singular vectors) or ``permuted-genes`` (an operator whose genes are
        permuted). The result says what it is in name, title, limits and card.
    control_seed
        Of the destruction; the rest is drawn from ``seed``.
    panels
        Panel specification, TOML or YAML: its external, zero-shot and negative panels travel in the artifact, so that
        anybody can run rungs 4 and 5 of the evidence ladder. Files of its extraction panels are read as these say,
        with their columns and filters.
    data
        Folder of the files that the specification names, before its own, and of those that a ruler of interactions is
        computed from.
    n_untrained
        Untrained models of the same architecture to compare with on rung 6, which needs five.
    work
        Folder for the state of unfinished steps. An extraction that was interrupted goes on where it stopped, with
        the same result to the byte; remove the folder once the manifold is saved. None is kept by default.
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
    PluginError
        If an installed package offers an extractor, ruler or family that cannot be used.
    BadInputError, ReferenceSyntaxError
        If no cells are given, the control is unknown, or the name or version is none.
    """
    job = make_job(
        recipe,
        cells=cells,
        checkpoint=checkpoint,
        family=family,
        seed=seed,
        control=control,
        control_seed=control_seed,
        panels=panels,
        data=data,
        n_untrained=n_untrained,
        work=work,
        progress=progress,
    )
    default = job.recipe.name if control is None else f"{job.recipe.name}-{control}"
    called = check_name(default if name is None else name)
    numbered = job.recipe.version if version is None else str(parse_version(version))
    extractor = find_extractor(job.recipe.extractor)
    # one BLAS thread, so that the number of cores does not change the bytes; PyTorch keeps its own
    with threadpool_limits(limits=1, user_api="blas"):
        manifold = extractor.extract(job)
    if manifold.card.extraction.control != job.control:
        raise PluginError(
            f"The extractor {job.recipe.extractor!r} did not record the control {control!r}.",
            "Extract without a control, or use an extractor that knows controls.",
        )
    # named last, so that the card still tells which recipe was followed
    card = manifold.card.model_copy(update={"name": called, "version": numbered} | _marked(job, manifold.card))
    return Manifold.build(card, manifold.genes, manifold.tensors, manifold.vectors)


def make_job(
    recipe: str | Path,
    *,
    cells: Sequence[str | Path] | None = None,
    checkpoint: str | Path | None = None,
    family: str | None = None,
    seed: int | None = None,
    control: ControlKind | None = None,
    control_seed: int = 0,
    panels: str | Path | None = None,
    data: str | Path | None = None,
    n_untrained: int = 0,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> Job:
    """Read recipe, ruler and model; the parameters are those of ``extract``."""
    if control is not None and control not in get_args(ControlKind):
        raise BadInputError(f"There is no control {control!r}; there are: {', '.join(get_args(ControlKind))}.")
    if n_untrained < 0:
        raise BadInputError(f"n_untrained is {n_untrained}, expected 0 or more.")
    folder = recipe_folder(recipe)
    read = read_recipe(folder)
    tables = table_folder(read, folder)
    where = None if data is None else Path(data)
    spec = None if panels is None else read_panel_set(Path(panels))
    labels = tables / read.labels.file
    # the files first: they are what is most often named wrongly
    paths, reading = extraction_files(
        cells, spec, where, labels=read.labels.read(labels), min_cells=read.panel.min_cells
    )
    ruler: Ruler
    interaction = None
    if isinstance(read.ruler, InteractionRecipe):
        built = compute_ruler(read, tables, data=where, beside=folder, progress=progress)
        ruler, interaction = built.ruler, built.entry
    else:
        ruler = read_ruler(read, tables)
    source = read_checkpoint(reference_checkpoint() if checkpoint is None else Path(checkpoint), family=family)
    if control == "random-init":
        source = source.random_initialisation(control_seed)
    elif control == "shuffled-weights":
        source = source.shuffled_weights(control_seed)
    return Job(
        recipe=read,
        checkpoint=source,
        ruler=ruler,
        labels=labels,
        cells=paths,
        reading=reading,
        seed=read.seed if seed is None else seed,
        control=None if control is None else Control(kind=control, seed=control_seed),
        panels=spec,
        data=where,
        interaction=interaction,
        n_untrained=n_untrained,
        work=None if work is None else Path(work),
        progress=progress,
    )


def read_ruler(recipe: Recipe, folder: Path) -> Ruler:
    """Read the ruler beside a recipe, or the one of an installed package that it names.

    Raises
    ------
    NotFoundError, PluginError
        If no package offers it, or it is no ruler.
    BadInputError
        If it is to be computed, see ``compute_ruler``.
    """
    if recipe.ruler is None:
        return read_stage_ruler(folder)
    if isinstance(recipe.ruler, InteractionRecipe):
        raise BadInputError(
            f"The ruler of the recipe {recipe.name!r} is computed from files of expression, not read.",
            "Extract with the folder of these files as `data`.",
        )
    ruler = find_plugin(RULERS, recipe.ruler, "ruler")()
    if not isinstance(ruler, StageRuler):
        raise PluginError(f"The ruler {recipe.ruler!r} is a {type(ruler).__name__}, expected a StageRuler.")
    return ruler


def compute_ruler(
    recipe: Recipe,
    folder: Path,
    *,
    data: Path | None = None,
    beside: Path | None = None,
    progress: Progress | None = None,
) -> BuiltRuler:
    """Compute the ruler of interactions that a recipe describes.

    Parameters
    ----------
    recipe
        Its ``ruler`` is a table.
    folder
        Of ``stages.tsv``, the labels, and of ``paths.tsv`` where there is one.
    data
        Folder of the files, and of a table of ligands and receptors, looked through first.
    beside
        Folder of the recipe, looked through next, where it takes its tables from another.
    progress
        Called as ``progress(step, done, total)``.

    Raises
    ------
    PanelError
        If a file is in none of the folders, or as ``build_interaction_ruler``.
    BadInputError, FormatError, MissingExtraError, ScaleError
        As ``build_interaction_ruler``.
    """
    told = recipe.ruler
    if not isinstance(told, InteractionRecipe):
        raise BadInputError(f"The recipe {recipe.name!r} describes no ruler of interactions.")
    folders = [data, beside, folder]
    paths = folder / "paths.tsv" if told.paths is None else find_file(told.paths, folders)
    packaged = told.resource.startswith(f"{PACKAGE}:")
    return build_interaction_ruler(
        [file.model_copy(update={"name": str(find_file(file.name, folders))}) for file in told.files],
        resource=told.resource if packaged else find_file(told.resource, folders),
        labels=recipe.labels.read(folder / recipe.labels.file),
        stages=folder,
        expressed=told.expressed,
        min_cells=told.min_cells,
        n_nulls=told.n_nulls,
        null_seed=told.null_seed,
        paths=paths if told.paths is not None or paths.is_file() else None,
        progress=progress,
    )


def _marked(job: Job, card: Card) -> dict[str, object]:
    """What the card of a control says first."""
    if job.control is None:
        return {}
    kind = job.control.kind
    limit = (
        f"This is the control {kind} (seed {job.control.seed}): something was destroyed on purpose. It is no manifold."
    )
    return {"title": f"Control ({kind}): {job.recipe.title}", "limits": [limit, *card.limits]}

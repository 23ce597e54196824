"""From a ligand-receptor resource and files of expression to an interaction ruler and its entry in the card."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError, NotFoundError, PanelError
from ...cards._ruler_entry import Interaction, ProfileFile
from ...manifolds._count_file import list_cells
from ...manifolds._interaction_ruler import InteractionRuler
from ...manifolds._labels import LabelTable, read_label_table
from ...manifolds._ruler import Stage, read_stages
from ...manifolds._ruler_recipe import EXPRESSED, RulerFile
from ...manifolds._stage_labels import StageLabels
from ._curated import CuratedPath, PathCheck, check_paths, curated_entry, read_paths
from ._profiles import FileCoverage, Profiles, Progress, read_profiles, reading_of
from ._proximity import (
    complex_expression,
    directed_hops,
    expressed_only,
    mean_of_groups,
    permuted_receivers,
)
from ._resource import InteractionResource, read_resource, subunits


@dataclass(frozen=True, eq=False)
class BuiltRuler:
    """An interaction ruler and how it was computed.

    Attributes
    ----------
    ruler
        The ruler with its paired nulls.
    entry
        What the card says of it.
    resource
        The ligand-receptor pairs.
    profiles
        Expression of the groups.
    ligands, receptors
        Expression of each cell type, ``(n_types, n_ligands)`` and ``(n_types, n_receptors)``, complexes as one; 0 where
        not expressed.
    paths
        What is known of each curated path; empty where none were given.
    """

    ruler: InteractionRuler
    entry: Interaction
    resource: InteractionResource
    profiles: Profiles
    ligands: NDArray[np.float64]
    receptors: NDArray[np.float64]
    paths: tuple[PathCheck, ...]

    def coverage_table(self) -> str:
        """What each file measures of the resource, as a table for people."""
        return coverage_table(self.profiles.files, self.resource)


def build_interaction_ruler(
    files: Sequence[str | Path | RulerFile],
    *,
    resource: str | Path | InteractionResource = "liana:consensus",
    labels: StageLabels | str | Path | None = None,
    stages: Sequence[Stage] | str | Path | None = None,
    name: str | None = None,
    version: str | None = None,
    expressed: float = EXPRESSED,
    min_cells: int = 5,
    n_nulls: int = 20,
    null_seed: int = 0,
    paths: Sequence[CuratedPath] | str | Path | None = None,
    progress: Progress | None = None,
) -> BuiltRuler:
    """Compute distances between cell types over the ligands and receptors that they express.

    Parameters
    ----------
    files
        ``.h5ad`` files with ``dataset``, ``donor``, ``tissue`` and ``cell_type`` in ``obs``; raw counts, unless a
        ``RulerFile`` says that they are ``log1p`` values, or names other columns or a layer. Read in pieces.
    resource
        As ``read_resource``.
    labels
        From cell types to stages, a label table or its path; by default every cell type is a stage of its own.
    stages
        Cell types of the ruler, or the folder of a ``stages.tsv``; by default those of the labels, each a branch of its
        own.
    name, version
        Of the ruler; by default those of ``stages.tsv``, else ``communication`` and ``0.1.0``.
    expressed
        Least fraction of cells with a gene from which on a cell type counts as expressing it; 0.1 as ``expr_prop`` of
        LIANA.
    min_cells
        Groups of study, donor, tissue and cell type of fewer cells give nothing.
    n_nulls, null_seed
        How many paired null rulers are computed, and the seed of their draws.
    paths
        Curated paths, or their table, see ``read_paths``; they change nothing, the ruler is judged by them.
    progress
        Called as ``progress(step, done, total)``.

    Returns
    -------
    The ruler, what a card says of it, and what it rests on.

    Raises
    ------
    BadInputError, FormatError, MissingExtraError
        As ``read_resource``, ``read_paths`` and ``InteractionRuler``; or if there is no file, or a number is out of its
        range.
    NotFoundError
        If a file does not exist.
    PanelError, ScaleError
        As ``read_profiles``; or if a stage has no cells or expresses nothing.

    Notes
    -----
    Expression is the mean over the groups of a cell type whose file measures the gene, and so is the fraction of cells;
    groups weigh the same. See ``directed_hops`` for the distance, ``permuted_receivers`` for the nulls.

    Examples
    --------
    Your own cells, every annotated cell type a stage:

    >>> from manifoldzoo.extractors.interactions import build_interaction_ruler
    >>> from manifoldzoo.manifolds import RulerFile
    >>> mine = RulerFile(name="mine.h5ad", columns={"cell_type": "annotation"}, constants={"dataset": "mine"})
    >>> built = build_interaction_ruler([mine], resource="pairs.csv")  # doctest: +SKIP
    >>> print(built.coverage_table())  # doctest: +SKIP
    >>> built.ruler.directed_distances(["monocyte"], ["b_cell"])  # doctest: +SKIP
    """
    if isinstance(files, str | Path) or not files:
        raise BadInputError(f"files is {files!r}, expected a list of .h5ad files.", "Put the paths in brackets.")
    if not 0 < expressed <= 1:
        raise BadInputError(f"expressed is {expressed}, expected a fraction above 0 and up to 1.")
    if min_cells < 1 or n_nulls < 1:
        raise BadInputError(f"min_cells is {min_cells} and n_nulls {n_nulls}, expected 1 or more.")
    given = [file if isinstance(file, RulerFile) else RulerFile(name=str(file)) for file in files]
    found = [(Path(file.name).expanduser(), file) for file in given]
    for path, _ in found:
        if not path.is_file():
            raise NotFoundError(f"There is no file {str(path)!r}.", "Check the path.")
    pairs = resource if isinstance(resource, InteractionResource) else read_resource(resource)
    curated = read_paths(Path(paths)) if isinstance(paths, str | Path) else tuple(paths or ())
    table = _labels(labels, found)
    called, numbered, types = _stages(stages, table)
    profiles = read_profiles(found, pairs, labels=table, min_cells=min_cells, progress=progress)
    names = [stage.id for stage in types]
    ligands, receptors = _expression(profiles, pairs, names, expressed, min_cells)
    directed, nulls = _tables(pairs, ligands, receptors, names, n_nulls, null_seed, progress)
    ruler = InteractionRuler(name or called, version or numbered, types, directed, nulls)
    checks = check_paths(curated, pairs, names, ligands, receptors)
    entry = Interaction(
        resource=pairs.name,
        resource_version=pairs.version,
        resource_digest=pairs.digest,
        n_pairs=len(pairs.pairs),
        n_ligands=len(pairs.ligand_genes),
        n_receptors=len(pairs.receptor_genes),
        expressed=expressed,
        min_cells=min_cells,
        files=[
            ProfileFile(
                name=file.name,
                sha256=file.sha256,
                n_groups=file.n_groups,
                n_ligands=file.n_ligands,
                n_receptors=file.n_receptors,
            )
            for file in profiles.files
        ],
        curated=curated_entry(checks, names, ruler.directed, ruler.null_tables) if checks else None,
        n_nulls=n_nulls,
        null_seed=null_seed,
    )
    return BuiltRuler(ruler, entry, pairs, profiles, ligands, receptors, checks)


def coverage_table(files: Sequence[FileCoverage], resource: InteractionResource) -> str:
    """Tell what each file measures of a resource, as a table for people.

    Examples
    --------
    >>> resource = InteractionResource.of([("L1", "R1_R2"), ("L2", "R1")], name="made")
    >>> print(coverage_table([FileCoverage("a.h5ad", "0" * 64, "counts", 12, 480, 2, 1)], resource))
    file    groups  cells  ligands  receptors  scale
    a.h5ad      12    480      2/2        1/2  counts
    """
    n_ligands, n_receptors = len(resource.ligand_genes), len(resource.receptor_genes)
    rows = [("file", "groups", "cells", "ligands", "receptors", "scale")]
    rows += [
        (
            file.name,
            str(file.n_groups),
            str(file.n_cells),
            f"{file.n_ligands}/{n_ligands}",
            f"{file.n_receptors}/{n_receptors}",
            file.scale,
        )
        for file in files
    ]
    width = [max(len(row[column]) for row in rows) for column in range(6)]
    lines = (
        "  ".join([row[0].ljust(width[0]), *(row[column].rjust(width[column]) for column in range(1, 5)), row[5]])
        for row in rows
    )
    return "\n".join(lines)


def _labels(labels: StageLabels | str | Path | None, files: Sequence[tuple[Path, RulerFile]]) -> StageLabels:
    """The labels as given, or every cell type of the files a stage of its own."""
    if isinstance(labels, str | Path):
        return read_label_table(Path(labels))
    if labels is not None:
        return labels
    table: dict[tuple[str, str], str] = {}
    spelt: dict[str, str] = {}
    for path, file in files:
        reading = reading_of(file)
        pairs = list_cells([path], reading)[["dataset", "cell_type"]].drop_duplicates()
        for dataset, cell_type in pairs.itertuples(index=False, name=None):
            stage = re.sub(r"[^a-z0-9]+", "_", cell_type.lower()).strip("_")
            if not stage or spelt.setdefault(stage, cell_type) != cell_type:
                raise PanelError(
                    f"The cell type {cell_type!r} makes no id of its own: {stage!r} is "
                    f"{'empty' if not stage else f'that of {spelt[stage]!r}'}.",
                    "Give labels, a table from cell types to stages.",
                )
            table[dataset, cell_type] = stage
    return LabelTable(table, "the cell types")


def _stages(stages: Sequence[Stage] | str | Path | None, labels: StageLabels) -> tuple[str, str, tuple[Stage, ...]]:
    """Name and version of the ruler, and its cell types."""
    if isinstance(stages, str | Path):
        return read_stages(Path(stages))
    if stages is None:
        ids = sorted({stage for _, _, stage, _ in labels.rows if stage != "-"})
        stages = [Stage(name, name.replace("_", " "), "", name) for name in ids]
    return "communication", "0.1.0", tuple(stages)


def _expression(
    profiles: Profiles, resource: InteractionResource, stages: Sequence[str], expressed: float, min_cells: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Expression of the ligands and receptors of a resource in each cell type; 0 where not expressed."""
    position = {name: index for index, name in enumerate(stages)}
    strangers = sorted(set(profiles.stage) - set(stages))
    if strangers:
        raise PanelError(
            f"The labels give cells the stage {strangers[0]!r}, which the ruler does not have.",
            "Add it to stages.tsv, or leave its cell types out with '-'.",
        )
    absent = [name for name in stages if name not in set(profiles.stage)]
    if absent:
        raise PanelError(
            f"No group of at least {min_cells} cells in {', '.join(file.name for file in profiles.files)} has the "
            f"stage {absent[0]!r}.",
            "Add a file that has it, or take the stage out of stages.tsv.",
        )
    member = np.array([position[stage] for stage in profiles.stage], dtype=np.int64)
    mean, fraction = (mean_of_groups(given, member, len(stages)) for given in (profiles.mean, profiles.fraction))
    values = expressed_only(mean, fraction, expressed)
    place = {gene: index for index, gene in enumerate(profiles.genes)}
    ligands, receptors = (
        complex_expression(values, [[place[gene] for gene in subunits(name)] for name in names])
        for names in (resource.ligands, resource.receptors)
    )
    return ligands, receptors


def _tables(
    resource: InteractionResource,
    ligands: NDArray[np.float64],
    receptors: NDArray[np.float64],
    stages: Sequence[str],
    n_nulls: int,
    seed: int,
    progress: Progress | None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Directed distances on the network, and on networks whose receptor ends were exchanged."""
    row = {name: index for index, name in enumerate(resource.ligands)}
    column = {name: index for index, name in enumerate(resource.receptors)}
    ligand = np.array([row[name] for name, _ in resource.pairs], dtype=np.int64)
    receptor = np.array([column[name] for _, name in resource.pairs], dtype=np.int64)

    def measure(ends: NDArray[np.int64]) -> NDArray[np.float64]:
        return directed_hops(ligands, receptors, ligand, ends, names=stages)

    directed, nulls = measure(receptor), []
    # one child per null, so that their number changes none of them
    for number, rng in enumerate(np.random.default_rng(seed).spawn(n_nulls), start=1):
        nulls.append(measure(permuted_receivers(ligand, receptor, rng=rng)))
        if progress is not None:
            progress("ruler: paired nulls", number, n_nulls)
    # as they travel
    return directed.astype(np.float32), np.stack(nulls).astype(np.float32)

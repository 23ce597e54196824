"""A panel made of somebody's own cells, to try a manifold on: what the labels lead to, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..cards._errors import NotFoundError, PanelError, ScaleError
from ..cards._names import sha256_file
from ..cards._own_panel import MappedLabel, OwnPanelReport
from ._count_file import GROUP, PanelReading, list_cells, opened_counts, opened_h5ad, read_columns
from ._expression_blocks import Progress
from ._genes import align_genes, check_coverage
from ._labels import LEFT_OUT, LabelTable
from ._manifold import Manifold
from ._own_columns import USUAL, FoundColumns, OwnColumns, find_columns
from ._own_labels import KnownLabel, label_table_of, read_own_labels, resolve_labels
from ._panel import Panel, build_panel
from ._panel_file import panel_manifest
from ._panel_overlap import PanelMembers
from ._scored_labels import GeneScoreLabels
from ._stage_labels import StageLabels

MIN_PANEL = 3
"""Fewer anchors than this are no panel: there would be no two pairs of them to compare."""


@dataclass(frozen=True, eq=False)
class OwnPanel:
    """Somebody's own cells as a manifold's gates read them.

    Attributes
    ----------
    panel
        Anchors on the genes of the manifold, spelt as it spells them; ``None`` where fewer than three can be made.
    members
        The cells that have a stage and their donors, also of groups too small for an anchor.
    report
        What was mapped, what was not, and what is left.
    """

    panel: Panel | None
    members: PanelMembers
    report: OwnPanelReport


def read_own_panel(
    manifold: Manifold,
    path: str | Path,
    *,
    labels: str | Path | Mapping[str, str] | None = None,
    columns: OwnColumns = USUAL,
    layer: str | None = None,
    gene_column: str | None = None,
    progress: Progress | None = None,
) -> OwnPanel:
    """Average somebody's own cells to anchors, by the labels that the card of a manifold knows.

    Parameters
    ----------
    manifold
        Gives the genes, the ruler, what its card knows of labels, and how many cells make an anchor.
    path
        ``.h5ad`` file of raw counts, dense, CSR or CSC; the matrix is read in pieces.
    labels
        Stages of labels that the card does not know or should not decide, or a file of them, see ``read_own_labels``;
        ``"-"`` leaves a label out. Asked before the card, and instead of the genes where the card scores cells by them.
    columns
        Columns of ``obs``; the usual names are looked for.
    layer
        Layer of the counts, or ``"raw.X"``; ``None`` reads ``X``.
    gene_column
        Column of ``var`` with symbols or Ensembl ids; ``None`` takes ``var_names``.
    progress
        Called as ``progress(file, done, total)``.

    Returns
    -------
    The panel and the report.

    Raises
    ------
    NotFoundError
        If there is no such file.
    PanelError
        If it cannot be read, lacks a column, holds no cell or one twice, or a label may mean several stages.
    GeneError, LowCoverageError
        If genes cannot be matched, or too few are there for the card's floor.
    ScaleError
        If the matrix does not hold raw counts.
    FormatError, BadInputError
        If the table of labels is not one, or names a stage that the ruler lacks.

    Warns
    -----
    CoverageWarning
        If less than 0.8 of the loading is covered.

    Notes
    -----
    A label that nothing gives a stage is listed with its cells and makes no anchor. Cells are normalised over all
    genes of their file, and a gene that it lacks counts as 0, as in every panel. Where the card scores cells by gene
    programs, these cells are scored alike, against each other, and labels only tell cell types apart.
    """
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no file {str(path)!r}.", "Check the path.")
    own: Mapping[str, str] = (
        read_own_labels(Path(labels)) if isinstance(labels, str | Path) else {} if labels is None else labels
    )
    found = find_columns(path, columns)
    reading = found.reading(layer, gene_column)
    cells = list_cells([path], reading)
    if cells.empty:
        raise PanelError(f"{path.name} holds no cells.", "Give a file with labelled cells.")
    scored = manifold.card.scored_labels if labels is None else None
    known = (
        resolve_labels(_carried(path, cells, found), label_table_of(manifold.card), own, manifold.ruler)
        if scored is None
        else {}
    )
    by: StageLabels = _table(cells, known, path) if scored is None else GeneScoreLabels.of(scored)
    min_cells = manifold.card.panel.min_cells
    names, coverage, n_missing, where = _genes(path, reading, manifold)
    table = _labelled(cells, by.stages_of(cells, [path], reading), min_cells)
    groups = table[table["anchor"]].drop_duplicates("group")
    panel = None
    if len(groups) >= MIN_PANEL:
        built = _build(path, names, by, manifold, min_cells, reading, progress)
        panel = replace(built, genes=manifold.genes.symbols)
    used = table[table["stage"] != LEFT_OUT]
    small = used[~used["anchor"]]
    report = OwnPanelReport(
        name=path.name,
        sha256=sha256_file(path) if panel is None else panel.files[0].sha256,
        digest=None if panel is None else panel_manifest(panel, min_cells).digest,
        columns=found.told,
        layer=where,
        min_cells=min_cells,
        n_cells=len(table),
        n_used_cells=int(table["anchor"].sum()),
        n_anchors=len(groups),
        n_donors=len(groups[["dataset", "donor"]].drop_duplicates()),
        n_tissues=groups["tissue"].nunique(),
        n_studies=groups["dataset"].nunique(),
        n_stages=groups["stage"].nunique(),
        n_branches=len(set(manifold.ruler.branch(groups["stage"].tolist()))),
        n_small_groups=small["group"].nunique(),
        n_small_cells=len(small),
        coverage=coverage,
        n_missing_genes=n_missing,
        unused=sorted(set(own) - {label.strip() for label in known} - set(known)),
        **_told(table, groups, known),
    )
    members = PanelMembers(tuple(used["dataset"]), tuple(used["donor"]), tuple(used["id"]))
    return OwnPanel(panel, members, report)


def _carried(path: Path, cells: pd.DataFrame, found: FoundColumns) -> dict[str, list[str]]:
    """Labels of the cells, each with the ontology ids that its cells carry."""
    labels: dict[str, list[str]] = {str(label): [] for label in sorted(cells["cell_type"].unique())}
    if found.ontology is None:
        return labels
    with opened_h5ad(path) as file:
        ids = read_columns(file["obs"], path, [found.ontology])[found.ontology].astype(str).to_numpy()
    pairs = pd.DataFrame({"label": cells["cell_type"], "id": ids[cells["row"].to_numpy()]}).drop_duplicates()
    return labels | {str(label): sorted(rows["id"]) for label, rows in pairs.groupby("label")}


def _genes(path: Path, reading: PanelReading, manifold: Manifold) -> tuple[list[str], float, int, str]:
    """What the file calls each gene of the manifold, the coverage, genes missing, and where the counts are."""
    with opened_h5ad(path) as file:
        cell_names = read_columns(file["obs"], path, []).index.tolist()
    with opened_counts(path, reading) as counts:
        names, where = [str(name) for name in counts.genes], counts.where
    alignment = align_genes(names, manifold.genes, cell_names=cell_names)
    floor = manifold.card.genes.coverage_floor
    coverage = check_coverage(alignment, manifold.tensors["projection"], floor=floor)
    spelt = [
        names[at] if at >= 0 else symbol for symbol, at in zip(manifold.genes.symbols, alignment.column, strict=True)
    ]
    return spelt, min(1.0, coverage), len(alignment.missing), where


def _labelled(cells: pd.DataFrame, stages: list[str], min_cells: int) -> pd.DataFrame:
    """Cells with their stage, the number of their group, and whether it makes an anchor."""
    cells = cells.assign(stage=stages)
    group = cells.groupby(list(GROUP), sort=True)
    size = group["row"].transform("size")
    return cells.assign(group=group.ngroup(), anchor=(size >= min_cells) & (cells["stage"] != LEFT_OUT))


def _table(cells: pd.DataFrame, known: Mapping[str, KnownLabel | None], path: Path) -> LabelTable:
    """Label table of the cells, by study."""
    meant = {label: LEFT_OUT if one is None else one.stage for label, one in known.items()}
    rows = cells[["dataset", "cell_type"]].drop_duplicates().itertuples(index=False, name=None)
    return LabelTable({(study, label): meant[label] for study, label in rows}, f"the labels of {path.name}")


def _build(
    path: Path,
    names: list[str],
    labels: StageLabels,
    manifold: Manifold,
    min_cells: int,
    reading: PanelReading,
    progress: Progress | None,
) -> Panel:
    """Read the counts; where they are none, say where others might be."""
    try:
        return build_panel(
            [path],
            genes=names,
            labels=labels,
            ruler=manifold.ruler,
            min_cells=min_cells,
            reading=reading,
            progress=progress,
        )
    except ScaleError as error:
        with opened_h5ad(path) as file:
            there = [*file.get("layers", {}), *(["raw.X"] if "raw" in file and "X" in file["raw"] else [])]
        said = f"one of {', '.join(there)}" if there else "none in this file"
        raise ScaleError(error.message, f"Name the layer that has the counts with --layer: {said}.") from error


def _told(table: pd.DataFrame, groups: pd.DataFrame, known: Mapping[str, KnownLabel | None]) -> dict[str, Any]:
    """What became of each label, with cells."""
    n_cells = table["cell_type"].value_counts()
    pairs = table.groupby(["cell_type", "stage"], sort=True).size()
    n_anchors = groups.groupby(["cell_type", "stage"]).size()
    mapped, left_out, unmapped = [], {}, {}
    for label, stage in sorted(pairs.index, key=lambda pair: (-int(n_cells[pair[0]]), *pair)):
        n = int(pairs[label, stage])
        one = known.get(label, KnownLabel(stage, "gene scores"))
        if one is None:
            unmapped[label] = n
        elif stage == LEFT_OUT:
            left_out[label] = n
        else:
            anchors = int(n_anchors.get((label, stage), 0))
            mapped.append(MappedLabel(label=label, stage=stage, by=one.by, n_cells=n, n_anchors=anchors))
    return {"mapped": mapped, "left_out": left_out, "unmapped": unmapped}

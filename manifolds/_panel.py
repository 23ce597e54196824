"""Panels: anchors and labelled cells built from AnnData files of raw counts, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import PanelError, ScaleError
from ..cards._names import sha256_file
from ._digests import cells_digest
from ._labels import LEFT_OUT, LabelTable
from ._ruler import StageRuler
from ._scale import TARGET_SUM, check_finite, log_normalise, stored_values

COLUMNS = ("dataset", "donor", "tissue", "cell_type")
CHUNK = 8_192


@dataclass(frozen=True)
class PanelFile:
    """One file of a panel: what was used of it.

    Attributes
    ----------
    name, sha256
        Of the file.
    n_cells
        Labelled cells used.
    cells_digest
        Digest of their ids.
    missing_genes
        Panel genes that the file lacks; they count as 0.
    source
        Provenance as the file states it.
    """

    name: str
    sha256: str
    n_cells: int
    cells_digest: str
    missing_genes: tuple[str, ...]
    source: str


@dataclass(frozen=True, eq=False)
class Panel:
    """Anchors: centroids of cells that share study, donor, tissue and cell type.

    Attributes
    ----------
    genes
        Symbols, ``n_genes``.
    anchors
        Mean ``log1p`` of counts per 10,000, float32 ``(n_anchors, n_genes)``.
    stage, branch, cell_type, donor, tissue, study
        What each anchor is, ``n_anchors`` each.
    n_cells
        Cells behind each anchor, ``(n_anchors,)``.
    files
        Where they come from.
    """

    genes: tuple[str, ...]
    anchors: NDArray[np.float32]
    stage: tuple[str, ...]
    branch: tuple[str, ...]
    cell_type: tuple[str, ...]
    donor: tuple[str, ...]
    tissue: tuple[str, ...]
    study: tuple[str, ...]
    n_cells: NDArray[np.int64]
    files: tuple[PanelFile, ...]


@dataclass(frozen=True, eq=False)
class PanelCells:
    """Labelled cells of a panel.

    Attributes
    ----------
    values
        ``log1p`` of counts per 10,000, CSR float32 ``(n_cells, n_genes)``.
    totals
        Counts of each cell over all genes of its file, ``(n_cells,)``.
    stage, branch, study, donor
        Of each cell.
    cell_ids
        ``study:id`` of each cell.
    """

    values: sparse.csr_matrix
    totals: NDArray[np.float64]
    stage: tuple[str, ...]
    branch: tuple[str, ...]
    study: tuple[str, ...]
    donor: tuple[str, ...]
    cell_ids: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Digest of the cell ids."""
        return cells_digest(self.cell_ids)

    def counts(self) -> sparse.csr_matrix:
        """Recover the raw counts, CSR float32 of whole numbers, from the normalised values and the totals."""
        counts = self.values.copy()
        per_value = np.repeat(self.totals, np.diff(counts.indptr))
        counts.data = np.rint(np.expm1(counts.data.astype(np.float64)) * per_value / TARGET_SUM).astype(np.float32)
        return counts


def build_panel(
    paths: Sequence[Path], *, genes: Sequence[str], labels: LabelTable, ruler: StageRuler, min_cells: int = 5
) -> Panel:
    """Average the labelled cells of files to anchors, reading each file in pieces.

    Parameters
    ----------
    paths
        ``.h5ad`` files of raw counts with ``dataset``, ``donor``, ``tissue`` and ``cell_type`` in ``obs``.
    genes
        Symbols of the panel; a gene that a file lacks counts as 0 there and is listed.
    labels
        From cell types to stages.
    ruler
        Gives each stage its branch.
    min_cells
        Groups of fewer cells make no anchor; 5 as published.

    Raises
    ------
    PanelError
        If a column or label is missing, cell ids repeat, or there are no anchors.
    ScaleError
        If ``X`` does not hold raw counts.
    BadInputError
        If the label table names a stage that the ruler lacks.
    """
    parts, described, files = [], [], []
    seen: set[str] = set()
    for path in paths:
        cells = _open(path)
        groups = _groups(cells, path, labels)
        _refuse_repeats(groups, seen, path)
        missing = tuple(np.asarray(genes)[cells.var_names.get_indexer(list(genes)) < 0].tolist())
        used = groups[groups["n"] >= min_cells]
        kept = used.groupby(list(COLUMNS), observed=True, sort=True)
        number = kept.ngroup().reindex(groups.index, fill_value=-1).to_numpy()
        sums = np.zeros((kept.ngroups, len(genes)))
        for rows, block, _ in _blocks(cells, np.flatnonzero(number >= 0), genes, path):
            member = sparse.csr_matrix(
                (np.ones(len(rows)), (number[rows], np.arange(len(rows)))), (len(sums), len(rows))
            )
            sums += (member @ block).toarray()
        size = kept.size()
        parts.append(sums / size.to_numpy()[:, None])
        described += [(*key, int(n)) for key, n in size.items()]
        files.append(_describe(path, cells, groups, missing))
        cells.file.close()
    anchors = np.concatenate(parts) if parts else np.zeros((0, len(genes)))
    if len(anchors) < 3:
        raise PanelError(
            f"The files make {len(anchors)} anchors of at least {min_cells} cells, expected 3 or more.",
            "Check the labels, or give more cells.",
        )
    study, donor, tissue, cell_type, n_cells = zip(*described, strict=True)
    stage = tuple(str(labels.stage_of(s, c)) for s, c in zip(study, cell_type, strict=True))
    return Panel(
        genes=tuple(genes),
        anchors=anchors.astype(np.float32),
        stage=stage,
        branch=tuple(ruler.branch(stage)),
        cell_type=cell_type,
        donor=donor,
        tissue=tissue,
        study=study,
        n_cells=np.array(n_cells, dtype=np.int64),
        files=tuple(files),
    )


def read_panel_cells(
    paths: Sequence[Path],
    *,
    genes: Sequence[str],
    labels: LabelTable,
    ruler: StageRuler,
    max_per_stage: int | None,
    rng: np.random.Generator,
) -> PanelCells:
    """Read labelled cells, at most so many of a stage over all files, drawn at random.

    Parameters
    ----------
    paths, genes, labels, ruler
        As ``build_panel``.
    max_per_stage
        Cells of a stage beyond these are left out; ``None`` keeps all.
    rng
        Draws them.

    Raises
    ------
    PanelError, ScaleError, BadInputError
        As ``build_panel``.
    """
    opened = [(path, _open(path)) for path in paths]
    tables = [_groups(cells, path, labels) for path, cells in opened]
    seen: set[str] = set()
    for (path, _), table in zip(opened, tables, strict=True):
        _refuse_repeats(table, seen, path)
    every = pd.concat([table.assign(file=number) for number, table in enumerate(tables)], ignore_index=True)
    every = every[every["stage"] != LEFT_OUT]
    if every.empty:
        raise PanelError(f"None of the cells in {[path.name for path in paths]} has a stage.", "Check the label table.")
    chosen = []
    for _, rows in every.groupby("stage", sort=True):
        index = rows.index.to_numpy()
        few = max_per_stage is None or len(index) <= max_per_stage
        chosen.append(index if few else rng.choice(index, size=max_per_stage, replace=False))
    picked = every.loc[np.sort(np.concatenate(chosen))]
    blocks, totals = [], []
    for number, (path, cells) in enumerate(opened):
        rows = np.sort(picked.loc[picked["file"] == number, "row"].to_numpy())
        for _, block, counted in _blocks(cells, rows, genes, path):
            blocks.append(block)
            totals.append(counted)
        cells.file.close()
    stage = tuple(picked["stage"])
    return PanelCells(
        values=sparse.vstack(blocks, format="csr").astype(np.float32),
        totals=np.concatenate(totals),
        stage=stage,
        branch=tuple(ruler.branch(stage)),
        study=tuple(picked["dataset"]),
        donor=tuple(picked["donor"]),
        cell_ids=tuple(picked["dataset"] + ":" + picked["id"]),
    )


def read_ensembl_ids(paths: Sequence[Path], genes: Sequence[str]) -> tuple[str, ...]:
    """Ensembl id of each gene as the first file that knows it says in ``var['ensembl_id']``, empty where none does."""
    known: dict[str, str] = {}
    for path in paths:
        cells = _open(path)
        variables = cells.var
        cells.file.close()
        if "ensembl_id" in variables:
            for symbol, identifier in zip(
                variables.index.astype(str), variables["ensembl_id"].astype(str), strict=True
            ):
                if identifier.startswith("ENSG"):
                    known.setdefault(symbol, identifier.split(".")[0])
    return tuple(known.get(gene, "") for gene in genes)


def _open(path: Path) -> ad.AnnData:
    """Open a file backed, with the columns a panel needs."""
    try:
        cells = ad.read_h5ad(path, backed="r")
    # whatever the reader stumbles over lies in the user's file; its error class is private
    except Exception as error:
        raise PanelError(f"{str(path)!r} is not a readable .h5ad file: {error}.") from error
    if "X" not in cells.file:
        raise PanelError(f"{str(path)!r} has no X.", "Put the counts in X.")
    lacking = [column for column in COLUMNS if column not in cells.obs]
    if lacking:
        raise PanelError(
            f"{str(path)!r} lacks {', '.join(lacking)} in obs; a panel needs {', '.join(COLUMNS)}.", "Add the columns."
        )
    for column in COLUMNS:
        nameless = (cells.obs[column].isna() | (cells.obs[column].astype(str) == "")).to_numpy()
        if nameless.any():
            raise PanelError(
                f"{path.name} gives {int(nameless.sum())} of {len(nameless)} cells no {column}, "
                f"the first of them {cells.obs_names[nameless][0]!r}.",
                f"Fill the column {column!r} of obs, with a word such as 'unknown' if need be, or drop the cells.",
            )
    if not cells.var_names.is_unique:
        repeated = cells.var_names[cells.var_names.duplicated()][0]
        raise PanelError(
            f"{path.name} names the gene {repeated!r} more than once in var_names.",
            "Call `adata.var_names_make_unique()` or sum the columns.",
        )
    return cells


def _groups(cells: ad.AnnData, path: Path, labels: LabelTable) -> pd.DataFrame:
    """One row per cell: its group, stage, position, id and the size of its group."""
    table = pd.DataFrame({column: cells.obs[column].astype(str).to_numpy() for column in COLUMNS})
    pairs = table[["dataset", "cell_type"]].drop_duplicates()
    stages = {(d, c): labels.stage_of(d, c) or LEFT_OUT for d, c in pairs.itertuples(index=False)}
    table["stage"] = [stages[key] for key in zip(table["dataset"], table["cell_type"], strict=True)]
    table["row"] = np.arange(len(table))
    table["id"] = cells.obs_names.astype(str)
    size = table.groupby(list(COLUMNS))["row"].transform("size")
    table["n"] = size.where(table["stage"] != LEFT_OUT, 0)
    return table


def _refuse_repeats(groups: pd.DataFrame, seen: set[str], path: Path) -> None:
    """Refuse a cell that occurs twice, within a file or across files of a study."""
    ids = (groups["dataset"] + ":" + groups["id"]).tolist()
    repeated = next((name for name in ids if name in seen), None) or (
        None if len(set(ids)) == len(ids) else groups["id"][groups["id"].duplicated()].iloc[0]
    )
    if repeated:
        raise PanelError(
            f"The cell {repeated!r} in {path.name} occurs more than once in the panel.", "Drop duplicates."
        )
    seen.update(ids)


def _blocks(
    cells: ad.AnnData, rows: NDArray[np.integer], genes: Sequence[str], path: Path
) -> Iterator[tuple[NDArray[np.integer], sparse.csr_matrix, NDArray[np.float64]]]:
    """Pieces of some rows: ``log1p`` of counts per 10,000 over all genes of the file, panel genes only; totals."""
    position = cells.var_names.get_indexer(list(genes))
    if (position < 0).all():
        raise PanelError(
            f"{path.name} has none of the {len(genes)} panel genes.",
            "Are its var_names gene symbols, genes in columns?",
        )
    found = np.flatnonzero(position >= 0)
    place = sparse.csr_matrix(
        (np.ones(len(found), dtype=np.float32), (position[found], found)), (cells.n_vars, len(genes))
    )
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        block = sparse.csr_matrix(_read_rows(cells, part))
        _check_counts(stored_values(block), path)
        totals = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        yield part, sparse.csr_matrix(log_normalise(block, totals) @ place), totals


def _read_rows(cells: ad.AnnData, rows: NDArray[np.integer]) -> Any:
    """Rows of a backed matrix; a run of rows is read as a slice, which costs one seek."""
    if len(rows) == rows[-1] - rows[0] + 1:
        return cells.X[int(rows[0]) : int(rows[-1]) + 1]
    return cells.X[rows]


def _check_counts(values: NDArray[Any], path: Path) -> None:
    """Refuse anything but raw counts."""
    try:
        check_finite(values)
    except ScaleError as error:
        raise ScaleError(f"X of {path.name} does not hold raw counts: {error.message}", error.hint) from error
    if values.size and not (values == np.rint(values)).all():
        raise ScaleError(
            f"X of {path.name} does not hold raw counts (found {values[values != np.rint(values)][0]:.4g}).",
            "Put the counts in X.",
        )


def _describe(path: Path, cells: ad.AnnData, groups: pd.DataFrame, missing: tuple[str, ...]) -> PanelFile:
    """What was used of a file."""
    used = groups[groups["stage"] != LEFT_OUT]
    provenance = cells.uns.get("provenance", {})
    source = provenance.get("source", "") if isinstance(provenance, Mapping) else provenance
    return PanelFile(path.name, sha256_file(path), len(used), cells_digest(used["id"].tolist()), missing, str(source))


def gene_names(path: Path) -> tuple[str, ...]:
    """Names of the genes of a file, as ``var_names`` spells them.

    Raises
    ------
    PanelError
        If the file cannot be read or names a gene twice.
    """
    cells = _open(path)
    cells.file.close()
    return tuple(cells.var_names.astype(str))

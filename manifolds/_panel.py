"""Panels: anchors and labelled cells built from AnnData files, in constant memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from anndata.abc import CSCDataset
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import PanelError, ScaleError
from ..cards._names import sha256_file
from ._count_file import GROUP, PLAIN, CountFile, PanelReading, label_cells, opened_counts
from ._digests import cells_digest
from ._expression_blocks import Progress, expression_blocks
from ._labels import LEFT_OUT
from ._ruler_interface import Ruler
from ._scale import TARGET_SUM
from ._stage_labels import StageLabels


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
    """Anchors: centroids of cells that share study, donor, tissue, cell type and stage.

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

    @property
    def donor_ids(self) -> list[str]:
        """``study:donor`` of each anchor, as donors of two studies may share a name."""
        return [f"{study}:{donor}" for study, donor in zip(self.study, self.donor, strict=True)]


@dataclass(frozen=True, eq=False)
class PanelCells:
    """Labelled cells of a panel.

    Attributes
    ----------
    values
        ``log1p`` of counts per 10,000, CSR float32 ``(n_cells, n_genes)``.
    totals
        Counts of each cell over all genes of its file, ``(n_cells,)``; NaN where the file holds ``log1p`` values.
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
    def donor_ids(self) -> list[str]:
        """``study:donor`` of each cell, as donors of two studies may share a name."""
        return [f"{study}:{donor}" for study, donor in zip(self.study, self.donor, strict=True)]

    @property
    def digest(self) -> str:
        """Digest of the cell ids."""
        return cells_digest(self.cell_ids)

    def counts(self) -> sparse.csr_matrix:
        """Recover the raw counts, CSR float32 of whole numbers, from the normalised values and the totals.

        Raises
        ------
        ScaleError
            If some cells were read from ``log1p`` values, whose counts nobody knows.
        """
        if np.isnan(self.totals).any():
            raise ScaleError(
                f"{int(np.isnan(self.totals).sum())} of {len(self.totals)} cells were read from log1p values, and raw "
                "counts are needed.",
                "Give files of raw counts, or a model that reads log1p values.",
            )
        counts = self.values.copy()
        per_value = np.repeat(self.totals, np.diff(counts.indptr))
        counts.data = np.rint(np.expm1(counts.data.astype(np.float64)) * per_value / TARGET_SUM).astype(np.float32)
        return counts


def build_panel(
    paths: Sequence[Path],
    *,
    genes: Sequence[str],
    labels: StageLabels,
    ruler: Ruler,
    min_cells: int = 5,
    reading: PanelReading = PLAIN,
    progress: Progress | None = None,
) -> Panel:
    """Average the labelled cells of files to anchors, reading each file in pieces.

    Parameters
    ----------
    paths
        ``.h5ad`` files with ``dataset``, ``donor``, ``tissue`` and ``cell_type`` in ``obs``.
    genes
        Symbols of the panel; a gene that a file lacks counts as 0 there and is listed.
    labels
        What gives cells their stages, such as a table of their cell types.
    ruler
        Gives each stage its branch.
    min_cells
        Groups of fewer cells make no anchor; 5 as published.
    reading
        Which columns, cells and layer are read, and on which scale; by default all cells, from raw counts in ``X``, by
        the columns named above.
    progress
        Called as ``progress(file, done, total)``, in cells, or in genes where the file is stored by gene (CSC).

    Raises
    ------
    PanelError
        If a column or label is missing, cell ids repeat, a filter names what no file has, or there are no anchors.
    ScaleError
        If the matrix does not hold raw counts, or the ``log1p`` values that were announced.
    BadInputError
        If the label table names a stage that the ruler lacks.

    Notes
    -----
    Of a file only the columns named, the names of cells and genes, and a piece of the matrix at a time are in memory.
    A matrix stored by gene (CSC) is read twice, its panel genes the second time.
    """
    every = label_cells(paths, labels, reading)
    ruler.branch(every["stage"][every["n"] >= min_cells].unique())
    parts, described, files = [], [], []
    for number, path in enumerate(paths):
        table = every[every["file"] == number]
        used = table[table["n"] >= min_cells]
        kept = used.groupby(list(GROUP), observed=True, sort=True)
        size = kept.size()
        sums = np.zeros((kept.ngroups, len(genes)))
        with opened_counts(path, reading) as cells:
            group = np.full(cells.matrix.shape[0], -1)
            group[used["row"].to_numpy()] = kept.ngroup().to_numpy()
            for rows, block, _ in expression_blocks(cells, np.flatnonzero(group >= 0), genes, progress):
                present, place = np.unique(group[rows], return_inverse=True)
                member = sparse.csr_matrix(
                    (np.ones(len(rows)), (place, np.arange(len(rows)))), (len(present), len(rows))
                )
                sums[present] += (member @ block).toarray()
            files.append(_describe(cells, table, genes))
        parts.append((sums / size.to_numpy()[:, None]).astype(np.float32))
        described += [(*key, int(n)) for key, n in size.items()]
    anchors = np.concatenate(parts) if parts else np.zeros((0, len(genes)), dtype=np.float32)
    if len(anchors) < 3:
        raise PanelError(
            f"The files make {len(anchors)} anchors of at least {min_cells} cells, expected 3 or more.",
            "Check the labels, or give more cells.",
        )
    study, donor, tissue, cell_type, stage, n_cells = zip(*described, strict=True)
    return Panel(
        genes=tuple(genes),
        anchors=anchors,
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
    labels: StageLabels,
    ruler: Ruler,
    max_per_stage: int | None,
    rng: np.random.Generator,
    reading: PanelReading = PLAIN,
) -> PanelCells:
    """Read labelled cells, at most so many of a stage over all files, drawn at random.

    Parameters
    ----------
    paths, genes, labels, ruler, reading
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
    every = label_cells(paths, labels, reading)
    every = every[every["stage"] != LEFT_OUT]
    if every.empty:
        raise PanelError(f"None of the cells in {[path.name for path in paths]} has a stage.", "Check the label table.")
    chosen = []
    for _, rows in every.groupby("stage", sort=True):
        index = rows.index.to_numpy()
        few = max_per_stage is None or len(index) <= max_per_stage
        chosen.append(index if few else rng.choice(index, size=max_per_stage, replace=False))
    picked = every.loc[np.sort(np.concatenate(chosen))]
    stage = tuple(picked["stage"])
    branch = tuple(ruler.branch(stage))
    blocks, totals = [], []
    for number, path in enumerate(paths):
        rows = np.sort(picked.loc[picked["file"] == number, "row"].to_numpy())
        with opened_counts(path, reading) as cells:
            pieces = [(block, counted) for _, block, counted in expression_blocks(cells, rows, genes)]
        if isinstance(cells.matrix, CSCDataset) and pieces:
            # each piece holds some genes of all rows
            pieces = [(sum(block for block, _ in pieces), pieces[0][1])]
        blocks += [block for block, _ in pieces]
        totals += [counted for _, counted in pieces]
    return PanelCells(
        values=sparse.vstack(blocks, format="csr").astype(np.float32),
        totals=np.concatenate(totals),
        stage=stage,
        branch=branch,
        study=tuple(picked["dataset"]),
        donor=tuple(picked["donor"]),
        cell_ids=tuple(picked["dataset"] + ":" + picked["id"]),
    )


def read_ensembl_ids(paths: Sequence[Path], genes: Sequence[str], *, reading: PanelReading = PLAIN) -> tuple[str, ...]:
    """Ensembl id of each gene as the first file that knows it says in ``var['ensembl_id']``, empty where none does."""
    known: dict[str, str] = {}
    for path in paths:
        with opened_counts(path, reading) as cells:
            for symbol, identifier in zip(cells.genes, cells.ensembl, strict=True):
                if identifier.startswith("ENSG"):
                    known.setdefault(symbol, identifier.split(".")[0])
    return tuple(known.get(gene, "") for gene in genes)


def gene_names(path: Path, *, reading: PanelReading = PLAIN) -> tuple[str, ...]:
    """Names of the genes of a file, as it spells them.

    Raises
    ------
    PanelError
        If the file cannot be read or names a gene twice.
    """
    with opened_counts(path, reading) as cells:
        return tuple(cells.genes)


def _describe(cells: CountFile, table: pd.DataFrame, genes: Sequence[str]) -> PanelFile:
    """What was used of a file."""
    used = table["id"][table["stage"] != LEFT_OUT]
    missing = tuple(np.asarray(genes)[cells.genes.get_indexer(list(genes)) < 0].tolist())
    digest = cells_digest(used.tolist())
    return PanelFile(cells.path.name, sha256_file(cells.path), len(used), digest, missing, cells.source)

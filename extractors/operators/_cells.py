"""Cells as a model reads them: expressed genes that it knows, in batches of equal length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ...cards._errors import BadInputError, GeneError, PanelError
from ...manifolds._scale import check_finite, decide_scale, summarise
from ..checkpoints._interface import Checkpoint, InputScale

MIN_GENES = 10
"""Cells with fewer expressed genes that the model knows are skipped; our choice."""
GENE_FLOOR = 0.5
"""Smallest fraction of the genes that a model must know; our choice."""
Cells: TypeAlias = sparse.csr_matrix | sparse.csr_array | NDArray[np.float32]
_N_CELLS_PER_LOOK = 4096
_N_CELLS_FOR_SCALE = 512


@dataclass(frozen=True, eq=False)
class ReadableCells:
    """Cells, and which of their genes a model reads.

    Attributes
    ----------
    checkpoint
        The model, its genes those of the columns that it knows, in their order.
    table
        Canonical float32 CSR, ``(n_cells, n_columns)``.
    index
        Index of each column into the genes of ``checkpoint``, -1 where it knows none, ``(n_columns,)``.
    length
        Expressed genes that the model knows, ``(n_cells,)``.
    unknown_genes
        Names of the columns that the model does not know.
    """

    checkpoint: Checkpoint
    table: sparse.csr_array
    index: NDArray[np.int64]
    length: NDArray[np.int64]
    unknown_genes: tuple[str, ...]

    @property
    def used(self) -> NDArray[np.int64]:
        """Rows with at least ``MIN_GENES`` genes, shortest first: neighbours share batches without padding."""
        rows = np.flatnonzero(self.length >= MIN_GENES)
        return rows[np.argsort(self.length[rows], kind="stable")]

    @property
    def n_skipped(self) -> int:
        """Rows with fewer genes."""
        return int((self.length < MIN_GENES).sum())

    @property
    def n_truncated(self) -> int:
        """Rows with more genes than the model reads."""
        return int((self.length > self.checkpoint.max_genes).sum())

    def batches(self, rows: NDArray[np.int64], batch_size: int, max_square: int) -> list[NDArray[np.int64]]:
        """Cut rows sorted by length into batches of one length each, so that no model has to mask padding.

        Parameters
        ----------
        rows
            As ``used``, or a part of it in the same order.
        batch_size
            Most cells of a batch.
        max_square
            Most cells times genes squared of a batch of more than one cell, which bounds the attention matrices.
        """
        if batch_size < 1:
            raise BadInputError(f"batch_size must be at least 1, got {batch_size}.")
        read = np.minimum(self.length[rows], self.checkpoint.max_genes)
        found, start = [], 0
        while start < len(rows):
            n_same = int(np.searchsorted(read, read[start], side="right")) - start
            size = max(1, min(batch_size, n_same, max_square // int(read[start]) ** 2))
            found.append(rows[start : start + size])
            start += size
        return found

    def columns(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Columns and values that are read of one cell: the highest ``max_genes``, ties by column."""
        stored = slice(self.table.indptr[row], self.table.indptr[row + 1])
        columns, values = self.table.indices[stored].astype(np.int64), self.table.data[stored]
        kept = (values > 0) & (self.index[columns] >= 0)
        columns, values = columns[kept], values[kept]
        limit = self.checkpoint.max_genes
        if len(columns) > limit:
            highest = np.sort(np.argsort(-values, kind="stable")[:limit])
            columns, values = columns[highest], values[highest]
        return columns, values

    def stack(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Columns and values of a batch of cells of one length, ``(n_cells, n_tokens)`` each."""
        columns, values = zip(*(self.columns(row) for row in rows), strict=True)
        return np.stack(columns), np.stack(values)


def readable_cells(
    checkpoint: Checkpoint, cells: Cells, genes: Sequence[str], *, gene_floor: float = GENE_FLOOR
) -> ReadableCells:
    """Check cells and genes against what a model reads.

    Parameters
    ----------
    checkpoint
        The frozen model.
    cells
        Values on the scale that ``checkpoint.scale`` names, ``(n_cells, n_genes)``, CSR or dense; left as they are.
    genes
        Gene of each column.
    gene_floor
        Smallest fraction of ``genes`` that the model must know.

    Raises
    ------
    GeneError
        If genes do not match the columns, repeat, or too few are known.
    ScaleError
        If values are negative, not finite, or not on the model's scale.
    PanelError
        If no cell has ``MIN_GENES`` expressed genes that the model knows.
    """
    known = known_genes(checkpoint, genes, gene_floor=gene_floor)
    table = _as_csr(cells, len(genes), checkpoint.scale)
    named = [gene for gene, is_known in zip(genes, known, strict=True) if is_known]
    length = np.concatenate([np.zeros(0, np.int64), *_lengths(table, known)])
    readable = ReadableCells(
        checkpoint=checkpoint.with_genes(named),
        table=table,
        index=np.where(known, np.cumsum(known) - 1, -1),
        length=length,
        unknown_genes=tuple(gene for gene, is_known in zip(genes, known, strict=True) if not is_known),
    )
    if readable.n_skipped == len(length):
        raise PanelError(
            f"None of {len(length)} cells has {MIN_GENES} expressed genes that {checkpoint.name} knows, "
            f"of {len(named)} known genes."
        )
    return readable


def known_genes(checkpoint: Checkpoint, genes: Sequence[str], *, gene_floor: float = GENE_FLOOR) -> NDArray[np.bool_]:
    """Tell which genes a model knows, refusing repeated genes and too few known ones.

    Raises
    ------
    GeneError
        If a gene repeats, or a smaller fraction than ``gene_floor`` (and in any case none) is known.
    """
    if not 0 <= gene_floor <= 1:
        raise BadInputError(f"gene_floor must lie between 0 and 1, got {gene_floor}.")
    repeated = [gene for gene, n in Counter(genes).items() if n > 1]
    if repeated:
        raise GeneError(f"Gene {repeated[0]!r} names more than one column.")
    known = np.asarray(checkpoint.knows(genes), dtype=bool)
    n_known = int(known.sum())
    if not n_known or n_known < gene_floor * len(genes):
        some = [gene for gene, is_known in zip(genes, known, strict=True) if not is_known][:3]
        raise GeneError(
            f"{checkpoint.name} knows {n_known} of {len(genes)} genes, at least {gene_floor:.0%} are needed; "
            f"unknown are {', '.join(map(repr, some)) or 'all'}.",
            f"It names genes like {', '.join(checkpoint.genes[:3])}." if checkpoint.genes else "",
        )
    return known


def _as_csr(cells: Any, n_genes: int, scale: InputScale) -> sparse.csr_array:
    """View cells as canonical float32 CSR on the scale the model reads, leaving the input as it is."""
    if len(cells.shape) != 2 or cells.shape[1] != n_genes:
        raise GeneError(f"{n_genes} genes were named for cells of shape {cells.shape}.")
    table = sparse.csr_array(cells, dtype=np.float32)
    if not table.has_canonical_format:
        table = table.copy()
        table.sum_duplicates()
    check_finite(table.data)
    # one wrong cell is enough to spoil counts, while a look at some cells tells logarithms from other scales
    look = _N_CELLS_PER_LOOK if scale == "counts" else _N_CELLS_FOR_SCALE
    stop = table.shape[0] if scale == "counts" else min(look, table.shape[0])
    for start in range(0, stop, look):
        decide_scale(summarise(table[start : start + look]), scale, all_genes=False)
    return table


def _lengths(table: sparse.csr_array, known: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Number of expressed known genes per cell, some thousand cells at a time."""
    for start in range(0, table.shape[0], _N_CELLS_PER_LOOK):
        bounds = table.indptr[start : start + _N_CELLS_PER_LOOK + 1]
        stored = slice(bounds[0], bounds[-1])
        kept = (table.data[stored] > 0) & known[table.indices[stored]]
        before = np.concatenate([[0], np.cumsum(kept)])
        yield np.diff(before[bounds - bounds[0]])

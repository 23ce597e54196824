"""Multiplying cells, whatever their matrix is stored as, with what places and scores them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from ._familiarity import Familiarity, familiarity
from ._genes import Alignment
from ._scale import Scale, check_finite, log_normalise, stored_values

if TYPE_CHECKING:
    from ._manifold import Manifold

CHUNK = 16_384
# a block holds at most CHUNK times this many values, stored or dense
_WIDTH = 1_024

Progress = Callable[[int], None]
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Projection:
    """Small matrices on the columns of an input; zero where the manifold has no gene.

    Spreading them spares slicing columns out of the large matrix.

    Attributes
    ----------
    linear
        To multiply cells with: the folded projection ``(n_columns, d)``, beside it what familiarity needs.
    squares
        To multiply squared values with, ``(n_columns, 2)``; of no columns without familiarity.
    offset
        Added to the coordinates, ``(d,)``.
    scores
        Turns the other products into two scores; ``None`` for a manifold without thresholds.
    """

    linear: Float32
    squares: Float32
    offset: Float32
    scores: Familiarity | None

    @classmethod
    def of(cls, manifold: Manifold, alignment: Alignment, n_columns: int) -> Projection:
        """Spread the matrices of a manifold over the columns that hold its genes."""
        found = np.flatnonzero(alignment.column >= 0)
        columns = alignment.column[found]
        parts, scores = [manifold.tensors["projection"][found]], None
        squares: Float32 = np.zeros((len(found), 0), dtype=np.float32)
        if manifold.card.extraction.familiarity is not None:
            scores = familiarity(manifold.tensors["panel.anchors"][:, found], manifold.anchor_stages)
            parts.append(scores.linear)
            squares = scores.squares
        offset = manifold.tensors["offset"].astype(np.float32)
        return cls(_spread(np.hstack(parts), columns, n_columns), _spread(squares, columns, n_columns), offset, scores)

    @property
    def n_outputs(self) -> int:
        """Coordinates, and two scores where there are any."""
        return len(self.offset) + (2 if self.scores is not None else 0)

    def finish(self, products: Float32) -> Float32:
        """Turn products with ``linear`` and ``squares`` into coordinates and scores, ``(n_cells, n_outputs)``."""
        d = len(self.offset)
        latent = products[:, :d] + self.offset
        return latent if self.scores is None else np.hstack([latent, self.scores.scores(products[:, d:])])

    def products(self, block: Any) -> Float32:
        """Multiply rows on the scale of the manifold, dense or sparse."""
        linear = np.asarray(block @ self.linear, dtype=np.float32)
        if self.scores is None:
            return linear
        if sparse.issparse(block):
            squared = type(block)((np.square(block.data), block.indices, block.indptr), shape=block.shape, copy=False)
        else:
            squared = np.square(block)
        return np.hstack([linear, np.asarray(squared @ self.squares, dtype=np.float32)])


def project_matrix(matrix: Any, projection: Projection, scale: Scale, progress: Progress | None = None) -> Float32:
    """Place and score the cells of a matrix of any kind, in pieces, checking every value on the way.

    Parameters
    ----------
    matrix
        Dense, CSR, CSC, backed dense, backed CSR, backed CSC or Dask, ``(n_cells, n_columns)``.
    projection
        On the same columns.
    scale
        Of the values.
    progress
        Called with the number of cells just done.

    Returns
    -------
    Float32 ``(n_cells, projection.n_outputs)``. A Dask array is computed block by block on its own scheduler.
    """
    if hasattr(matrix, "dask"):
        return _project_dask(matrix, projection, scale)
    if isinstance(matrix, CSCDataset) or (sparse.issparse(matrix) and matrix.format == "csc"):
        return _project_columns(matrix, projection, scale, progress)
    if sparse.issparse(matrix) and matrix.format != "csr":
        matrix = matrix.tocsr()
    placed = np.empty((matrix.shape[0], projection.n_outputs), dtype=np.float32)
    # a row of a dense matrix holds every gene, so as many rows as of a sparse one could fill the memory
    dense = not sparse.issparse(matrix) and not isinstance(matrix, CSRDataset)
    height = max(1, min(CHUNK, CHUNK * _WIDTH // matrix.shape[1])) if dense else CHUNK

    def project(start: int) -> int:
        stop = min(start + height, len(placed))
        placed[start:stop] = projection.finish(_project_block(_rows(matrix, start, stop), projection, scale))
        return stop - start

    # scipy's sparse products release the interpreter lock, so that one thread multiplies while another reads; BLAS
    # has threads of its own
    with ThreadPoolExecutor(1 if dense else n_threads()) as pool:
        for n_done in pool.map(project, range(0, len(placed), height)):
            if progress is not None:
                progress(n_done)
    return placed


def n_threads() -> int:
    """Processors this process may use, at most 8: beyond that memory is the limit."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)


def _spread(values: NDArray[np.floating], columns: NDArray[np.integer], n_columns: int) -> Float32:
    """Add rows where their columns are."""
    spread = np.zeros((n_columns, values.shape[1]), dtype=np.float32)
    # two genes may share a column where the table gives both one Ensembl id
    np.add.at(spread, columns, values.astype(np.float32))
    return spread


def _rows(matrix: Any, start: int, stop: int) -> Any:
    """Rows of a matrix, without a copy where it is CSR in memory and the piece is not small."""
    if not sparse.issparse(matrix):
        return matrix[start:stop]
    low, high = matrix.indptr[start], matrix.indptr[stop]
    # built from views: scipy's own row slicing copies data and indices
    view = (matrix.data[low:high], matrix.indices[low:high], matrix.indptr[start : stop + 1] - low)
    return sparse.csr_matrix(view, shape=(stop - start, matrix.shape[1]), copy=False)


def _project_block(block: Any, projection: Projection, scale: Scale) -> Float32:
    """Check, bring to scale and multiply one block of rows in memory."""
    if not sparse.issparse(block):
        block = np.asarray(block)
    check_finite(stored_values(block))
    if scale == "counts":
        block = log_normalise(block, _row_sums(block))
    if block.dtype != np.float32:
        block = block.astype(np.float32)
    return projection.products(block)


def _project_columns(matrix: Any, projection: Projection, scale: Scale, progress: Progress | None) -> Float32:
    """Accumulate over blocks of columns: a CSC matrix is read once (twice for counts) in storage order."""
    n_rows, n_columns = matrix.shape
    stored = matrix.group["indptr"] if isinstance(matrix, CSCDataset) else matrix.indptr
    pointers = np.asarray(stored[:], dtype=np.int64)

    def blocks() -> Iterator[tuple[slice, Any]]:
        start = 0
        while start < n_columns:
            last = int(np.searchsorted(pointers, pointers[start] + CHUNK * _WIDTH, side="right")) - 1
            stop = max(start + 1, last)
            yield slice(start, stop), sparse.csc_matrix(matrix[:, start:stop])
            start = stop

    totals = np.zeros(n_rows)
    if scale == "counts":
        for _, block in blocks():
            totals += _row_sums(block)
    factor = np.divide(1e4, totals, out=np.zeros(n_rows), where=totals > 0).astype(np.float32)
    products = np.zeros((n_rows, projection.linear.shape[1] + projection.squares.shape[1]), dtype=np.float32)
    for columns, block in blocks():
        check_finite(block.data)
        if scale == "counts":
            block = sparse.csc_matrix(
                (np.log1p(block.data * factor[block.indices]), block.indices, block.indptr), shape=block.shape
            )
        part = replace(projection, linear=projection.linear[columns], squares=projection.squares[columns])
        products += part.products(block.astype(np.float32))
    if progress is not None:
        progress(n_rows)
    return projection.finish(products)


def _project_dask(matrix: Any, projection: Projection, scale: Scale) -> Float32:
    """Map the projection over blocks of whole rows and gather the small result."""
    rows = matrix.rechunk({1: -1}) if len(matrix.chunks[1]) > 1 else matrix
    mapped = rows.map_blocks(
        lambda block: projection.finish(_project_block(block, projection, scale)),
        dtype=np.float32,
        chunks=(rows.chunks[0], (projection.n_outputs,)),
        meta=np.empty((0, 0), dtype=np.float32),
    )
    return np.asarray(mapped.compute(), dtype=np.float32)


def _row_sums(block: Any) -> NDArray[np.float64]:
    """Sum of each row in float64."""
    return np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()

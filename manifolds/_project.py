"""Multiplying cells, whatever their matrix is stored as, with what places and scores them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits

from ._familiarity import Familiarity, familiarity
from ._genes import Alignment
from ._landmarks import Landmarks
from ._scale import Scale, check_finite, log_normalise, stored_values
from ._stored_rows import Rows, StoredRows
from ._threads import n_processors

if TYPE_CHECKING:
    from ._manifold import Manifold

CHUNK = 16_384
"""Most cells of a piece."""
# a block of dense rows or of columns holds at most CHUNK times this many values
_WIDTH = 1_024
# a piece of sparse rows: small enough for the caches of the processor
_STORED = 1 << 20
# numba, and what it compiles, take more time than they spare on fewer cells
_MANY = 65_536

Progress = Callable[[int], None]
Float32 = NDArray[np.float32]
Take = Callable[[int, Float32], None]
Piece = TypeVar("Piece")


@dataclass(frozen=True, eq=False)
class Projection:
    """Small matrices on the columns of an input; zero where the manifold has no gene.

    Spreading them spares slicing columns out of the large matrix.

    Attributes
    ----------
    linear
        To multiply cells with: the folded projection ``(n_columns, r)``, beside it what familiarity needs.
    squares
        To multiply squared values with, ``(n_columns, 2)``; of no columns without familiarity.
    offset
        Added to what is projected, ``(r,)``.
    scores
        Turns the other products into two scores; ``None`` for a manifold without thresholds.
    landmarks
        Place what is projected at ``d`` coordinates; ``None`` of linear heads, of which it is the coordinates.
    """

    linear: Float32
    squares: Float32
    offset: Float32
    scores: Familiarity | None
    landmarks: Landmarks | None = None

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
        linear, spread = (_spread(part, columns, n_columns) for part in (np.hstack(parts), squares))
        return cls(linear, spread, offset, scores, manifold.landmarks)

    @property
    def n_outputs(self) -> int:
        """Coordinates, and two scores where there are any."""
        d = len(self.offset) if self.landmarks is None else self.landmarks.coordinates.shape[1]
        return d + (2 if self.scores is not None else 0)

    def finish(self, products: Float32) -> Float32:
        """Turn products with ``linear`` and ``squares`` into coordinates and scores, ``(n_cells, n_outputs)``."""
        r = len(self.offset)
        projected = products[:, :r] + self.offset
        return self.placed(
            projected if self.scores is None else np.hstack([projected, self.scores.scores(products[:, r:])])
        )

    def placed(self, projected: Float32) -> Float32:
        """Place what was projected, ``(n_cells, r)`` and the scores beside it, where the head does more than that."""
        if self.landmarks is None:
            return projected
        r = len(self.offset)
        latent = self.landmarks.place(projected[:, :r]).astype(np.float32)
        return np.hstack([latent, projected[:, r:]])

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


def project_matrix(
    matrix: Any, projection: Projection, scale: Scale, take: Take, progress: Progress | None = None
) -> None:
    """Place and score the cells of a matrix of any kind, in pieces, checking every value on the way.

    Parameters
    ----------
    matrix
        Dense, CSR, CSC, backed dense, backed CSR, backed CSC or Dask, ``(n_cells, n_columns)``. A Dask array is
        computed block by block on its own scheduler.
    projection
        On the same columns.
    scale
        Of the values.
    take
        Called with the first cell of a piece and what was found of its cells, ``(n, projection.n_outputs)`` float32;
        pieces come in any order, and from several threads at a time. Pieces depend on the matrix only, so what is
        found is the same for any number of threads.
    progress
        Called with the number of cells just done.
    """
    if hasattr(matrix, "dask"):
        _hand_over(_project_dask(matrix, projection, scale), take, progress)
    elif isinstance(matrix, CSCDataset) or (sparse.issparse(matrix) and matrix.format == "csc"):
        products = _project_columns(matrix, projection, scale)
        _hand_over(products, lambda start, part: take(start, projection.finish(part)), progress)
    elif sparse.issparse(matrix) or isinstance(matrix, CSRDataset):
        is_csr = isinstance(matrix, CSRDataset) or matrix.format == "csr"
        _project_rows(StoredRows.of(matrix if is_csr else matrix.tocsr()), projection, scale, take, progress)
    else:
        _project_dense(matrix, projection, scale, take, progress)


def n_threads() -> int:
    """Processors this process may use, at most 8: beyond that memory is the limit."""
    return min(n_processors(), 8)


def _spread(values: NDArray[np.floating], columns: NDArray[np.integer], n_columns: int) -> Float32:
    """Add rows where their columns are."""
    spread = np.zeros((n_columns, values.shape[1]), dtype=np.float32)
    # two genes may share a column where the table gives both one Ensembl id
    np.add.at(spread, columns, values.astype(np.float32))
    return spread


def _project_rows(
    stored: StoredRows, projection: Projection, scale: Scale, take: Take, progress: Progress | None
) -> None:
    """Place rows of a CSR matrix, one thread reading while another multiplies."""
    place = _placing(projection, scale, many=stored.shape[0] >= _MANY)

    def project(piece: tuple[int, NDArray[np.int64]]) -> int:
        rows = stored.read(*piece)
        take(rows.start, place(rows))
        return len(rows)

    _in_threads(project, stored.pieces(CHUNK, _STORED), stored.shape[0], progress)


def _placing(projection: Projection, scale: Scale, *, many: bool) -> Callable[[Rows], Float32]:
    """What checks and places rows: compiled for many of them, products of scipy for a few."""

    def multiply(rows: Rows) -> Float32:
        return projection.finish(_project_block(rows.matrix(), projection, scale))

    if not many:
        return multiply
    # here, so that those with a few cells need not wait for numba
    from ._place_rows import PlacingTable, log_normalise_rows

    table = PlacingTable.of(projection)
    if table is None:
        return multiply

    def place(rows: Rows) -> Float32:
        check_finite(rows.data)
        values = log_normalise_rows(rows) if scale == "counts" else rows.data.astype(np.float32, copy=False)
        return projection.placed(table.place(rows, values))

    return place


def _project_dense(matrix: Any, projection: Projection, scale: Scale, take: Take, progress: Progress | None) -> None:
    """Place rows of a dense matrix, one piece after the other: BLAS has threads of its own."""
    # a row holds every gene, so as many rows as of a sparse matrix could fill the memory
    height = max(1, min(CHUNK, CHUNK * _WIDTH // matrix.shape[1]))
    for start in range(0, matrix.shape[0], height):
        block = matrix[start : start + height]
        take(start, projection.finish(_project_block(block, projection, scale)))
        if progress is not None:
            progress(block.shape[0])


def _hand_over(found: Float32, take: Take, progress: Progress | None) -> None:
    """Hand what was found of all cells over in pieces."""

    def hand(start: int) -> int:
        take(start, found[start : start + CHUNK])
        return len(found[start : start + CHUNK])

    _in_threads(hand, range(0, len(found), CHUNK), len(found), progress)


def _in_threads(work: Callable[[Piece], int], pieces: Iterable[Piece], n_rows: int, progress: Progress | None) -> None:
    """Work on pieces, in threads where there are several, never asking for many pieces ahead."""

    def done(n_cells: int) -> None:
        if progress is not None:
            progress(n_cells)

    if n_rows <= CHUNK:
        for piece in pieces:
            done(work(piece))
        return
    threads = n_threads()
    waiting: deque[Future[int]] = deque()
    # the products of readouts are small: threads of BLAS beside ours would only be in the way
    with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
        for piece in pieces:
            waiting.append(pool.submit(work, piece))
            if len(waiting) > 2 * threads:
                done(waiting.popleft().result())
        while waiting:
            done(waiting.popleft().result())


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


def _project_columns(matrix: Any, projection: Projection, scale: Scale) -> Float32:
    """Products, accumulated over blocks of columns: a CSC matrix is read once (twice for counts) in storage order."""
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
    return products


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

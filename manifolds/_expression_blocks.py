"""Reading the expression of some genes from a file in pieces, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import PanelError, ScaleError
from ._count_file import CountFile
from ._scale import LOG_CEILING, check_finite, log_normalise, stored_values

CHUNK = 8_192
# values held at once, some 100 MB with the copies that checking and normalising make
STORED = 1 << 21
Progress = Callable[[str, int, int], None]


def expression_blocks(
    cells: CountFile, rows: NDArray[np.integer], genes: Sequence[str], progress: Progress | None = None
) -> Iterator[tuple[NDArray[np.integer], sparse.csr_matrix, NDArray[np.float64]]]:
    """Read the expression of some genes in some cells of a file, a piece at a time.

    Parameters
    ----------
    cells
        An open file.
    rows
        Positions of the cells, ascending.
    genes
        Symbols; one that the file lacks is 0.
    progress
        As ``build_panel``.

    Yields
    ------
    rows
        Of the piece, ``(n_rows,)``: some of the rows with all genes, or, of a matrix stored by gene, all rows with some
        of the genes and 0 for the others, so that pieces can be added up.
    block
        ``log1p`` of counts per 10,000 over all genes of the file, CSR float32 ``(n_rows, n_genes)``.
    totals
        Counts over all genes of the file, ``(n_rows,)``; NaN where it holds ``log1p`` values.

    Raises
    ------
    PanelError
        If the file has none of the genes.
    ScaleError
        If its values are not on the scale announced.
    """
    position = cells.genes.get_indexer(list(genes))
    if (position < 0).all():
        raise PanelError(
            f"{cells.path.name} has none of the {len(genes)} panel genes.",
            "Are its var_names gene symbols, genes in columns?",
        )
    if isinstance(cells.matrix, CSCDataset):
        yield from _blocks_of_genes(cells, rows, position, progress)
        return
    found = np.flatnonzero(position >= 0)
    place = sparse.csr_matrix(
        (np.ones(len(found), dtype=np.float32), (position[found], found)), (len(cells.genes), len(genes))
    )
    done = 0
    for part in _pieces(rows, _n_stored(cells.matrix, rows)):
        block = sparse.csr_matrix(_read_rows(cells.matrix, part))
        _check_scale(stored_values(block), cells)
        if cells.scale == "log1p":
            yield part, sparse.csr_matrix(block @ place), np.full(len(part), np.nan)
        else:
            totals = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
            yield part, sparse.csr_matrix(log_normalise(block @ place, totals)), totals
        done += len(part)
        if progress is not None:
            progress(cells.path.name, done, len(rows))


def _blocks_of_genes(
    cells: CountFile, rows: NDArray[np.integer], position: NDArray[np.integer], progress: Progress | None
) -> Iterator[tuple[NDArray[np.integer], sparse.csr_matrix, NDArray[np.float64]]]:
    """The same of a matrix stored by gene, which would be read whole for any of its rows."""
    if not len(rows):
        return
    logs = cells.scale == "log1p"
    # logarithms need no total over all genes, so that the others are not read
    every = np.arange(0 if logs else cells.matrix.shape[1])
    totals, done = np.full(len(rows), np.nan if logs else 0.0), 0
    order = np.argsort(position, kind="stable")
    order = order[position[order] >= 0]
    n_steps = len(every) + len(order)
    for part in _pieces(every, _n_stored(cells.matrix, every)):
        block = cells.matrix[:, int(part[0]) : int(part[-1]) + 1][rows]
        _check_scale(stored_values(block), cells)
        totals += np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        done += len(part)
        if progress is not None:
            progress(cells.path.name, done, n_steps)
    for part in _pieces(order, _n_stored(cells.matrix, position[order])):
        place = sparse.csr_matrix(
            (np.ones(len(part), dtype=np.float32), (np.arange(len(part)), part)), (len(part), len(position))
        )
        block = sparse.csr_matrix(cells.matrix[:, position[part]][rows])
        if logs:
            _check_scale(stored_values(block), cells)
        yield rows, sparse.csr_matrix(block @ place if logs else log_normalise(block @ place, totals)), totals
        done += len(part)
        if progress is not None:
            progress(cells.path.name, done, n_steps)


def _n_stored(matrix: Any, lines: NDArray[np.integer]) -> NDArray[np.int64]:
    """Values stored of each of some rows, or of some columns of a matrix stored by gene."""
    if not isinstance(matrix, CSRDataset | CSCDataset):
        return np.full(len(lines), matrix.shape[1], dtype=np.int64)
    pointers = np.asarray(matrix.group["indptr"][:], dtype=np.int64)
    return np.asarray(pointers[lines + 1] - pointers[lines])


def _pieces(lines: NDArray[np.integer], n_stored: NDArray[np.int64]) -> Iterator[NDArray[np.integer]]:
    """Cut rows or columns into pieces of at most ``CHUNK`` lines and ``STORED`` values, but one line at least."""
    before = np.concatenate([[0], np.cumsum(n_stored)])
    start = 0
    while start < len(lines):
        fits = int(np.searchsorted(before, before[start] + STORED, side="right")) - 1
        stop = max(start + 1, min(start + CHUNK, fits))
        yield lines[start:stop]
        start = stop


def _read_rows(matrix: Any, rows: NDArray[np.integer]) -> Any:
    """Rows of a matrix on disk; a run of rows with few gaps is read as a slice, which costs one seek."""
    first, last = int(rows[0]), int(rows[-1]) + 1
    if last - first == len(rows):
        return matrix[first:last]
    return matrix[first:last][rows - first] if last - first <= 2 * len(rows) else matrix[rows]


def _check_scale(values: NDArray[Any], cells: CountFile) -> None:
    """Refuse anything but raw counts, or but ``log1p`` of counts per 10,000 where these were announced."""
    named = f"{cells.where} of {cells.path.name}"
    logs = cells.scale == "log1p"
    try:
        check_finite(values)
    except ScaleError as error:
        expected = "log1p values" if logs else "raw counts"
        raise ScaleError(f"{named} does not hold {expected}: {error.message}", error.hint) from error
    if logs:
        largest = float(values.max()) if values.size else 0.0
        if largest > LOG_CEILING or (largest > 1 and (values == np.rint(values)).all()):
            raise ScaleError(
                f"{named} does not hold log1p of counts per 10,000, as announced (largest value {largest:.4g}).",
                "Say scale = 'counts' for raw counts, or apply `scanpy.pp.log1p`.",
            )
        return
    if values.size and not (values == np.rint(values)).all():
        raise ScaleError(
            f"{named} does not hold raw counts (found {values[values != np.rint(values)][0]:.4g}).",
            "Put the counts in X, name the layer that has them, or say scale = 'log1p' if they are log1p of counts per "
            "10,000.",
        )

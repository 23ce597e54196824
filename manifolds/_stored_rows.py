"""Reading the rows of a compressed sparse row matrix in pieces, in memory or on disk."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np
from anndata.abc import CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import BadInputError

_POINTERS = 65_536
"""Rows whose pointers are held at a time: those of all rows would grow with the file."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows in memory.

    Attributes
    ----------
    start
        The first of them.
    data, indices
        Stored values and their columns, ``(n_stored,)``; of a file, overwritten by the next piece that the same thread
        reads.
    pointers
        Where each row begins, from 0, ``(n_rows + 1,)`` int64.
    n_columns
        Of the matrix.
    """

    start: int
    data: NDArray[Any]
    indices: NDArray[np.integer]
    pointers: NDArray[np.int64]
    n_columns: int

    def __len__(self) -> int:
        return len(self.pointers) - 1

    def matrix(self) -> sparse.csr_matrix:
        """The rows as a matrix, without a copy of what they hold."""
        # scipy looks through all indices where their type differs from that of the pointers
        stored = (self.data, self.indices, self.pointers.astype(self.indices.dtype, copy=False))
        return sparse.csr_matrix(stored, shape=(len(self), self.n_columns), copy=False)


@dataclass(frozen=True, eq=False)
class StoredRows:
    """A CSR matrix, in memory or on disk, whose rows are read in pieces.

    Each slice of a backed matrix of anndata costs time in proportion to the rows of the whole, and new memory; here a
    piece costs what it holds, and each thread reads into memory of its own, again and again.

    Attributes
    ----------
    data, indices, pointers
        Arrays, or datasets of an open file.
    shape
        ``(n_rows, n_columns)``.
    """

    data: Any
    indices: Any
    pointers: Any
    shape: tuple[int, int]
    _own: threading.local = field(default_factory=threading.local, repr=False)

    @classmethod
    def of(cls, matrix: Any) -> StoredRows:
        """Take a CSR matrix or array of scipy, or a backed CSR matrix of anndata."""
        if isinstance(matrix, CSRDataset):
            stored = matrix.group
            return cls(stored["data"], stored["indices"], stored["indptr"], matrix.shape)
        return cls(matrix.data, matrix.indices, matrix.indptr, matrix.shape)

    def pieces(self, max_rows: int, max_values: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Cut all rows into pieces of at most so many rows and stored values, but of one row at least.

        Yields
        ------
        The first row of a piece and its pointers; where pieces end depends on the matrix only.
        """
        for start in range(0, self.shape[0], _POINTERS):
            pointers = self._pointers(start, min(start + _POINTERS, self.shape[0]))
            first, last = 0, len(pointers) - 1
            while first < last:
                full = int(np.searchsorted(pointers, pointers[first] + max_values, side="right")) - 1
                stop = min(max(full, first + 1), first + max_rows, last)
                yield start + first, pointers[first : stop + 1]
                first = stop

    def between(self, start: int, stop: int) -> Rows:
        """Read some rows."""
        return self.read(start, self._pointers(start, stop))

    def read(self, start: int, pointers: NDArray[np.int64]) -> Rows:
        """Read the rows of a piece; rows of a file are overwritten by the next that the same thread reads.

        Raises
        ------
        BadInputError
            If the matrix is damaged: a value lies in a column that is not there.
        """
        low, high = int(pointers[0]), int(pointers[-1])
        data, indices = self._stored("data", low, high), self._stored("indices", low, high)
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < self.shape[1]:
            outside = int(indices.min()) if indices.min() < 0 else int(indices.max())
            raise self._damaged(f"a value lies in column {outside} of {self.shape[1]}")
        return Rows(start, data, indices, pointers - low, self.shape[1])

    def _pointers(self, start: int, stop: int) -> NDArray[np.int64]:
        """Pointers of some rows, one more than there are rows."""
        pointers = np.asarray(self.pointers[start : stop + 1]).astype(np.int64)
        n_stored = min(self.data.shape[0], self.indices.shape[0])
        if len(pointers) != stop - start + 1:
            raise self._damaged(f"of {self.shape[0]} rows {self.pointers.shape[0] - 1} are there")
        if pointers[0] < 0 or (np.diff(pointers) < 0).any():
            raise self._damaged("a row ends before it begins")
        if pointers[-1] > n_stored:
            raise self._damaged(f"of {int(pointers[-1])} values {n_stored} are there")
        return pointers

    def _damaged(self, what: str) -> BadInputError:
        """An error that names the file, if there is one."""
        where = f"in {self.data.file.filename!r} " if isinstance(self.data, h5py.Dataset) else ""
        return BadInputError(f"The matrix {where}is damaged: {what}.", "Make it, copy it or download it again.")

    def _stored(self, name: str, low: int, high: int) -> NDArray[Any]:
        """Some values or indices; of a file of HDF5, in memory of the calling thread that is used again."""
        source = getattr(self, name)
        if not isinstance(source, h5py.Dataset):
            return np.ascontiguousarray(source[low:high])
        held = getattr(self._own, name, None)
        if held is None or len(held) < high - low:
            held = np.empty(high - low, dtype=source.dtype.newbyteorder("="))
            setattr(self._own, name, held)
        if high > low:
            source.read_direct(held, np.s_[low:high], np.s_[: high - low])
        return held[: high - low]

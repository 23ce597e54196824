"""Placing and scoring sparse rows in one pass over what they hold, compiled.

Does what ``Projection.products`` and ``Projection.finish`` do, in the same order of operations: results are the same
to the last bit wherever scipy's products round after each operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray

from ._compiled import compiled
from ._scale import TARGET_SUM

if TYPE_CHECKING:
    from ._project import Projection
    from ._stored_rows import Rows

Float32 = NDArray[np.float32]

_LANES = 16
"""Floats in a line of the cache: rows that begin with a line and fill whole ones are read fastest."""
_LEAST = 2 * _LANES
"""Least floats in a row: the compiler does not keep the sums of one line in registers."""


@dataclass(frozen=True, eq=False)
class PlacingTable:
    """What sparse rows are multiplied with, laid out for one pass.

    Attributes
    ----------
    row
        Of the table for each column of the input, ``(n_columns,)`` int32; -1 where the manifold has no gene.
    table
        ``(n_rows, width)``: the columns of ``Projection.linear``, zeros, and last the weights of squared values in
        the length of the standardised cell.
    offset, constant
        As those of ``Projection`` and ``Familiarity``; no constants without scores.
    """

    row: NDArray[np.int32]
    table: Float32
    offset: Float32
    constant: Float32

    @classmethod
    def of(cls, projection: Projection) -> PlacingTable | None:
        """Lay out a projection; ``None`` where two genes share a column, which no table of this kind can say."""
        used = np.flatnonzero(projection.linear.any(axis=1) | projection.squares.any(axis=1))
        squares = projection.squares[used]
        if projection.scores is not None and not (squares[:, 0] == 1).all():
            return None
        if projection.scores is None and 2 * len(used) > len(projection.linear):
            # a few products with zeros cost less than passing their columns over
            used = np.arange(len(projection.linear))
        row = np.full(len(projection.linear), -1, dtype=np.int32)
        row[used] = np.arange(len(used))
        n_linear = projection.linear.shape[1]
        table = _aligned(len(used), max(_LEAST, -(-(n_linear + 1) // _LANES) * _LANES))
        table[:, :n_linear] = projection.linear[used]
        if projection.scores is None:
            return cls(row, table, projection.offset, np.zeros(0, dtype=np.float32))
        table[:, -1] = squares[:, 1]
        return cls(row, table, projection.offset, projection.scores.constant)

    def place(self, rows: Rows, values: Float32) -> Float32:
        """Place and score rows.

        Parameters
        ----------
        rows
            Checked: every column is one of the table's.
        values
            Those stored, on the scale of the manifold, ``(n_stored,)``.

        Returns
        -------
        ``(n_rows, n_outputs)``, as ``Projection.finish``. Rows are independent of each other.
        """
        indices, pointers = rows.indices, rows.pointers
        if len(self.table) < rows.n_columns:
            values, indices, pointers = _pick(values, indices, pointers, self.row)
        n_scores = 2 if len(self.constant) else 0
        out = np.empty((len(rows), len(self.offset) + n_scores), dtype=np.float32)
        # the type of a tuple tells the compiler the width
        lanes = (0,) * self.table.shape[1]
        _place(values, indices, pointers, self.table, self.offset, self.constant, lanes, out)
        return out


def log_normalise_rows(rows: Rows) -> Float32:
    """``log1p(x / total * 10,000)`` per cell of the values stored, ``(n_stored,)``, as ``log_normalise``."""
    values = np.empty(len(rows.data), dtype=np.float32)
    _divide(rows.data, rows.pointers, TARGET_SUM, values)
    return np.log1p(values, out=values)


def _aligned(n_rows: int, width: int) -> Float32:
    """Zeros that begin with a line of the cache."""
    held = np.zeros(n_rows * width + _LANES, dtype=np.float32)
    first = -held.ctypes.data % (4 * _LANES) // 4
    return held[first : first + n_rows * width].reshape(n_rows, width)


@compiled
def _pick(values: Any, indices: Any, pointers: Any, row: Any) -> Any:
    """Keep what lies in columns that the table has, under the rows of the table."""
    kept, rows, ends = np.empty_like(values), np.empty(len(indices), np.int32), np.empty_like(pointers)
    n = 0
    ends[0] = 0
    for cell in range(len(pointers) - 1):
        for place in range(pointers[cell], pointers[cell + 1]):
            found = row[indices[place]]
            kept[n], rows[n] = values[place], found
            # no branch: which columns are known is past guessing
            n += found >= 0
        ends[cell + 1] = n
    return kept, rows, ends


@compiled
def _divide(data: Any, pointers: Any, target: Any, out: Any) -> None:
    """Scale every row to a sum of ``target``; one without counts stays zero."""
    for cell in range(len(pointers) - 1):
        start, stop = pointers[cell], pointers[cell + 1]
        total = 0.0
        for place in range(start, stop):
            total += data[place]
        factor = np.float32(target / total) if total > 0 else np.float32(0)
        for place in range(start, stop):
            out[place] = np.float32(data[place]) * factor


def _reserve(_context: Any, lanes: Any) -> Any:
    """Room on the stack for a float of each lane: sums in an array would be written back after every product."""
    signature = types.CPointer(types.float32)(lanes)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        kind = context.get_value_type(types.float32)
        room = cgutils.alloca_once(builder, kind, size=lanes.count)  # type: ignore[no-untyped-call]
        room.align = 4 * _LANES
        return room

    return signature, generate


_sums_of: Any = intrinsic(_reserve)


@compiled
def _place(
    values: Any, indices: Any, pointers: Any, table: Any, offset: Any, constant: Any, lanes: Any, out: Any
) -> None:
    """Multiply, add and score row by row, one stored value after the other."""
    width, d = len(lanes), offset.shape[0]
    n_stages = (constant.shape[0] - 1) // 2
    one, least = np.float32(1), np.float32(1e-12)
    sums = carray(_sums_of(lanes), (len(lanes),))
    for cell in range(out.shape[0]):
        start, stop = pointers[cell], pointers[cell + 1]
        for j in range(width):
            sums[j] = 0
        plain = scaled = np.float32(0)
        pairs = start + (stop - start) // 2 * 2
        for p in range(start, pairs, 2):
            # unsigned numbers spare a test for negative ones
            first, first_row = values[p], table[np.uint64(indices[p])]
            second, second_row = values[p + 1], table[np.uint64(indices[p + 1])]
            for j in range(width):
                sums[j] = (sums[j] + first * first_row[j]) + second * second_row[j]
            plain = (plain + first * first) + second * second
            scaled = (scaled + first * first * first_row[-1]) + second * second * second_row[-1]
        if pairs < stop:
            first, first_row = values[pairs], table[np.uint64(indices[pairs])]
            for j in range(width):
                sums[j] += first * first_row[j]
            plain += first * first
            scaled += first * first * first_row[-1]
        for j in range(d):
            out[cell, j] = sums[j] + offset[j]
        if n_stages <= 0:
            continue
        for j in range(constant.shape[0]):
            sums[d + j] += constant[j]
        cosine, standard = sums[d], sums[d + n_stages]
        for j in range(d + 1, d + n_stages):
            cosine = sums[j] if sums[j] > cosine else cosine
        for j in range(d + n_stages + 1, d + 2 * n_stages):
            standard = sums[j] if sums[j] > standard else standard
        scaled -= sums[d + 2 * n_stages]
        if plain > 0:
            cosine /= np.sqrt(plain if plain > least else least)
            standard /= np.sqrt(scaled if scaled > least else least)
            out[cell, d] = min(max(cosine, -one), one)
            out[cell, d + 1] = min(max(standard, -one), one)
        else:
            out[cell, d : d + 2] = 0

"""Nearest points and ranks of points, decided by exact distances where estimates lie too close, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...manifolds._compiled import compiled

_CHUNK = 128
"""Estimates that are looked through together."""
_ROUNDING = 4e-15
"""Beyond what squaring a distance and comparing it with an estimate rounds away, as a part of the square."""


@compiled
def _distance(points: Any, i: int, j: int) -> Any:
    """Root of the sum of squared differences of two rows, added up column by column."""
    total = 0.0
    for column in range(points.shape[1]):
        difference = points[i, column] - points[j, column]
        total += difference * difference
    return np.sqrt(total)


@compiled
def _comes_after(distance: Any, index: Any, other_distance: Any, other_index: Any) -> Any:
    """Whether a point is farther than another; equal distances keep the order of the rows."""
    return distance > other_distance or (distance == other_distance and index > other_index)


@compiled
def _push(distances: Any, indices: Any, size: int, distance: Any, index: int) -> None:
    """Add a point to a heap whose root is the farthest; a full one gives its root up."""
    k = len(distances)
    if size < k:
        place = size
        while place > 0:
            parent = (place - 1) // 2
            if not _comes_after(distance, index, distances[parent], indices[parent]):
                break
            distances[place], indices[place] = distances[parent], indices[parent]
            place = parent
    else:
        place = 0
        while 2 * place + 1 < k:
            child = 2 * place + 1
            if child + 1 < k and _comes_after(
                distances[child + 1], indices[child + 1], distances[child], indices[child]
            ):
                child += 1
            if not _comes_after(distances[child], indices[child], distance, index):
                break
            distances[place], indices[place] = distances[child], indices[child]
            place = child
    distances[place], indices[place] = distance, index


@compiled
def _estimate_at_most(distance: Any, shift: Any, error: Any) -> Any:
    """The largest estimate that a point as far as ``distance`` can have."""
    square = distance * distance
    return square - shift + error + _ROUNDING * square


@compiled
def _estimate_at_least(distance: Any, shift: Any, error: Any) -> Any:
    """The smallest estimate that a point as far as ``distance`` can have."""
    square = distance * distance
    return square - shift - error - _ROUNDING * square


@compiled
def distances_to(points: Any, first_row: int, indices: Any, out: Any) -> None:
    """Write the distances of rows to given points, ``indices`` and ``out`` of shape (rows, k)."""
    for row in range(indices.shape[0]):
        for place in range(indices.shape[1]):
            out[row, place] = _distance(points, first_row + row, indices[row, place])


@compiled
def take_nearest(
    estimates: Any,
    points: Any,
    first_row: int,
    first_column: int,
    shift: Any,
    error: Any,
    distances: Any,
    indices: Any,
    sizes: Any,
) -> None:
    """Take the columns of a tile into the heaps of the nearest points of its rows.

    Parameters
    ----------
    estimates
        Squared distances less ``shift``, but for rounding, shape (rows, columns).
    points
        Shape (n, p).
    first_row, first_column
        Of the tile.
    shift, error
        What each row's estimates lack, and a bound of their rounding, shape (rows,).
    distances, indices
        Heaps, shape (rows, k), changed in place.
    sizes
        Points in each heap, shape (rows,), changed in place.
    """
    n_columns, k = estimates.shape[1], distances.shape[1]
    for row in range(estimates.shape[0]):
        i, here, heap = first_row + row, estimates[row], distances[row]
        bound = _estimate_at_most(heap[0], shift[row], error[row]) if sizes[row] == k else np.inf
        for start in range(0, n_columns, _CHUNK):
            stop = min(start + _CHUNK, n_columns)
            near = 0
            # counting has no branch, so that it is done for several values at a time
            for column in range(start, stop):
                near += here[column] <= bound
            if near == 0:
                continue
            for column in range(start, stop):
                index = first_column + column
                if here[column] > bound or index == i:
                    continue
                distance = _distance(points, i, index)
                # of two points as far as each other the later row comes after
                if sizes[row] == k and distance >= heap[0]:
                    continue
                _push(heap, indices[row], sizes[row], distance, index)
                sizes[row] = min(sizes[row] + 1, k)
                if sizes[row] == k:
                    bound = _estimate_at_most(heap[0], shift[row], error[row])


@compiled
def count_closer(
    estimates: Any,
    points: Any,
    first_row: int,
    first_column: int,
    shift: Any,
    error: Any,
    distances: Any,
    indices: Any,
    counts: Any,
) -> None:
    """Count the columns of a tile that come before given points, seen from each row.

    Parameters
    ----------
    estimates
        As of ``take_nearest``; those of rows to themselves are overwritten.
    points, first_row, first_column, shift, error
        As of ``take_nearest``.
    distances, indices
        Distance and index of the given points, shape (rows, k).
    counts
        Shape (rows, k), added to in place.
    """
    n_columns = estimates.shape[1]
    exact = np.empty(n_columns)
    for row in range(estimates.shape[0]):
        i, here = first_row + row, estimates[row]
        if 0 <= i - first_column < n_columns:
            here[i - first_column] = np.inf
        known = False
        for place in range(distances.shape[1]):
            distance, index = distances[row, place], indices[row, place]
            high = _estimate_at_most(distance, shift[row], error[row])
            low = _estimate_at_least(distance, shift[row], error[row])
            surely = maybe = 0
            for column in range(n_columns):
                surely += here[column] < low
                maybe += here[column] <= high
            counts[row, place] += surely
            # the given point itself always lies within the margin
            if maybe - surely == (0 <= index - first_column < n_columns):
                continue
            if not known:
                exact[:] = np.nan
                known = True
            for column in range(n_columns):
                if here[column] < low or here[column] > high:
                    continue
                if np.isnan(exact[column]):
                    exact[column] = _distance(points, i, first_column + column)
                counts[row, place] += _comes_after(distance, index, exact[column], first_column + column)

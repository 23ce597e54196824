"""Trustworthiness and continuity of points, exact, without a matrix of distances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ...cards._errors import BadInputError
from ...manifolds._threads import in_threads, n_processors
from ._distances import Metric, check_metric
from ._neighbourhoods import from_excess
from ._rank_kernel import count_closer, distances_to, take_nearest

Floats = NDArray[np.float64]

_ROWS, _COLUMNS = 128, 2048
"""A tile of estimates takes 2 MB, so that it is looked through while it lies in a cache."""
_LARGEST = 1e150


def trustworthiness_of_points(
    reference: NDArray[np.floating],
    latent: NDArray[np.floating],
    *,
    k: int,
    metric: Metric = "euclidean",
    latent_metric: Metric = "euclidean",
    n_threads: int | None = None,
) -> float:
    """Measure whether latent neighbours are neighbours in the reference space, from the points of both.

    Parameters
    ----------
    reference
        Points of the reference space, shape (n, p).
    latent
        The same points in the latent space, shape (n, d).
    k
        Neighbourhood size, below ``n / 2``.
    metric, latent_metric
        Distance of each space: ``euclidean``, or ``angular``, the angle between two points as seen from the origin.
    n_threads
        Threads to use, all processors by default. They do not change the result.

    Raises
    ------
    BadInputError
        If shapes disagree, ``k`` is out of range, a value is not finite or beyond 1e150, a point of an angular space
        is zero, or there is no such metric.

    Notes
    -----
    The value of :func:`trustworthiness` on the distance matrices of the two spaces, in time O(n^2 p) and memory
    O(n p) + 2 MB a thread. Squared distances are estimated by a matrix product, with a bound of its rounding error
    (Higham 2002, Accuracy and stability of numerical algorithms, section 3.1); wherever the bound leaves an order open,
    the distances themselves decide, from sums of squared differences in float64, so that the result is that of
    comparing all of them. Angles are compared as distances of points on the sphere, which are in the same order. That
    way is our choice. Equal distances keep the order of the rows. Distances that differ by rounding alone may fall the
    other way in another implementation.
    """
    spaces = _Space.of(reference, metric, "reference"), _Space.of(latent, latent_metric, "latent")
    n, n_latent = (len(space.points) for space in spaces)
    if n != n_latent:
        raise BadInputError(f"reference has {n} points and latent {n_latent}, expected the same ones.")
    if not 1 <= k < n / 2:
        raise BadInputError(f"k is {k}, expected 1 to below half of the {n} rows.")
    if n_threads is not None and n_threads < 1:
        raise BadInputError(f"n_threads is {n_threads}, expected at least 1.")
    return from_excess(_excess(*spaces, k, n_threads or n_processors()), n, k)


def continuity_of_points(
    reference: NDArray[np.floating],
    latent: NDArray[np.floating],
    *,
    k: int,
    metric: Metric = "euclidean",
    latent_metric: Metric = "euclidean",
    n_threads: int | None = None,
) -> float:
    """Measure whether reference neighbours stay neighbours in the latent space, from the points of both.

    The same as :func:`trustworthiness_of_points` with the two spaces exchanged (Venna & Kaski 2001).
    """
    return trustworthiness_of_points(
        latent, reference, k=k, metric=latent_metric, latent_metric=metric, n_threads=n_threads
    )


@dataclass(frozen=True, eq=False)
class _Space:
    """Points, and what estimates their squared distances by one product.

    Attributes
    ----------
    points
        Shape (n, p): distances are those of these.
    squares
        Squared lengths of the centred points, shape (n,).
    columns
        The centred points as columns, and below them their squared lengths, shape (p + 1, n).
    """

    points: Floats
    squares: Floats
    columns: Floats

    @classmethod
    def of(cls, given: NDArray[np.floating], metric: Metric, name: str) -> _Space:
        """Check points and lay them out."""
        points = _checked(given, metric, name)
        columns = np.empty((points.shape[1] + 1, len(points)))
        # near the origin products lose the fewest digits; distances stay as they are
        np.subtract(points.T, points.mean(axis=0)[:, None], out=columns[:-1])
        squares = np.einsum("pn,pn->n", columns[:-1], columns[:-1])
        columns[-1] = squares
        return cls(points, squares, columns)

    def tile(self, rows: slice, columns: slice, buffer: Floats) -> tuple[Floats, Floats]:
        """Estimate the squared distances of a tile, less the squared lengths of its rows, and bound the rounding.

        ``buffer`` holds the estimates that are returned, shape (rows, columns); bounds are of shape (rows,).
        """
        n_rows, n_columns, width = rows.stop - rows.start, columns.stop - columns.start, len(self.columns)
        left = np.empty((n_rows, width))
        np.multiply(self.columns[:-1, rows].T, -2.0, out=left[:, :-1])
        left[:, -1] = 1.0
        out = buffer[: n_rows * n_columns].reshape(n_rows, n_columns)
        np.matmul(left, self.columns[:, columns], out=out)
        # each of the p + 1 terms of a product, of two lengths and of the distance itself may be half a unit off
        bound = 4 * (width + 7) * np.finfo(np.float64).eps * (self.squares[rows] + self.squares[columns].max())
        return out, bound + width * np.finfo(np.float64).tiny


def _excess(reference: _Space, latent: _Space, k: int, n_threads: int) -> int:
    """Sum, over rows and their latent neighbours, of how far the reference rank lies beyond ``k``."""
    n = len(reference.points)

    def of(start: int) -> int:
        rows = slice(start, min(start + _ROWS, n))
        buffer = np.empty(_ROWS * _COLUMNS)
        shape = (rows.stop - start, k)
        distances, indices = np.empty(shape), np.empty(shape, dtype=np.int64)
        sizes, counts = np.zeros(shape[0], dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for columns in _slices(n, _COLUMNS):
            estimates, error = latent.tile(rows, columns, buffer)
            shift = latent.squares[rows]
            take_nearest(estimates, latent.points, start, columns.start, shift, error, distances, indices, sizes)
        distances_to(reference.points, start, indices, distances)
        for columns in _slices(n, _COLUMNS):
            estimates, error = reference.tile(rows, columns, buffer)
            shift = reference.squares[rows]
            count_closer(estimates, reference.points, start, columns.start, shift, error, distances, indices, counts)
        return int(np.maximum(counts + 1 - k, 0).sum())

    # the products are small: threads of BLAS beside ours would only be in the way
    with threadpool_limits(limits=1, user_api="blas"):
        return sum(in_threads(of, range(0, n, _ROWS), at_most=n_threads))


def _slices(n: int, size: int) -> list[slice]:
    """Cut ``n`` columns into slices."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _checked(given: NDArray[np.floating], metric: Metric, name: str) -> Floats:
    """Return points as float64 rows whose Euclidean distances are in the order of the metric."""
    check_metric(metric)
    points = np.ascontiguousarray(given, dtype=np.float64)
    if points.ndim != 2 or not points.size:
        raise BadInputError(f"{name} has shape {points.shape}, expected (n, p) with n and p at least 1.")
    if not np.isfinite(points).all():
        n_bad = int((~np.isfinite(points)).sum())
        raise BadInputError(f"{name} holds {n_bad} values that are not finite, expected none.")
    largest = float(max(points.max(), -points.min()))
    if largest > _LARGEST:
        raise BadInputError(
            f"{name} holds {largest:.3g}, expected values up to {_LARGEST:g}, whose squares can be added.",
            "Divide all of them by the largest.",
        )
    if metric == "euclidean":
        return points
    length = np.linalg.norm(points, axis=1, keepdims=True)
    if (length == 0).any():
        raise BadInputError(f"{int((length == 0).sum())} points of {name} are zero, expected directions.")
    return np.asarray(points / length)

"""Distances along a neighbourhood graph, and their agreement with a ruler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, shortest_path

from ...cards._errors import BadInputError
from ._agreement import Pairs, Statistic, all_pairs, distance_spearman

Floats = NDArray[np.float64]


def geodesic_distances(distances: NDArray[np.floating], *, k: int) -> Floats:
    """Compute the lengths of the shortest paths along the graph of nearest neighbours.

    Parameters
    ----------
    distances
        Between points, of any metric, shape (n, n); of two directions the same.
    k
        Neighbours that each point is tied to, 1 to n - 1. Points are tied if either is among the nearest of the other.

    Returns
    -------
    float64, shape (n, n), in the unit of the distances.

    Raises
    ------
    BadInputError
        If the shape is no square, a distance is negative or not finite, ``k`` is out of range, or the graph falls
        apart: parts are never joined, as every way to join them makes distances up.

    Notes
    -----
    The first two steps of Isomap (Tenenbaum, de Silva & Langford 2000). Equal distances keep the order of the rows;
    points in the same place are tied by an edge of length 0.
    """
    given = np.asarray(distances, dtype=np.float64)
    n = len(given) if given.ndim else 0
    if given.shape != (n, n) or n < 2:
        raise BadInputError(f"distances have shape {given.shape}, expected (n, n) with n at least 2.")
    if not np.isfinite(given).all() or (given < 0).any():
        raise BadInputError(f"distances hold {given.min()} to {given.max()}, expected finite values of at least 0.")
    if not 1 <= k < n:
        raise BadInputError(f"k is {k}, expected 1 to {n - 1} for {n} rows.")
    others = given.copy()
    np.fill_diagonal(others, np.inf)
    tied = np.zeros((n, n), dtype=bool)
    np.put_along_axis(tied, np.argsort(others, axis=1, kind="stable")[:, :k], values=True, axis=1)
    rows, columns = np.nonzero(tied)
    # stored zeros are edges, values left out are none; without directions an edge leads both ways
    graph = sparse.csr_array((given[rows, columns], (rows, columns)), shape=(n, n))
    n_parts, part = connected_components(tied, directed=False)
    if n_parts > 1:
        raise BadInputError(
            f"The graph of {k} nearest neighbours falls into {n_parts} parts of {np.bincount(part).min()} to "
            f"{np.bincount(part).max()} of {n} points.",
            "Use a larger k.",
        )
    return np.asarray(shortest_path(graph, method="D", directed=False))


def geodesic_correlation(
    latent_distances: NDArray[np.floating],
    ruler_distances: NDArray[np.floating],
    *,
    k: int,
    pairs: Pairs | None = None,
    statistic: Statistic = distance_spearman,
) -> float:
    """Measure the agreement of distances along the latent manifold with a ruler.

    Parameters
    ----------
    latent_distances
        Shape (n, n).
    ruler_distances
        Shape (n, n).
    k
        Neighbours of the graph, see :func:`geodesic_distances`.
    pairs
        Pairs to compare, all by default.
    statistic
        How to compare them, by rank by default. The paper that reports a geodesic correlation (Kendiukhov,
        arXiv:2603.10261) names neither the statistic nor the graph; both are our choice.

    Raises
    ------
    BadInputError
        As of :func:`geodesic_distances`, or if the shapes differ.
    """
    geodesics, ruler = geodesic_distances(latent_distances, k=k), np.asarray(ruler_distances)
    if ruler.shape != geodesics.shape:
        raise BadInputError(f"distances have shapes {geodesics.shape} and {ruler.shape}, expected the same.")
    return float(statistic(geodesics, ruler, all_pairs(len(geodesics)) if pairs is None else pairs))

"""Neighbourhoods that one space keeps of another: trustworthiness and continuity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError


def trustworthiness(
    reference_distances: NDArray[np.floating], latent_distances: NDArray[np.floating], *, k: int
) -> float:
    """Measure whether latent neighbours are neighbours in the reference space.

    Parameters
    ----------
    reference_distances, latent_distances
        Shape (n, n).
    k
        Neighbourhood size, below ``n / 2``.

    Raises
    ------
    BadInputError
        If the shapes differ or ``k`` is out of range.

    Notes
    -----
    ``1 - 2 / (n k (2 n - 3 k - 1)) sum_i sum_{j in U_i} (r(i, j) - k)`` with ``U_i`` the latent neighbours of ``i``
    that are not among its ``k`` nearest in the reference space and ``r`` their rank there (Venna & Kaski 2001).
    Exact; equal distances keep the order of the rows.
    """
    reference = np.array(reference_distances, dtype=np.float64)
    latent = np.array(latent_distances, dtype=np.float64)
    n = len(reference)
    if reference.shape != (n, n) or latent.shape != (n, n):
        raise BadInputError(f"distances have shapes {reference.shape} and {latent.shape}, expected (n, n) twice.")
    if not 1 <= k < n / 2:
        raise BadInputError(f"k is {k}, expected 1 to below half of the {n} rows.")
    np.fill_diagonal(reference, np.inf)
    np.fill_diagonal(latent, np.inf)
    neighbours = np.argsort(latent, axis=1, kind="stable")[:, :k]
    rank = np.empty((n, n), dtype=np.int64)
    order = np.argsort(reference, axis=1, kind="stable")
    np.put_along_axis(rank, order, np.arange(1, n + 1)[None, :], axis=1)
    excess = np.take_along_axis(rank, neighbours, axis=1) - k
    return from_excess(int(excess[excess > 0].sum()), n, k)


def continuity(reference_distances: NDArray[np.floating], latent_distances: NDArray[np.floating], *, k: int) -> float:
    """Measure whether reference neighbours stay neighbours in the latent space.

    The same as :func:`trustworthiness` with the two spaces exchanged (Venna & Kaski 2001).
    """
    return trustworthiness(latent_distances, reference_distances, k=k)


def from_excess(excess: int, n: int, k: int) -> float:
    """Turn the sum of ``r(i, j) - k`` over neighbours that are none in the other space into trustworthiness."""
    return float(1.0 - excess * 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0)))

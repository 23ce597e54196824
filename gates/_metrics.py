"""Metrics of a latent geometry: neighbourhoods kept, and rank agreement with a ruler."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from ..cards._errors import BadInputError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Hold the two index arrays of some pairs of rows, each shape (m,)."""

    left: NDArray[np.intp]
    right: NDArray[np.intp]

    def __len__(self) -> int:
        return int(self.left.size)

    def of(self, matrices: NDArray[np.floating]) -> Floats:
        """Take the pairs' entries of one matrix or a stack of them: shape (..., m)."""
        return np.asarray(matrices[..., self.left, self.right], dtype=np.float64)


def all_pairs(n: int) -> Pairs:
    """Return every unordered pair of ``n`` rows."""
    return Pairs(*np.triu_indices(n, 1))


def angular_distances(latents: NDArray[np.floating]) -> Floats:
    """Compute the angles between latents, in radians.

    Parameters
    ----------
    latents
        Shape (n, d), or (B, n, d) for several sets of latents.

    Returns
    -------
    float64, shape (n, n) or (B, n, n), with an exactly zero diagonal.

    Raises
    ------
    BadInputError
        If a latent is zero or not finite, so that it has no direction.
    """
    z = np.asarray(latents, dtype=np.float64)
    norm = np.linalg.norm(z, axis=-1, keepdims=True)
    if not np.isfinite(norm).all() or (norm == 0).any():
        bad = int((~np.isfinite(norm) | (norm == 0)).sum())
        raise BadInputError(f"{bad} latents are zero or not finite, expected directions.")
    unit = z / norm
    angles = np.arccos(np.clip(unit @ np.swapaxes(unit, -1, -2), -1.0, 1.0))
    index = np.arange(z.shape[-2])
    angles[..., index, index] = 0.0
    return np.asarray(angles)


def euclidean_distances(rows: NDArray[np.floating]) -> Floats:
    """Compute the Euclidean distances between rows, shape (n, p) to (n, n), in float64."""
    x = np.asarray(rows, dtype=np.float64)
    return np.asarray(cdist(x, x))


def distance_spearman(
    latent_distances: NDArray[np.floating], ruler_distances: NDArray[np.floating], pairs: Pairs
) -> NDArray[np.float64]:
    """Correlate the ranks of latent and ruler distances over some pairs.

    Parameters
    ----------
    latent_distances, ruler_distances
        Shape (n, n) or (B, n, n); a single matrix is held against each of a stack.
    pairs
        Pairs to compare.

    Returns
    -------
    Shape () or (B,). Tied distances share their mean rank; NaN where either side does not vary.
    """
    if not len(pairs):
        raise BadInputError("0 pairs to correlate, expected at least 2.")
    left = _centred_ranks(pairs.of(np.asarray(latent_distances)))
    right = _centred_ranks(pairs.of(np.asarray(ruler_distances)))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (left * right).sum(-1) / np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return np.asarray(np.clip(rho, -1.0, 1.0))


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
    return float(1.0 - excess[excess > 0].sum() * 2.0 / (n * k * (2.0 * n - 3.0 * k - 1.0)))


def continuity(reference_distances: NDArray[np.floating], latent_distances: NDArray[np.floating], *, k: int) -> float:
    """Measure whether reference neighbours stay neighbours in the latent space.

    The same as :func:`trustworthiness` with the two spaces exchanged (Venna & Kaski 2001).
    """
    return trustworthiness(latent_distances, reference_distances, k=k)


def _centred_ranks(values: Floats) -> Floats:
    """Rank along the last axis with ties averaged, and centre."""
    ranks = np.asarray(rankdata(values, axis=-1), dtype=np.float64)
    return np.asarray(ranks - (values.shape[-1] + 1) / 2)

"""Agreement of two distance matrices over some pairs of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau, rankdata

from ...cards._errors import BadInputError

Floats = NDArray[np.float64]
_MOST_STEPS = 1000


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
    left, right = _values(latent_distances, ruler_distances, pairs)
    return correlate(centred_ranks(left), centred_ranks(right))


def distance_pearson(
    latent_distances: NDArray[np.floating], ruler_distances: NDArray[np.floating], pairs: Pairs
) -> NDArray[np.float64]:
    """Correlate latent and ruler distances over some pairs.

    Parameters
    ----------
    latent_distances, ruler_distances
        Shape (n, n) or (B, n, n); a single matrix is held against each of a stack.
    pairs
        Pairs to compare.

    Returns
    -------
    Shape () or (B,); NaN where either side does not vary.

    Notes
    -----
    Pearson's product-moment correlation; over all pairs it is the statistic of Mantel (1967).
    """
    left, right = (_centred(values) for values in _values(latent_distances, ruler_distances, pairs))
    return correlate(left, right)


def distance_kendall(
    latent_distances: NDArray[np.floating], ruler_distances: NDArray[np.floating], pairs: Pairs
) -> NDArray[np.float64]:
    """Compare the order of latent and ruler distances over some pairs.

    Parameters
    ----------
    latent_distances, ruler_distances
        Shape (n, n) or (B, n, n); a single matrix is held against each of a stack.
    pairs
        Pairs to compare.

    Returns
    -------
    Shape () or (B,); NaN where either side does not vary.

    Notes
    -----
    ``tau_b = (C - D) / sqrt((C + D + T_l) (C + D + T_r))`` with the numbers of concordant and discordant pairs of
    distances and of those tied on one side only (Kendall 1945), as scipy counts them, in O(m log m).
    """
    left, right = np.broadcast_arrays(*_values(latent_distances, ruler_distances, pairs))
    rows = zip(left.reshape(-1, len(pairs)), right.reshape(-1, len(pairs)), strict=True)
    taus = [kendalltau(one, other, method="asymptotic").statistic for one, other in rows]
    return np.asarray(taus, dtype=np.float64).reshape(left.shape[:-1])


Statistic = Callable[[NDArray[np.floating], NDArray[np.floating], Pairs], NDArray[np.float64]]
"""Agreement of two distance matrices over some pairs, such as ``distance_spearman``."""


def correlate(left: Floats, right: Floats) -> Floats:
    """Cosine of centred values along the last axis, within -1 and 1; NaN where either side is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        rho = (left * right).sum(-1) / np.sqrt((left**2).sum(-1) * (right**2).sum(-1))
    return np.asarray(np.clip(rho, -1.0, 1.0))


def centred_ranks(values: Floats) -> Floats:
    """Rank along the last axis with ties averaged, and centre."""
    ranks = _counted_ranks(values)
    if ranks is None:
        ranks = np.asarray(rankdata(values, axis=-1), dtype=np.float64)
    return np.asarray(ranks - (values.shape[-1] + 1) / 2)


def _counted_ranks(values: Floats) -> Floats | None:
    """Ranks of small whole numbers, as steps of a ruler are, without sorting; ``None`` for other values."""
    if not values.size or not (values.min() >= 0 and values.max() < _MOST_STEPS):
        return None
    steps = values.reshape(-1, values.shape[-1]).astype(np.int64)
    if (steps != values.reshape(steps.shape)).any():
        return None
    rows, width = len(steps), int(steps.max()) + 1
    steps += np.arange(rows)[:, None] * width
    counts = np.bincount(steps.ravel(), minlength=rows * width).reshape(rows, width)
    mean_rank = np.cumsum(counts, axis=1) - (counts - 1) / 2
    return np.asarray(mean_rank.ravel()[steps].reshape(values.shape))


def _centred(values: Floats) -> Floats:
    """Centre along the last axis; exactly zero where nothing varies, whatever the mean is rounded to."""
    varies = np.ptp(values, axis=-1, keepdims=True) > 0
    return np.where(varies, values - values.mean(-1, keepdims=True), 0.0)


def _values(left: NDArray[np.floating], right: NDArray[np.floating], pairs: Pairs) -> tuple[Floats, Floats]:
    """Both sides' distances over the pairs."""
    if not len(pairs):
        raise BadInputError("0 pairs to correlate, expected at least 2.")
    return pairs.of(np.asarray(left)), pairs.of(np.asarray(right))

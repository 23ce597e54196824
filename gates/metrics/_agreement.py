"""Agreement of two distance matrices over some pairs of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from ...cards._errors import BadInputError

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


def _centred_ranks(values: Floats) -> Floats:
    """Rank along the last axis with ties averaged, and centre."""
    ranks = np.asarray(rankdata(values, axis=-1), dtype=np.float64)
    return np.asarray(ranks - (values.shape[-1] + 1) / 2)

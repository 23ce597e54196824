"""Paired comparisons over held-out parts: test, effect size, interval, and all p-values together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control, norm, rankdata, t, wilcoxon

from ..cards._errors import BadInputError

Floats = NDArray[np.float64]
LEVEL = 0.95
"""Of the intervals."""
N_BOOTSTRAP = 10_000


@dataclass(frozen=True)
class PairedComparison:
    """Hold how one procedure did against another on the same held-out parts.

    Attributes
    ----------
    own, other
        Mean score over parts, and over seeds of the other.
    difference, low, high
        ``own`` less ``other``, and its bootstrap interval.
    p
        One-sided, that ``own`` is not larger.
    rank_biserial, d_z
        Effect sizes; ``d_z`` is ``None`` where the differences do not vary.
    n_parts, n_seeds
        Held-out parts, and seeds of the other.
    seed_sd
        Standard deviation of the mean score over seeds of the other; ``None`` with one seed.
    parts_won
        Fraction of parts with a positive difference.
    by_part
        Difference of each part, mean over seeds, in the order given.
    """

    own: float
    other: float
    difference: float
    low: float
    high: float
    p: float
    rank_biserial: float
    d_z: float | None
    n_parts: int
    n_seeds: int
    seed_sd: float | None
    parts_won: float
    by_part: tuple[float, ...]


def compare_paired(
    own: ArrayLike, other: ArrayLike, *, rng: np.random.Generator, n_resamples: int = N_BOOTSTRAP
) -> PairedComparison:
    """Compare scores on the same parts.

    Parameters
    ----------
    own
        Score of each part, shape (n_parts,).
    other
        Of what it is compared with, shape (n_seeds, n_parts).
    rng
        Draws the bootstrap.
    n_resamples
        Of the bootstrap.

    Raises
    ------
    BadInputError
        If shapes disagree, there are fewer than two parts, or a score is not finite.

    Notes
    -----
    The p-value is that of the Wilcoxon signed-rank test over parts, on differences averaged over seeds. With several
    seeds the bootstrap over parts and seeds must agree: the larger of the two p-values counts (our choice), as the
    Wilcoxon test takes the seeds for all there are.
    """
    mine, theirs = np.asarray(own, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if mine.ndim != 1 or theirs.ndim != 2 or theirs.shape[1:] != mine.shape or not len(theirs) or mine.size < 2:
        raise BadInputError(f"scores have shapes {mine.shape} and {theirs.shape}, expected (n,) and (n_seeds, n).")
    if not (np.isfinite(mine).all() and np.isfinite(theirs).all()):
        raise BadInputError("a score is not finite, expected numbers.")
    # subtracted first: a mean of equal numbers need not be that number, and would pass for a difference
    differences = mine - theirs
    by_part, by_seed = differences.mean(axis=0), theirs.mean(axis=1)
    draws = bootstrap_means(differences, rng=rng, n_resamples=n_resamples)
    low, high = expanded_interval(draws, n_parts=mine.size)
    p = wilcoxon_p(by_part)
    return PairedComparison(
        own=float(mine.mean()),
        other=float(by_seed.mean()),
        difference=float(by_part.mean()),
        low=low,
        high=high,
        p=max(p, bootstrap_p(draws)) if len(theirs) > 1 else p,
        rank_biserial=rank_biserial(by_part),
        d_z=cohens_dz(by_part),
        n_parts=mine.size,
        n_seeds=len(theirs),
        seed_sd=float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        parts_won=float((by_part > 0).mean()),
        by_part=tuple(by_part.tolist()),
    )


def wilcoxon_p(differences: ArrayLike) -> float:
    """One-sided p of the Wilcoxon signed-rank test that differences are not larger than zero; 1 where all are zero.

    Notes
    -----
    ``scipy.stats.wilcoxon`` with its defaults: zeros are dropped, and the null is exact up to 50 differences without
    ties.
    """
    values = np.asarray(differences, dtype=np.float64)
    return float(wilcoxon(values, alternative="greater").pvalue) if values.any() else 1.0


def rank_biserial(differences: ArrayLike) -> float:
    """Matched-pairs rank-biserial correlation, from -1, all lost, to 1, all won; 0 where all differences are zero.

    Notes
    -----
    ``(W+ - W-) / (W+ + W-)``, the signed-rank sums of the Wilcoxon test without zeros (Kerby 2014).
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values != 0]
    if not values.size:
        return 0.0
    ranks = rankdata(np.abs(values))
    return float((ranks * np.sign(values)).sum() / ranks.sum())


def cohens_dz(differences: ArrayLike) -> float | None:
    """Mean difference in units of the standard deviation of the differences (Cohen 1988); ``None`` without one."""
    values = np.asarray(differences, dtype=np.float64)
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return float(values.mean() / spread) if spread > 0 else None


def bootstrap_means(differences: Floats, *, rng: np.random.Generator, n_resamples: int = N_BOOTSTRAP) -> Floats:
    """Mean difference of resampled parts and, independently, resampled seeds, shape (n_resamples,).

    Parameters
    ----------
    differences
        Shape (n_seeds, n_parts).
    rng
        Draws both.
    n_resamples
        At least 1.

    Raises
    ------
    BadInputError
        If there is nothing to draw from, or nothing to draw.

    Notes
    -----
    The bootstrap of crossed factors of Owen & Eckles (2012): rows and columns are drawn with replacement, and the mean
    is taken over all their crossings. It errs on the side of wide intervals.
    """
    if differences.ndim != 2 or not differences.size or n_resamples < 1:
        raise BadInputError(f"{n_resamples} resamples of shape {differences.shape}, expected at least 1 of (seeds, n).")
    n_seeds, n_parts = differences.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_resamples)
    parts = rng.multinomial(n_parts, np.full(n_parts, 1 / n_parts), size=n_resamples)
    means: Floats = np.einsum("bp,bp->b", seeds @ differences, parts) / differences.size
    return means


def expanded_interval(draws: Floats, *, n_parts: int, level: float = LEVEL) -> tuple[float, float]:
    """Bootstrap percentile interval, widened as few parts need it.

    Parameters
    ----------
    draws
        Of the bootstrap.
    n_parts
        Parts that were resampled.
    level
        Nominal coverage.

    Returns
    -------
    Lower and upper end.

    Raises
    ------
    BadInputError
        If there are fewer than two parts, or the level is no fraction.

    Notes
    -----
    The expanded percentile interval of Hesterberg (2015): quantiles at ``Phi(+-sqrt(n / (n - 1)) t)``, with ``t`` that
    of n - 1 degrees of freedom. Plain percentiles of 14 normal differences cover 92% where they promise 95%.
    """
    if n_parts < 2 or not 0 < level < 1:
        raise BadInputError(f"level is {level} with {n_parts} parts, expected a fraction and at least 2.")
    tail = float(norm.cdf(np.sqrt(n_parts / (n_parts - 1)) * t.ppf((1 - level) / 2, n_parts - 1)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(draws: Floats) -> float:
    """One-sided p that the mean is not larger than zero: ``(1 + number of draws <= 0) / (1 + n)``."""
    return float((1 + (draws <= 0).sum()) / (1 + draws.size))


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """q-values of a whole family of comparisons (Benjamini & Hochberg 1995).

    Parameters
    ----------
    ps
        One for every comparison that was registered; 1 for one that could not be made, so that it helps no other.

    Raises
    ------
    BadInputError
        If a p-value lies outside 0 to 1.
    """
    values = np.asarray(ps, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise BadInputError(f"p-values are {values.tolist()}, expected numbers from 0 to 1.")
    return [float(q) for q in false_discovery_control(values)] if values.size else []

"""Holdouts: heads refitted without a part of the panel, scored on the pairs that touch it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record, judge
from ...manifolds._heads import HeadSettings, latent_distances
from ...manifolds._let import checked_distances
from ..metrics import Pairs, distance_spearman
from ._refits import least_training, n_distinct_starts, refits_from_starts

MIN_FOLDS = 2
"""Fewer usable folds than this cannot decide; our choice."""
MIN_COVERED = 0.5
"""Usable folds must hold out at least this part of the anchors of all folds; our choice."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Name a part of the panel to hold out, by row index."""

    name: str
    held_out: NDArray[np.intp]


@dataclass(frozen=True)
class FoldScore:
    """Hold the Spearman correlations of one fold, each the mean over head starts.

    Parameters
    ----------
    name, n_held_out
        Which fold, and how many anchors it holds out.
    touching
        Over all pairs with at least one held-out anchor: the gate statistic.
    within, across
        Over pairs of two held-out anchors, and of one held-out with one training anchor.
    start_sd
        Standard deviation of ``touching`` over head starts.
    """

    name: str
    n_held_out: int
    touching: float
    within: float
    across: float
    start_sd: float


@dataclass(frozen=True)
class HoldoutResult:
    """Hold the scores of all usable folds, and the folds skipped with the reason."""

    scores: tuple[FoldScore, ...]
    skipped: tuple[tuple[str, str], ...]
    covered: float
    n_starts: int

    @property
    def touching(self) -> float:
        """Mean over folds, each weighted equally; NaN without folds."""
        return self._mean("touching")

    @property
    def within(self) -> float:
        """Mean over folds of the correlation among held-out anchors."""
        return self._mean("within")

    @property
    def across(self) -> float:
        """Mean over folds of the correlation between held-out and training anchors."""
        return self._mean("across")

    def _mean(self, name: str) -> float:
        """Average one figure over folds."""
        return float(np.mean([getattr(score, name) for score in self.scores])) if self.scores else float("nan")

    @property
    def undecided_because(self) -> str:
        """Why too little is left to decide; empty when there is enough."""
        if len(self.scores) < MIN_FOLDS:
            return f"{len(self.scores)} usable folds, expected at least {MIN_FOLDS}"
        if self.covered < MIN_COVERED:
            return f"usable folds hold {self.covered:.0%} of the anchors, expected at least {MIN_COVERED:.0%}"
        return ""


def random_folds(n: int, *, rng: np.random.Generator, fraction: float = 0.2, n_repeats: int = 10) -> list[Fold]:
    """Draw random parts to hold out.

    Parameters
    ----------
    n
        Anchors of the panel.
    rng
        Draws the parts.
    fraction
        Part held out; 20% as published.
    n_repeats
        Independent draws; our choice.
    """
    if not 0 < fraction < 1:
        raise BadInputError(f"fraction is {fraction}, expected a number between 0 and 1.")
    size = max(1, round(fraction * n))
    return [Fold(f"random {repeat + 1}", np.sort(rng.permutation(n)[:size])) for repeat in range(n_repeats)]


def group_folds(groups: Sequence[str]) -> list[Fold]:
    """Hold out one group at a time, in the order of their names."""
    labels = np.asarray(groups, dtype=str)
    return [Fold(str(name), np.flatnonzero(labels == name)) for name in np.unique(labels)]


def holdout_pairs(n: int, held_out: NDArray[np.intp]) -> tuple[Pairs, Pairs]:
    """Return the pairs among held-out rows, and those of a held-out with another row."""
    held = np.zeros(n, dtype=bool)
    held[held_out] = True
    left, right = np.triu_indices(n, 1)
    both, one = held[left] & held[right], held[left] ^ held[right]
    return Pairs(left[both], right[both]), Pairs(left[one], right[one])


def touching_pairs(n: int, held_out: NDArray[np.intp]) -> Pairs:
    """Return all pairs that have at least one held-out row."""
    within, across = holdout_pairs(n, held_out)
    return Pairs(np.concatenate([within.left, across.left]), np.concatenate([within.right, across.right]))


def refit_holdouts(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    folds: Sequence[Fold],
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    n_starts: int = 20,
) -> HoldoutResult:
    """Refit the head without each fold and score the pairs that touch it.

    Parameters
    ----------
    features
        Shape (n, p). Standardised on the training rows of each fold alone.
    distances
        Ruler distances, shape (n, n).
    folds
        Parts to hold out.
    settings
        Parameters of the head.
    rng
        One child per fold, used or not.
    n_starts
        Head starts per fold; their scores are averaged, as one start alone moves a score by 0.01 to 0.04. 20 is
        our choice. Of a head that draws nothing all starts are one, and the result says 1.

    Returns
    -------
    Scores of the usable folds. A fold is skipped when the pairs among its held-out anchors have no variance in ruler
    distance, or when it leaves too few anchors or no distance to train on.

    Notes
    -----
    The gate statistic is the Spearman correlation of latent and ruler distance over all pairs that touch a
    held-out anchor (our choice: pairs among few held-out anchors alone are too noisy, and the paper does not say).
    """
    x = np.asarray(features, dtype=np.float64)
    target = checked_distances(distances, len(x))
    if n_starts < 1:
        raise BadInputError(f"n_starts is {n_starts}, expected at least 1.")
    scores: list[FoldScore] = []
    skipped: list[tuple[str, str]] = []
    for fold, child in zip(folds, rng.spawn(len(folds)), strict=True):
        reason = unusable_fold(target, fold.held_out, least_training(settings))
        if reason:
            skipped.append((fold.name, reason))
            continue
        scores.append(_score(x, target, fold, settings, child, n_starts))
    offered = sum(fold.held_out.size for fold in folds)
    used = sum(score.n_held_out for score in scores)
    return HoldoutResult(tuple(scores), tuple(skipped), used / max(1, offered), n_distinct_starts(settings, n_starts))


def holdout_record(gate: str, result: HoldoutResult, threshold: float, *, seed: int) -> Record:
    """Hold a holdout against its threshold, or say why it cannot decide."""
    skipped = "; ".join(f"{name}: {reason}" for name, reason in result.skipped)
    details: dict[str, float | int | str | bool | None] = {
        "n_starts": result.n_starts,
        "n_folds": len(result.scores),
        "n_skipped": len(result.skipped),
        "skipped": skipped,
        "covered": result.covered,
    }
    if result.undecided_because:
        return Record(gate=gate, status="cannot decide", reason=result.undecided_because, seed=seed, details=details)
    per_fold = [score.touching for score in result.scores]
    details |= {
        "within": _finite(result.within),
        "across": _finite(result.across),
        "lowest_fold": _finite(min(per_fold)),
        "fold_sd": _finite(float(np.std(per_fold, ddof=1))),
        "start_sd": _finite(float(np.mean([score.start_sd for score in result.scores]))),
    }
    held_out = sum(score.n_held_out for score in result.scores)
    parts = {score.name: score.touching for score in result.scores if np.isfinite(score.touching)}
    return judge(gate, result.touching, ">=", threshold, n=held_out, seed=seed, details=details, parts=parts)


def unusable_fold(target: NDArray[np.float64], held_out: NDArray[np.intp], least: int) -> str:
    """Say why a fold cannot be scored; empty when it can."""
    n = len(target)
    train = np.setdiff1d(np.arange(n), held_out)
    within, _ = holdout_pairs(n, held_out)
    values = within.of(target)
    if not values.size or np.ptp(values) == 0:
        return f"the {values.size} pairs among {held_out.size} held-out anchors have no variance in distance"
    if train.size < least:
        return f"{train.size} anchors left to train on, expected at least {least}"
    if not target[np.ix_(train, train)].any():
        return "the anchors left to train on have no distance between them"
    return ""


def _score(
    x: NDArray[np.float64],
    target: NDArray[np.float64],
    fold: Fold,
    settings: HeadSettings,
    rng: np.random.Generator,
    n_starts: int,
) -> FoldScore:
    """Fit the starts of one fold and score its pairs."""
    n = len(x)
    train = np.setdiff1d(np.arange(n), fold.held_out)
    latents = refits_from_starts(x, target, settings, rng=rng, n_starts=n_starts, train=train)
    distances = latent_distances(latents, settings)
    within, across = holdout_pairs(n, fold.held_out)
    touching = distance_spearman(distances, target, touching_pairs(n, fold.held_out))
    return FoldScore(
        fold.name,
        int(fold.held_out.size),
        float(touching.mean()),
        float(distance_spearman(distances, target, within).mean()),
        float(distance_spearman(distances, target, across).mean()),
        float(touching.std()),
    )


def _finite(value: float) -> float | None:
    """Return None for what a record cannot hold."""
    return value if np.isfinite(value) else None

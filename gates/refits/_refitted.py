"""The statistic of every refitted null: how well heads place what they were not fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...manifolds._let import LetSettings, fit_in_row_space, row_space
from ...manifolds._threads import in_threads
from ..metrics import angular_distances, distance_spearman
from ._holdouts import MIN_TRAINING, random_folds, touching_pairs

TARGETS_AT_ONCE = 64
"""Targets to refit to at a time: enough for several threads, and few enough for the memory of their distances."""
_TOGETHER = 16
CANNOT_REFIT = "the head was fitted on cells, which do not travel with the artifact, so that it cannot be refitted"


class RefittedStatistic:
    """Held-out Spearman of heads refitted to any target, averaged over random splits that all targets share.

    Parameters
    ----------
    features
        Shape (n, p).
    settings
        Parameters of the head.
    rng
        Draws the splits, before any target is seen.
    n_splits, fraction
        Random splits and the part each holds out.

    Raises
    ------
    BadInputError
        If fewer than one split is asked for, or the panel is too small to split.
    """

    def __init__(
        self,
        features: NDArray[np.floating],
        settings: LetSettings,
        *,
        rng: np.random.Generator,
        n_splits: int = 3,
        fraction: float = 0.2,
    ) -> None:
        x = np.asarray(features, dtype=np.float64)
        if n_splits < 1:
            raise BadInputError(f"n_splits is {n_splits}, expected at least 1.")
        folds = random_folds(len(x), rng=rng, fraction=fraction, n_repeats=n_splits)
        n_train = len(x) - folds[0].held_out.size
        if n_train < MIN_TRAINING:
            raise BadInputError(f"{n_train} anchors left to train on, expected at least {MIN_TRAINING}.")
        self.settings = settings
        self.splits = []
        for fold, child in zip(folds, rng.spawn(n_splits), strict=True):
            train = np.setdiff1d(np.arange(len(x)), fold.held_out)
            self.splits.append((row_space(x, settings, rng=child, train=train), touching_pairs(len(x), fold.held_out)))

    def of(self, targets: NDArray[np.float64], rngs: Sequence[np.random.Generator]) -> NDArray[np.float64]:
        """Refit to each target, shape (B, n, n), with a generator each, and return the statistics, shape (B,)."""
        statistics = np.empty(len(targets))

        def score(first: int) -> None:
            part = slice(first, first + _TOGETHER)
            scores = []
            for space, pairs in self.splits:
                fit = fit_in_row_space(space, targets[part], self.settings, rngs=rngs[part])
                scores.append(distance_spearman(angular_distances(fit.latents(space.rows)), targets[part], pairs))
            statistics[part] = np.mean(scores, axis=0)

        in_threads(score, range(0, len(targets), _TOGETHER))
        return statistics

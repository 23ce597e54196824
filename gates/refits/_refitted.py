"""The statistic of every refitted null: how well heads place what they were not fitted on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...manifolds._heads import HeadSettings, latent_distances
from ...manifolds._threads import in_threads
from ..metrics import distance_spearman
from ._holdouts import random_folds, touching_pairs
from ._refits import least_training, reads_ruler, refits_on

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

    Notes
    -----
    A head that does not read the ruler comes out the same of every refit, so that it is fitted once for each split and
    held against all targets. That is fair to a null: nothing of the head was fitted to the observed target, which is
    one among all others. Of a fixed head that was fitted to it that could not be said.
    """

    def __init__(
        self,
        features: NDArray[np.floating],
        settings: HeadSettings,
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
        least = least_training(settings)
        if n_train < least:
            raise BadInputError(f"{n_train} anchors left to train on, expected at least {least}.")
        self.settings = settings
        self.splits = []
        for fold, child in zip(folds, rng.spawn(n_splits), strict=True):
            train = np.setdiff1d(np.arange(len(x)), fold.held_out)
            refits = refits_on(x, settings, rng=child, train=train)
            self.splits.append((refits, touching_pairs(len(x), fold.held_out)))

    def of(self, targets: NDArray[np.float64], rngs: Sequence[np.random.Generator]) -> NDArray[np.float64]:
        """Refit to each target, shape (B, n, n), with a generator each, and return the statistics, shape (B,)."""
        statistics = np.empty(len(targets))

        def score(first: int) -> None:
            part = slice(first, first + _TOGETHER)
            scores = []
            for refits, pairs in self.splits:
                latents = refits.latents(targets[part], rngs[part])
                # the same for all targets where the head reads none, so that one is held against each
                apart = latent_distances(latents if reads_ruler(self.settings) else latents[0], self.settings)
                scores.append(distance_spearman(apart, targets[part], pairs))
            statistics[part] = np.mean(scores, axis=0)

        in_threads(score, range(0, len(targets), _TOGETHER))
        return statistics

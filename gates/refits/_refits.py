"""Heads of any kind refitted on the same anchors, to many targets or from many starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...manifolds._geodesic import geodesic_latents
from ...manifolds._heads import HeadSettings, latent_distances, least_rows
from ...manifolds._let import LetSettings, RowSpace, fit_in_row_space, row_space
from ..metrics import angular_distances

Floats = NDArray[np.float64]
MIN_TRAINING = 10
"""Fewer training anchors than this are not refitted on; our choice."""


@dataclass(frozen=True, eq=False)
class LetRefits:
    """LET heads that are fitted on the same rows, which were reduced once."""

    space: RowSpace
    settings: LetSettings

    def latents(self, targets: NDArray[np.floating], rngs: Sequence[np.random.Generator]) -> Floats:
        """Fit a head to each target, shape (B, n, n), and place all rows, shape (B, n, d)."""
        return fit_in_row_space(self.space, targets, self.settings, rngs=rngs).latents(self.space.rows)


@dataclass(frozen=True, eq=False)
class GeodesicRefits:
    """The one geodesic head that there is on some rows, whatever the target: the places that it gives, shape (n, d)."""

    placed: Floats

    def latents(self, targets: NDArray[np.floating], rngs: Sequence[np.random.Generator]) -> Floats:
        """The places once for each target, shape (B, n, d): one array, which cannot be written to."""
        return np.broadcast_to(self.placed, (min(len(targets), len(rngs)), *self.placed.shape))


def refits_on(
    features: NDArray[np.floating],
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    train: NDArray[np.integer] | None = None,
) -> LetRefits | GeodesicRefits:
    """Do once what all refits on the same rows share: for a geodesic head, everything.

    Parameters
    ----------
    features
        Shape (n, p).
    settings
        Parameters of the heads.
    rng
        Draws the rotation of a LET fit, see ``row_space``; a geodesic head draws nothing.
    train
        Rows to fit on, all by default. The others are placed without having been seen by a fit.

    Raises
    ------
    BadInputError
        As ``row_space`` and ``fit_geodesic``.
    """
    if isinstance(settings, LetSettings):
        return LetRefits(row_space(features, settings, rng=rng, train=train), settings)
    return GeodesicRefits(geodesic_latents(features, settings, train=train))


def refits_from_starts(
    features: NDArray[np.floating],
    target: NDArray[np.floating],
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    n_starts: int,
    train: NDArray[np.integer] | None = None,
) -> Floats:
    """Refit to one target from several starts, and place all rows.

    Parameters
    ----------
    features
        Shape (n, p).
    target
        Ruler distances, shape (n, n).
    settings
        Parameters of the head.
    rng
        Spawns what the starts share first, then one child per start.
    n_starts
        Starts asked for.
    train
        Rows to fit on, all by default.

    Returns
    -------
    Float64 (``n_distinct_starts``, n, d).

    Raises
    ------
    BadInputError
        As ``refits_on``.
    """
    refits = refits_on(features, settings, rng=rng.spawn(1)[0], train=train)
    rngs = rng.spawn(n_distinct_starts(settings, n_starts))
    return refits.latents(np.broadcast_to(target, (len(rngs), *np.shape(target))), rngs)


def reads_ruler(settings: HeadSettings | None) -> bool:
    """Whether a head is fitted to the ruler, as one fitted on cells is (``None``).

    One that is not is its own refit to any other ruler.
    """
    return settings is None or isinstance(settings, LetSettings)


def n_distinct_starts(settings: HeadSettings, n_starts: int) -> int:
    """How many of so many starts differ: one of a geodesic head, which draws nothing."""
    return n_starts if reads_ruler(settings) else 1


def least_training(settings: HeadSettings) -> int:
    """Fewest anchors that gates refit a head on."""
    return max(MIN_TRAINING, least_rows(settings))


def refitted_or_not(*, reads: bool) -> str:
    """How a head that reads the ruler, or does not, stands to the draws of a null, in words."""
    return "head refitted" if reads else "the head, which does not read the ruler, being its own refit"


def distances_under(latents: NDArray[np.floating], settings: HeadSettings | None) -> Floats:
    """Distances between latents, (..., n, n).

    Parameters
    ----------
    latents
        Shape (..., n, d).
    settings
        Parameters of the head; ``None`` for a head fitted on cells, whose distances are angles.

    Raises
    ------
    BadInputError
        As ``latent_distances``.
    """
    return angular_distances(latents) if settings is None else latent_distances(latents, settings)

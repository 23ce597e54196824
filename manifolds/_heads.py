"""Heads of every kind that is fitted on anchors, by the same calls: LET heads and geodesic ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError
from ._geodesic import GeodesicHead, GeodesicSettings, fit_geodesic, geodesic_latents
from ._latent_distances import angular_distances, straight_distances
from ._let import LetHead, LetSettings, fit_in_row_space, fit_let, row_space
from ._let_many import fit_let_starts

Floats = NDArray[np.float64]
HeadSettings = LetSettings | GeodesicSettings
Head = LetHead | GeodesicHead


def fit_head(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
) -> Head:
    """Fit a head on anchors.

    Parameters
    ----------
    features
        Shape (n, p).
    distances
        Ruler distances, shape (n, n).
    settings
        Parameters of the fit, which say its kind.
    rng
        Draws what a LET fit draws; a geodesic one draws nothing.

    Raises
    ------
    BadInputError
        As ``fit_let`` and ``fit_geodesic``.

    Warns
    -----
    ZooWarning
        As ``fit_geodesic``.
    """
    if isinstance(settings, GeodesicSettings):
        return fit_geodesic(features, distances, settings)
    return fit_let(features, distances, settings, rng=rng)


def refit_latents(
    features: NDArray[np.floating],
    targets: NDArray[np.floating],
    settings: HeadSettings,
    *,
    rngs: Sequence[np.random.Generator],
    train: NDArray[np.integer] | None = None,
    rng: np.random.Generator | None = None,
) -> Floats:
    """Refit a head to each of several targets and place all rows.

    Parameters
    ----------
    features
        Shape (n, p).
    targets
        Ruler distances, one matrix per head, shape (B, n, n).
    settings
        Parameters of the heads.
    rngs
        One generator for each target: draws its start.
    train
        Rows to fit on; all by default.
    rng
        Draws the rotation that the LET fits share; a child of the first of ``rngs`` by default.

    Returns
    -------
    Latents, shape (B, n, d). Of a geodesic head they are the same for every target, and one array in memory.

    Raises
    ------
    BadInputError
        As ``row_space`` and ``fit_geodesic``, or if there is not one target for each generator.
    """
    n, given = len(features), np.shape(targets)
    if not len(rngs) or given != (len(rngs), n, n):
        raise BadInputError(f"targets have shape {given}, expected {(max(1, len(rngs)), n, n)}.")
    if isinstance(settings, GeodesicSettings):
        placed = geodesic_latents(features, settings, train=train)
        return np.broadcast_to(placed, (len(rngs), *placed.shape))
    shared = rngs[0].spawn(1)[0] if rng is None else rng
    space = row_space(features, settings, rng=shared, train=train)
    return fit_in_row_space(space, np.asarray(targets), settings, rngs=rngs).latents(space.rows)


def refit_starts(
    coordinates: NDArray[np.float32],
    distances: NDArray[np.floating],
    settings: HeadSettings,
    *,
    rngs: Sequence[np.random.Generator],
    train: NDArray[np.integer] | None = None,
    batch_size: int = 8,
) -> Floats:
    """Fit a head from each of several starts to each of many sets of coordinates, as ``fit_let_starts``.

    Parameters
    ----------
    coordinates
        ``(P, n, r)``, from ``feature_coordinates``: standardised and rotated, and taken as they are.
    distances
        Target distances, shared by all, ``(n, n)``.
    settings
        Of the fits.
    rngs
        One for each start.
    train
        Rows to fit on; all by default.
    batch_size
        Of LET fits; changes memory and speed alone.

    Returns
    -------
    Float64 ``(P, n_starts, n, d)``; of geodesic heads every start is the same.
    """
    if isinstance(settings, LetSettings):
        return fit_let_starts(coordinates, distances, settings, rngs=rngs, train=train, batch_size=batch_size)
    placed = [geodesic_latents(each, settings, train=train, standardise=False) for each in coordinates]
    return np.broadcast_to(np.stack(placed)[:, None], (len(placed), len(rngs), *placed[0].shape))


def latent_distances(latents: NDArray[np.floating], settings: HeadSettings) -> Floats:
    """Compute the distances between latents as their head means them.

    Parameters
    ----------
    latents
        Shape (n, d), or (B, n, d) for several heads.
    settings
        Of the head.

    Returns
    -------
    float64, shape (n, n) or (B, n, n): angles in radians under a LET head, Euclidean distances under a geodesic one.

    Raises
    ------
    BadInputError
        If a latent is not finite, or has no direction where angles are asked for.
    """
    return straight_distances(latents) if isinstance(settings, GeodesicSettings) else angular_distances(latents)


def least_rows(settings: HeadSettings) -> int:
    """Fewest rows that a head can be fitted on."""
    if isinstance(settings, GeodesicSettings):
        return max(3, 1 + max(settings.n_neighbours, settings.n_components))
    return 3

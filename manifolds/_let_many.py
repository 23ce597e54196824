"""LET heads on many feature matrices at once, over the same anchors and the same distances."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from ..cards._errors import BadInputError
from ._let import LetSettings, checked_distances, random_rotation
from ._let_kernel import optimise, unpack
from ._threads import in_threads

Float32 = NDArray[np.float32]

_DEPENDENT = 1e-5


def feature_coordinates(features: NDArray[np.floating], *, scale_floor: float) -> Float32:
    """Standardise features over all rows and write the rows in as few coordinates as there are rows.

    Parameters
    ----------
    features
        ``(n, p)``, any scale.
    scale_floor
        Floor of the scale of a feature, as a fraction of the median of those that vary.

    Returns
    -------
    Float32 ``(n, n)``: the rows in an orthonormal basis of their own span, zero beyond it. All distances and angles
    between rows are those of the standardised features, so that a head fitted to these is one fitted to them.

    Raises
    ------
    BadInputError
        If no feature varies, or a value is not finite.
    """
    x = np.asarray(features, dtype=np.float32)
    if not np.isfinite(x).all():
        raise BadInputError(f"features hold {int((~np.isfinite(x)).sum())} values that are not finite, expected none.")
    mean, spread = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    # far above the rounding of a float32 that should be constant
    varies = spread > 1e-6 * np.maximum(1e-30, np.abs(mean))
    if not varies.any():
        raise BadInputError(f"none of the {x.shape[1]} features varies over the rows, expected at least one.")
    scale = np.maximum(spread, scale_floor * np.median(spread[varies]))
    standard = (x - mean.astype(np.float32)) / scale.astype(np.float32)
    triangle = qr(standard.T, mode="r", overwrite_a=True, check_finite=False)[0][: len(x)]
    coordinates = np.zeros((len(x), len(x)), dtype=np.float32)
    coordinates[:, : len(triangle)] = triangle.T
    return coordinates


def fit_let_many(
    coordinates: Float32,
    distances: NDArray[np.floating],
    settings: LetSettings,
    *,
    rng: np.random.Generator,
    train: NDArray[np.integer] | None = None,
    batch_size: int = 8,
) -> NDArray[np.float64]:
    """Fit one head to each of many sets of coordinates and return the latents of all rows.

    Parameters
    ----------
    coordinates
        ``(B, n, r)``, from :func:`feature_coordinates`, one set for each problem.
    distances
        Target distances, shared by all, ``(n, n)``.
    settings
        Of the fits.
    rng
        Draws one rotation and one start, shared by all problems, so that they differ by their features alone.
    train
        Rows to fit on; all by default. The others are placed without having been seen by a fit.
    batch_size
        Problems optimised together; changes memory and speed alone.

    Returns
    -------
    Float64 ``(B, n, d)``.

    Raises
    ------
    BadInputError
        If shapes disagree or fewer than three rows are left to fit on.

    Notes
    -----
    Each problem is centred on its training rows and reduced to their span by a QR decomposition, in which the loss of
    ``fit_let`` is the same function of fewer parameters, and rotated at random as there.
    """
    latents = fit_let_starts(coordinates, distances, settings, rngs=[rng], train=train, batch_size=batch_size)
    return np.ascontiguousarray(latents[:, 0])


def fit_let_starts(
    coordinates: Float32,
    distances: NDArray[np.floating],
    settings: LetSettings,
    *,
    rngs: Sequence[np.random.Generator],
    train: NDArray[np.integer] | None = None,
    batch_size: int = 8,
) -> NDArray[np.float64]:
    """Fit a head from each of several starts to each of many sets of coordinates.

    Parameters
    ----------
    coordinates, distances, settings, train
        As for :func:`fit_let_many`.
    rngs
        One for each start: draws its rotation and where it begins, both shared by all problems.
    batch_size
        Fits optimised together, over problems and starts alike, batches in threads; changes memory and speed alone.

    Returns
    -------
    Float64 ``(B, n_starts, n, d)``; ``[:, s]`` is :func:`fit_let_many` with the ``s``-th generator.

    Raises
    ------
    BadInputError
        As :func:`fit_let_many`, or if there is no generator.
    """
    x = np.asarray(coordinates, dtype=np.float32)
    if x.ndim != 3:
        raise BadInputError(f"coordinates have shape {x.shape}, expected (B, n, r).")
    if not len(rngs):
        raise BadInputError("0 generators given, expected one for each start.")
    target = checked_distances(distances, x.shape[1]).astype(np.float32)
    index = np.arange(x.shape[1]) if train is None else np.asarray(train, dtype=np.intp)
    if index.size < 3:
        raise BadInputError(f"{index.size} training rows, expected at least 3.")
    d, rank = settings.n_components, index.size
    fitted_target = np.ascontiguousarray(target[np.ix_(index, index)])
    mean_target = fitted_target.sum(dtype=np.float64) / (rank * (rank - 1))
    rotations = np.empty((len(rngs), rank, rank), dtype=np.float32)
    starts = np.zeros((len(rngs), d * rank + rank + 1), dtype=np.float32)
    for rotation, start, rng in zip(rotations, starts, rngs, strict=True):
        rotation[...] = random_rotation(rank, rng)
        start[: d * rank] = rng.standard_normal(d * rank) / np.sqrt(rank)
    starts[:, -1] = np.log(max(mean_target, 1e-6) / (np.pi / 2))
    spans = [_in_training_span(problem, index) for problem in x]
    latents = np.empty((len(x) * len(rngs), x.shape[1], d), dtype=np.float64)

    def fit(first: int) -> None:
        problems, begun = np.divmod(np.arange(first, min(first + batch_size, len(latents))), len(rngs))
        rows = np.stack([spans[problem] @ rotations[start] for problem, start in zip(problems, begun, strict=True)])
        flat = starts[begun]
        targets = np.broadcast_to(fitted_target, (len(rows), rank, rank))
        optimise(np.ascontiguousarray(rows[:, index]), targets, flat, d, settings.alpha, settings.rates())
        weights, bias, _ = unpack(flat, d)
        latents[first : first + len(rows)] = (rows - bias[:, None, :]) @ weights.transpose(0, 2, 1)

    in_threads(fit, range(0, len(latents), batch_size))
    return latents.reshape(len(x), len(rngs), x.shape[1], d)


def _in_training_span(rows: Float32, train: NDArray[np.intp]) -> Float32:
    """All rows, centred on the training rows, in a basis of the span of those, ``(n, n_train)``."""
    centred = rows - rows[train].mean(axis=0)
    basis, triangle = qr(centred[train].T, mode="economic", check_finite=False)
    kept = _independent(triangle)
    if np.abs(triangle[~kept]).max(initial=0) > _DEPENDENT * np.abs(triangle).max(initial=0):
        # a row like an earlier one leaves a direction in between that later rows still need
        basis, triangle, _ = qr(centred[train].T, mode="economic", pivoting=True, check_finite=False)
        kept = _independent(triangle)
    placed = np.zeros((len(rows), len(train)), dtype=np.float32)
    placed[:, : int(kept.sum())] = centred @ basis[:, : len(kept)][:, kept]
    return placed


def _independent(triangle: Float32) -> NDArray[np.bool_]:
    """Which columns of the basis of a QR decomposition the rows need, judged by the diagonal."""
    size = np.abs(np.diagonal(triangle))
    return np.asarray(size > _DEPENDENT * max(float(size.max(initial=0)), 1e-30))

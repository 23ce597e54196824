"""Features of anchors, standardised on the rows that a head is fitted on, and the span of those."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError

Floats = NDArray[np.float64]

_RANK_TOLERANCE = 1e-6


def standard_rows(
    features: NDArray[np.floating], scale_floor: float | None, train: NDArray[np.integer] | None = None
) -> tuple[Floats, Floats, NDArray[np.intp], Floats, Floats]:
    """Standardise features on the training rows, and find the span of those.

    Parameters
    ----------
    features
        Shape (n, p), any scale.
    scale_floor
        See ``LetSettings``; ``None`` centres the features and leaves their scale as it is.
    train
        Index of the training rows; all rows by default.

    Returns
    -------
    All rows standardised, shape (n, p); orthonormal rows that span the training rows, the directions of most variance
    first, shape (r, p); the index of the training rows, shape (n_train,); mean and scale, shape (p,).

    Raises
    ------
    BadInputError
        If fewer than three rows are left for training, no feature varies among them, or a value is not finite.
    """
    x = checked_features(features)
    index = np.arange(len(x)) if train is None else np.asarray(train, dtype=np.intp)
    if index.size < 3:
        raise BadInputError(f"{index.size} training rows, expected at least 3.")
    fitted = x[index]
    mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        raise BadInputError(f"none of the {x.shape[1]} features varies over the training rows, expected at least one.")
    floor = None if scale_floor is None else scale_floor * np.median(spread[varies])
    scale = np.ones(x.shape[1]) if floor is None else np.maximum(spread, floor)
    standard = (x - mean) / scale
    _, singular, right = np.linalg.svd(standard[index], full_matrices=False)
    return standard, right[singular > _RANK_TOLERANCE * singular[0]], index, mean, scale


def checked_features(features: NDArray[np.floating]) -> Floats:
    """Return features as a float64 matrix.

    Raises
    ------
    BadInputError
        If they are no matrix with a row and a column, or a value is not finite.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise BadInputError(f"features have shape {x.shape}, expected (n, p) with n and p at least 1.")
    if not np.isfinite(x).all():
        raise BadInputError(f"features hold {int((~np.isfinite(x)).sum())} values that are not finite, expected none.")
    return x

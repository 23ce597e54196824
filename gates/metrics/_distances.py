"""Distances between rows: angles of latents, and Euclidean ones of features."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ...cards._errors import BadInputError

Floats = NDArray[np.float64]
Metric = Literal["euclidean", "angular"]
"""Distances between rows: Euclidean, or the angle between two as seen from the origin."""


def angular_distances(latents: NDArray[np.floating]) -> Floats:
    """Compute the angles between latents, in radians.

    Parameters
    ----------
    latents
        Shape (n, d), or (B, n, d) for several sets of latents.

    Returns
    -------
    float64, shape (n, n) or (B, n, n), with an exactly zero diagonal.

    Raises
    ------
    BadInputError
        If a latent is zero or not finite, so that it has no direction.
    """
    z = np.asarray(latents, dtype=np.float64)
    norm = np.linalg.norm(z, axis=-1, keepdims=True)
    if not np.isfinite(norm).all() or (norm == 0).any():
        bad = int((~np.isfinite(norm) | (norm == 0)).sum())
        raise BadInputError(f"{bad} latents are zero or not finite, expected directions.")
    unit = z / norm
    angles = np.arccos(np.clip(unit @ np.swapaxes(unit, -1, -2), -1.0, 1.0))
    index = np.arange(z.shape[-2])
    angles[..., index, index] = 0.0
    return np.asarray(angles)


def euclidean_distances(rows: NDArray[np.floating]) -> Floats:
    """Compute the Euclidean distances between rows, shape (n, p) to (n, n), in float64."""
    x = np.asarray(rows, dtype=np.float64)
    return np.asarray(cdist(x, x))


def distances_between(rows: NDArray[np.floating], metric: Metric) -> Floats:
    """Compute the distances between rows, shape (n, p) to (n, n), in float64."""
    check_metric(metric)
    return angular_distances(rows) if metric == "angular" else euclidean_distances(rows)


def check_metric(metric: str) -> None:
    """Raise ``BadInputError`` where there is no such metric."""
    if metric not in get_args(Metric):
        raise BadInputError(f"The metric is {metric!r}, expected one of {', '.join(get_args(Metric))}.")

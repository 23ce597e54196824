"""Distances between latents: angles as seen from the origin, and Euclidean ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ..cards._errors import BadInputError

Floats = NDArray[np.float64]


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


def straight_distances(latents: NDArray[np.floating]) -> Floats:
    """Compute the Euclidean distances between latents.

    Parameters
    ----------
    latents
        Shape (n, d), or (B, n, d) for several sets of latents.

    Returns
    -------
    float64, shape (n, n) or (B, n, n), with an exactly zero diagonal. Of sets that are one in memory, as of heads that
    read no target, so are the distances: they are computed once, and cannot be written to.

    Raises
    ------
    BadInputError
        If a latent is not finite.
    """
    z = np.asarray(latents, dtype=np.float64)
    if not np.isfinite(z).all():
        bad = int((~np.isfinite(z).all(axis=-1)).sum())
        raise BadInputError(f"{bad} latents are not finite, expected places.")
    if z.ndim == 2:
        return np.asarray(cdist(z, z))
    if len(z) > 1 and z.strides[0] == 0:
        return np.broadcast_to(straight_distances(z[0]), (*z.shape[:-1], z.shape[-2]))
    return np.stack([straight_distances(each) for each in z])

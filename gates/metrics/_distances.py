"""Distances between rows: angles of latents, and Euclidean ones of features."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ...cards._errors import BadInputError
from ...manifolds._latent_distances import angular_distances as angular_distances

Floats = NDArray[np.float64]
Metric = Literal["euclidean", "angular"]
"""Distances between rows: Euclidean, or the angle between two as seen from the origin."""


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

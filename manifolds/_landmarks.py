"""Placing points by the lengths of their paths to landmarks whose coordinates are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._adaptor import GEODESIC_KINDS, Adaptor
from ..cards._errors import BadInputError
from ._geodesic_settings import GeodesicSettings

Floats = NDArray[np.float64]

_BATCH = 1_024
"""Points at a time, so that their paths to some hundred landmarks stay in the cache."""
_CLOSE = 1e-6
"""Least distance of a point to a landmark in a step, as a part of the longest path."""


@dataclass(frozen=True, eq=False)
class Landmarks:
    """Points with known coordinates, and all that placing others by them needs.

    Attributes
    ----------
    places
        In the space that neighbours are found in, ``(m, r)``.
    geodesics
        Path lengths between landmarks, ``(m, m)``.
    coordinates
        Of the landmarks, ``(m, d)``.
    n_neighbours
        Landmarks that the paths of a point begin with.
    n_steps
        Steps towards the least stress; 0 stays where landmark MDS places a point.
    centre
        Mean of the coordinates, ``(d,)``.
    mean_square
        Mean over landmarks of the squared path lengths to each, ``(m,)``.
    linear
        Turns squared path lengths, less their means, into coordinates, ``(m, d)``.
    """

    places: Floats
    geodesics: Floats
    coordinates: Floats
    n_neighbours: int
    n_steps: int
    centre: Floats
    mean_square: Floats
    linear: Floats

    @classmethod
    def of(
        cls,
        places: NDArray[np.floating],
        geodesics: NDArray[np.floating],
        coordinates: NDArray[np.floating],
        n_neighbours: int,
        *,
        n_steps: int = 0,
    ) -> Landmarks:
        """Work out in float64 what is the same for every point; see :func:`place_by_landmarks`."""
        where, paths, given = (np.asarray(a, dtype=np.float64) for a in (places, geodesics, coordinates))
        m = len(where) if where.ndim == 2 else 0
        if not m or paths.shape != (m, m) or given.ndim != 2 or len(given) != m:
            raise BadInputError(
                f"landmarks have the shape {where.shape}, geodesics {paths.shape} and coordinates {given.shape}, "
                "expected (m, r), (m, m) and (m, d)."
            )
        if not 1 <= n_neighbours <= m:
            raise BadInputError(f"n_neighbours is {n_neighbours}, expected 1 to {m}, the number of landmarks.")
        centre, square = given.mean(axis=0), paths**2
        centred, mean_square = given - centre, square.mean(axis=0)
        triangulated = _inner_products(square, mean_square) @ np.linalg.pinv(centred).T
        # the identity where the coordinates are those of classical MDS, which gives them back
        turned = np.linalg.lstsq(triangulated, centred, rcond=None)[0]
        linear = np.linalg.pinv(centred).T @ turned
        return cls(where, paths, given, n_neighbours, n_steps, centre, mean_square, linear)

    def place(self, points: NDArray[np.floating]) -> Floats:
        """Place points ``(n, r)`` at their coordinates, float64 ``(n, d)``.

        Raises
        ------
        BadInputError
            If their width is not that of the landmarks.
        """
        given = np.asarray(points)
        if given.ndim != 2 or given.shape[1] != self.places.shape[1]:
            raise BadInputError(f"points have shape {given.shape}, the landmarks have {self.places.shape[1]} columns.")
        placed = np.empty((len(given), self.coordinates.shape[1]))
        for start in range(0, len(given), _BATCH):
            part = slice(start, start + _BATCH)
            placed[part] = self._place(given[part].astype(np.float64))
        return placed

    def _place(self, points: Floats) -> Floats:
        """Place one batch of points."""
        paths = self._paths(points)
        z = _inner_products(paths**2, self.mean_square) @ self.linear
        x, m = self.coordinates - self.centre, len(self.coordinates)
        least = _CLOSE * max(float(self.geodesics.max()), np.finfo(float).tiny)
        for _ in range(self.n_steps):
            pull = paths / np.maximum(_distances(z, x), least)
            z = (pull.sum(axis=1, keepdims=True) * z - pull @ x) / m
        return z + self.centre

    def _paths(self, points: Floats) -> Floats:
        """Lengths of the shortest paths to every landmark that begin with a nearest one, ``(n, m)``."""
        direct = _distances(points, self.places)
        k = self.n_neighbours
        nearest = np.argpartition(direct, k - 1, axis=1)[:, :k]
        first = np.take_along_axis(direct, nearest, axis=1)
        paths = self.geodesics[nearest[:, 0]] + first[:, :1]
        for column in range(1, k):
            np.minimum(paths, self.geodesics[nearest[:, column]] + first[:, column, None], out=paths)
        return paths


def place_by_landmarks(
    reduced: NDArray[np.floating],
    landmarks: NDArray[np.floating],
    geodesics: NDArray[np.floating],
    coordinates: NDArray[np.floating],
    n_neighbours: int,
    *,
    n_steps: int = 0,
) -> Floats:
    """Place points by the lengths of their paths to landmarks.

    Parameters
    ----------
    reduced
        Points in the space of the landmarks, ``(n, r)``.
    landmarks
        ``(m, r)``.
    geodesics
        Path lengths between landmarks, ``(m, m)``.
    coordinates
        Of the landmarks, ``(m, d)``.
    n_neighbours
        Landmarks that the paths of a point begin with: its nearest ones, at Euclidean distance.
    n_steps
        Steps from there towards the least stress; 0, for classical MDS, takes none.

    Returns
    -------
    Coordinates ``(n, d)``, float64.

    Raises
    ------
    BadInputError
        If shapes do not fit, or there are fewer landmarks than neighbours.

    Notes
    -----
    The path from a point to a landmark is the shortest that begins with one of its nearest landmarks (Tenenbaum, de
    Silva & Langford 2000). Its squared lengths give coordinates by landmark MDS (de Silva & Tenenbaum 2004),
    ``z = -1/2 X^+ (s - mean s)``, with the coordinates ``X`` of the landmarks. Where these come from classical MDS this
    is the Nystrom extension of Isomap (Bengio et al. 2004), ``sklearn.manifold.Isomap.transform``.

    Other coordinates are no eigenvectors, and this formula would scale their axes the wrong way round. What it gives is
    therefore turned by the matrix ``(d, d)`` that brings the landmarks nearest to their own coordinates by least
    squares, for classical MDS the identity; then every step is that of SMACOF (de Leeuw 1977), with the landmarks held:
    ``z <- mean_i (x_i + s_i (z - x_i) / |z - x_i|)``, which never raises the stress of the point. Both are our choice.
    """
    return Landmarks.of(landmarks, geodesics, coordinates, n_neighbours, n_steps=n_steps).place(reduced)


def stored_landmarks(tensors: Mapping[str, NDArray[Any]], adaptor: Adaptor) -> Landmarks | None:
    """Read the landmarks of an artifact; ``None`` where its head has none.

    Parameters
    ----------
    tensors
        With ``head.landmarks``, ``head.geodesics`` and ``head.coordinates``, of the shapes that the card implies.
    adaptor
        What the card says of the head.

    Raises
    ------
    FormatError
        If the card lacks a parameter of the head.
    BadInputError
        If a parameter is outside its range, or the path lengths are no distances.
    """
    if adaptor.kind not in GEODESIC_KINDS:
        return None
    settings, geodesics = GeodesicSettings.of(adaptor), tensors["head.geodesics"]
    if (geodesics < 0).any() or np.diag(geodesics).any() or not np.allclose(geodesics, geodesics.T, rtol=1e-5, atol=0):
        raise BadInputError("head.geodesics is not symmetric and positive beside a zero diagonal.")
    return Landmarks.of(
        tensors["head.landmarks"],
        geodesics,
        tensors["head.coordinates"],
        settings.n_neighbours,
        n_steps=settings.steps,
    )


def _inner_products(square: Floats, mean_square: Floats) -> Floats:
    """Inner products with centred landmarks that squared distances ``(n, m)`` imply, less their mean over landmarks."""
    products = -0.5 * (square - mean_square)
    return np.asarray(products - products.mean(axis=1, keepdims=True))


def _distances(rows: Floats, others: Floats) -> Floats:
    """Euclidean distances ``(n, m)`` by one product of matrices."""
    square = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1) - 2 * (rows @ others.T)
    return np.asarray(np.sqrt(np.maximum(square, 0)))

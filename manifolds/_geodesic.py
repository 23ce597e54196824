"""Geodesic heads: path lengths between anchors, laid out as they are, by Isomap or metric MDS.

The ruler plays no part in where anything lies, only in the scale of what is said of distances.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError, ZooWarning
from ._geodesic_settings import GeodesicKind
from ._geodesic_settings import GeodesicSettings as GeodesicSettings
from ._landmarks import Landmarks
from ._landmarks import place_by_landmarks as place_by_landmarks
from ._let import checked_distances
from ._standard_rows import checked_features, standard_rows

Floats = NDArray[np.float64]
_MOST_STEPS, _STILL = 300, 1e-6
_POSITIVE = 1e-9


@dataclass(frozen=True, eq=False)
class GeodesicHead:
    """Map features to latents: ``W ((x - mean) / scale - bias)``, then placed by paths to the anchors.

    Parameters
    ----------
    weights
        Shape (r, p): orthonormal, onto the span of the standardised anchors.
    bias
        Zeros, shape (p,), as other heads have one.
    mean, scale
        Shape (p,), fitted on the anchors; scale is floored.
    landmarks
        The anchors in the reduced space, their path lengths and coordinates.
    beta
        Ruler distance per unit of latent distance.
    loss
        Residual variance of ``isomap``, stress of ``geodesic-mds``.
    n_pieces
        Pieces of the neighbourhood graph, which were joined where they come closest; 1 where none had to be.
    """

    weights: Floats
    bias: Floats
    mean: Floats
    scale: Floats
    landmarks: Landmarks
    beta: float
    loss: float
    n_pieces: int

    def latent(self, features: NDArray[np.floating]) -> Floats:
        """Place feature rows, shape (m, p), in the latent space, shape (m, d).

        Raises
        ------
        BadInputError
            If the width of ``features`` is not that of the head, or a value is not finite.
        """
        checked = checked_features(features)
        if checked.shape[1] != self.mean.size:
            raise BadInputError(f"features have {checked.shape[1]} columns, the head expects {self.mean.size}.")
        return self.landmarks.place(((checked - self.mean) / self.scale - self.bias) @ self.weights.T)


def fit_geodesic(
    features: NDArray[np.floating], distances: NDArray[np.floating], settings: GeodesicSettings
) -> GeodesicHead:
    """Fit a geodesic head to anchors.

    Parameters
    ----------
    features
        Shape (n, p), any scale.
    distances
        Ruler distances, shape (n, n); only ``beta`` is read off them.
    settings
        Parameters of the fit.

    Raises
    ------
    BadInputError
        If there are no more anchors than neighbours, their path lengths have fewer dimensions than were asked for,
        shapes disagree, or values are not finite.

    Warns
    -----
    ZooWarning
        If the neighbourhood graph falls into pieces.

    Notes
    -----
    Features are standardised and rotated into the span of the anchors, in which all distances between anchors are
    those of the standardised features. What a new point has beside that span is the same towards every anchor, and is
    left out (our choice). Path lengths run along the graph of nearest neighbours (Tenenbaum, de Silva & Langford 2000;
    ``sklearn.manifold.Isomap``). ``isomap`` is classical MDS of them, with the residual variance ``1 - R^2`` between
    path lengths and latent distances as loss, as there; ``geodesic-mds`` is metric MDS by SMACOF (de Leeuw 1977;
    ``sklearn.manifold.smacof``) from there on, turned to its principal axes, with Stress-1 (Kruskal 1964) as loss.
    ``beta = sum d D / sum D^2`` over pairs of anchors, with ruler distances ``d`` and latent distances ``D`` of the
    anchors as the head places them: least squares through the origin. The paper (Kendiukhov, arXiv:2603.10261) names
    both methods and the numbers of neighbours, and says no more.
    """
    from scipy.spatial.distance import pdist, squareform

    x = checked_features(features)
    target = checked_distances(distances, len(x))
    reduction, landmarks, n_pieces = _lay_out(x, settings, None)
    if n_pieces > 1:
        warnings.warn(
            f"The graph of {settings.n_neighbours} nearest neighbours of {len(x)} anchors falls into {n_pieces} "
            "pieces, joined where they come closest: distances between two pieces rest on one pair of anchors. "
            "A larger n_neighbours may keep it in one.",
            ZooWarning,
            stacklevel=2,
        )
    apart = pdist(landmarks.place(landmarks.places))
    return GeodesicHead(
        weights=reduction.weights,
        bias=np.zeros(x.shape[1]),
        mean=reduction.mean,
        scale=reduction.scale,
        landmarks=landmarks,
        beta=float(squareform(target, checks=False) @ apart / (apart @ apart)),
        loss=_loss(landmarks, settings.kind),
        n_pieces=n_pieces,
    )


def geodesic_latents(
    features: NDArray[np.floating],
    settings: GeodesicSettings,
    *,
    train: NDArray[np.integer] | None = None,
    standardise: bool = True,
) -> Floats:
    """Fit a geodesic head to some rows and place all of them, shape (n, d).

    Parameters
    ----------
    features
        Shape (n, p).
    settings
        Parameters of the fit.
    train
        Rows to fit on; all by default.
    standardise
        Whether features are standardised on these rows; ``False`` for those that are already, and rotated.

    Raises
    ------
    BadInputError
        As :func:`fit_geodesic`. Pieces of the graph are joined without a warning.
    """
    reduction, landmarks, _ = _lay_out(features, settings, train, standardise=standardise)
    return landmarks.place(reduction.rows)


@dataclass(frozen=True, eq=False)
class _Reduction:
    """All rows in the span of the training rows, and the way there."""

    rows: Floats
    weights: Floats
    mean: Floats
    scale: Floats


def _lay_out(
    features: NDArray[np.floating],
    settings: GeodesicSettings,
    train: NDArray[np.integer] | None,
    *,
    standardise: bool = True,
) -> tuple[_Reduction, Landmarks, int]:
    """Reduce rows and lay out the training rows; also count the pieces of their graph."""
    floor = settings.scale_floor if standardise else None
    standard, span, index, mean, scale = standard_rows(features, floor, train)
    reduction = _Reduction(standard @ span.T, span, mean, scale)
    anchors = reduction.rows[index]
    if settings.n_neighbours >= len(anchors):
        raise BadInputError(
            f"n_neighbours is {settings.n_neighbours} for {len(anchors)} anchors, expected fewer neighbours than "
            "anchors.",
            f"Set n_neighbours to at most {len(anchors) - 1}, or give more anchors.",
        )
    geodesics, coordinates, n_pieces = _isomap(anchors, settings)
    if settings.kind == "geodesic-mds":
        coordinates = _metric_mds(geodesics, coordinates)
    landmarks = Landmarks.of(anchors, geodesics, coordinates, settings.n_neighbours, n_steps=settings.steps)
    return reduction, landmarks, n_pieces


def _isomap(anchors: Floats, settings: GeodesicSettings) -> tuple[Floats, Floats, int]:
    """Path lengths, their classical MDS, and the number of pieces of the graph."""
    from scipy.sparse import SparseEfficiencyWarning
    from scipy.sparse.csgraph import connected_components
    from sklearn.manifold import Isomap

    d, k = settings.n_components, settings.n_neighbours
    too_few = BadInputError(
        f"n_components is {d}, and the path lengths of {len(anchors)} anchors have no {d} dimensions.",
        "Ask for fewer n_components.",
    )
    if d >= len(anchors):
        raise too_few
    # the other solver starts at random
    isomap = Isomap(n_neighbors=k, n_components=d, eigen_solver="dense")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of connected components")
        warnings.simplefilter("ignore", SparseEfficiencyWarning)
        try:
            isomap.fit(anchors)
        # of checked input nothing else is refused than negative eigenvalues
        except ValueError as error:
            raise too_few from error
    size = isomap.kernel_pca_.eigenvalues_
    if len(size) < d or size[-1] <= _POSITIVE * size[0]:
        raise too_few
    n_pieces, _ = connected_components(isomap.nbrs_.kneighbors_graph(mode="connectivity"), directed=False)
    return np.asarray(isomap.dist_matrix_), np.asarray(isomap.embedding_), int(n_pieces)


def _metric_mds(geodesics: Floats, start: Floats) -> Floats:
    """Coordinates of least stress, from a start, centred and turned to their principal axes."""
    from sklearn.manifold import smacof
    from sklearn.utils.extmath import svd_flip

    even = (geodesics + geodesics.T) / 2
    # versions of scikit-learn differ in their defaults
    placed, _ = smacof(even, init=start, n_init=1, max_iter=_MOST_STEPS, eps=_STILL, normalized_stress=False)
    left, size, right = np.linalg.svd(placed - placed.mean(axis=0), full_matrices=False)
    left, _ = svd_flip(left, right)
    return np.asarray(left * size)


def _loss(landmarks: Landmarks, kind: GeodesicKind) -> float:
    """Residual variance or stress of the anchors."""
    from scipy.spatial.distance import pdist

    upper = np.triu_indices(len(landmarks.geodesics), 1)
    paths, apart = landmarks.geodesics[upper], pdist(landmarks.coordinates)
    if kind == "isomap":
        return float(1 - np.corrcoef(paths, apart)[0, 1] ** 2)
    return float(np.sqrt(((apart - paths) ** 2).sum() / (apart**2).sum()))

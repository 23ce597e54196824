"""Shape of a set of points: how many dimensions it fills, and how well its distances fit a ruler."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ._agreement import Pairs, Statistic, all_pairs, distance_spearman
from ._distances import Metric, distances_between, euclidean_distances

Floats = NDArray[np.float64]

_RANK_TOLERANCE = 1e-9


def effective_dimension(points: NDArray[np.floating]) -> float:
    """Count the dimensions that points fill.

    Parameters
    ----------
    points
        Shape (n, d).

    Returns
    -------
    1, where all points lie on a line, to d, where they vary alike in all directions.

    Raises
    ------
    BadInputError
        If the shape is another, a value is not finite, or the points do not vary.

    Notes
    -----
    The participation ratio ``(sum_i l_i)^2 / sum_i l_i^2`` of the eigenvalues of the covariance (Abbott, Rajan &
    Sompolinsky 2011; Gao et al. 2017). Directions that vary little hardly count, so that it is no rank.
    """
    size = _spectrum(points)[1] ** 2
    return float(size.sum() ** 2 / (size**2).sum())


def stress(
    latent_distances: NDArray[np.floating], ruler_distances: NDArray[np.floating], pairs: Pairs | None = None
) -> float:
    """Measure what no common scale takes away of the difference between latent and ruler distances.

    Parameters
    ----------
    latent_distances, ruler_distances
        Shape (n, n), in any units.
    pairs
        Pairs to compare, all by default.

    Returns
    -------
    0 for distances in proportion, to 1.

    Raises
    ------
    BadInputError
        If shapes differ, there are no pairs, a value is negative or not finite, or all distances of a side are 0.

    Notes
    -----
    Stress-1 of Kruskal (1964), ``sqrt(sum (d_ij - b r_ij)^2 / sum d_ij^2)``, over latent distances ``d`` and ruler
    distances ``r``, with ``b = sum d r / sum r^2`` as the only freedom (ratio scaling) where Kruskal allows any
    increasing function. At that ``b`` it is ``sqrt(1 - (sum d r)^2 / (sum d^2 sum r^2))``, the same whichever side is
    scaled.
    """
    latent, ruler = (np.asarray(given, dtype=np.float64) for given in (latent_distances, ruler_distances))
    n = len(latent) if latent.ndim else 0
    if latent.shape != (n, n) or ruler.shape != (n, n):
        raise BadInputError(f"distances have shapes {latent.shape} and {ruler.shape}, expected (n, n) twice.")
    chosen = all_pairs(n) if pairs is None else pairs
    if not len(chosen):
        raise BadInputError("0 pairs to compare, expected at least 1.")
    d, r = (_in_units(chosen.of(given)) for given in (latent, ruler))
    return min(1.0, float(np.linalg.norm(d - (d @ r) * r)))


def pca_margin(
    features: NDArray[np.floating],
    latent: NDArray[np.floating],
    ruler_distances: NDArray[np.floating],
    *,
    d: int,
    pairs: Pairs | None = None,
    statistic: Statistic = distance_spearman,
    latent_metric: Metric = "angular",
) -> float:
    """Compare the agreement of a latent with a ruler to that of the first principal components of the features.

    Parameters
    ----------
    features
        Shape (n, p). They are centred and not scaled, so that the margin depends on no setting of a head.
    latent
        Shape (n, any number).
    ruler_distances
        Shape (n, n).
    d
        Principal components, at most the rank of the centred features.
    pairs
        Pairs to compare, all by default, the same for both.
    statistic
        How to compare them, the same for both.
    latent_metric
        Distance of the latent. Principal components are always held to their Euclidean distances, which are what they
        keep; angles about their mean would depend on how the panel is composed (our choice).

    Returns
    -------
    Statistic of the latent less that of the principal components: positive where the latent agrees better.

    Raises
    ------
    BadInputError
        If lengths disagree, values are not finite, or the features have fewer than ``d`` components.

    Notes
    -----
    The margin over a PCA as reported for the communication ruler (Kendiukhov, arXiv:2603.10261), whose definition is
    not given. A latent that was fitted to the ruler on the same points has an advantage that principal components do
    not.
    """
    ruler = np.asarray(ruler_distances, dtype=np.float64)
    n = len(latent)
    if len(features) != n or ruler.shape != (n, n):
        raise BadInputError(
            f"{len(features)} rows of features, {n} of the latent and a ruler of shape {ruler.shape} do not match."
        )
    directions, size = _spectrum(features)
    check_components(d, size)
    chosen = all_pairs(n) if pairs is None else pairs
    components = euclidean_distances(directions[:, :d] * size[:d])
    own = statistic(distances_between(latent, latent_metric), ruler, chosen)
    return float(own - statistic(components, ruler, chosen))


def principal_coordinates(features: NDArray[np.floating], others: NDArray[np.floating], *, d: int) -> Floats:
    """Place other rows by the first principal components of some.

    Parameters
    ----------
    features
        What the components are those of, shape (n, p); centred and not scaled.
    others
        Rows to place, shape (m, p); centred by the mean of the former.
    d
        Principal components, at most the rank of the centred features.

    Returns
    -------
    Shape (m, d), as ``sklearn.decomposition.PCA(d).fit(features).transform(others)`` up to signs.

    Raises
    ------
    BadInputError
        If shapes disagree, values are not finite, or the features have fewer than ``d`` components.
    """
    seen, new = np.asarray(features, dtype=np.float64), np.asarray(others, dtype=np.float64)
    if new.ndim != 2 or seen.shape[1:] != new.shape[1:] or not np.isfinite(new).all():
        raise BadInputError(f"others have shape {new.shape}, expected finite rows as those of {seen.shape}.")
    directions, size = _spectrum(seen)
    check_components(d, size)
    mean = seen.mean(axis=0)
    axes = directions[:, :d].T @ (seen - mean) / size[:d, None]
    return np.asarray((new - mean) @ axes.T)


def check_components(d: int, size: Floats) -> None:
    """Raise ``BadInputError`` where there are not so many principal components, given all singular values."""
    rank = int((size > _RANK_TOLERANCE * size[0]).sum())
    if not 1 <= d <= rank:
        raise BadInputError(f"d is {d}, expected 1 to {rank}, the rank of the features.")


def _spectrum(points: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Left singular vectors and singular values of centred points, shapes (n, r) and (r,), falling."""
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2:
        raise BadInputError(f"points have shape {x.shape}, expected (n, d) with n at least 2.")
    if not np.isfinite(x).all():
        raise BadInputError(f"points hold {int((~np.isfinite(x)).sum())} values that are not finite, expected none.")
    if not np.ptp(x, axis=0).any():
        raise BadInputError(f"All {len(x)} points are the same, expected some that vary.")
    left, size, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return np.asarray(left), np.asarray(size)


def _in_units(distances: Floats) -> Floats:
    """Divide distances by their length as a vector."""
    if not np.isfinite(distances).all() or (distances < 0).any():
        raise BadInputError(
            f"distances hold {distances.min()} to {distances.max()}, expected finite values of at least 0."
        )
    length = np.linalg.norm(distances)
    if length == 0:
        raise BadInputError(f"All {len(distances)} distances are 0, expected some apart.")
    return np.asarray(distances / length)

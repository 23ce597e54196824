"""Geometry of the shipped head on the extraction panel: figures that inform and decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record
from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..metrics import (
    all_pairs,
    distance_kendall,
    distance_pearson,
    distance_spearman,
    effective_dimension,
    geodesic_correlation,
    geodesic_distances,
    pca_margin,
    residualised_correlation,
    shared_labels,
    stress,
)
from ..metrics._distances import Metric
from ..metrics._residualised import N_FOLDS
from ..refits._refits import distances_under, reads_ruler

GEODESIC_NEIGHBOURS = (10, 15, 20)
"""Neighbours of the graph, as published for the communication ruler: the first that keeps it in one piece."""
IN_SAMPLE = "figures of the shipped head on the anchors that it was fitted on, which prove nothing"
WITHOUT_RULER = (
    "figures of the shipped head on the anchors that it was laid out from without the ruler; they decide nothing"
)
PCA_BESIDE = (2, 6)
"""Principal components that margins are shown over besides as many as the head has: 2 as published, 6 our choice."""

Detail = float | int | str | bool | None


def geometry_records(
    data: GateData, latent: NDArray[np.floating], *, seed: int, settings: HeadSettings | None = None
) -> list[Record]:
    """Describe the geometry of the shipped head on the extraction panel, without any verdict.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    seed
        Deals the anchors into the folds of the residualised correlation.
    settings
        Parameters of the head, which decide what distance there is between latents: the angle, or the Euclidean
        distance of a geodesic head. Without them it is the angle.

    Returns
    -------
    One record, ``shipped_geometry``, that never decides: ``cannot decide``, as no threshold is published for any of
    its figures and a head that was fitted to the ruler on these anchors would reach one for shuffled labels too. A
    figure that the panel does not allow gives the reason in its place.

    Raises
    ------
    BadInputError
        If the latent has another number of rows than the panel.

    Notes
    -----
    Compared are latent and ruler distances over all pairs of anchors. Residualised: what shared donor, study and
    tissue explain is taken out (``residualised_correlation``); geodesic: latent distances are added up along a graph of
    nearest neighbours, 10, 15 or 20, whichever first ties all anchors together (our choice); margins: over the first 2,
    6 and d principal components of the features.
    """
    given, n = np.asarray(latent, dtype=np.float64), len(data.features)
    if given.ndim != 2 or len(given) != n:
        raise BadInputError(f"latent has shape {given.shape}, expected {n} rows of two dimensions.")
    ruler, d, rng = np.asarray(data.distances, dtype=np.float64), given.shape[1], np.random.default_rng(seed)
    features, pairs = np.asarray(data.features), all_pairs(n)
    covariates = shared_labels(data.donor_ids, data.study, data.tissue)
    # computed once, and inside a figure, so that what the panel does not allow is told there
    apart = cache(lambda: distances_under(given, settings))
    k = cache(lambda: neighbours_that_connect(apart()))
    fitted = settings is None or reads_ruler(settings)
    metric: Metric = "angular" if fitted else "euclidean"
    figures: dict[str, Callable[[], float]] = {
        "pearson": lambda: float(distance_pearson(apart(), ruler, pairs)),
        "spearman": lambda: float(distance_spearman(apart(), ruler, pairs)),
        "kendall": lambda: float(distance_kendall(apart(), ruler, pairs)),
        "residualised_spearman": lambda: float(residualised_correlation(apart(), ruler, covariates, pairs, rng=rng)),
        "geodesic_k": k,
        "geodesic_spearman": lambda: geodesic_correlation(apart(), ruler, k=k()),
        "stress": lambda: stress(apart(), ruler),
        "effective_dimension": lambda: effective_dimension(given),
    }
    for size in sorted({*PCA_BESIDE, d}):
        figures[f"margin_over_pca_{size}"] = partial(pca_margin, features, given, ruler, d=size, latent_metric=metric)
    details: dict[str, Detail] = {"n_components": d, "residualised_folds": N_FOLDS}
    details |= {name: figure_or_reason(figure) for name, figure in figures.items()}
    return [
        Record(
            gate="shipped_geometry",
            status="cannot decide",
            reason=IN_SAMPLE if fitted else WITHOUT_RULER,
            decides=False,
            n=n,
            seed=seed,
            details=details,
        )
    ]


def neighbours_that_connect(distances: NDArray[np.float64]) -> int:
    """The first number of neighbours whose graph is in one piece."""
    for k in GEODESIC_NEIGHBOURS[:-1]:
        try:
            geodesic_distances(distances, k=k)
        except BadInputError:
            continue
        return k
    return GEODESIC_NEIGHBOURS[-1]


def figure_or_reason(figure: Callable[[], float]) -> float | str:
    """Compute a figure, or say why there is none."""
    try:
        value = figure()
    except BadInputError as error:
        return error.message
    return value if np.isfinite(value) else "a side does not vary"

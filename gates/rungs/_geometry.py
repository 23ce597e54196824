"""Geometry of the shipped head on the extraction panel: figures that inform and decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record
from .._gate_data import GateData
from ..metrics import (
    all_pairs,
    angular_distances,
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
from ..metrics._residualised import N_FOLDS

GEODESIC_NEIGHBOURS = (10, 15, 20)
"""Neighbours of the graph, as published for the communication ruler: the first that keeps it in one piece."""
IN_SAMPLE = "figures of the shipped head on the anchors that it was fitted on, which prove nothing"

Detail = float | int | str | bool | None


def geometry_records(data: GateData, latent: NDArray[np.floating], *, seed: int) -> list[Record]:
    """Describe the geometry of the shipped head on the extraction panel, without any verdict.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    seed
        Deals the anchors into the folds of the residualised correlation.

    Returns
    -------
    One record, ``shipped_geometry``, that never decides: ``cannot decide``, as no threshold is published for any of
    its figures and a head that was fitted on these anchors would reach one for shuffled labels too. A figure that the
    panel does not allow gives the reason in its place.

    Raises
    ------
    BadInputError
        If the latent has another number of rows than the panel.

    Notes
    -----
    Compared are latent angles and ruler distances over all pairs of anchors. Residualised: what shared donor, study and
    tissue explain is taken out (``residualised_correlation``); geodesic: latent angles are added up along a graph of
    nearest neighbours, 10, 15 or 20, whichever first ties all anchors together (our choice); margins: over the first 2
    and the first d principal components of the features.
    """
    given, n = np.asarray(latent, dtype=np.float64), len(data.features)
    if given.ndim != 2 or len(given) != n:
        raise BadInputError(f"latent has shape {given.shape}, expected {n} rows of two dimensions.")
    ruler, d, rng = np.asarray(data.distances, dtype=np.float64), given.shape[1], np.random.default_rng(seed)
    features, pairs = np.asarray(data.features), all_pairs(n)
    covariates = shared_labels(data.donor_ids, data.study, data.tissue)
    # computed once, and inside a figure, so that what the panel does not allow is told there
    angles = cache(lambda: angular_distances(given))
    k = cache(lambda: _neighbours_that_connect(angles()))
    figures: dict[str, Callable[[], float]] = {
        "pearson": lambda: float(distance_pearson(angles(), ruler, pairs)),
        "spearman": lambda: float(distance_spearman(angles(), ruler, pairs)),
        "kendall": lambda: float(distance_kendall(angles(), ruler, pairs)),
        "residualised_spearman": lambda: float(residualised_correlation(angles(), ruler, covariates, pairs, rng=rng)),
        "geodesic_k": k,
        "geodesic_spearman": lambda: geodesic_correlation(angles(), ruler, k=k()),
        "stress": lambda: stress(angles(), ruler),
        "effective_dimension": lambda: effective_dimension(given),
        "margin_over_pca_2": lambda: pca_margin(features, given, ruler, d=2),
        f"margin_over_pca_{d}": lambda: pca_margin(features, given, ruler, d=d),
    }
    details: dict[str, Detail] = {"n_components": d, "residualised_folds": N_FOLDS}
    details |= {name: _figure_or_reason(figure) for name, figure in figures.items()}
    return [
        Record(
            gate="shipped_geometry",
            status="cannot decide",
            reason=IN_SAMPLE,
            decides=False,
            n=n,
            seed=seed,
            details=details,
        )
    ]


def _neighbours_that_connect(distances: NDArray[np.float64]) -> int:
    """The first number of neighbours whose graph is in one piece."""
    for k in GEODESIC_NEIGHBOURS[:-1]:
        try:
            geodesic_distances(distances, k=k)
        except BadInputError:
            continue
        return k
    return GEODESIC_NEIGHBOURS[-1]


def _figure_or_reason(figure: Callable[[], float]) -> float | str:
    """Compute a figure, or say why there is none."""
    try:
        value = figure()
    except BadInputError as error:
        return error.message
    return value if np.isfinite(value) else "a side does not vary"

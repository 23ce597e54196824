"""Geometry of the shipped head on a panel that nothing was fitted to: figures that inform and decide nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import Record
from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..metrics import all_pairs, distance_spearman, euclidean_distances, geodesic_correlation, principal_coordinates
from ..refits._refits import distances_under
from ._geometry import PCA_BESIDE, Detail, figure_or_reason, neighbours_that_connect

MIN_ANCHORS = 10
"""Fewer anchors of a panel than this cannot decide anything, and say nothing; our choice."""
BESIDE = "how the head as shipped and principal components of the extraction panel follow the ruler here; shown beside"


def transfer_geometry_record(
    gate: str,
    inside: GateData,
    data: GateData,
    latent: NDArray[np.floating],
    settings: HeadSettings | None,
    *,
    seed: int,
) -> Record:
    """Hold the shipped head against principal components on a panel that neither was fitted to.

    Parameters
    ----------
    gate
        Name of the record.
    inside
        The extraction panel, whose features the principal components are those of.
    data
        The other panel; its features are those of the same operator.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    settings
        Parameters of the head; ``None`` for a head fitted on cells, whose distances are angles.
    seed
        Of the record; nothing is drawn.

    Returns
    -------
    One record that never decides: Spearman correlations over all pairs of anchors of latent and ruler distance, and of
    Euclidean distance on the first 2, 6 and d principal components and the ruler; their differences, the margins; and
    the geodesic correlation, as on the extraction panel. A figure that the panel does not allow gives the reason in its
    place.

    Notes
    -----
    Principal components are those of the centred, unscaled features of the extraction anchors, applied to the other
    panel as they are: both sides are frozen, so that neither is ahead by having seen the panel. The head has seen the
    ruler, and principal components have not, unless the head does not read it either.
    """
    ruler, d = np.asarray(data.distances, dtype=np.float64), np.asarray(latent).shape[1]
    pairs = all_pairs(len(ruler))
    if len(ruler) < MIN_ANCHORS:
        return _open(gate, f"{len(ruler)} anchors, expected at least {MIN_ANCHORS}", len(ruler), seed, {})
    # computed once, and inside a figure, so that what the panel does not allow is told there
    apart = cache(lambda: distances_under(np.asarray(latent, dtype=np.float64), settings))
    k = cache(lambda: neighbours_that_connect(apart()))
    own = cache(lambda: float(distance_spearman(apart(), ruler, pairs)))

    def by_components(size: int) -> float:
        placed = principal_coordinates(inside.features, data.features, d=size)
        return float(distance_spearman(euclidean_distances(placed), ruler, pairs))

    sizes = sorted({*PCA_BESIDE, d})
    figures: dict[str, Callable[[], float]] = {
        "spearman": own,
        "geodesic_k": k,
        "geodesic_spearman": lambda: geodesic_correlation(apart(), ruler, k=k()),
    }
    figures |= {f"pca_{size}_spearman": _bound(by_components, size) for size in sizes}
    figures |= {f"margin_over_pca_{size}": _bound(lambda size: own() - by_components(size), size) for size in sizes}
    details: dict[str, Detail] = {"n_components": d, "n_pairs": len(pairs)}
    details |= {name: figure_or_reason(figure) for name, figure in figures.items()}
    return _open(gate, BESIDE, len(ruler), seed, details)


def _bound(figure: Callable[[int], float], size: int) -> Callable[[], float]:
    """A figure of a number of components, with that number."""
    return lambda: figure(size)


def _open(gate: str, reason: str, n: int, seed: int, details: dict[str, Detail]) -> Record:
    """The record, without a verdict."""
    return Record(gate=gate, status="cannot decide", reason=reason, decides=False, n=n, seed=seed, details=details)

"""What is held against LIANA's ranking: closeness of cell types by a manifold, a ruler, expression or size.

Every measure is a closeness, more is closer: distances are negated. Symmetric ones are ``(n, n)`` arrays that equal
their transpose, directed ones have senders as rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA

from manifoldzoo.cards._errors import LowCoverageError

from .ranking import Ranking, Timer
from .studies import GROUP, Study, means

if TYPE_CHECKING:
    from manifoldzoo import Manifold

Floats = NDArray[np.float64]
KEY = "placed"
COMPONENTS = (2, 6)
"""Components of the PCA that are compared, beside as many as the manifold has."""
MANIFOLD, RULER, HUBS, CELLS = "manifold", "ruler", "ligands and receptors", "cells"


@dataclass(frozen=True, eq=False)
class Placed:
    """Predicted distances of a manifold between the cell types of a study.

    ``distances`` is ``None``, and ``reason`` says why, where the study measures too few genes of the manifold.
    """

    distances: Floats | None
    seconds: dict[str, float]
    reason: str = ""


def place(manifold: Manifold, study: Study) -> Placed:
    """Predict the distances as a user would, and time it."""
    cells = study.cells.copy()
    timer = Timer()
    try:
        manifold.transform(cells, key_added=KEY, scale="log1p", groupby=GROUP)
    except LowCoverageError as error:
        return Placed(None, timer.seconds(), error.message)
    seconds, told = timer.seconds(), cells.uns[KEY]
    order = [list(told["groups"]).index(name) for name in study.groups]
    return Placed(np.asarray(told["group_distances"], dtype=np.float64)[np.ix_(order, order)], seconds)


def symmetric(manifold: Manifold, study: Study, ranking: Ranking, placed: Placed) -> dict[str, Floats]:
    """Name every closeness that does not tell senders from receivers."""
    found = {} if placed.distances is None else {MANIFOLD: -placed.distances}
    found |= {name: -apart for name, apart in by_expression(manifold, study).items()}
    found[RULER] = -manifold.ruler.distances(study.groups)
    directed = by_hubs(ranking.ligands, ranking.receptors)
    found |= {name: both_ways(closeness) for name, closeness in directed.items()}
    return found | {CELLS: np.outer(study.sizes, study.sizes).astype(float)}


def by_expression(manifold: Manifold, study: Study) -> dict[str, Floats]:
    """Distances between the mean profiles of cell types, over the genes of the manifold that the study measures.

    Principal components are those of the anchors that the manifold was fitted to, over the same genes.
    """
    position = study.cells.var_names.get_indexer(list(manifold.genes.symbols))
    there = position >= 0
    profiles = means(study)[:, position[there]]
    anchors = np.asarray(manifold.tensors["panel.anchors"], dtype=np.float64)[:, there]
    wanted = sorted({*COMPONENTS, manifold.n_components})
    found = {}
    for k in (k for k in wanted if k <= min(anchors.shape)):
        fitted = PCA(n_components=k, svd_solver="full").fit(anchors)
        found[f"PCA-{k}"] = squareform(pdist(fitted.transform(profiles)))
    found["expression, correlation"] = squareform(pdist(profiles, "correlation"))
    found["expression, Euclidean"] = squareform(pdist(profiles))
    return found


def by_hubs(ligands: NDArray[np.int64], receptors: NDArray[np.int64]) -> dict[str, Floats]:
    """Know nothing of partners: expressed ligands of the sender, expressed receptors of the receiver."""
    return {
        f"{HUBS}, product": np.outer(ligands, receptors).astype(float),
        f"{HUBS}, sum": np.add.outer(ligands, receptors).astype(float),
    }


def ruler_nulls(manifold: Manifold, groups: list[str]) -> list[Floats]:
    """Closeness by each paired null ruler that travels with the manifold."""
    tables = getattr(manifold.ruler, "null_tables", ())
    # the generators are drawn from only by rulers whose nulls do not travel with them
    rngs = [np.random.default_rng(number) for number in range(len(tables))]
    return [-null.distances(groups) for null in (manifold.ruler.nulls(rngs) if rngs else [])]


def directed(manifold: Manifold, study: Study, ranking: Ranking, placed: Placed) -> dict[str, Floats]:
    """Name the closeness of senders to receivers, and beside it the manifold's, which is the same both ways."""
    found = {} if placed.distances is None else {MANIFOLD: -placed.distances}
    if hasattr(manifold.ruler, "directed_distances"):
        found[f"{RULER}, directed"] = -manifold.ruler.directed_distances(study.groups, study.groups)
    found[f"{RULER}, both ways"] = -manifold.ruler.distances(study.groups)
    return found | by_hubs(ranking.ligands, ranking.receptors)


def both_ways(matrix: Floats) -> Floats:
    """Mean of both directions, as the ruler's."""
    return np.asarray((matrix + matrix.T) / 2)

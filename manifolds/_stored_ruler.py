"""The ruler of an artifact: a graph stands on the card, the tables of an interaction ruler are tensors beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card
from ..cards._errors import FormatError
from ._interaction_ruler import InteractionRuler
from ._ruler import Edge, Stage, StageRuler
from ._ruler_interface import Ruler

DISTANCES, DIRECTED, NULLS = "ruler.distances", "ruler.directed", "ruler.nulls"


def ruler_tensors(ruler: Ruler) -> dict[str, NDArray[np.float32]]:
    """Tensors that a ruler travels as, float32; none of a stage graph.

    Returns
    -------
    ``ruler.distances`` ``(n, n)``, both directions averaged; ``ruler.directed`` ``(n, n)``, row = sender, column =
    receiver; ``ruler.nulls`` ``(n_nulls, n, n)``, the directed distances of the paired nulls.
    """
    if not isinstance(ruler, InteractionRuler):
        return {}
    return {DISTANCES: ruler.table, DIRECTED: ruler.directed, NULLS: ruler.null_tables}


def ruler_shapes(card: Card) -> dict[str, tuple[int, ...]]:
    """Shapes of the ruler's tensors that a card implies."""
    told = card.ruler.interaction
    if told is None:
        return {}
    n = len(card.ruler.stages)
    return {DISTANCES: (n, n), DIRECTED: (n, n), NULLS: (told.n_nulls, n, n)}


def stored_ruler(card: Card, tensors: Mapping[str, NDArray[Any]]) -> Ruler:
    """Build the ruler from what an artifact holds.

    Raises
    ------
    FormatError
        If it is no ruler, or its distances are not the mean of both directions.
    """
    told = card.ruler
    stages = tuple(Stage(s.id, s.label, s.ontology_id, s.branch) for s in told.stages)
    if told.interaction is None:
        edges = tuple(Edge(e.child, e.parent, e.source) for e in told.edges)
        # a card without a root is refused where it is read
        return StageRuler(told.name, told.version, stages, edges, told.root or "")
    ruler = InteractionRuler(told.name, told.version, stages, tensors[DIRECTED], tensors[NULLS])
    if not np.array_equal(ruler.table, tensors[DISTANCES]):
        raise FormatError(f"The tensor {DISTANCES!r} is not the mean of both directions of {DIRECTED!r}.")
    return ruler

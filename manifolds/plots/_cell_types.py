"""Cell types of an interaction ruler in figures: which ruler, in what order, and under what names."""

from __future__ import annotations

from collections.abc import Sequence

from ...cards._errors import BadInputError
from .._interaction_ruler import InteractionRuler
from .._manifold import Manifold
from .._ruler import Stage
from .._ruler_interface import Ruler

_LONGEST = 36


def interaction_ruler(manifold_or_ruler: Manifold | Ruler) -> InteractionRuler:
    """The ruler of a figure about communication.

    Raises
    ------
    BadInputError
        If it measures something else.
    """
    ruler = manifold_or_ruler.ruler if isinstance(manifold_or_ruler, Manifold) else manifold_or_ruler
    if not isinstance(ruler, InteractionRuler):
        raise BadInputError(
            f"The ruler {ruler.name!r} has no directed distances: it is no table of interactions.",
            "Draw a stage graph with `stage_graph`.",
        )
    return ruler


def by_branch(ruler: Ruler, names: Sequence[str]) -> list[str]:
    """Order names: stages of the ruler by broad class and then as the ruler has them, and others after them."""
    stages: dict[str, Stage] = {stage.id: stage for stage in ruler.stages}
    branches = list(dict.fromkeys(stage.branch for stage in ruler.stages))
    place = {name: (branches.index(stage.branch), index) for index, (name, stage) in enumerate(stages.items())}
    return sorted(names, key=lambda name: place.get(name, (len(branches), 0)))


def short_labels(stages: Sequence[Stage]) -> dict[str, str]:
    """Label of each stage by its id, without what follows in brackets or after a comma; the id if that is long.

    Where two stages would be called the same, both have their labels as they are.
    """
    short = {}
    for stage in stages:
        label = stage.label.split(" (")[0].split(", ")[0].strip()
        short[stage.id] = label if 0 < len(label) <= _LONGEST else stage.id.replace("_", " ")
    taken = list(short.values())
    return {stage.id: short[stage.id] if taken.count(short[stage.id]) == 1 else stage.label for stage in stages}

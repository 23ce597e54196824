"""The conformance kit for rulers: real ones pass, and each broken one is caught by the checks meant for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_ruler

from manifoldzoo.extractors.testing import ConformanceError, check_ruler, ruler_checks
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler, read_stage_ruler

# what a card holds of a ruler is a graph: distances that do not come from it are lost there
NOT_IN_A_CARD = {"round_trip", "relabelled"}


def subclass(**functions):
    """The tiny ruler with some of its functions replaced."""
    kind = type("Broken", (StageRuler,), functions)
    tiny = tiny_ruler()
    return kind(tiny.name, tiny.version, tiny.stages, tiny.edges, tiny.root)


def moved(change):
    """Distances with a matrix over all stages changed."""

    def distances(self, stages):
        names = [stage.id for stage in self.stages]
        whole = change(StageRuler.distances(self, names).copy())
        index = self._index(stages)
        return whole[np.ix_(index, index)]

    return {"distances": distances}


def put(*entries):
    def change(matrix):
        for row, column, value in entries:
            matrix[row, column] = value
        return matrix

    return change


def with_stage(**changes):
    """The tiny ruler with its last stage changed."""
    tiny = tiny_ruler()
    return replace(tiny, stages=(*tiny.stages[:-1], replace(tiny.stages[-1], **changes)))


def with_source(source):
    tiny = tiny_ruler()
    return replace(tiny, edges=(*tiny.edges[:-1], replace(tiny.edges[-1], source=source)))


def deeper(self, stages):
    return StageRuler.depth(self, stages) + 1


def from_the_leaf(self, stages):
    return self.distances(["left_3", *stages])[0, 1:]


def forgiving(self, stages):
    known = [name for name in stages if name in self._position]
    return StageRuler.branch(self, known)


def fresh_digest():
    calls = iter(range(1000))
    return property(lambda _: f"{next(calls):064x}")


def relabelled_as_it_was(self, *, rng):
    return replace(tiny_ruler(), name="tiny-relabelled")


def relabelled_by_chance(self, *, rng):
    return tiny_ruler().relabelled(rng=np.random.default_rng())


LAST = 5
BROKEN = {
    "no name": (replace(tiny_ruler(), name=" "), {"names"}),
    "no version": (replace(tiny_ruler(), version=""), {"names"}),
    "one stage": (StageRuler("one", "1", (Stage("a", "A", "", "arm"),), (), "a"), {"stages"}),
    "no label": (with_stage(label=""), {"stages"}),
    "no branch": (with_stage(branch=" "), {"stages"}),
    "an ontology id of another form": (with_stage(ontology_id="CL:37"), {"stages"}),
    "a step from nowhere": (with_source(""), {"stages"}),
    "single precision": (subclass(distances=lambda s, n: StageRuler.distances(s, n).astype(np.float32)), {"shape"}),
    "single stages": (
        subclass(distances=lambda s, n: StageRuler.distances(s, n) + (len(n) < len(s.stages))),
        {"shape"},
    ),
    "a stage from itself": (subclass(**moved(put((2, 2, 0.5)))), {"zero_diagonal", *NOT_IN_A_CARD}),
    "stages in one place": (
        subclass(**moved(np.zeros_like)),
        {"non_negative", "depth", *NOT_IN_A_CARD},
    ),
    "a negative distance": (
        subclass(**moved(put((3, LAST, -1), (LAST, 3, -1)))),
        {"non_negative", "triangle", *NOT_IN_A_CARD},
    ),
    "no number": (
        subclass(**moved(put((3, LAST, np.nan), (LAST, 3, np.nan)))),
        {"non_negative", "symmetric", "triangle", *NOT_IN_A_CARD},
    ),
    "further back": (subclass(**moved(put((3, LAST, 4)))), {"symmetric", *NOT_IN_A_CARD}),
    "a detour that is shorter": (
        subclass(**moved(put((3, LAST, 9), (LAST, 3, 9)))),
        {"triangle", *NOT_IN_A_CARD},
    ),
    "squares": (subclass(**moved(np.square)), {"triangle", "depth", *NOT_IN_A_CARD}),
    "a root below the ground": (subclass(depth=deeper), {"depth"}),
    "depth from a leaf": (subclass(depth=from_the_leaf), {"depth"}),
    "one branch for all": (subclass(branch=lambda self, stages: ["stem"] * len(self._index(stages))), {"branches"}),
    "no branch for strangers": (subclass(branch=forgiving), {"unknown_stage"}),
    "another digest each time": (subclass(digest=fresh_digest()), {"digest", "round_trip"}),
    "one digest for all": (subclass(digest=property(lambda _: "a" * 64)), {"digest", "round_trip"}),
    "a document without the edges' sources": (
        subclass(to_dict=lambda s: StageRuler.to_dict(s) | {"edges": [[e.child, e.parent, ""] for e in s.edges]}),
        {"round_trip"},
    ),
    "relabelled as it was": (subclass(relabelled=relabelled_as_it_was), {"relabelled"}),
    "relabelled with a generator of its own": (subclass(relabelled=relabelled_by_chance), {"relabelled"}),
    "a square root of the steps": (subclass(**moved(np.sqrt)), {"depth", *NOT_IN_A_CARD}),
}


def failing(ruler):
    found = {}
    for name, check in ruler_checks():
        try:
            check(ruler)
        except ConformanceError as error:
            found[name] = error
    assert [error.check for error in found.values()] == list(found)
    return found


@pytest.mark.parametrize(
    "ruler", [tiny_ruler(), read_stage_ruler(recipe_folder("hematopoietic"))], ids=["tiny", "real"]
)
def test_rulers_that_are_built_in_conform(ruler):
    check_ruler(ruler)
    check_ruler(ruler.relabelled(rng=np.random.default_rng(3)))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_ruler_is_caught_by_the_checks_meant_for_it(fault):
    ruler, expected = BROKEN[fault]
    found = failing(ruler)
    assert set(found) == expected, {name: str(error) for name, error in found.items()}


def test_every_check_of_a_ruler_can_fail():
    assert set.union(*(expected for _, expected in BROKEN.values())) == {name for name, _ in ruler_checks()}


def test_the_failure_names_the_stages():
    with pytest.raises(
        ConformanceError, match=r"^symmetric: found another distance back between left_3 and right_2, ex"
    ):
        check_ruler(subclass(**moved(put((3, LAST, 4)))))


def test_what_is_no_ruler_is_a_failure():
    with pytest.raises(ConformanceError, match="names: found a str, expected a StageRuler"):
        check_ruler("toy")


def test_two_stages_make_a_ruler():
    stages = Stage("a", "A", "", "arm"), Stage("b", "B", "", "arm")
    check_ruler(StageRuler("two", "1", stages, (Edge("b", "a", "made up"),), "a"))

"""Interaction rulers: lookups, nulls, branch surrogates, and what is no ruler."""

from __future__ import annotations

import json
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_ruler

from manifoldzoo.cards._errors import BadInputError, FormatError
from manifoldzoo.manifolds import BranchSurrogate, InteractionRuler, Stage
from manifoldzoo.manifolds._interaction_ruler import symmetric_distances

STAGES = tuple(Stage(name, name.upper(), "", name[0]) for name in ("a1", "a2", "b1", "b2", "b3", "c1"))
IDS = [stage.id for stage in STAGES]


def made(seed: int = 0, n_nulls: int = 3) -> InteractionRuler:
    rng = np.random.default_rng(seed)
    n = len(STAGES)
    return InteractionRuler("made", "1", STAGES, rng.uniform(1, 5, (n, n)), rng.uniform(1, 5, (n_nulls, n, n)))


def test_distances_are_the_mean_of_both_directions_in_any_order_and_number():
    ruler = made()
    asked = ["b3", "a1", "b3", "c1"]
    for row, first in enumerate(asked):
        for column, second in enumerate(asked):
            i, j = IDS.index(first), IDS.index(second)
            mean = (float(ruler.directed[i, j]) + float(ruler.directed[j, i])) / 2
            expected = 0.0 if first == second else np.float32(mean)
            assert ruler.distances(asked)[row, column] == expected
    assert ruler.distances(asked).dtype == np.float64


def test_directed_distances_keep_sender_and_receiver_apart():
    ruler = made()
    found = ruler.directed_distances(["c1", "a2"], ["b1", "a2", "c1"])
    assert found.shape == (2, 3)
    assert found[0, 1] == ruler.directed[5, 1] and found[1, 2] == ruler.directed[1, 5]
    assert found[1, 1] == ruler.directed[1, 1] > 0
    assert found[0, 1] != found[1, 2]


def test_there_is_no_depth_and_the_nearest_stage_is_named():
    ruler = made()
    assert ruler.root is None
    with pytest.raises(BadInputError, match="has no root to count depth from"):
        ruler.depth(["a1"])
    for ask in (ruler.distances, ruler.branch, ruler.depth, lambda names: ruler.directed_distances(["a1"], names)):
        with pytest.raises(BadInputError, match=r"no stage 'b11'.*Did you mean b"):
            ask(["b11"])


def test_the_entry_of_a_branch_is_its_medoid():
    ruler = made(3)
    table = {(s, t): ruler.distances([s, t])[0, 1] for s in IDS for t in IDS}
    for branch, members in (("a", ["a1", "a2"]), ("b", ["b1", "b2", "b3"]), ("c", ["c1"])):
        sums = [sum(table[one, other] for other in members) for one in members]
        assert ruler.entry(branch) == members[int(np.argmin(sums))]
    # of two equally good ones the first
    assert ruler.entry("a") == "a1"
    with pytest.raises(BadInputError, match=r"no branch 'z'.*a, b, c"):
        ruler.entry("z")


@given(st.integers(0, 200), st.permutations(["a", "b", "c"]))
@settings(max_examples=25, deadline=None)
def test_branch_surrogates_are_as_defined(seed, placed):
    ruler = made(seed)
    places = dict(zip("abc", placed, strict=True))
    found = BranchSurrogate(ruler, places).distances(IDS)
    for i, first in enumerate(STAGES):
        for j, second in enumerate(STAGES):
            own, other = ruler.entry(first.branch), ruler.entry(second.branch)
            if first.branch == second.branch:
                expected = ruler.distances([first.id, second.id])[0, 1]
            else:
                moved = [ruler.entry(places[stage.branch]) for stage in (first, second)]
                expected = (
                    ruler.distances([first.id, own])[0, 1]
                    + ruler.distances(moved)[0, 1]
                    + ruler.distances([other, second.id])[0, 1]
                )
            assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_branches_are_permuted_with_the_generator_and_all_arrangements_come():
    ruler = made()
    drawn = Counter(
        tuple(ruler.branch_permuted(rng=np.random.default_rng(seed)).places.values()) for seed in range(120)
    )
    assert set(drawn) == set(permutations("abc"))
    assert sorted(ruler.branch_permuted(rng=np.random.default_rng(0), branches=["a", "b", "a"]).places) == ["a", "b"]


def test_a_table_of_the_distances_of_a_graph_has_the_same_and_other_entries():
    graph = tiny_ruler()
    ids = [stage.id for stage in graph.stages]
    # entries differ, the root-most stage of a graph and the medoid of a table; distances do not
    table = InteractionRuler("table", "1", graph.stages, graph.distances(ids) + np.eye(len(ids)), np.ones((1, 6, 6)))
    assert graph.entry("left") == "left_1" and table.entry("left") == "left_2"
    assert np.array_equal(table.distances(ids), graph.distances(ids))


def test_nulls_are_those_that_travel_and_no_more_than_there_are():
    ruler = made(n_nulls=3)
    rngs = np.random.default_rng(0).spawn(5)
    nulls = ruler.nulls(rngs)
    assert [len(ruler.nulls(rngs[:n])) for n in (0, 2, 5)] == [0, 2, 3]
    for number, null in enumerate(nulls):
        assert np.array_equal(null.distances(IDS), symmetric_distances(ruler.null_tables[number]))
        assert null.branch(IDS) == ruler.branch(IDS)
    assert len({null.digest for null in nulls} | {ruler.digest}) == 4


def test_json_holds_all_of_it_and_every_part_has_a_share_in_the_digest():
    ruler = made()
    again = InteractionRuler.from_dict(json.loads(json.dumps(ruler.to_dict())))
    assert again.digest == ruler.digest
    assert np.array_equal(again.directed, ruler.directed) and np.array_equal(again.null_tables, ruler.null_tables)
    lone = InteractionRuler.from_dict(ruler.nulls(np.random.default_rng(0).spawn(1))[0].to_dict())
    assert lone.null_tables.shape == (0, 6, 6)
    for where in ("directed", "null_tables"):
        changed = {name: np.array(getattr(ruler, name)) for name in ("directed", "null_tables")}
        changed[where].flat[1] += 0.25
        assert InteractionRuler("made", "1", STAGES, **changed).digest != ruler.digest
    renamed = (Stage("a0", "A0", "", "a"), *STAGES[1:])
    assert InteractionRuler("made", "1", renamed, ruler.directed, ruler.null_tables).digest != ruler.digest
    assert InteractionRuler("made", "2", STAGES, ruler.directed, ruler.null_tables).digest != ruler.digest


def test_the_layout_of_the_tables_in_memory_changes_nothing():
    ruler = made()
    other = InteractionRuler(
        "made", "1", STAGES, np.asfortranarray(ruler.directed.astype(np.float64)), np.asfortranarray(ruler.null_tables)
    )
    assert other.digest == ruler.digest and other.directed.flags.c_contiguous


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stages": STAGES[:1]}, "1 stages, expected two"),
        ({"stages": (*STAGES[:5], STAGES[0])}, "'a1' more than once"),
        ({"directed": np.ones((6, 5))}, r"shape \(6, 5\), expected \(6, 6\)"),
        ({"null_tables": np.ones((6, 6))}, r"null tables of shape \(6, 6\)"),
        ({"directed": -np.ones((6, 6))}, "negative or not finite"),
        ({"directed": np.full((6, 6), np.nan)}, "negative or not finite"),
        ({"null_tables": np.full((1, 6, 6), np.inf)}, "negative or not finite"),
        ({"directed": np.zeros((6, 6))}, "'a1' and 'a2' at the same place"),
    ],
)
def test_what_is_no_ruler_is_refused(change, match):
    given = {"stages": STAGES, "directed": np.ones((6, 6)), "null_tables": np.ones((2, 6, 6))}
    with pytest.raises(FormatError, match=match):
        InteractionRuler("made", "1", **(given | change))

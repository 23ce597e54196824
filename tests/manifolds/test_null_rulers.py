"""Null rulers: what they keep and what they move, by brute force over random graphs and on the blood ruler."""

from __future__ import annotations

import doctest
from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds import BranchSurrogate, Edge, Stage, StageRuler, _null_rulers, read_stage_ruler
from manifoldzoo.manifolds._recipe import recipe_folder

SEEDS = st.integers(0, 2**31)


@pytest.fixture(scope="module")
def blood() -> StageRuler:
    return read_stage_ruler(recipe_folder("hematopoietic"))


@st.composite
def rulers(draw: st.DrawFn) -> StageRuler:
    """A random tree with some extra edges, its stages in two to five branches that need not hang together."""
    n = draw(st.integers(3, 14))
    tree = [(child, draw(st.integers(0, child - 1))) for child in range(1, n)]
    extra = draw(
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] > e[1]), max_size=4)
    )
    branch = [f"b{draw(st.integers(0, 4))}" for _ in range(n)]
    return StageRuler(
        "made",
        "1",
        tuple(Stage(f"s{i}", f"S {i}", "", branch[i]) for i in range(n)),
        tuple(Edge(f"s{child}", f"s{parent}", "made") for child, parent in dict.fromkeys(tree + extra)),
        "s0",
    )


def all_ids(ruler: StageRuler) -> list[str]:
    return [stage.id for stage in ruler.stages]


def steps_of(ruler: StageRuler) -> dict[str, dict[str, int]]:
    graph = nx.Graph((edge.child, edge.parent) for edge in ruler.edges)
    return dict(nx.all_pairs_shortest_path_length(graph))


def by_brute_force(ruler: StageRuler, places: dict[str, str]) -> list[list[int]]:
    """Step counts with each branch moved, by the definition, pair by pair."""
    steps, branch = steps_of(ruler), {stage.id: stage.branch for stage in ruler.stages}
    entry: dict[str, str] = {}
    for stage in ruler.stages:
        known = entry.setdefault(stage.branch, stage.id)
        if steps[ruler.root][stage.id] < steps[ruler.root][known]:
            entry[stage.branch] = stage.id

    def between(one: str, other: str) -> int:
        mine, theirs = branch[one], branch[other]
        if mine == theirs:
            return steps[one][other]
        place, their_place = entry[places.get(mine, mine)], entry[places.get(theirs, theirs)]
        return steps[one][entry[mine]] + steps[place][their_place] + steps[entry[theirs]][other]

    return [[between(one, other) for other in all_ids(ruler)] for one in all_ids(ruler)]


@given(rulers(), SEEDS)
@settings(max_examples=60, deadline=None)
def test_permuted_branches_are_those_of_the_definition(ruler, seed):
    null = ruler.branch_permuted(rng=np.random.default_rng(seed))
    names = sorted({stage.branch for stage in ruler.stages})
    # the draw itself: one permutation of the names in alphabetical order
    order = np.random.default_rng(seed).permutation(len(names))
    assert null.places == {name: names[index] for name, index in zip(names, order, strict=True)}
    found = null.distances(all_ids(ruler))
    assert found.dtype == np.float64
    assert found.tolist() == by_brute_force(ruler, dict(null.places))
    assert null == ruler.branch_permuted(rng=np.random.default_rng(seed))


@given(rulers(), SEEDS)
@settings(max_examples=60, deadline=None)
def test_permuting_branches_gives_a_metric_that_keeps_what_is_within_them(ruler, seed):
    ids, branch = all_ids(ruler), np.array(ruler.branch(all_ids(ruler)))
    null, own = ruler.branch_permuted(rng=np.random.default_rng(seed)).distances(ids), ruler.distances(ids)
    assert np.array_equal(null, null.T)
    assert not np.diag(null).any()
    assert (null[~np.eye(len(ids), dtype=bool)] > 0).all()
    assert (null[:, None, :] <= null[:, :, None] + null[None, :, :]).all()
    same = branch[:, None] == branch[None, :]
    assert np.array_equal(null[same], own[same])
    # where branches begin, the same distances lie between other branches
    entries = list(_null_rulers.branch_entries(ruler, sorted(set(branch))).values())
    moved = ruler.branch_permuted(rng=np.random.default_rng(seed)).distances(entries)
    assert Counter(moved.ravel()) == Counter(ruler.distances(entries).ravel())


@given(rulers())
@settings(max_examples=40, deadline=None)
def test_branches_in_their_own_places_are_never_nearer_than_in_the_ruler(ruler):
    ids = all_ids(ruler)
    kept = BranchSurrogate(ruler)
    assert (kept.distances(ids) >= ruler.distances(ids)).all()
    entries = list(_null_rulers.branch_entries(ruler, sorted(set(ruler.branch(ids)))).values())
    assert np.array_equal(kept.distances(entries), ruler.distances(entries))
    named = BranchSurrogate(ruler, {name: name for name in ruler.branch(ids)})
    assert np.array_equal(named.distances(ids), kept.distances(ids))
    # one branch alone has nowhere to go
    alone = ruler.branch_permuted(rng=np.random.default_rng(0), branches=ruler.branch(ids)[:1] * 3)
    assert np.array_equal(alone.distances(ids), kept.distances(ids))


@given(rulers(), SEEDS)
@settings(max_examples=40, deadline=None)
def test_relabelling_moves_stages_and_leaves_the_graph(ruler, seed):
    ids, null = all_ids(ruler), ruler.relabelled(rng=np.random.default_rng(seed))
    moved, own = null.distances(ids), ruler.distances(ids)
    assert np.array_equal(moved, moved.T)
    assert not np.diag(moved).any()
    assert Counter(moved.ravel()) == Counter(own.ravel())
    # a single renaming of the stages takes all of it back: distances, depths and branches
    back = dict(zip(all_ids(null), ids, strict=True))
    assert np.array_equal(moved, ruler.distances([back[name] for name in ids]))
    assert np.array_equal(null.depth(ids), ruler.depth([back[name] for name in ids]))
    assert null.branch(ids) == ruler.branch([back[name] for name in ids])


def test_repeats_and_no_stages_are_allowed(blood):
    null = blood.branch_permuted(rng=np.random.default_rng(0))
    twice = null.distances(["hsc", "naive_b", "hsc"])
    assert twice[0, 2] == 0
    assert twice[0, 1] == twice[2, 1] > 0
    assert null.distances([]).shape == (0, 0)


def test_only_the_branches_of_a_panel_are_permuted(blood):
    panel = ["t_cell", "b_cell", "erythroid", "t_cell"]
    draws = [blood.branch_permuted(rng=np.random.default_rng(seed), branches=panel) for seed in range(30)]
    assert {frozenset(draw.places) for draw in draws} == {frozenset(panel)}
    assert {tuple(draw.places[name] for name in ("b_cell", "erythroid", "t_cell")) for draw in draws} > {
        ("b_cell", "erythroid", "t_cell"),
        ("t_cell", "b_cell", "erythroid"),
    }
    others = ["hsc", "classical_monocyte", "platelet"]
    for draw in draws:
        assert np.array_equal(draw.distances(others), BranchSurrogate(blood).distances(others))


def test_a_permutation_of_branches_says_less_than_a_shuffle_of_stages_takes_away(blood):
    """The order of nulls that rung 4 rests on: branches permuted stay nearer to the ruler than stages shuffled."""
    ids = all_ids(blood)
    upper = np.triu_indices(len(ids), 1)
    own = BranchSurrogate(blood).distances(ids)[upper]
    kinds = (blood.branch_permuted, blood.relabelled)
    permuted, shuffled = (
        np.mean([
            np.corrcoef(own, kind(rng=np.random.default_rng(seed)).distances(ids)[upper])[0, 1] for seed in range(20)
        ])
        for kind in kinds
    )  # fmt: skip
    assert permuted > 0.3
    assert abs(shuffled) < 0.1


def test_what_is_no_permutation_of_branches_is_refused(blood):
    with pytest.raises(BadInputError, match="no branch 'bark'") as caught:
        blood.branch_permuted(rng=np.random.default_rng(0), branches=["t_cell", "bark"])
    assert "erythroid" in caught.value.hint
    with pytest.raises(BadInputError, match="no branch 'bark'"):
        BranchSurrogate(blood, {"bark": "bark"})
    with pytest.raises(BadInputError, match="places"):
        BranchSurrogate(blood, {"t_cell": "b_cell", "b_cell": "b_cell"})
    with pytest.raises(BadInputError, match="places"):
        BranchSurrogate(blood, {"t_cell": "b_cell"})
    with pytest.raises(BadInputError, match="naive_c"):
        BranchSurrogate(blood).distances(["naive_c"])


def test_the_examples_run():
    assert doctest.testmod(_null_rulers).failed == 0

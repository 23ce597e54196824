"""Distances over ligands and receptors, held against walks by hand and by networkx."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldzoo.cards._errors import BadInputError, PanelError
from manifoldzoo.extractors.interactions._proximity import (
    MAX_HOPS,
    complex_expression,
    directed_hops,
    expressed_only,
    mean_of_groups,
    nearest_hops,
    permuted_receivers,
)

SEEDS = st.integers(0, 2**31)


def drawn_pairs(rng: np.random.Generator, n_ligands: int, n_receptors: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Different pairs."""
    places = rng.choice(n_ligands * n_receptors, size=n, replace=False)
    return places // n_receptors, places % n_receptors


def walks(ligand: np.ndarray, receptor: np.ndarray, n_ligands: int, n_receptors: int) -> np.ndarray:
    """Steps from each ligand to each receptor, by networkx; infinite where there is no way."""
    graph = nx.Graph()
    graph.add_nodes_from([("l", i) for i in range(n_ligands)] + [("r", i) for i in range(n_receptors)])
    graph.add_edges_from((("l", int(i)), ("r", int(j))) for i, j in zip(ligand, receptor, strict=True))
    found = dict(nx.all_pairs_shortest_path_length(graph))
    return np.array(
        [[found["l", i].get(("r", j), np.inf) for j in range(n_receptors)] for i in range(n_ligands)], dtype=float
    )


def by_brute_force(ligands, receptors, hops) -> np.ndarray:
    """The definition, ligand by ligand."""
    n = len(ligands)
    table = np.zeros((n, n))
    for a in range(n):
        for b in range(n):
            total = weight = 0.0
            for i in range(ligands.shape[1]):
                if ligands[a, i] > 0:
                    near = min(min(hops[i, j], MAX_HOPS) for j in range(receptors.shape[1]) if receptors[b, j] > 0)
                    total += np.sqrt(ligands[a, i]) * near
                    weight += np.sqrt(ligands[a, i])
            table[a, b] = total / weight
    return table


@given(SEEDS, st.integers(2, 5), st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_directed_hops_are_as_defined(seed, n_types, n_ligands, n_receptors):
    rng = np.random.default_rng(seed)
    ligand, receptor = drawn_pairs(rng, n_ligands, n_receptors, int(rng.integers(1, n_ligands * n_receptors + 1)))
    ligands = rng.exponential(1, (n_types, n_ligands)) * (rng.random((n_types, n_ligands)) < 0.4)
    receptors = rng.exponential(1, (n_types, n_receptors)) * (rng.random((n_types, n_receptors)) < 0.4)
    # everybody says and hears something
    ligands[:, rng.integers(n_ligands)] += 0.1
    receptors[:, rng.integers(n_receptors)] += 0.1
    hops = walks(ligand, receptor, n_ligands, n_receptors)
    near = nearest_hops(ligand, receptor, n_ligands, receptors > 0)
    expected = np.stack([np.minimum(hops[:, own], MAX_HOPS).min(axis=1) for own in receptors > 0], axis=1)
    assert np.array_equal(near, expected)
    found = directed_hops(ligands, receptors, ligand, receptor, names=[f"t{i}" for i in range(n_types)])
    np.testing.assert_allclose(found, by_brute_force(ligands, receptors, hops), rtol=1e-12)


def test_a_small_network_by_hand():
    # L0-R0, L1-R0, L1-R1, and L2-R2 apart
    ligand, receptor = np.array([0, 1, 1, 2]), np.array([0, 0, 1, 2])
    hears = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]], dtype=bool)
    assert nearest_hops(ligand, receptor, 3, hears).T.tolist() == [[3, 1, 9], [9, 9, 1], [1, 1, 9]]
    assert nearest_hops(ligand, receptor, 3, hears, max_hops=5).T.tolist() == [[3, 1, 5], [5, 5, 1], [1, 1, 5]]
    # one sender of L0 (expression 4) and L1 (expression 1), weights 2 and 1
    says = np.array([[4.0, 1.0, 0.0], [0.0, 0.0, 2.0], [1.0, 0.0, 0.0]])
    found = directed_hops(says, hears.astype(float), ligand, receptor, names=["x", "y", "z"])
    np.testing.assert_allclose(found[0], [(2 * 3 + 1) / 3, 9, 1])
    np.testing.assert_allclose(found[1], [9, 1, 9])


def test_how_much_of_a_receptor_is_expressed_does_not_count_and_of_a_ligand_its_root_does():
    rng = np.random.default_rng(0)
    ligand, receptor = drawn_pairs(rng, 6, 6, 12)
    ligands, receptors = rng.random((3, 6)) + 0.1, rng.random((3, 6)) * (rng.random((3, 6)) < 0.5)
    receptors[:, 0] += 0.1
    names = ["x", "y", "z"]
    plain = directed_hops(ligands, receptors, ligand, receptor, names=names)
    assert np.array_equal(directed_hops(ligands, receptors * 7, ligand, receptor, names=names), plain)
    np.testing.assert_allclose(directed_hops(ligands * 7, receptors, ligand, receptor, names=names), plain)
    assert not np.allclose(directed_hops(ligands**2, receptors, ligand, receptor, names=names), plain)


@pytest.mark.parametrize(("what", "which"), [("ligand", 0), ("receptor", 1)])
def test_a_type_that_says_or_hears_nothing_is_named(what, which):
    given = [np.ones((3, 2)), np.ones((3, 2))]
    given[which][1] = 0
    with pytest.raises(PanelError, match=f"'quiet' expresses no {what}.*expressed"):
        directed_hops(*given, np.array([0, 1]), np.array([0, 1]), names=["x", "quiet", "z"])


def test_genes_are_averaged_over_the_groups_that_measure_them():
    nan = np.nan
    values = np.array([[1.0, nan, 3.0], [3.0, nan, nan], [5.0, nan, 7.0], [2.0, 4.0, nan]])
    found = mean_of_groups(values, np.array([0, 0, 2, 2]), 4)
    assert found.tolist() == [[2.0, 0.0, 3.0], [0, 0, 0], [3.5, 4.0, 7.0], [0, 0, 0]]


def test_the_least_fraction_counts_itself_as_expressed():
    mean = np.array([[1.0, 2.0, 3.0]])
    assert expressed_only(mean, np.array([[0.09, 0.1, 0.11]]), 0.1).tolist() == [[0, 2, 3]]


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_complex_is_the_minimum_of_its_subunits(seed):
    rng = np.random.default_rng(seed)
    expression = rng.random((3, 8)) * (rng.random((3, 8)) < 0.7)
    members = [list(rng.choice(8, size=rng.integers(1, 5), replace=False)) for _ in range(6)]
    found = complex_expression(expression, members)
    for row in range(3):
        assert found[row].tolist() == [min(expression[row, gene] for gene in own) for own in members]


@given(SEEDS, st.integers(3, 12), st.integers(3, 12))
@settings(max_examples=60, deadline=None)
def test_exchanged_pairs_keep_every_number_of_partners_and_none_is_there_twice(seed, n_ligands, n_receptors):
    rng = np.random.default_rng(seed)
    ligand, receptor = drawn_pairs(rng, n_ligands, n_receptors, int(rng.integers(2, n_ligands * n_receptors // 2 + 2)))
    found = permuted_receivers(ligand, receptor, rng=rng)
    pairs = list(zip(ligand.tolist(), found.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert Counter(found.tolist()) == Counter(receptor.tolist())


def test_exchanges_are_drawn_and_come_from_the_generator():
    ligand, receptor = drawn_pairs(np.random.default_rng(0), 30, 30, 120)
    first, again, other = (permuted_receivers(ligand, receptor, rng=np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    drawn, real = ({*zip(ligand.tolist(), ends.tolist(), strict=True)} for ends in (first, receptor))
    # 120 of 900 pairs: some sixteen are met again by chance
    assert 2 < len(drawn & real) < 45


def test_every_arrangement_of_a_small_resource_is_drawn():
    ligand, receptor = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3])
    drawn = {
        frozenset(zip(ligand.tolist(), permuted_receivers(ligand, receptor, rng=rng).tolist(), strict=True))
        for rng in np.random.default_rng(0).spawn(300)
    }
    # two of four receptors to the first ligand, one of the other two to the second
    assert len(drawn) == 12


def test_pairs_that_cannot_be_exchanged_are_refused():
    # repeated pairs are no resource, and cannot be brought apart
    with pytest.raises(BadInputError, match="2 pairs of the resource leave no other way"):
        permuted_receivers(np.array([0, 0]), np.array([0, 0]), rng=np.random.default_rng(0))

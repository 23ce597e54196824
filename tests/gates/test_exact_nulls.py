"""Nulls on panels so small that every arrangement can be listed."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from manifoldzoo.gates.metrics import all_pairs, distance_spearman
from manifoldzoo.gates.nulls import _permutation
from manifoldzoo.gates.nulls._permutation import (
    log10_arrangements,
    p_value,
    permutation_records,
    permutation_test,
    permute_within,
    why_undecidable,
)
from manifoldzoo.manifolds._let import LetSettings

QUICK = LetSettings(n_components=2, n_steps=2)


def orders_within(blocks):
    """Every permutation of the rows that stays within blocks."""
    labels = np.asarray(blocks)
    rows = [np.flatnonzero(labels == block).tolist() for block in np.unique(labels)]
    for parts in itertools.product(*(itertools.permutations(part) for part in rows)):
        order = np.empty(len(labels), dtype=int)
        order[list(itertools.chain(*rows))] = list(itertools.chain(*parts))
        yield order


def arrangements(stage, blocks):
    """Every distinct arrangement of the labels."""
    return {tuple(np.asarray(stage)[order]) for order in orders_within(blocks)}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2)), min_size=1, max_size=7))
def test_arrangements_are_as_many_as_can_be_listed(rows):
    stage, blocks = [stage for stage, _ in rows], np.array([block for _, block in rows])
    assert round(10 ** log10_arrangements(stage, blocks), 6) == len(arrangements(stage, blocks))


def test_as_many_arrangements_as_the_threshold_needs_are_enough():
    """One label among n has n places, so that 1 / n can be reached and anything smaller cannot."""
    for n in range(2, 200):
        count = log10_arrangements(["one"] + ["other"] * (n - 1), np.zeros(n, dtype=int))
        assert why_undecidable(count, 10**6, 1 / n) == ""
        assert f"{n} distinct arrangements" in why_undecidable(count, 10**6, 1 / (n + 0.5))


def test_every_arrangement_is_drawn_as_often():
    stage, blocks = np.array(list("aabbcab")), np.array([0, 0, 0, 0, 1, 1, 1])
    rng = np.random.default_rng(0)
    drawn = ["".join(stage[permute_within(blocks, rng=rng)]) for _ in range(9000)]
    found, counts = np.unique(drawn, return_counts=True)
    assert {tuple(each) for each in found} == arrangements(stage, blocks)
    assert len(found) == 6 * 6
    assert ((counts - 250) ** 2 / 250).sum() < chi2.ppf(1 - 1e-4, 35)


class Cheap:
    """In place of refitted heads: the Spearman correlation with distances that stay as they are."""

    def __init__(self, features, settings, *, rng, n_splits=3, fraction=0.2):
        self.distances = np.abs(features[:, None, 0] - features[None, :, 0])

    def of(self, targets, rngs):
        return np.asarray(distance_spearman(self.distances, targets, all_pairs(len(self.distances))))


@pytest.mark.parametrize("blocks", [[0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 2, 2]])
def test_p_of_the_test_is_that_of_all_arrangements(monkeypatch, blocks):
    monkeypatch.setattr(_permutation, "RefittedStatistic", Cheap)
    rng, labels = np.random.default_rng(3), np.array(blocks)
    code = np.array([0, 1, 2, 1, 3, 0])
    features = np.column_stack([code + 1.5 * rng.standard_normal(6), rng.standard_normal((6, 3))])
    distances = np.abs(code[:, None] - code[None]).astype(float)
    stage = [str(each) for each in code]
    result = permutation_test(features, distances, stage, labels, QUICK, rng=rng, n_permutations=4000)
    cheap = Cheap(features, QUICK, rng=rng)
    every = cheap.of(np.stack([distances[np.ix_(order, order)] for order in orders_within(labels)]), [])
    exact = float((every >= result.observed - 1e-12).mean())
    count = round(result.p_value * 4001) - 1
    assert 0 < exact < 1
    assert binom.ppf(1e-5, 4000, exact) <= count <= binom.ppf(1 - 1e-5, 4000, exact)
    assert 10**result.log10_arrangements == pytest.approx(len(arrangements(stage, labels)))
    assert set(np.round(result.null, 9)) <= set(np.round(every, 9))


def test_p_is_exactly_uniform_over_the_arrangements():
    """Whatever arrangement was observed, the p over all of them is at most t for a part t at most."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 7, size=24).astype(float)
    # each arrangement observed in turn, against the other ones
    p = np.array([p_value(values[i], np.delete(values, i)) for i in range(24)])
    for threshold in np.arange(1, 25) / 24:
        assert (p <= threshold + 1e-12).mean() <= threshold + 1e-12


def test_blocks_that_allow_too_little_cannot_decide():
    # every donor has one stage only, so that nothing can be exchanged
    stage, blocks = ["a", "a", "b", "b", "c", "c"] * 2, np.repeat(np.arange(6), 2)
    code = np.array([0, 1, 2] * 4)
    features = np.random.default_rng(0).standard_normal((12, 4))
    distances = np.abs(code[:, None] - code[None]).astype(float)
    result = permutation_test(
        features, distances, stage, blocks, QUICK, rng=np.random.default_rng(0), n_permutations=19, n_splits=1
    )
    main, fixed = permutation_records("g", result, 0.05, n=12, seed=0, kind="k")
    assert math.isclose(result.log10_arrangements, 0, abs_tol=1e-12)
    assert main.status == "cannot decide" and "1 distinct arrangements" in main.reason and main.decides
    assert not fixed.decides

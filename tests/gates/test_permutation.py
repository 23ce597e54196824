"""Blocked permutation: counts by enumeration, validity on noise, and independence of the batch size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.nulls._permutation import (
    PermutationResult,
    block_labels,
    log10_arrangements,
    null_summary,
    p_value,
    permutation_records,
    permutation_test,
    permute_within,
    why_undecidable,
)
from manifoldzoo.gates.refits._holdouts import random_folds
from manifoldzoo.manifolds._geodesic import geodesic_latents
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings

QUICK = LetSettings(n_components=4, n_steps=40)


def panel(n=36, p=60, noise=0.3, seed=0):
    """Make three donors with six stages each, twice, along an arc."""
    rng = np.random.default_rng(seed)
    stage = np.arange(n) % 6
    donor = np.arange(n) // (n // 3)
    angle = stage / 6 * np.pi
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    features = points @ rng.standard_normal((2, p)) + noise * rng.standard_normal((n, p))
    distances = np.abs(stage[:, None] - stage[None, :]).astype(float)
    return features, distances, [f"s{value}" for value in stage], donor


def test_arrangements_by_enumeration():
    stage, blocks = list("aabcabb"), np.array([0, 0, 0, 0, 1, 1, 1])
    distinct = len(set(itertools.permutations("aabc"))) * len(set(itertools.permutations("abb")))
    assert 10 ** log10_arrangements(stage, blocks) == pytest.approx(distinct)
    assert log10_arrangements(list("aabb"), np.array([0, 0, 1, 1])) == 0.0
    assert log10_arrangements([str(i) for i in range(400)], np.zeros(400, dtype=int)) > 308


def test_permutation_stays_within_blocks_and_reaches_every_arrangement():
    blocks = np.array([2, 0, 2, 0, 1, 2])
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        order = permute_within(blocks, rng=rng)
        assert sorted(order) == list(range(6))
        np.testing.assert_array_equal(blocks[order], blocks)
        seen.add(order.tobytes())
    assert len(seen) == 6 * 2


def test_block_labels_tell_equal_donor_names_of_two_studies_apart():
    found = block_labels(["x", "y", "x", "x"], ["1", "1", "1", "2"], ["b", "b", "b", "b"])
    assert found[0] == found[2] and len(set(found)) == 3


def test_p_value_counts_ties_and_missing_numbers_against_the_claim():
    assert p_value(0.5, np.array([0.1, 0.5, 0.7, 0.2])) == pytest.approx(3 / 5)
    assert p_value(0.5, np.array([0.1, np.nan, 0.2])) == pytest.approx(2 / 4)
    assert p_value(float("nan"), np.array([0.1, 0.2])) == 1.0
    assert p_value(1.0, np.zeros(999)) == 0.001


def test_planted_order_gets_the_smallest_p():
    features, distances, stage, donor = panel()
    seen = []
    result = permutation_test(
        features,
        distances,
        stage,
        donor,
        QUICK,
        rng=np.random.default_rng(0),
        n_permutations=40,
        batch_size=16,
        progress=seen.append,
    )
    assert result.p_value == pytest.approx(1 / 41)
    assert result.observed > 0.8 and result.null.mean() < 0.4
    assert seen == [16, 32, 40]


def test_noise_is_rejected_refitted_but_passes_with_a_fixed_head():
    _, distances, stage, donor = panel()
    noise = np.random.default_rng(5).standard_normal((36, 60))
    result = permutation_test(
        noise,
        distances,
        stage,
        donor,
        QUICK,
        rng=np.random.default_rng(0),
        n_permutations=60,
    )
    assert result.p_value > 0.05
    assert result.fixed_p_value == pytest.approx(1 / 61)


def test_p_is_uniform_on_noise():
    _, distances, stage, donor = panel()
    rng = np.random.default_rng(1)
    found = [
        permutation_test(
            rng.standard_normal((36, 60)),
            distances,
            stage,
            donor,
            QUICK,
            rng=rng,
            n_permutations=19,
            n_splits=1,
        ).p_value
        for _ in range(100)
    ]
    # 100 draws of a p that is at most 0.05 with chance 0.05: 13 or more would be a chance of 0.001
    assert sum(value <= 0.05 for value in found) < 13
    assert 0.4 < np.mean(found) < 0.65


def test_batch_size_never_changes_the_null():
    features, distances, stage, donor = panel()
    found = [
        permutation_test(
            features,
            distances,
            stage,
            donor,
            QUICK,
            rng=np.random.default_rng(0),
            n_permutations=7,
            n_splits=2,
            batch_size=size,
        )
        for size in (1, 3, 16)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other.null, found[0].null, atol=2e-3)
        np.testing.assert_allclose(other.fixed_null, found[0].fixed_null, atol=1e-12)
        assert other.observed == found[0].observed


def test_more_permutations_extend_the_null_without_changing_it():
    features, distances, stage, donor = panel()
    short, long = (
        permutation_test(
            features,
            distances,
            stage,
            donor,
            QUICK,
            rng=np.random.default_rng(0),
            n_permutations=count,
        )
        for count in (5, 9)
    )
    np.testing.assert_allclose(long.null[:5], short.null, atol=2e-3)


class TestHeadsThatDoNotReadTheRuler:
    settings = GeodesicSettings(n_components=3, n_neighbours=6)

    def test_the_null_holds_places_of_held_out_anchors_against_every_exchange(self):
        features, distances, stage, donor = panel()
        result = permutation_test(
            features, distances, stage, donor, self.settings, rng=np.random.default_rng(0), n_permutations=7
        )
        assert not result.reads_ruler
        rng = np.random.default_rng(0)
        split_rng, _, _ = rng.spawn(3)
        folds = random_folds(36, rng=split_rng, n_repeats=3)
        orders = [permute_within(donor, rng=child) for child in rng.spawn(7)]
        upper = np.triu_indices(36, 1)

        def by_hand(target):
            found = []
            for fold in folds:
                train = np.setdiff1d(np.arange(36), fold.held_out)
                placed = geodesic_latents(features, self.settings, train=train)
                touching = np.isin(upper[0], fold.held_out) | np.isin(upper[1], fold.held_out)
                found.append(spearmanr(cdist(placed, placed)[upper][touching], target[upper][touching]).statistic)
            return np.mean(found)

        assert result.observed == pytest.approx(by_hand(distances), abs=1e-9)
        assert result.null == pytest.approx([by_hand(distances[np.ix_(o, o)]) for o in orders], abs=1e-9)
        whole = geodesic_latents(features, self.settings)
        fixed = spearmanr(cdist(whole, whole)[upper], distances[upper]).statistic
        assert result.fixed_observed == pytest.approx(fixed, abs=1e-9)

    def test_it_rejects_at_its_level_where_there_is_nothing_to_find(self):
        found = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            features, distances, stage, donor = panel(seed=seed)
            order = permute_within(donor, rng=rng)
            exchanged = {"distances": distances[np.ix_(order, order)], "stage": [stage[i] for i in order]}
            result = permutation_test(
                features, blocks=donor, settings=self.settings, rng=rng, n_permutations=39, **exchanged
            )
            found.append((result.p_value, result.fixed_p_value))
        # both tests are exact here: nothing was fitted to the labels, whatever is placed
        for p_values in zip(*found, strict=True):
            assert binomtest(sum(p <= 0.25 for p in p_values), 60, 0.25).pvalue > 0.01
            assert np.mean(p_values) > 0.3

    def test_a_planted_order_is_found(self):
        features, distances, stage, donor = panel()
        result = permutation_test(
            features, distances, stage, donor, self.settings, rng=np.random.default_rng(0), n_permutations=99
        )
        assert result.p_value == result.fixed_p_value == 0.01

    def test_records_say_that_the_head_is_its_own_refit(self):
        null = np.linspace(-0.1, 0.1, 999)
        result = PermutationResult(0.9, null, 0.001, 0.95, null, 0.001, 400.0, 3, reads_ruler=False)
        main, fixed = permutation_records("blocked_permutation", result, 0.001, n=30, seed=4, kind="stages")
        assert (main.status, main.decides, fixed.decides) == ("pass", True, False)
        assert main.null is not None and "its own refit" in main.null.kind
        assert "even for noise" not in str(fixed.details["warning"])
        assert "does not read the labels" in str(fixed.details["warning"])


def test_too_few_arrangements_or_permutations_cannot_decide():
    assert "6 distinct" in why_undecidable(np.log10(6), 1000, 0.001)
    assert "998 permutations" in why_undecidable(20.0, 998, 0.001)
    assert why_undecidable(3.01, 999, 0.001) == ""
    null = np.linspace(-0.1, 0.1, 999)
    few = PermutationResult(0.9, null, 0.001, 0.9, null, 0.001, 0.5, 1)
    records = permutation_records("blocked_permutation", few, 0.001, n=6, seed=0, kind="stages")
    assert records[0].status == "cannot decide" and records[0].decides


def test_records_carry_the_null_and_the_fixed_head_never_decides():
    null = np.linspace(-0.1, 0.1, 999)
    result = PermutationResult(0.9, null, 0.001, 0.95, null, 0.001, 400.0, 3)
    main, fixed = permutation_records("blocked_permutation", result, 0.001, n=30, seed=4, kind="stages")
    assert (main.status, main.decides, main.statistic, main.seed) == (
        "pass",
        True,
        0.001,
        4,
    )
    assert main.null is not None and main.null.n == 999 and main.null.n_arrangements == 1e300
    assert main.null.sd == pytest.approx(null.std(ddof=1)) and main.null.quantiles["0.5"] == pytest.approx(0)
    assert main.details["observed"] == 0.9
    assert not fixed.decides and "refitted" in str(fixed.details["warning"])
    weak = PermutationResult(0.0, null, 0.5, 0.95, null, 0.001, 400.0, 3)
    assert permutation_records("g", weak, 0.001, n=30, seed=4, kind="stages")[0].status == "fail"


def test_null_summary_leaves_out_what_is_not_a_number():
    summary = null_summary("k", np.array([0.0, np.nan, 1.0]))
    assert summary is not None and (
        summary.n,
        summary.mean,
        summary.n_arrangements,
    ) == (2, 0.5, None)
    assert null_summary("k", np.array([np.nan])) is None


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_permutations": 0}, "n_permutations is 0"),
        ({"n_splits": 0}, "n_splits is 0"),
        ({"stage": ["a"]}, "1 stages"),
        ({"fraction": 0.9}, "4 anchors"),
    ],
)
def test_bad_arguments_are_named(change, match):
    features, distances, stage, donor = panel()
    arguments = {"stage": stage, "blocks": donor, "n_permutations": 3} | change
    with pytest.raises(BadInputError, match=match):
        permutation_test(
            features,
            distances,
            settings=QUICK,
            rng=np.random.default_rng(0),
            **arguments,
        )

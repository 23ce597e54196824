"""Paired comparisons: each number against another way to get it, and intervals against what they promise."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates._inference import (
    benjamini_hochberg,
    bootstrap_means,
    bootstrap_p,
    cohens_dz,
    compare_paired,
    expanded_interval,
    rank_biserial,
    wilcoxon_p,
)
from manifoldzoo.gates._named_child import named_child


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


numbers = st.lists(st.integers(-20, 20), min_size=2, max_size=12)


class TestWilcoxon:
    def test_exact_p_by_all_signs(self):
        """Under the null every set of signs is as likely: the share of those with as large a sum of positive ranks."""
        differences = np.array([0.3, -0.1, 0.7, 1.2, -0.5, 0.9, 0.2])
        ranks = np.argsort(np.argsort(np.abs(differences))) + 1
        observed = ranks[differences > 0].sum()
        sums = [ranks[np.array(signs)].sum() for signs in product([False, True], repeat=7)]
        assert wilcoxon_p(differences) == pytest.approx(np.mean(np.array(sums) >= observed))

    # scipy goes through all arrangements where there are ties
    @given(st.lists(st.integers(-20, 20), min_size=2, max_size=6))
    @settings(deadline=None, max_examples=25)
    def test_it_is_scipys(self, values):
        expected = wilcoxon(np.array(values, float), alternative="greater").pvalue if any(values) else 1.0
        assert wilcoxon_p(values) == expected

    def test_it_is_one_sided(self):
        assert wilcoxon_p(np.arange(1, 9)) == pytest.approx(1 / 2**8)
        assert wilcoxon_p(-np.arange(1, 9)) == pytest.approx(1.0)


class TestEffectSizes:
    @given(numbers)
    def test_rank_biserial_by_pairs(self, values):
        """Sums of signed ranks are counts of Walsh averages: pairs of differences with a positive or negative mean."""
        kept = [value for value in values if value]
        up = sum(kept[i] + kept[j] > 0 for i in range(len(kept)) for j in range(i + 1))
        down = sum(kept[i] + kept[j] < 0 for i in range(len(kept)) for j in range(i + 1))
        pairs = len(kept) * (len(kept) + 1) / 2
        assert rank_biserial(values) == pytest.approx((up - down) / pairs if kept else 0.0)

    def test_ends(self):
        assert rank_biserial([1.0, 2.0, 0.5]) == 1.0
        assert rank_biserial([-1.0, -2.0]) == -1.0
        assert rank_biserial([0.0, 0.0]) == 0.0

    def test_cohens_dz_by_hand(self):
        assert cohens_dz([1.0, 2.0, 3.0]) == pytest.approx(2.0)
        assert cohens_dz([2.0, 2.0]) is None
        assert cohens_dz([2.0]) is None


class TestBootstrap:
    def test_means_are_those_of_all_crossings(self):
        """Replayed one by one with the same draws."""
        differences = rng(1).standard_normal((3, 5))
        found = bootstrap_means(differences, rng=rng(2), n_resamples=50)
        again = rng(2)
        seeds = again.multinomial(3, [1 / 3] * 3, size=50)
        parts = again.multinomial(5, [1 / 5] * 5, size=50)
        for one, s, p in zip(found, seeds, parts, strict=True):
            rows, columns = np.repeat(np.arange(3), s), np.repeat(np.arange(5), p)
            assert one == pytest.approx(differences[np.ix_(rows, columns)].mean())

    def test_spread_is_that_of_the_mean(self):
        parts = rng(0).standard_normal((1, 40))
        draws = bootstrap_means(parts, rng=rng(1), n_resamples=20_000)
        assert draws.std() == pytest.approx(parts.std() / np.sqrt(40), rel=0.03)

    def test_seeds_are_drawn_too(self):
        """Parts that agree and seeds that do not: all of the spread is that of the seeds."""
        by_seed = np.array([-1.0, 0.0, 1.0, 2.0])
        draws = bootstrap_means(np.tile(by_seed[:, None], (1, 6)), rng=rng(0), n_resamples=20_000)
        assert draws.std() == pytest.approx(by_seed.std() / 2, rel=0.03)

    def test_p_counts_draws_that_are_not_above_zero(self):
        assert bootstrap_p(np.array([1.0, 2.0, 0.0, -1.0])) == 3 / 5
        assert bootstrap_p(np.ones(99)) == 0.01

    def test_few_parts_widen_the_interval_and_many_do_not(self):
        draws = np.linspace(0, 1, 100_001)
        assert expanded_interval(draws, n_parts=100_000) == pytest.approx((0.025, 0.975), abs=1e-4)
        # sqrt(14 / 13) times the 97.5% quantile of t with 13 degrees of freedom is 2.2419, beyond which lie 1.25%
        assert expanded_interval(draws, n_parts=14) == pytest.approx((0.01248, 0.98752), abs=1e-4)

    @pytest.mark.parametrize(("n_seeds", "seed_sd"), [(1, 0.0), (5, 0.3)])
    def test_intervals_of_planted_differences_cover_them(self, n_seeds, seed_sd):
        generator, truth, n = rng(4), 0.3, 800
        covered = 0
        for _ in range(n):
            parts, seeds = generator.standard_normal((1, 14)), seed_sd * generator.standard_normal((n_seeds, 1))
            draws = bootstrap_means(truth + parts + seeds, rng=generator, n_resamples=1000)
            low, high = expanded_interval(draws, n_parts=14)
            covered += low <= truth <= high
        # three standard errors of a share of 95%; plain percentiles cover 92%
        assert covered / n == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / n))


class TestFamily:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=15))
    def test_q_values_are_those_of_statsmodels(self, ps):
        assert benjamini_hochberg(ps) == pytest.approx(list(multipletests(ps, method="fdr_bh")[1]))

    def test_a_comparison_that_was_not_made_helps_no_other(self):
        alone, beside = benjamini_hochberg([0.01, 0.04]), benjamini_hochberg([0.01, 0.04, 1.0])
        assert all(more > less for more, less in zip(beside, alone, strict=False))

    def test_bad_input(self):
        with pytest.raises(BadInputError, match="0 to 1"):
            benjamini_hochberg([0.5, 1.2])
        with pytest.raises(BadInputError, match="0 to 1"):
            benjamini_hochberg([float("nan")])
        assert benjamini_hochberg([]) == []


class TestComparePaired:
    def test_equals_never_win_or_lose(self):
        own = rng(0).random(14)
        for n_seeds in (1, 5, 7):
            found = compare_paired(own, np.tile(own, (n_seeds, 1)), rng=rng(1))
            assert (found.p, found.difference, found.low, found.high) == (1.0, 0.0, 0.0, 0.0)
            assert (found.rank_biserial, found.d_z, found.parts_won) == (0.0, None, 0.0)

    def test_a_clear_winner(self):
        own, other = rng(0).random(14) + 1, rng(1).random((5, 14))
        found = compare_paired(own, other, rng=rng(2))
        assert found.p == pytest.approx(1 / 10_001) == bootstrap_p(np.ones(10_000))
        assert 0 < found.low < found.difference < found.high
        assert found.difference == pytest.approx(own.mean() - other.mean())
        assert found.seed_sd == pytest.approx(other.mean(axis=1).std(ddof=1))
        assert found.by_part == pytest.approx(tuple(own - other.mean(axis=0)))
        assert (found.rank_biserial, found.parts_won, found.n_parts, found.n_seeds) == (1.0, 1.0, 14, 5)

    def test_with_one_seed_p_is_wilcoxons(self):
        own, other = rng(0).random(14), rng(1).random((1, 14))
        assert compare_paired(own, other, rng=rng(2)).p == wilcoxon(own - other[0], alternative="greater").pvalue

    def test_seeds_that_disagree_hold_a_win_back(self):
        """Every part is won on average over the seeds, but one seed of five wins by far."""
        own = 0.8 + 0.01 * rng(0).random(14)
        other = np.array([0.3, 0.75, 0.85, 0.8, 0.9])[:, None] + np.zeros((5, 14))
        found = compare_paired(own, other, rng=rng(2))
        assert wilcoxon_p(found.by_part) < 0.001
        assert found.p > 0.05
        assert found.low < 0

    def test_the_seed_alone_decides(self):
        own, other = rng(0).random(9), rng(1).random((3, 9))
        assert compare_paired(own, other, rng=rng(2)) == compare_paired(own, other, rng=rng(2))

    @pytest.mark.parametrize(
        ("own", "other", "said"),
        [
            (np.ones(3), np.ones((2, 4)), r"\(3,\) and \(2, 4\)"),
            (np.ones(1), np.ones((1, 1)), r"\(1,\)"),
            (np.ones(3), np.ones((0, 3)), r"\(0, 3\)"),
            (np.ones(3), np.ones(3), r"\(3,\)"),
            (np.array([1.0, np.nan]), np.ones((1, 2)), "not finite"),
        ],
    )
    def test_bad_input(self, own, other, said):
        with pytest.raises(BadInputError, match=said):
            compare_paired(own, other, rng=rng())

    def test_bad_levels_and_resamples(self):
        with pytest.raises(BadInputError, match="level is 2"):
            expanded_interval(np.ones(3), n_parts=5, level=2)
        with pytest.raises(BadInputError, match="1 parts"):
            expanded_interval(np.ones(3), n_parts=1)
        with pytest.raises(BadInputError, match="0 resamples"):
            bootstrap_means(np.ones((1, 3)), rng=rng(), n_resamples=0)


class TestNamedChild:
    def test_the_name_alone_decides(self):
        root = rng(5)
        first = named_child(root, "raw").random(3)
        root.random(10)
        root.spawn(4)
        assert np.array_equal(named_child(root, "raw").random(3), first)
        assert not np.array_equal(named_child(root, "svd").random(3), first)
        assert not np.array_equal(named_child(rng(6), "raw").random(3), first)
        assert not np.array_equal(named_child(root.spawn(1)[0], "raw").random(3), first)

    def test_it_moves_nothing(self):
        one, other = rng(5), rng(5)
        named_child(one, "raw").random(3)
        assert one.random() == other.random()
        assert one.spawn(1)[0].random() == other.spawn(1)[0].random()

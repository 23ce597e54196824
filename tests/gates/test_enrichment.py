"""Programs along axes: loadings and ranks as scipy has them, and a null that genes which go together cannot fool."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control, mannwhitneyu, norm, pearsonr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import axis_loadings, enrich_programs, rank_sum_z
from manifoldzoo.gates.metrics._enrichment import LEAST_GENES

N_UNITS, PER_UNIT, N_GENES, N_PROGRAMS, SIZE = 20, 4, 200, 6, 12
UNITS = [f"u{i}" for i in range(N_UNITS) for _ in range(PER_UNIT)]
MEMBERS = np.array([np.arange(N_GENES) // SIZE == program for program in range(N_PROGRAMS)])


def over_units(rng: np.random.Generator, n: int, within: float = 0.5) -> np.ndarray:
    """Columns that vary between cell types, and less within them, shape (80, n)."""
    between = np.repeat(rng.standard_normal((N_UNITS, n)), PER_UNIT, axis=0)
    return between + within * rng.standard_normal((len(UNITS), n))


def unrelated(rng: np.random.Generator, n_axes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Axes that know of no gene, and genes that go together within each program."""
    shared = over_units(rng, N_PROGRAMS) @ MEMBERS.astype(float)
    return over_units(rng, n_axes), shared + over_units(rng, N_GENES)


@pytest.fixture(scope="module")
def noise():
    return unrelated(np.random.default_rng(0))


class TestLoadings:
    def test_they_are_correlations(self, noise):
        axes, genes = noise
        found = axis_loadings(axes, genes)
        assert found.shape == (3, N_GENES)
        for axis, gene in ((0, 0), (1, 17), (2, 199)):
            assert found[axis, gene] == pytest.approx(pearsonr(axes[:, axis], genes[:, gene]).statistic)

    def test_a_gene_that_does_not_vary_has_none(self, noise):
        axes, genes = noise
        found = axis_loadings(
            np.column_stack([axes, np.full(len(axes), 0.1)]), np.where(np.arange(200) == 7, 0.3, genes)
        )
        assert np.isnan(found[:, 7]).all() and np.isnan(found[3]).all()
        assert np.isfinite(np.delete(found[:3], 7, axis=1)).all()

    def test_bad_input_is_refused(self, noise):
        axes, genes = noise
        with pytest.raises(BadInputError, match="latent has 79 rows and expression 80"):
            axis_loadings(axes[:79], genes)
        with pytest.raises(BadInputError, match="finite numbers"):
            axis_loadings(axes, np.full_like(genes, np.nan))


class TestRanks:
    @pytest.mark.parametrize("decimals", [1, 12])
    def test_they_are_those_of_scipy_with_ties_and_without(self, decimals):
        loadings = np.round(np.random.default_rng(3).standard_normal((2, 40)), decimals)
        members = np.random.default_rng(4).random((5, 40)) < 0.3
        found = rank_sum_z(loadings, members)
        for axis, values in enumerate(loadings):
            for program, inside in enumerate(members):
                greater = mannwhitneyu(values[inside], values[~inside], method="asymptotic", alternative="greater")
                both = mannwhitneyu(values[inside], values[~inside], method="asymptotic")
                z = found[axis, program]
                middle = inside.sum() * (~inside).sum() / 2
                assert np.sign(z) == np.sign(greater.statistic - middle) or z == 0
                assert 2 * norm.sf(abs(z)) == pytest.approx(both.pvalue, rel=1e-9)

    def test_equal_loadings_have_no_ranks(self):
        assert np.isnan(rank_sum_z(np.ones((1, 20)), MEMBERS[:2, :20])).all()


class TestNull:
    def test_the_effect_is_the_mean_loading_less_that_of_the_others(self, noise):
        found = enrich_programs(*noise, MEMBERS, units=UNITS, rng=np.random.default_rng(0), n_permutations=9)
        loadings = axis_loadings(*noise)
        for axis in range(3):
            for program in range(N_PROGRAMS):
                inside = MEMBERS[program]
                expected = loadings[axis, inside].mean() - loadings[axis, ~inside].mean()
                assert found.effect[axis, program] == pytest.approx(expected)

    def test_the_null_is_that_of_moving_the_means_by_hand(self, noise):
        axes, genes = noise
        sizes = np.random.default_rng(2).integers(1, 7, size=10)
        units = [f"u{i}" for i, n in enumerate(sizes) for _ in range(n)]
        axes, genes, n_draws = axes[: len(units)], genes[: len(units)], 50
        found = enrich_programs(axes, genes, MEMBERS, units=units, rng=np.random.default_rng(5), n_permutations=n_draws)
        orders = np.random.default_rng(5).permuted(np.tile(np.arange(10), (n_draws, 1)), axis=1)
        labels = np.array([int(unit[1:]) for unit in units])
        means = np.array([axes[labels == unit].mean(axis=0) for unit in range(10)])
        rest = axes - means[labels]
        null = []
        for order in orders:
            loadings = axis_loadings(means[order][labels] + rest, genes)
            null.append([[r[m].mean() - r[~m].mean() for m in MEMBERS] for r in loadings])
        null = np.array(null)
        centre = (found.effect + null.sum(axis=0)) / (n_draws + 1)
        beyond = (np.abs(null - centre) >= np.abs(found.effect - centre)).sum(axis=0)
        assert found.p == pytest.approx((1 + beyond) / (1 + n_draws))
        assert 2 * norm.sf(np.abs(found.z)) == pytest.approx(found.p)
        assert (np.sign(found.z) == np.sign(found.effect - centre)).all()
        assert found.q == pytest.approx(false_discovery_control(found.p.ravel()).reshape(found.p.shape))
        assert found.log10_arrangements == pytest.approx(np.log10(np.prod(np.arange(1.0, 11.0))))

    def test_it_is_calibrated_where_genes_go_together_and_ranks_are_not(self):
        plain, corrected, ps = [], [], []
        for seed in range(300):
            rng = np.random.default_rng(seed)
            found = enrich_programs(*unrelated(rng), MEMBERS, units=UNITS, rng=rng, n_permutations=999)
            plain.append((found.rank_q < 0.05).any())
            corrected.append((found.q < 0.05).any())
            ps.append(found.p)
        # nothing is there to be found: any q below 0.05 is a false discovery, allowed in one family of twenty
        assert np.mean(corrected) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
        assert np.mean(plain) > 0.95
        # p is uniform, not merely large
        for level in (0.05, 0.2, 0.5):
            assert np.mean(np.array(ps) <= level) == pytest.approx(level, abs=0.03)

    def test_anchors_of_one_cell_type_are_not_independent(self):
        alone = []
        for seed in range(60):
            rng = np.random.default_rng(seed)
            each = [str(i) for i in range(len(UNITS))]
            found = enrich_programs(*unrelated(rng), MEMBERS, units=each, rng=rng, n_permutations=499)
            alone.append((found.q < 0.05).any())
        # why units are exchanged, and not anchors
        assert np.mean(alone) > 0.4

    def test_what_lies_along_an_axis_is_found_with_its_sign(self):
        rng = np.random.default_rng(1)
        axes, genes = unrelated(rng)
        genes = genes + 1.5 * np.outer(axes[:, 0], MEMBERS[1]) - 1.5 * np.outer(axes[:, 2], MEMBERS[4])
        found = enrich_programs(axes, genes, MEMBERS, units=UNITS, rng=rng)
        assert {tuple(at) for at in np.argwhere(found.q < 0.05).tolist()} == {(0, 1), (2, 4)}
        assert found.z[0, 1] > 2.5 and found.z[2, 4] < -2.5
        assert found.rank_z[0, 1] > 3 and found.rank_z[2, 4] < -3

    def test_a_turned_axis_turns_the_sign_and_nothing_else(self, noise):
        axes, genes = noise
        given = {"units": UNITS, "n_permutations": 99}
        one = enrich_programs(axes, genes, MEMBERS, rng=np.random.default_rng(0), **given)
        other = enrich_programs(-2.0 * axes + 3.0, genes, MEMBERS, rng=np.random.default_rng(0), **given)
        assert other.z == pytest.approx(-one.z) and other.rank_z == pytest.approx(-one.rank_z)
        assert (other.p == one.p).all() and (other.q == one.q).all()

    def test_small_programs_are_left_open_and_weigh_on_no_other(self, noise):
        small = np.zeros(N_GENES, dtype=bool)
        small[-(LEAST_GENES - 1) :] = True
        every = np.vstack([MEMBERS, small, np.ones(N_GENES, dtype=bool)])
        given = {"units": UNITS, "n_permutations": 99}
        found = enrich_programs(*noise, every, rng=np.random.default_rng(0), **given)
        plain = enrich_programs(*noise, MEMBERS, rng=np.random.default_rng(0), **given)
        assert found.n_genes.tolist() == [SIZE] * N_PROGRAMS + [LEAST_GENES - 1, N_GENES]
        for name in ("effect", "rank_z", "rank_q", "z", "p", "q"):
            assert np.isnan(getattr(found, name)[:, N_PROGRAMS:]).all(), name
            assert (getattr(found, name)[:, :N_PROGRAMS] == getattr(plain, name)).all(), name

    def test_genes_and_axes_that_do_not_vary_take_no_part(self, noise):
        axes, genes = noise
        given = {"units": UNITS, "n_permutations": 99}
        plain = enrich_programs(axes, genes, MEMBERS, rng=np.random.default_rng(0), **given)
        wide = np.column_stack([genes, np.full((len(genes), 5), 0.3)])
        still = np.column_stack([axes[:, :1], np.zeros(len(axes)), axes[:, 1:]])
        more = np.column_stack([MEMBERS, np.ones((N_PROGRAMS, 5), dtype=bool)])
        found = enrich_programs(still, wide, more, rng=np.random.default_rng(0), **given)
        assert found.n_background == N_GENES and found.n_genes.tolist() == [SIZE] * N_PROGRAMS
        assert np.isnan(found.q[1]).all()
        assert found.q[[0, 2, 3]] == pytest.approx(plain.q)

    def test_bad_input_is_refused(self, noise):
        rng = np.random.default_rng(0)
        with pytest.raises(BadInputError, match="80 anchors have 2 units, expected 80 anchors and at least 4 units"):
            enrich_programs(*noise, MEMBERS, units=["a", "b"] * 40, rng=rng)
        with pytest.raises(BadInputError, match="79 anchors"):
            enrich_programs(*noise, MEMBERS, units=UNITS[1:], rng=rng)
        with pytest.raises(BadInputError, match=r"members has shape \(6, 199\)"):
            enrich_programs(*noise, MEMBERS[:, 1:], units=UNITS, rng=rng)
        with pytest.raises(BadInputError, match="n_permutations is 0"):
            enrich_programs(*noise, MEMBERS, units=UNITS, rng=rng, n_permutations=0)

"""Rung 4 on planted panels: what is true passes, and each thing taken out makes the right check fail."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_tree import RULER, SETTINGS, STAGES, by_gate, embedded, planted_panel

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.refits._refitted import RefittedStatistic
from manifoldzoo.gates.rungs._floors import FLOORS, held_out_floors
from manifoldzoo.gates.rungs._specific import specific
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._interaction_ruler import InteractionRuler
from manifoldzoo.manifolds._null_rulers import branch_entries, branch_surrogate, log10_placements, permuted_places

ISOMAP = GeodesicSettings(n_components=6, n_neighbours=8)


@pytest.fixture(scope="module")
def real() -> GateData:
    return planted_panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def noise() -> GateData:
    rng = np.random.default_rng(1)
    return planted_panel(rng, features=rng.standard_normal((4 * len(STAGES), 120)))


class TestBranchSurrogate:
    def test_by_default_distances_within_branches_are_the_rulers(self):
        surrogate, own = branch_surrogate(RULER, STAGES), RULER.distances(STAGES)
        branch = np.array(RULER.branch(STAGES))
        same = branch[:, None] == branch[None, :]
        assert (surrogate[same] == own[same]).all()
        assert (surrogate == surrogate.T).all()

    def test_across_branches_by_hand(self):
        # b0 grows at t0, b2 at t4: from b0_1 to its entry b0_0 is one step, entries are 1 + 4 + 1 apart, b2_2 is two on
        d = branch_surrogate(RULER, ["b0_1", "b2_2", "b0_0"])
        assert d[0, 1] == 1 + 6 + 2
        assert d[0, 2] == 1
        swapped = {"b0": "b1", "b1": "b0", "b2": "b2"}
        # b0 now grows where b1 does, at t2
        assert branch_surrogate(RULER, ["b0_1", "b2_2"], swapped)[0, 1] == 1 + 4 + 2

    def test_permuting_keeps_distances_within_branches(self):
        places = permuted_places(RULER.branch(STAGES), rng=np.random.default_rng(0))
        assert sorted(places) == sorted(places.values())
        moved, own = branch_surrogate(RULER, STAGES, places), RULER.distances(STAGES)
        branch = np.array(RULER.branch(STAGES))
        same = branch[:, None] == branch[None, :]
        assert (moved[same] == own[same]).all()
        assert (moved[~same] != own[~same]).any()
        assert (np.linalg.eigvalsh(moved) != 0).any()

    def test_entries_and_counts(self):
        assert branch_entries(RULER, ["trunk", "b3"]) == {"trunk": "t0", "b3": "b3_0"}
        assert log10_placements(["a", "b", "c", "a"]) == pytest.approx(np.log10(6))


@pytest.fixture(scope="module")
def table():
    """A ruler of interactions that measures between stages what the tree does, with so many nulls that do not."""

    def made(n_nulls: int) -> InteractionRuler:
        ids, rng = [stage.id for stage in RULER.stages], np.random.default_rng(0)
        directed = RULER.distances(ids) + 1
        orders = [rng.permutation(len(ids)) for _ in range(n_nulls)]
        nulls = np.stack([directed[np.ix_(order, order)] for order in orders])
        return InteractionRuler("table", "1", RULER.stages, directed, nulls)

    return made


class TestFloors:
    def test_planted_geometry_reaches_them_and_noise_does_not(self, real, noise):
        rng = np.random.default_rng(0)
        high = held_out_floors(real, SETTINGS, rng=rng)
        low = held_out_floors(noise, SETTINGS, rng=rng)
        assert high.reached
        assert not high.undecided
        assert not low.reached
        assert all(abs(score.touching) < 0.3 for score in low.scores.values())

    def test_donors_stand_in_for_a_single_study(self, real):
        alone = replace(real, study=["s"] * len(real.stage))
        assert len(held_out_floors(alone, SETTINGS, rng=np.random.default_rng(0)).scores["study"].scores) == 4


class TestRung4:
    @pytest.fixture(scope="class")
    def passed(self, real, noise):
        return specific(real, RULER, SETTINGS, seed=1, negative=noise, n_rulers=20, n_permutations=199)

    def test_the_truth_passes(self, passed):
        assert {gate: record.status for gate, record in by_gate(passed).items()} == dict.fromkeys(
            ["random_floor", "study_floor", "branch_floor", "null_ruler", "negative_control", "branch_permutation"],
            "pass",
        )
        assert by_gate(passed)["branch_permutation"].null.n == 199

    def test_without_a_negative_panel_the_rung_is_not_run(self, real):
        result = specific(real, RULER, SETTINGS, seed=1, n_rulers=2, n_permutations=99)
        assert by_gate(result)["negative_control"].status == "not run"
        assert result.status != "pass"

    def test_a_negative_panel_that_is_none_fails(self, real):
        result = specific(real, RULER, SETTINGS, seed=1, negative=real, n_rulers=2, n_permutations=99)
        assert by_gate(result)["negative_control"].status == "fail"

    def test_a_shuffled_ruler_fails_its_floors(self, real):
        shuffled = RULER.relabelled(rng=np.random.default_rng(5))
        data = replace(real, distances=shuffled.distances(real.stage), branch=shuffled.branch(real.stage))
        result = specific(data, shuffled, SETTINGS, seed=1, n_rulers=2, n_permutations=99)
        floors = [by_gate(result)[f"{name}_floor"].status for name in FLOORS]
        assert "fail" in floors
        assert result.status == "fail"

    def test_null_rulers_are_drawn_as_they_always_were(self, real):
        record = by_gate(specific(real, RULER, SETTINGS, seed=1, n_rulers=3, n_permutations=2))["null_ruler"]
        _, ruler_rng, *_ = np.random.default_rng(1).spawn(4)
        scores = []
        for child in ruler_rng.spawn(3):
            relabel_rng, fit_rng = child.spawn(2)
            distances = RULER.relabelled(rng=relabel_rng).distances(real.stage)
            floors = held_out_floors(real, SETTINGS, rng=fit_rng, distances=distances, n_repeats=3, n_starts=1)
            scores.append(floors.scores["random"].touching)
        assert record.details["mean_random"] == np.mean(scores)
        assert record.n == 3

    def test_a_ruler_with_fewer_nulls_than_are_asked_for_cannot_decide(self, real, table):
        record = by_gate(specific(real, table(19), ISOMAP, seed=1, n_permutations=2))["null_ruler"]
        assert record.status == "cannot decide" and "19 null rulers, expected 20" in record.reason

    def test_a_table_that_follows_the_tree_passes_and_nulls_that_follow_it_too_fail(self, real, table):
        ruler = table(10)
        found = by_gate(specific(real, ruler, ISOMAP, seed=1, n_rulers=10, n_permutations=199))
        for gate in ("random_floor", "study_floor", "branch_floor", "null_ruler"):
            assert found[gate].status == "pass"
        assert "travel with the ruler" in found["null_ruler"].details["what"]
        # three stages in a row are tied to other branches by the one in the middle, those of the tree by their first
        assert branch_entries(ruler, ["b3"]) == {"b3": "b3_1"} != branch_entries(RULER, ["b3"])
        statistic = RefittedStatistic(real.features, ISOMAP, rng=np.random.default_rng(1).spawn(4)[3].spawn(3)[0])
        own = branch_surrogate(ruler, real.stage)
        assert not np.array_equal(own, branch_surrogate(RULER, real.stage))
        observed = statistic.of(own[None], np.random.default_rng(0).spawn(1))[0]
        assert found["branch_permutation"].details["observed"] == pytest.approx(observed)
        assert found["branch_permutation"].statistic < 0.05
        tables = ruler.null_tables.copy()
        tables[[3, 7]] = ruler.directed
        leaky = by_gate(
            specific(real, replace(ruler, null_tables=tables), ISOMAP, seed=1, n_rulers=10, n_permutations=2)
        )
        assert (leaky["null_ruler"].statistic, leaky["null_ruler"].status) == (pytest.approx(0.2), "fail")

    def test_a_head_that_does_not_read_the_ruler_is_asked_the_same(self, real, noise):
        result = specific(real, RULER, ISOMAP, seed=1, negative=noise, n_rulers=5, n_permutations=199)
        assert result.status == "pass", result.reason
        assert "its own refit" in by_gate(result)["branch_permutation"].null.kind
        shuffled = RULER.relabelled(rng=np.random.default_rng(5))
        data = replace(real, distances=shuffled.distances(real.stage), branch=shuffled.branch(real.stage))
        again = specific(data, shuffled, ISOMAP, seed=1, n_rulers=1, n_permutations=2)
        assert [by_gate(again)[f"{name}_floor"].status for name in FLOORS] == ["fail"] * 3

    def test_few_branches_cannot_decide(self):
        stage = ["t0", "t1", "t2", "b0_0", "b0_1", "b0_2"] * 4
        rng = np.random.default_rng(0)
        data = GateData(
            features=embedded(stage, rng),
            expression=embedded(stage, rng),
            stage=stage,
            distances=RULER.distances(stage),
            branch=RULER.branch(stage),
            donor=["d"] * 24,
            tissue=["t"] * 24,
            study=["s"] * 24,
        )
        result = specific(data, RULER, SETTINGS, seed=1, n_rulers=1, n_permutations=99)
        assert by_gate(result)["branch_permutation"].status == "cannot decide"

    def test_it_depends_on_the_seed_alone(self, real, noise, passed):
        again = specific(real, RULER, SETTINGS, seed=1, negative=noise, n_rulers=20, n_permutations=199)
        assert again == passed


def test_a_statistic_needs_splits(real):
    with pytest.raises(BadInputError, match="n_splits is 0"):
        RefittedStatistic(real.features, SETTINGS, rng=np.random.default_rng(0), n_splits=0)

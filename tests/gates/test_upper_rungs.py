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
from manifoldzoo.manifolds._null_rulers import branch_entries, branch_surrogate, log10_placements, permuted_places


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

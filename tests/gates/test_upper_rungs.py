"""Rungs 4 to 6 on planted panels: what is true passes, and each thing taken out makes the right check fail."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import false_discovery_control, spearmanr, wilcoxon

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.controls._comparators import Comparator, comparators
from manifoldzoo.gates.metrics import all_pairs
from manifoldzoo.gates.refits._refitted import RefittedStatistic
from manifoldzoo.gates.rungs._floors import FLOORS, held_out_floors
from manifoldzoo.gates.rungs._model_derived import model_derived
from manifoldzoo.gates.rungs._specific import specific
from manifoldzoo.gates.rungs._transfers import Outside, transfers
from manifoldzoo.manifolds._let import LetSettings, fit_let
from manifoldzoo.manifolds._let_many import feature_coordinates
from manifoldzoo.manifolds._null_rulers import branch_entries, branch_surrogate, log10_placements, permuted_places
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler

BRANCHES = [f"b{i}" for i in range(6)]
SETTINGS = LetSettings(n_components=6, n_steps=80)


def caterpillar() -> StageRuler:
    """A trunk with an arm of three stages at every second of its stages, so that places of arms differ."""
    trunk = [f"t{i}" for i in range(10)]
    stages = [Stage(name, name, "", "trunk") for name in trunk]
    edges = [Edge(child, parent, "made") for parent, child in pairwise(trunk)]
    for number, branch in enumerate(BRANCHES):
        above = trunk[min(9, 2 * number)]
        for depth in range(3):
            name = f"{branch}_{depth}"
            stages.append(Stage(name, name, "", branch))
            edges.append(Edge(name, above, "made"))
            above = name
    return StageRuler("caterpillar", "1", tuple(stages), tuple(edges), "t0")


RULER = caterpillar()
EVERY = [stage.id for stage in RULER.stages]
STAGES = [stage.id for stage in RULER.stages if stage.branch != "trunk"]


def embedded(stages: list[str], rng: np.random.Generator, noise: float = 0.3) -> np.ndarray:
    """Coordinates whose distances grow with those of the ruler: every step of the tree is an axis."""
    parent = {edge.child: edge.parent for edge in RULER.edges}
    axes = np.zeros((len(EVERY), len(EVERY)))
    for row, name in enumerate(EVERY):
        here = name
        while here in parent:
            axes[row, EVERY.index(here)] = 1
            here = parent[here]
    return axes[[EVERY.index(name) for name in stages]] + noise * rng.standard_normal((len(stages), len(EVERY)))


def panel(
    rng: np.random.Generator,
    *,
    n_donors: int = 4,
    features: np.ndarray | None = None,
    prefix: str = "d",
    width: int = 120,
) -> GateData:
    stage = STAGES * n_donors
    mixing = np.random.default_rng(99).standard_normal((len(EVERY), width))
    values = embedded(stage, rng) @ mixing + 0.5 * rng.standard_normal((len(stage), width))
    donor = [f"{prefix}{d}" for d in range(n_donors) for _ in STAGES]
    given = values if features is None else features
    return GateData(
        features=given,
        expression=values,
        stage=stage,
        distances=RULER.distances(stage),
        branch=RULER.branch(stage),
        donor=donor,
        tissue=["t"] * len(stage),
        study=[f"s{prefix}{int(name[len(prefix) :]) % 2}" for name in donor],
    )


@pytest.fixture(scope="module")
def real() -> GateData:
    return panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def noise() -> GateData:
    rng = np.random.default_rng(1)
    return panel(rng, features=rng.standard_normal((4 * len(STAGES), 120)))


def by_gate(result):
    return {record.gate: record for record in result.records}


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


class TestRung5:
    @pytest.fixture(scope="class")
    def head(self, real):
        return fit_let(real.features, real.distances, SETTINGS, rng=np.random.default_rng(0))

    def outside(self, head, data, cells=0, donors=0):
        return Outside(data, head.latent(data.features), cells, donors)

    def test_the_truth_transfers(self, real, head):
        other = panel(np.random.default_rng(7), prefix="e")
        result = transfers(real, self.outside(head, other), SETTINGS, seed=1)
        assert result.status == "pass", result.reason
        angles = np.arccos(
            np.clip(
                (u := head.latent(other.features) / np.linalg.norm(head.latent(other.features), axis=1)[:, None]) @ u.T,
                -1,
                1,
            )
        )
        pairs = all_pairs(len(other.stage))
        expected = spearmanr(pairs.of(angles), pairs.of(other.distances)).statistic
        assert by_gate(result)["external_all"].statistic == pytest.approx(expected, abs=1e-6)

    def test_noise_does_not(self, real, noise, head):
        result = transfers(real, self.outside(head, replace(noise, donor=["e"] * len(noise.stage))), SETTINGS, seed=1)
        assert result.status == "fail"
        assert by_gate(result)["external_permutation"].status == "fail"

    @pytest.mark.parametrize(("cells", "donors", "gate"), [(1, 0, "no_shared_cells"), (0, 2, "no_shared_donors")])
    def test_shared_cells_or_donors_fail_it(self, real, head, cells, donors, gate):
        other = panel(np.random.default_rng(7), prefix="e")
        result = transfers(real, self.outside(head, other, cells, donors), SETTINGS, seed=1, n_permutations=999)
        assert by_gate(result)[gate].status == "fail"
        assert result.status == "fail"

    def test_no_external_panel_is_not_run_and_a_tiny_one_cannot_decide(self, real, head):
        assert transfers(real, None, SETTINGS, seed=1).status == "not run"
        rows = slice(0, 5)
        few = GateData(
            real.features[rows], real.expression[rows], real.stage[rows], np.asarray(real.distances)[rows, rows],
            real.branch[rows], real.donor[rows], real.tissue[rows], real.study[rows],
        )  # fmt: skip
        assert transfers(real, self.outside(head, few), SETTINGS, seed=1).status == "cannot decide"


class TestRung6:
    def untrained(self, real, n=5):
        rng = np.random.default_rng(3)
        return [
            feature_coordinates(rng.standard_normal(real.expression.shape).astype("f4"), scale_floor=0.1)
            for _ in range(n)
        ]

    @pytest.fixture(scope="class")
    def eight(self):
        """Features that know the tree, beside expression that is mostly noise."""
        rng = np.random.default_rng(0)
        data = panel(rng, n_donors=8)
        noisy = np.asarray(data.expression) + 60 * rng.standard_normal(data.expression.shape)
        return replace(data, expression=noisy)

    def test_features_that_know_more_beat_all(self, eight):
        operator = np.eye(120, dtype=np.float32)[None]
        others = comparators(eight, operator, {"random-init": self.untrained(eight)}, rng=np.random.default_rng(0))
        assert [other.name for other in others] == [
            "raw",
            "z_scored",
            "pca",
            "gene_correlation",
            "spectrum_matched",
            "random-init",
        ]
        told = []
        result = model_derived(eight, others, SETTINGS, seed=1, n_starts=1, progress=told.append)
        assert result.status == "pass", result.reason
        assert len(told) == 6
        found = by_gate(result)
        assert found["verdict_beats_expression"].status == found["verdict_beats_untrained_weights"].status == "pass"
        assert found["beats_raw"].details["held_out"] == "donor"
        assert found["beats_random_init"].details["n_seeds"] == 5

    def test_the_same_features_beat_nothing(self, eight):
        own = feature_coordinates(eight.features, scale_floor=0.1)
        others = [
            Comparator("raw", "expression", own[None]),
            Comparator("random-init", "untrained", np.stack([own] * 5)),
        ]
        result = model_derived(eight, others, SETTINGS, seed=1, n_starts=1)
        assert result.status == "fail"
        assert all(record.statistic == 1.0 for record in result.records if record.gate.startswith("beats"))

    def test_too_few_untrained_seeds_cannot_decide(self, eight):
        own = feature_coordinates(eight.expression, scale_floor=0.1)
        others = [
            Comparator("raw", "expression", own[None]),
            Comparator("random-init", "untrained", np.stack(self.untrained(eight, 4))),
        ]
        assert (
            by_gate(model_derived(eight, others, SETTINGS, seed=1, n_starts=1))["beats_random_init"].status
            == "cannot decide"
        )

    def test_without_untrained_models_it_is_not_run(self, real):
        assert model_derived(real, [], SETTINGS, seed=1).status == "not run"

    def test_q_is_that_of_the_paired_test(self, eight):
        """Recomputed with scipy from the details of a single-seed comparison."""
        own = feature_coordinates(eight.expression, scale_floor=0.1)
        others = [
            Comparator("raw", "expression", own[None]),
            Comparator("random-init", "untrained", np.stack(self.untrained(eight))),
        ]
        found = by_gate(model_derived(eight, others, SETTINGS, seed=1, n_starts=1))
        ps = [found[gate].details["p"] for gate in ("beats_raw", "beats_random_init")]
        qs = false_discovery_control(ps)
        assert [found[gate].statistic for gate in ("beats_raw", "beats_random_init")] == pytest.approx(list(qs))
        # with eight parts all won, the smallest one-sided p is 1 / 2^8
        assert found["beats_raw"].details["parts_won"] == 1.0
        assert ps[0] == pytest.approx(wilcoxon(np.arange(1, 9), alternative="greater").pvalue)


def test_a_statistic_needs_splits(real):
    with pytest.raises(BadInputError, match="n_splits is 0"):
        RefittedStatistic(real.features, SETTINGS, rng=np.random.default_rng(0), n_splits=0)

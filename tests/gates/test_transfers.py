"""Rung 5 on planted panels: strangers that the head knows pass, and each panel has gates of its own."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from planted_tree import SETTINGS, by_gate, planted_panel
from scipy.spatial.distance import cosine, pdist
from scipy.stats import spearmanr

from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.gates.rungs._transfers import (
    EXTERNAL_GATES,
    NO_IDS,
    NO_PANEL,
    SHARED_GATES,
    ZERO_SHOT_GATES,
    Outside,
    gates_of,
    transfers,
)
from manifoldzoo.manifolds._geodesic import fit_geodesic
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import fit_let


@pytest.fixture(scope="module")
def real():
    return planted_panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(1)
    return planted_panel(rng, features=rng.standard_normal((72, 120)), prefix="e")


@pytest.fixture(scope="module")
def head(real):
    return fit_let(real.features, real.distances, SETTINGS, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def stranger():
    return planted_panel(np.random.default_rng(7), prefix="e")


@pytest.fixture(scope="module")
def another():
    return planted_panel(np.random.default_rng(8), prefix="f")


def outside(head, data, cells=0, donors=0, **named) -> Outside:
    return Outside(data, head.latent(data.features), cells, donors, **named)


def zero_shot(head, data, name="zero-shot", **counts) -> Outside:
    return outside(head, data, name=name, role="zero-shot", **counts)


def deciding(result) -> list:
    return [record for record in result.records if record.decides]


def rows_of(data: GateData, rows) -> GateData:
    rows = list(rows)
    chosen = {
        name: [getattr(data, name)[row] for row in rows] for name in ("stage", "branch", "donor", "tissue", "study")
    }
    arrays = {name: np.asarray(getattr(data, name))[rows] for name in ("features", "expression")}
    return GateData(**arrays, **chosen, distances=np.asarray(data.distances)[np.ix_(rows, rows)])


class TestExternal:
    def test_the_truth_transfers(self, real, head, stranger):
        result = transfers(real, [outside(head, stranger)], SETTINGS, seed=1)
        assert result.status == "pass", result.reason
        assert [record.gate for record in deciding(result)] == [*SHARED_GATES, *EXTERNAL_GATES]
        angles = np.arccos(np.clip(1 - pdist(head.latent(stranger.features), "cosine"), -1, 1))
        upper = np.triu_indices(len(stranger.stage), 1)
        expected = spearmanr(angles, np.asarray(stranger.distances)[upper]).statistic
        assert by_gate(result)["external_all"].statistic == pytest.approx(expected, abs=1e-6)
        apart = np.array(stranger.donor)[upper[0]] != np.array(stranger.donor)[upper[1]]
        expected = spearmanr(angles[apart], np.asarray(stranger.distances)[upper][apart]).statistic
        assert by_gate(result)["external_between_donors"].statistic == pytest.approx(expected, abs=1e-6)

    def test_branches_are_the_parts_of_the_branch_gate(self, real, head, stranger):
        record = by_gate(transfers(real, [outside(head, stranger)], SETTINGS, seed=1, n_permutations=9))[
            "external_branch_holdout"
        ]
        assert list(record.parts) == sorted(set(stranger.branch))
        assert record.statistic == pytest.approx(np.mean(list(record.parts.values())))

    def test_noise_does_not(self, real, noise, head):
        result = transfers(real, [outside(head, noise)], SETTINGS, seed=1)
        assert result.status == "fail"
        assert by_gate(result)["external_permutation"].status == "fail"

    @pytest.mark.parametrize(("cells", "donors", "gate"), [(1, 0, "no_shared_cells"), (0, 2, "no_shared_donors")])
    def test_shared_cells_or_donors_fail_it(self, real, head, stranger, cells, donors, gate):
        result = transfers(real, [outside(head, stranger, cells, donors)], SETTINGS, seed=1, n_permutations=999)
        assert by_gate(result)[gate].status == "fail"
        assert result.status == "fail"

    @pytest.mark.parametrize("missing", ["cells", "donors"])
    def test_ids_that_cannot_be_compared_leave_it_open(self, real, head, stranger, missing):
        result = transfers(real, [outside(head, stranger, **{missing: None})], SETTINGS, seed=1)
        record = by_gate(result)[f"no_shared_{missing}"]
        assert (record.status, record.reason) == ("cannot decide", NO_IDS)
        assert result.status == "cannot decide"

    def test_no_panel_is_not_run_and_a_tiny_one_cannot_decide(self, real, head, stranger):
        result = transfers(real, [], SETTINGS, seed=1)
        assert (result.status, result.records[0].reason) == ("not run", NO_PANEL)
        few = transfers(real, [outside(head, rows_of(stranger, range(5)))], SETTINGS, seed=1)
        assert few.status == "cannot decide"
        assert [record.gate for record in deciding(few)] == [*SHARED_GATES, *EXTERNAL_GATES]

    def test_a_head_that_cannot_be_refitted_leaves_the_branch_gate_alone(self, real, head, stranger):
        result = transfers(real, [outside(head, stranger)], None, seed=1)
        assert [record.gate for record in deciding(result) if record.status != "pass"] == ["external_branch_holdout"]
        assert result.status == "not run"


class TestSeveralPanels:
    @pytest.fixture(scope="class")
    def all_of_them(self, real, head, stranger, another):
        panels = [
            zero_shot(head, another, name="blood-hao"),
            outside(head, stranger, name="kang"),
            outside(head, another, name="other-lab"),
            zero_shot(head, stranger),
        ]
        return panels, transfers(real, panels, SETTINGS, seed=1)

    def test_each_has_gates_of_its_own(self, all_of_them):
        _, result = all_of_them
        beside = [gate.removeprefix("external") for gate in EXTERNAL_GATES]
        looked_at = [gate.removeprefix("zero_shot") for gate in ZERO_SHOT_GATES]
        expected = [
            *(f"zero_shot_blood_hao_{gate}" for gate in SHARED_GATES),
            *(f"zero_shot_blood_hao{gate}" for gate in looked_at),
            *SHARED_GATES,
            *EXTERNAL_GATES,
            *(f"external_other_lab_{gate}" for gate in SHARED_GATES),
            *(f"external_other_lab{gate}" for gate in beside),
            *(f"zero_shot_{gate}" for gate in SHARED_GATES),
            *ZERO_SHOT_GATES,
        ]
        assert [record.gate for record in deciding(result)] == expected
        assert result.status == "pass", result.reason

    def test_every_one_decides(self, real, head, noise, all_of_them):
        panels, _ = all_of_them
        for place in range(4):
            bad = replace(panels[place], data=noise, latent=head.latent(noise.features))
            chosen = [*panels[:place], bad, *panels[place + 1 :]]
            assert transfers(real, chosen, None, seed=1, n_permutations=9).status == "fail"
            shared = [*panels[:place], replace(panels[place], n_shared_cells=3), *panels[place + 1 :]]
            assert transfers(real, shared, None, seed=1, n_permutations=9).status == "fail"

    def test_a_panel_more_or_another_order_moves_no_number(self, real, head, all_of_them):
        panels, result = all_of_them
        kang, other, third = panels[1], panels[2], panels[3]
        found, before = by_gate(transfers(real, [kang, third, other], SETTINGS, seed=1)), by_gate(result)
        assert all(record == before[gate] for gate, record in found.items())
        alone = by_gate(transfers(real, [kang], SETTINGS, seed=1))
        assert all(record == before[gate] for gate, record in alone.items())

    def test_a_zero_shot_panel_alone_leaves_the_rung_open(self, real, head, another):
        result = transfers(real, [zero_shot(head, another)], SETTINGS, seed=1)
        found = by_gate(result)
        assert result.status == "not run"
        assert {found[gate].reason for gate in (*SHARED_GATES, *EXTERNAL_GATES)} == {NO_PANEL}
        assert all(found[gate].status == "pass" for gate in ZERO_SHOT_GATES)

    def test_registered_are_exactly_the_records_that_decide(self, real, all_of_them):
        panels, _ = all_of_them
        for chosen in (panels, panels[:1], panels[1:2]):
            found = transfers(real, chosen, None, seed=1, n_permutations=9)
            made = [(record.gate, record.direction, record.threshold) for record in deciding(found)]
            declared = gates_of(SimpleNamespace(panels=[*chosen, SimpleNamespace(name="heart", role="negative")]))
            assert sorted(gate for gate, *_ in made) == sorted(gate for gate, *_ in declared)
            assert {one for one in made if one[1]} <= set(declared)
        assert [gate for gate, *_ in gates_of(SimpleNamespace(panels=[]))] == [*SHARED_GATES, *EXTERNAL_GATES]


class TestZeroShot:
    def test_the_correlation_is_that_of_all_pairs(self, real, head, another):
        found = by_gate(transfers(real, [zero_shot(head, another)], SETTINGS, seed=1, n_permutations=9))
        z = head.latent(another.features)
        some = [(i, j) for i in range(20) for j in range(i)]
        angles = angular_distances(z)
        assert all(np.cos(angles[i, j]) == pytest.approx(1 - cosine(z[i], z[j])) for i, j in some)
        upper = np.triu_indices(len(z), 1)
        expected = spearmanr(angles[upper], np.asarray(another.distances)[upper]).statistic
        assert found["zero_shot_spearman"].statistic == pytest.approx(expected)

    def test_what_donors_explain_of_the_ruler_is_taken_out(self, real, another):
        """Donors that each hold their own arms: donors explain the ruler, until they are taken out."""
        arm = np.array([int(name[1:].split("_")[0]) for name in another.stage])
        donor = [f"g{number}" for number in arm // 2]
        data = replace(another, donor=donor, study=["one"] * len(donor))
        place = np.eye(3)[arm // 2] @ np.array([[1.0, 0.0, 0.2], [0.7, 0.7, 0.2], [0.0, 1.0, 0.2]])
        latent = place + 0.01 * np.random.default_rng(0).standard_normal(place.shape)
        panels = [Outside(data, latent, 0, 0, "zero-shot", "zero-shot")]
        found = by_gate(transfers(real, panels, SETTINGS, seed=1, n_permutations=9))
        raw, rest = found["zero_shot_spearman"].statistic, found["zero_shot_residualised"].statistic
        assert raw > 0.3
        assert rest < raw - 0.1

    def test_a_panel_that_leaves_nothing_to_regress_cannot_decide(self, real, head, another):
        own = replace(another, donor=[f"h{row}" for row in range(len(another.stage))])
        ruler_is_donor = replace(
            another, distances=1.0 - (np.array(another.donor)[:, None] == np.array(another.donor)[None])
        )
        for data, status in ((own, "pass"), (ruler_is_donor, "cannot decide")):
            found = by_gate(transfers(real, [zero_shot(head, data)], SETTINGS, seed=1, n_permutations=9))
            assert found["zero_shot_residualised"].status == status

    def test_few_arrangements_cannot_decide(self, real, head, another):
        alone = replace(another, donor=[f"h{row}" for row in range(len(another.stage))])
        found = by_gate(transfers(real, [zero_shot(head, alone)], SETTINGS, seed=1))
        assert found["zero_shot_permutation"].status == "cannot decide"

    def test_tiny_panels_leave_every_gate_open(self, real, head, another):
        result = transfers(real, [zero_shot(head, rows_of(another, range(5)))], SETTINGS, seed=1)
        assert all(by_gate(result)[gate].status == "cannot decide" for gate in ZERO_SHOT_GATES)


class TestHeadsThatDoNotReadTheRuler:
    settings = GeodesicSettings(n_components=5, n_neighbours=8)

    def test_strangers_are_placed_by_landmarks_and_compared_by_euclidean_distances(self, real, stranger):
        head = fit_geodesic(real.features, real.distances, self.settings)
        found = by_gate(transfers(real, [outside(head, stranger)], self.settings, seed=1, n_permutations=999))
        upper = np.triu_indices(len(stranger.stage), 1)
        target, branch = stranger.distances[upper], np.array(stranger.branch)
        own = spearmanr(pdist(head.latent(stranger.features)), target).statistic
        assert found["external_all"].statistic == pytest.approx(own)
        assert found["external_permutation"].details["observed"] == pytest.approx(own)
        parts = {}
        for name in sorted(set(stranger.branch)):
            kept = np.array(real.branch) != name
            refit = fit_geodesic(real.features[kept], real.distances[np.ix_(kept, kept)], self.settings)
            touching = (branch[upper[0]] == name) | (branch[upper[1]] == name)
            parts[name] = spearmanr(pdist(refit.latent(stranger.features))[touching], target[touching]).statistic
        assert found["external_branch_holdout"].parts == pytest.approx(parts, abs=1e-6)

    def test_branches_that_leave_too_few_for_the_graph_are_left_out(self, real, stranger):
        # 72 anchors, 60 without any of the branches
        wide = GeodesicSettings(n_components=5, n_neighbours=60)
        head = fit_geodesic(real.features, real.distances, wide)
        found = by_gate(transfers(real, [outside(head, stranger)], wide, seed=1, n_permutations=9))
        assert found["external_branch_holdout"].status == "cannot decide"
        assert found["external_branch_holdout"].reason.startswith("0 branches of the panel can be held out")
        assert found["external_all"].statistic > 0.5

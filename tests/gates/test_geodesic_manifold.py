"""A planted manifold with a geodesic head: the ladder takes it as it takes any other, and what is spoilt fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted import ISOMAP, Planted, PlantedPanel, planted_panel, untrained_operator
from planted_tree import planted_panel as tree_panel

from manifoldzoo.cards._evidence import EvidenceRun
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates._registered import registered_tests
from manifoldzoo.gates.rungs._own_refitted import REFITTED, own_refitted
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._manifold import Manifold

MDS = replace(ISOMAP, kind="geodesic-mds")
FEW = {"seed": 1, "n_permutations": 16, "n_starts": 3}


@pytest.fixture
def quick(monkeypatch):
    """So few permutations that their gates cannot decide."""
    for name, value in (("N_PERMUTATIONS", 16), ("N_BRANCH_PERMUTATIONS", 16)):
        monkeypatch.setattr(_ladder, name, value)


@pytest.fixture(scope="module")
def sound() -> Manifold:
    return Planted(settings=ISOMAP, n_untrained=0).build()


@pytest.fixture(scope="module")
def run(sound) -> EvidenceRun:
    return validate(sound, through=3)


def records_of(run: EvidenceRun, rung: int) -> dict:
    return {record.gate: record for record in run.rungs[rung - 1].records}


def shuffled(panel: PlantedPanel) -> PlantedPanel:
    """The same anchors with their stages dealt out anew within each donor."""
    rng, donor = np.random.default_rng(0), np.array(panel.donor)
    stage = np.array(panel.stage)
    for name in np.unique(donor):
        stage[donor == name] = rng.permutation(stage[donor == name])
    return replace(panel, stage=stage.tolist())


def test_it_passes_the_first_three_rungs(run):
    assert [result.status for result in run.rungs] == ["pass"] * 3, [result.reason for result in run.rungs]
    found = records_of(run, 3)
    assert found["shipped_head"].statistic == pytest.approx(0, abs=1e-6)
    assert found["donor_holdout"].statistic > 0.8
    assert found["blocked_permutation"].null.n == 1000


def test_identical_starts_are_not_counted_as_twenty(run):
    found = records_of(run, 3)
    for gate in ("trustworthiness", "random_holdout", "donor_holdout", "branch_holdout"):
        assert (found[gate].details["n_starts"], found[gate].details["start_sd"]) == (1, 0.0)
    assert run.plan.n_starts == 20


def test_records_do_not_say_that_the_head_was_fitted_to_the_labels(run):
    found = records_of(run, 3)
    for gate in ("blocked_permutation_fixed_head", "mantel", "partial_mantel"):
        warning = found[gate].details["warning"]
        assert "even for noise" not in warning and "does not read" in warning
    assert "its own refit" in found["blocked_permutation"].null.kind
    assert "without the ruler" in found["shipped_geometry"].reason
    assert "angles" not in found["mantel"].null.kind


def test_shuffled_labels_fail_it_and_not_the_checks_that_know_no_label(sound, run):
    spoilt = Planted(settings=ISOMAP, n_untrained=0, panel=shuffled(planted_panel(0))).build()
    again = validate(spoilt, through=3)
    assert [result.status for result in again.rungs] == ["pass", "pass", "fail"]
    found = records_of(again, 3)
    failed = {gate for gate, record in found.items() if record.status == "fail" and record.decides}
    assert failed == {"random_holdout", "donor_holdout", "branch_holdout", "blocked_permutation"}
    assert found["trustworthiness"].statistic == records_of(run, 3)["trustworthiness"].statistic
    # and a head that was not refitted is no excuse: nothing was fitted to these labels
    assert found["blocked_permutation_fixed_head"].statistic > 0.01


@pytest.mark.parametrize("laid_out", ["by the ruler", "at random"])
def test_coordinates_that_the_procedure_does_not_give_fail_the_shipped_head(sound, quick, laid_out):
    n = len(sound.anchor_stages)
    if laid_out == "by the ruler":
        distances, centring = sound.ruler.distances(sound.anchor_stages), np.eye(n) - 1 / n
        values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
        coordinates = vectors[:, -6:] * np.sqrt(np.maximum(values[-6:], 0))
    else:
        coordinates = np.random.default_rng(0).permutation(sound.tensors["head.coordinates"])
    tensors = sound.tensors | {"head.coordinates": coordinates.astype(np.float32)}
    forged = replace(sound, tensors=tensors)
    # the manifold keeps what it made of the tensors that it was built with
    assert forged.landmarks is not sound.landmarks
    record = records_of(validate(forged, through=3), 3)["shipped_head"]
    assert record.status == "fail", record


def test_features_without_structure_fail(quick):
    spoilt = Planted(settings=ISOMAP, n_untrained=0, operator=untrained_operator(0)).build()
    assert records_of(validate(spoilt, through=3), 3)["trustworthiness"].status == "fail"


class TestOnCellsOfOnesOwn:
    """Heads refitted on the anchors of a user's own panel."""

    def test_enough_anchors_are_refitted_on(self):
        data = tree_panel(np.random.default_rng(0))
        found = {record.gate: record for record in own_refitted(data, ISOMAP, n_anchors=72, **FEW)}
        assert found["own_refitted_random_holdout"].statistic > 0.6
        assert found["own_refitted_random_holdout"].details["n_starts"] == 1
        assert not any(record.decides for record in found.values())

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            (GeodesicSettings(n_components=6, n_neighbours=70), "72 anchors of your panel, expected at least 89"),
            (GeodesicSettings(n_components=50), "have no 50 dimensions"),
        ],
    )
    def test_too_few_leave_every_gate_open(self, settings, said):
        data = tree_panel(np.random.default_rng(0))
        found = own_refitted(data, settings, n_anchors=72, **FEW)
        assert {record.gate for record in found} == {f"own_refitted_{gate}" for gate in REFITTED}
        assert {record.status for record in found} == {"cannot decide"}
        assert all(said in record.reason for record in found), found[0].reason


@pytest.mark.slow
@pytest.mark.parametrize("settings", [ISOMAP, MDS])
def test_it_passes_every_rung(settings):
    manifold = Planted(settings=settings).build()
    run = validate(manifold, through=6)
    assert [result.status for result in run.rungs] == ["pass"] * 6, [result.reason for result in run.rungs]
    decided = [record.gate for result in run.rungs for record in result.records if record.decides]
    assert sorted(decided) == sorted(test.gate for test in registered_tests(manifold.card, through=6) if test.decides)
    assert records_of(run, 6)["beats_raw"].details["n_starts"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "rung", "gate"),
    [
        ({"ruler": Planted().ruler.relabelled(rng=np.random.default_rng(0))}, 4, "branch_floor"),
        ({"negative": planted_panel(1, n_donors=4, prefix="e")}, 4, "negative_control"),
        ({"external": shuffled(planted_panel(1, n_donors=4, prefix="e"))}, 5, "external_all"),
        ({"operator": untrained_operator(0)}, 6, "beats_random_init"),
    ],
)
def test_what_is_spoilt_fails_at_its_rung(changes, rung, gate, quick):
    run = validate(Planted(settings=ISOMAP, **changes).build(), through=rung)
    assert records_of(run, rung)[gate].status == "fail"

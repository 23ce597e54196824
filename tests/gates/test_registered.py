"""Registered tests: what the ladder decides by is known before it climbs, and it decides by nothing else."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from tiny import tiny_document, tiny_manifold, tiny_manifold_with_everything

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, FormatError
from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge, not_run, undecided
from manifoldzoo.cards._evidence_plan import STANDARD_COMPARISONS, EvidencePlan
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._ladder import run_plan, validate
from manifoldzoo.gates._registered import NOT_MADE, completed, registered_tests
from manifoldzoo.registry._evidence_files import add_evidence, read_evidence
from manifoldzoo.registry._resolve import load


def gates(card, rung: int) -> list[str]:
    return [test.gate for test in registered_tests(card, through=6) if test.rung == rung]


@pytest.fixture(scope="module")
def bundled():
    return load("hematopoietic").card


@pytest.fixture(scope="module")
def run():
    """All rungs of a small manifold, with few permutations."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("N_PERMUTATIONS", "N_BRANCH_PERMUTATIONS", "N_STARTS"):
            patch.setattr(_ladder, name, 2)
        return validate(tiny_manifold(), through=6)


def test_thresholds_of_the_design(bundled):
    told = {(test.rung, test.gate): (test.direction, test.threshold) for test in registered_tests(bundled, through=6)}
    expected = {
        (1, "projection_is_the_fold"): ("<=", 1e-3),
        (2, "test_vectors_latent"): ("<=", 1.0),
        (3, "trustworthiness"): (">=", 0.80),
        (3, "random_holdout"): (">=", 0.20),
        (3, "donor_holdout"): (">=", 0.20),
        (3, "branch_holdout"): (">=", 0.20),
        (3, "blocked_permutation"): ("<=", 0.001),
        (4, "random_floor"): (">=", 0.5),
        (4, "study_floor"): (">=", 0.4),
        (4, "branch_floor"): (">=", 0.4),
        (4, "branch_permutation"): ("<=", 0.01),
        (5, "no_shared_cells"): ("<=", 0.0),
        (5, "no_shared_donors"): ("<=", 0.0),
        (6, "beats_raw"): ("<", 0.05),
        (6, "beats_random_init"): ("<", 0.05),
    }
    assert expected.items() <= told.items()
    assert told[1, "digests"] == (None, None)


def test_the_last_rung_is_one_family(bundled):
    comparisons = [test for test in registered_tests(bundled, through=6) if test.rung == 6]
    assert [test.gate for test in comparisons] == [f"beats_{name}" for name in (*STANDARD_COMPARISONS, "random_init")]
    assert len({test.family for test in comparisons}) == 1
    assert None not in {test.family for test in comparisons}
    assert {test.family for test in registered_tests(bundled, through=5)} == {None}


def test_tasks_and_plan_add_tests():
    everything = tiny_manifold_with_everything().card
    assert gates(everything, 2) == [f"test_vectors_{task}" for task in ("latent", "stage", "side", "branch", "depth")]
    more = EvidencePlan(comparisons=[*STANDARD_COMPARISONS, "shuffled_weights"])
    wider = everything.model_copy(update={"evidence": more})
    assert set(gates(wider, 6)) - set(gates(everything, 6)) == {"beats_shuffled_weights"}


@pytest.mark.parametrize("through", range(1, 7))
def test_no_rung_beyond_what_was_asked_for(bundled, through):
    told = registered_tests(bundled, through=through)
    assert {test.rung for test in told} == set(range(1, through + 1))
    assert told == [test for test in registered_tests(bundled, through=6) if test.rung <= through]


@pytest.mark.parametrize("through", [0, 7, -1])
def test_there_are_six_rungs(bundled, through):
    with pytest.raises(BadInputError, match=str(through)):
        registered_tests(bundled, through=through)


def test_a_run_is_of_the_tests_that_the_card_registers(run):
    card = tiny_manifold().card
    assert run.evidence_version == 2
    assert run.registered == registered_tests(card, through=6)
    deciding = {(r.rung, record.gate) for r in run.rungs for record in r.records if record.decides}
    assert {(test.rung, test.gate) for test in run.registered if test.rung <= 4} == {
        (rung, gate) for rung, gate in deciding if rung <= 4
    }
    assert run.plan == run_plan(card, run.artifact_digest, through=6).model_copy(
        update={"n_permutations": 2, "n_branch_permutations": 2, "n_starts": 2}
    )


def test_what_is_stored_is_read_only_as_registered(run, tmp_path):
    path = add_evidence(tmp_path, run)
    assert read_evidence(tmp_path, run.artifact_digest) == [run]
    stored = json.loads(path.read_bytes())
    stored["registered"].pop()
    removed = stored["registered"].pop(0)
    for change, said in (
        ({"registered": stored["registered"]}, removed["gate"]),
        ({"plan": stored["plan"] | {"seed": 1}}, "seed of the run is 1"),
    ):
        path.write_text(json.dumps(json.loads(run.model_dump_json()) | change))
        with pytest.raises(FormatError, match=f"{path.name}.*{said}"):
            read_evidence(tmp_path, run.artifact_digest)


def test_the_plan_of_the_card_is_what_is_computed(monkeypatch):
    asked = {"n_permutations": 2000, "n_branch_permutations": 1500, "n_starts": 25}
    manifold = tiny_manifold(evidence=asked)
    plan = run_plan(manifold.card, manifold.digest, through=4)
    assert plan.model_dump(include=set(asked)) == asked
    assert (plan.seed, plan.through) == (int(manifold.digest[:8], 16), 4)
    given = {}

    def seen(*_args, **named):
        given.update(named)
        return not_run(3, "seen")

    monkeypatch.setattr(_ladder, "published_gates", seen)
    assert validate(manifold).plan.n_starts == 25
    assert (given["n_permutations"], given["n_starts"], given["seed"]) == (2000, 25, plan.seed)


class TestCompleted:
    def registered(self):
        return registered_tests(parse_card(tiny_document()), through=3)

    def test_a_registered_test_without_a_record_was_not_run(self):
        result = completed(conclude(2, [judge("test_vectors_latent", 0.1, "<=", 1.0)]), self.registered())
        assert {record.gate: record.status for record in result.records} == {
            "test_vectors_latent": "pass",
            "test_vectors_branch": "not run",
        }
        assert (result.status, result.records[1].reason) == ("not run", NOT_MADE)

    def test_a_rung_that_is_open_as_a_whole_stays_as_it_is(self):
        for result in (not_run(3, "rung 1 did not pass"), conclude(3, [undecided("gates", "no settings")])):
            assert completed(result, self.registered()) == result

    def test_a_rung_decides_by_nothing_else(self):
        vectors = [judge(f"test_vectors_{name}", 0.1, "<=", 1.0) for name in ("latent", "branch")]
        assert completed(conclude(2, vectors), self.registered()).status == "pass"
        with pytest.raises(ValueError, match="'afterthought' decides"):
            completed(conclude(2, [*vectors, judge("afterthought", 1.0, ">=", 0.5)]), self.registered())
        with pytest.raises(ValueError, match="'made up' decides"):
            completed(conclude(3, [judge("made up", 1.0, ">=", 0.5)]), self.registered())
        with pytest.raises(ValueError, match="held against <= 2"):
            completed(conclude(2, [vectors[0], judge("test_vectors_branch", 0.1, "<=", 2.0)]), self.registered())


def test_a_ladder_that_decides_by_what_was_not_registered_stops(monkeypatch):
    monkeypatch.setattr(_ladder, "published_gates", lambda *_, **__: conclude(3, [judge("made up", 1.0, ">=", 0.5)]))
    with pytest.raises(ValueError, match="'made up' decides"):
        validate(tiny_manifold())


@pytest.mark.slow
def test_every_rung_of_the_bundled_manifold_is_as_registered(monkeypatch):
    for name in ("N_PERMUTATIONS", "N_BRANCH_PERMUTATIONS", "N_STARTS"):
        monkeypatch.setattr(_ladder, name, 2)
    manifold = load("hematopoietic")
    found = validate(manifold, through=6)
    told = {(r.rung, record.gate) for r in found.rungs for record in r.records if record.decides}
    assert told == {(test.rung, test.gate) for test in registered_tests(manifold.card, through=6)}
    assert not [record.gate for r in found.rungs for record in r.records if record.reason == NOT_MADE]
    fewer = [*found.rungs[:-1], conclude(6, found.rungs[-1].records[1:])]
    with pytest.raises(ValidationError, match="no record"):
        EvidenceRun.model_validate(found.model_dump() | {"rungs": fewer})

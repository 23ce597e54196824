"""Evidence of version 2: no record without its registered test, no registered test without its record."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from manifoldzoo.cards._evidence import EvidenceRun, RegisteredTest, conclude, judge, undecided
from manifoldzoo.cards._evidence_plan import RunPlan

DIGEST = "0000002a" + "f" * 56
SEED = 42
REGISTERED = [
    RegisteredTest(rung=1, gate="digests"),
    RegisteredTest(rung=2, gate="test_vectors_latent", direction="<=", threshold=1.0),
    RegisteredTest(rung=3, gate="random_holdout", direction=">=", threshold=0.2),
    RegisteredTest(rung=3, gate="blocked_permutation", direction="<=", threshold=0.001),
    RegisteredTest(rung=3, gate="continuity", decides=False, direction=">=", threshold=0.8),
]
PLAN = RunPlan(seed=SEED, through=3, n_permutations=1000, n_branch_permutations=999, n_starts=20)


def whole(**changes) -> dict:
    """The document of a run that is as registered."""
    rungs = [
        conclude(1, [undecided("digests", "said").model_copy(update={"status": "pass"})]),
        conclude(2, [judge("test_vectors_latent", 0.1, "<=", 1.0)]),
        conclude(
            3,
            [
                judge("random_holdout", 0.1, ">=", 0.2, seed=SEED),
                judge("blocked_permutation", 0.0005, "<=", 0.001, seed=SEED),
                judge("figure_of_interest", 3.0, ">=", 0.0, decides=False),
            ],
        ),
    ]
    run = EvidenceRun(
        evidence_version=2,
        artifact_digest=DIGEST,
        reference="tiny@0.1.0",
        started=datetime(2026, 1, 2, tzinfo=UTC),
        seconds=1.0,
        software={},
        rungs=rungs,
        registered=REGISTERED,
        plan=PLAN,
    )
    return run.model_dump(mode="json") | changes


def rung(document: dict, number: int) -> dict:
    return next(result for result in document["rungs"] if result["rung"] == number)


def resummed(document: dict, number: int, records: list) -> dict:
    """The document with other records of a rung, whose status adds up."""
    result = conclude(number, [type(judge("g", 1, ">=", 0)).model_validate(record) for record in records])
    kept = [other for other in document["rungs"] if other["rung"] != number]
    rungs = sorted([*kept, result.model_dump(mode="json")], key=lambda one: one["rung"])
    return document | {"rungs": rungs}


def test_a_run_as_registered_is_read():
    document = whole()
    assert EvidenceRun.model_validate(document).model_dump(mode="json") == document


def test_version_1_has_no_registration_and_is_read():
    document = whole(evidence_version=1, registered=[], plan=None)
    assert EvidenceRun.model_validate(document).registered == []
    for field in ("registered", "plan"):
        with pytest.raises(ValidationError, match="version 1 registers no tests"):
            EvidenceRun.model_validate(document | {field: whole()[field]})


@pytest.mark.parametrize("gone", [{"registered": []}, {"plan": None}])
def test_version_2_needs_both(gone):
    with pytest.raises(ValidationError, match="needs the tests that it registered"):
        EvidenceRun.model_validate(whole(**gone))


@pytest.mark.parametrize("gate", ["digests", "test_vectors_latent", "random_holdout", "blocked_permutation"])
def test_a_test_that_is_no_longer_registered_is_missed(gate):
    document = whole()
    document["registered"] = [test for test in document["registered"] if test["gate"] != gate]
    with pytest.raises(ValidationError, match=f"'{gate}' decides, and no such test was registered"):
        EvidenceRun.model_validate(document)


def test_a_record_that_was_removed_is_missed():
    records = rung(whole(), 3)["records"]
    # without the failing one the rung would pass
    document = resummed(whole(), 3, records[1:])
    assert rung(document, 3)["status"] == "pass"
    with pytest.raises(ValidationError, match="'random_holdout' has no record"):
        EvidenceRun.model_validate(document)


def test_a_record_that_no_longer_decides_is_missed():
    records = rung(whole(), 3)["records"]
    document = resummed(whole(), 3, [records[0] | {"decides": False}, *records[1:]])
    assert rung(document, 3)["status"] == "pass"
    with pytest.raises(ValidationError, match="'random_holdout' has no record"):
        EvidenceRun.model_validate(document)


def test_a_record_that_was_added_and_decides_is_refused():
    more = judge("a_better_idea", 0.9, ">=", 0.2).model_dump(mode="json")
    document = resummed(whole(), 3, [*rung(whole(), 3)["records"], more])
    with pytest.raises(ValidationError, match="'a_better_idea' decides, and no such test was registered"):
        EvidenceRun.model_validate(document)
    shown = resummed(whole(), 3, [*rung(whole(), 3)["records"], more | {"decides": False}])
    assert EvidenceRun.model_validate(shown)
    # registered to be shown only
    promoted = judge("continuity", 0.9, ">=", 0.8).model_dump(mode="json")
    with pytest.raises(ValidationError, match="'continuity' decides"):
        EvidenceRun.model_validate(resummed(whole(), 3, [*rung(whole(), 3)["records"], promoted]))


def test_the_same_test_twice_is_refused():
    records = rung(whole(), 3)["records"]
    with pytest.raises(ValidationError, match="two records that decide"):
        EvidenceRun.model_validate(resummed(whole(), 3, [*records, records[1]]))
    with pytest.raises(ValidationError, match="registered twice"):
        EvidenceRun.model_validate(whole(registered=[*whole()["registered"], whole()["registered"][0]]))


@pytest.mark.parametrize(
    "other",
    [
        judge("random_holdout", 0.1, ">=", 0.05, seed=SEED),
        judge("random_holdout", 0.1, "<=", 0.2, seed=SEED),
        undecided("random_holdout", "said").model_copy(update={"status": "pass"}),
        undecided("random_holdout", "said").model_copy(update={"status": "fail"}),
    ],
)
def test_another_threshold_is_refused(other):
    records = rung(whole(), 3)["records"]
    document = resummed(whole(), 3, [other.model_dump(mode="json"), *records[1:]])
    with pytest.raises(ValidationError, match=r"'random_holdout' was held against .* registered was >= 0\.2"):
        EvidenceRun.model_validate(document)


def test_a_shown_record_keeps_its_threshold_too():
    laxer = judge("continuity", 0.9, ">=", 0.1, decides=False).model_dump(mode="json")
    with pytest.raises(ValidationError, match="'continuity' was held against"):
        EvidenceRun.model_validate(resummed(whole(), 3, [*rung(whole(), 3)["records"], laxer]))


@pytest.mark.parametrize("status", ["not run", "cannot decide"])
def test_what_is_open_says_so_test_by_test_or_as_a_whole(status):
    records = rung(whole(), 3)["records"]
    one_by_one = [undecided("random_holdout", "few", status=status).model_dump(mode="json"), *records[1:]]
    assert EvidenceRun.model_validate(resummed(whole(), 3, one_by_one))
    whole_rung = [undecided("gates", "no head", status=status).model_dump(mode="json")]
    assert EvidenceRun.model_validate(resummed(whole(), 3, whole_rung)).rungs[2].status == status
    # one test that is open does not stand for the others
    with pytest.raises(ValidationError, match="'blocked_permutation' has no record"):
        EvidenceRun.model_validate(resummed(whole(), 3, one_by_one[:1]))
    with pytest.raises(ValidationError, match="'gates' decides"):
        EvidenceRun.model_validate(resummed(whole(), 3, [*whole_rung, records[1]]))


def test_a_single_record_that_passes_does_not_stand_for_a_rung():
    alone = [judge("gates", 1.0, ">=", 0.0).model_dump(mode="json")]
    with pytest.raises(ValidationError, match="'gates' decides, and no such test was registered"):
        EvidenceRun.model_validate(resummed(whole(), 3, alone))


def test_a_rung_that_is_gone_is_missed():
    document = whole()
    document["rungs"] = document["rungs"][:2]
    with pytest.raises(ValidationError, match=r"rungs 1 to 3 and has \[1, 2\]"):
        EvidenceRun.model_validate(document)
    with pytest.raises(ValidationError, match="registered for rung 3"):
        EvidenceRun.model_validate(document | {"plan": PLAN.model_copy(update={"through": 2}).model_dump()})


def test_another_seed_is_refused():
    with pytest.raises(ValidationError, match="seed of the run is 43, that of the artifact digest 0000002affff is 42"):
        EvidenceRun.model_validate(whole(plan=whole()["plan"] | {"seed": 43}))
    records = rung(whole(), 3)["records"]
    with pytest.raises(ValidationError, match="'random_holdout' has the seed 7, the artifact digest gives 42"):
        EvidenceRun.model_validate(resummed(whole(), 3, [records[0] | {"seed": 7}, *records[1:]]))
    with pytest.raises(ValidationError, match="seed of the run is 42"):
        EvidenceRun.model_validate(whole(artifact_digest="1" * 64))


def test_a_registered_threshold_has_a_direction():
    with pytest.raises(ValidationError, match="does not go with threshold"):
        RegisteredTest(rung=3, gate="g", threshold=0.2)

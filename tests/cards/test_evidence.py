from __future__ import annotations

import json
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from manifoldzoo.cards._evidence import (
    RUNG_NAMES,
    EvidenceRun,
    Record,
    RungResult,
    conclude,
    holds,
    judge,
    not_run,
    rung_reached,
    undecided,
)

DIRECTIONS = st.sampled_from([">=", "<=", ">", "<"])
NUMBERS = st.floats(-10, 10) | st.sampled_from([0.0, 0.5, 0.8])
STATUSES = ["pass", "fail", "not run", "cannot decide"]
GOOD = judge("good", 0.9, ">=", 0.8)
BAD = judge("bad", 0.1, ">=", 0.8)
OPEN = undecided("open", "too few")


def evidence(*rungs, **changes):
    return EvidenceRun(
        **{
            "artifact_digest": "a" * 64,
            "reference": "tiny@0.1.0",
            "started": datetime(2026, 1, 2, tzinfo=UTC),
            "seconds": 1.0,
            "software": {},
            "rungs": list(rungs),
        }
        | changes
    )


@given(NUMBERS, DIRECTIONS, NUMBERS)
def test_status_of_a_judged_record_is_the_comparison(statistic, direction, threshold):
    expected = {">=": statistic >= threshold, "<=": statistic <= threshold, ">": statistic > threshold}
    expected["<"] = statistic < threshold
    record = judge("g", statistic, direction, threshold)
    assert (record.status == "pass") is expected[direction] is holds(statistic, direction, threshold)
    assert Record.model_validate_json(record.model_dump_json()) == record


@given(NUMBERS, DIRECTIONS, NUMBERS, st.sampled_from(STATUSES))
def test_a_hand_edited_status_is_refused(statistic, direction, threshold, status):
    document = judge("g", statistic, direction, threshold).model_dump(mode="json")
    if document["status"] != status:
        with pytest.raises(ValidationError, match="contradicts"):
            Record.model_validate(document | {"status": status})


@pytest.mark.parametrize("change", [{"statistic": 0.79}, {"threshold": 0.91}, {"direction": "<"}])
def test_a_hand_edited_number_is_refused(change):
    with pytest.raises(ValidationError, match="contradicts"):
        Record.model_validate(GOOD.model_dump() | change)


@pytest.mark.parametrize("gone", ["statistic", "direction"])
def test_a_pass_against_a_threshold_needs_its_statistic(gone):
    with pytest.raises(ValidationError, match="good"):
        Record.model_validate(GOOD.model_dump() | {gone: None})


@pytest.mark.parametrize("statistic", [float("nan"), float("inf"), -float("inf"), np.float32("nan")])
@pytest.mark.parametrize("direction", [">=", "<=", ">", "<"])
def test_a_statistic_that_is_not_finite_fails(statistic, direction):
    record = judge("g", statistic, direction, 0.0)
    assert record.status == "fail"
    assert record.statistic is None
    json.loads(record.model_dump_json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_stored_numbers_must_be_finite(value):
    with pytest.raises(ValidationError, match="statistic"):
        Record.model_validate(BAD.model_dump() | {"statistic": float(value)})


def test_judge_takes_numpy_numbers():
    record = judge("g", np.float32(0.5), "<=", 0.5, n=np.int64(3), details={"share": np.float64(0.25)})
    assert (record.status, record.n, record.details) == ("pass", 3, {"share": 0.25})


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="verdict"):
        Record.model_validate(GOOD.model_dump() | {"verdict": "yes"})


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([], "not run"),
        ([GOOD], "pass"),
        ([GOOD, BAD], "fail"),
        ([GOOD, OPEN], "cannot decide"),
        ([OPEN, BAD], "fail"),
        ([GOOD, undecided("later", "no panel", status="not run")], "not run"),
        ([undecided("later", "no panel", status="not run"), OPEN], "cannot decide"),
        ([GOOD, judge("shown", 0.1, ">=", 0.8, decides=False)], "pass"),
        ([BAD, judge("shown", 0.9, ">=", 0.8, decides=False)], "fail"),
        ([judge("shown", 0.9, ">=", 0.8, decides=False)], "not run"),
    ],
)
def test_what_records_add_up_to(records, status):
    assert conclude(3, records).status == status


@pytest.mark.parametrize("records", [[], [GOOD], [GOOD, BAD], [OPEN], [judge("shown", 0.9, ">=", 0.8, decides=False)]])
@pytest.mark.parametrize("status", STATUSES)
def test_a_rung_must_say_what_its_records_say(records, status):
    document = conclude(3, records).model_dump(mode="json")
    if document["status"] == status:
        assert RungResult.model_validate(document).status == status
    else:
        with pytest.raises(ValidationError, match="add up"):
            RungResult.model_validate(document | {"status": status})


def test_undecided_never_passes():
    for status in ("not run", "cannot decide"):
        assert conclude(1, [undecided("g", "r", status=status)]).status == status
    with pytest.raises(ValidationError, match="pass"):
        conclude(1, [undecided("g", "r")]).model_validate(
            conclude(1, [undecided("g", "r")]).model_dump() | {"status": "pass"}
        )


def test_records_of_one_reason_share_it():
    records = [undecided("a", "no cells"), undecided("b", "no donors"), undecided("c", "no cells"), GOOD]
    assert conclude(3, records).reason == "a, c: no cells; b: no donors"


def test_a_failing_record_is_named_in_the_reason():
    assert "bad" in conclude(3, [GOOD, BAD]).reason
    assert "good" not in conclude(3, [GOOD, BAD]).reason


@given(st.lists(st.sampled_from(["pass", "fail", "open", "absent"]), min_size=6, max_size=6), st.randoms())
def test_rung_reached_needs_every_rung_below(said, random):
    records = {"pass": [GOOD], "fail": [BAD], "open": [OPEN]}
    rungs = [conclude(i, records[s]) for i, s in enumerate(said, 1) if s != "absent"]
    random.shuffle(rungs)
    expected = next((i for i, s in enumerate(said) if s != "pass"), 6)
    assert rung_reached(rungs) == expected


def test_a_rung_that_also_failed_is_not_reached():
    assert rung_reached([conclude(1, [GOOD]), conclude(1, [BAD])]) == 0
    with pytest.raises(ValidationError, match=r"\[1, 2, 1\]"):
        evidence(conclude(1, [GOOD]), not_run(2, "later"), conclude(1, [BAD]))


def test_a_run_round_trips_and_keeps_its_time_zone():
    run = evidence(conclude(1, [GOOD]), conclude(2, [BAD]), not_run(3, "stopped"), panel_digest="b" * 64)
    assert EvidenceRun.model_validate_json(run.model_dump_json()) == run
    with pytest.raises(ValidationError, match="started"):
        evidence(started=datetime(2026, 1, 2))


@pytest.mark.parametrize("change", [{"evidence_version": 2}, {"artifact_digest": "A" * 64}, {"seconds": -1.0}])
def test_a_malformed_run_is_refused(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        evidence(**change)


def test_evidence_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        GOOD.status = "fail"


def test_every_rung_has_a_name():
    assert list(RUNG_NAMES) == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ValidationError, match="7"):
        RungResult(rung=7, name="more", status="not run", reason="", records=[])

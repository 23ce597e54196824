"""Evidence that was edited by hand does not come out again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from manifoldzoo.cards._evidence import EvidenceRun, Record, conclude, judge, undecided
from manifoldzoo.gates._informing import CLASS_SEPARATION, PAIRED_NULL, PROGRAM_LOADINGS, TRANSFER_GEOMETRY
from manifoldzoo.gates._stored import TOLERANCE, contradictions
from manifoldzoo.gates.rungs._stability import GATE as STABILITY

DIGEST = "a" * 64


def run(*records, rung=3, version="9", digest=DIGEST):
    return EvidenceRun(
        artifact_digest=digest,
        reference="x@1.0.0",
        started=datetime(2026, 1, 1, tzinfo=UTC),
        seconds=1,
        software={"manifoldzoo": version},
        rungs=[conclude(rung, list(records))],
    )


def holdout(value, threshold=0.2):
    return judge("holdout", value, ">=", threshold)


def test_the_same_run_again_contradicts_nothing():
    assert contradictions(run(holdout(0.5)), run(holdout(0.5))) == []


@pytest.mark.parametrize(("stored", "n"), [(0.5 + TOLERANCE / 2, 0), (0.5 + 2 * TOLERANCE, 1), (0.9, 1)])
def test_a_statistic_may_differ_by_rounding_and_no_more(stored, n):
    assert len(contradictions(run(holdout(0.5)), run(holdout(stored)))) == n


def test_a_failed_gate_that_was_turned_into_a_pass_is_named():
    found = contradictions(run(holdout(0.1)), run(holdout(0.8)))
    assert [(one.rung, one.gate) for one in found] == [(3, "the rung"), (3, "holdout")]
    assert "0.8" in str(found[1]) and "0.1" in str(found[1])


def test_a_gate_that_was_taken_out_is_missed():
    more = run(holdout(0.5), judge("other", 0.1, ">=", 0.2))
    assert [one.gate for one in contradictions(more, run(holdout(0.5)))] == ["the rung", "other"]


def test_what_only_informs_may_be_missing():
    shown = judge("shown", 0.1, ">=", 0.2, decides=False)
    assert contradictions(run(holdout(0.5), shown), run(holdout(0.5))) == []


def test_evidence_from_before_the_stability_was_shown_is_complete():
    stability = Record(gate=STABILITY, status="cannot decide", reason="informs", statistic=0.9, decides=False)
    before, now = run(holdout(0.5)), run(holdout(0.5), stability)
    assert contradictions(now, before) == [] and contradictions(before, now) == []
    # where both have it, it must come out again
    other = stability.model_copy(update={"statistic": 0.9 + 2 * TOLERANCE})
    assert [one.gate for one in contradictions(now, run(holdout(0.5), other))] == [STABILITY]


@pytest.mark.parametrize("gate", [CLASS_SEPARATION, PROGRAM_LOADINGS, PAIRED_NULL, f"external_{TRANSFER_GEOMETRY}"])
def test_evidence_from_before_a_description_was_made_still_stands(gate):
    described = Record(gate=gate, status="cannot decide", reason="describes", decides=False, parts={"axis_1": 0.5})
    assert contradictions(run(holdout(0.5), described), run(holdout(0.5))) == []
    assert contradictions(run(holdout(0.5)), run(holdout(0.5), described)) == []


def test_an_open_gate_stored_as_a_pass_is_named():
    found = contradictions(run(undecided("holdout", "one donor")), run(holdout(0.5)))
    assert {one.gate for one in found} == {"the rung", "holdout"}


def test_of_another_version_only_passes_count():
    assert contradictions(run(holdout(0.5)), run(holdout(0.9), version="8")) == []
    found = contradictions(run(holdout(0.1)), run(holdout(0.9), version="8"))
    assert [one.gate for one in found] == ["the rung"]


def test_other_artifacts_and_rungs_that_were_not_tried_are_left_alone():
    assert contradictions(run(holdout(0.1)), run(holdout(0.9), digest="b" * 64)) == []
    assert contradictions(run(holdout(0.1)), run(holdout(0.9), rung=5)) == []

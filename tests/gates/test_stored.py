"""Evidence that was edited by hand does not come out again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge, undecided
from manifoldzoo.gates._stored import TOLERANCE, contradictions

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

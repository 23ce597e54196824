"""Evidence found beside an artifact, held against what was just computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..cards._evidence import EvidenceRun, Record

TOLERANCE = 0.02
"""How far a statistic may lie from the stored one: other processors add up in another order. Our choice."""


@dataclass(frozen=True)
class Contradiction:
    """One record of a stored run that is not what was computed.

    Attributes
    ----------
    rung, gate
        Which one.
    stored, computed
        Status and statistic of each, in words.
    """

    rung: int
    gate: str
    stored: str
    computed: str

    def __str__(self) -> str:
        return f"rung {self.rung}, {self.gate}: stored {self.stored}, computed {self.computed}"


def contradictions(run: EvidenceRun, stored: EvidenceRun) -> list[Contradiction]:
    """List what a stored run says otherwise than one that was just made of the same artifact.

    Parameters
    ----------
    run
        Just computed.
    stored
        Found beside the artifact, of the same digest. Rungs that ``run`` did not try are left alone, and so is a run
        with a panel of somebody's own cells, which cannot be computed again without them.

    Returns
    -------
    Statuses that differ, and statistics that differ by more than ``TOLERANCE``, or by more than that part of
    themselves. Of a run by another version of manifoldzoo, whose gates may be computed in another way, only a rung that
    is stored as a pass and was computed not to be one.

    Notes
    -----
    Seeds come from the artifact digest, so that whoever computes a record gets the same one, and a record that was
    edited by hand does not come out again.
    """
    if stored.artifact_digest != run.artifact_digest or stored.own_panel is not None or run.own_panel is not None:
        return []
    found: list[Contradiction] = []
    mine = {result.rung: result for result in run.rungs}
    same_version = stored.software.get("manifoldzoo") == run.software.get("manifoldzoo")
    for theirs in stored.rungs:
        own = mine.get(theirs.rung)
        if own is None:
            continue
        if theirs.status == "pass" and own.status != "pass":
            found.append(Contradiction(theirs.rung, "the rung", theirs.status, own.status))
        if same_version:
            found += _of_records(theirs.rung, own.records, theirs.records)
    return found


def _of_records(rung: int, own: Sequence[Record], theirs: Sequence[Record]) -> list[Contradiction]:
    """Records of one rung that differ; a gate that only one of the two has is one that differs."""
    mine, stored = ({record.gate: record for record in records} for records in (own, theirs))
    gates = [gate for gate in {**stored, **mine} if not _agree(mine.get(gate), stored.get(gate))]
    return [Contradiction(rung, gate, _said(stored.get(gate)), _said(mine.get(gate))) for gate in gates]


def _agree(own: Record | None, theirs: Record | None) -> bool:
    """Whether two records say the same."""
    if own is None or theirs is None:
        # what only informs may be missing
        there = own if theirs is None else theirs
        return there is None or not there.decides
    if own.status != theirs.status or (own.statistic is None) != (theirs.statistic is None):
        return False
    if own.statistic is None or theirs.statistic is None:
        return True
    return abs(own.statistic - theirs.statistic) <= TOLERANCE * max(1.0, abs(own.statistic))


def _said(record: Record | None) -> str:
    """Status and statistic in words."""
    if record is None:
        return "nothing"
    return record.status if record.statistic is None else f"{record.status} ({record.statistic:.4g})"

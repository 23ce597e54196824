"""How statuses look in every figure, and what figures and reports call a record."""

from __future__ import annotations

import textwrap

from ...cards._evidence import EvidenceRun, Record, Status
from ...manifolds.plots._colours import HUES

# letters that fit over the narrowest figure
_TITLE = 84
Row = tuple[int, Record]
"""A record and its rung."""
COLOURS: dict[Status, str] = {"pass": HUES[3], "fail": HUES[0], "cannot decide": "#444444", "not run": "#8c8c8c"}
"""Blue and vermilion are told apart with any colour vision (Okabe and Ito 2008)."""
MARKS: dict[Status, str] = {"pass": "o", "fail": "X", "cannot decide": "D", "not run": "_"}


def rows_of(run: EvidenceRun) -> list[Row]:
    """Every record of a run with its rung, in order."""
    return [(result.rung, record) for result in run.rungs for record in result.records]


def has_number(record: Record) -> bool:
    """Whether there is a statistic to hold against a threshold."""
    return None not in (record.statistic, record.threshold, record.direction)


def words(rung: int, record: Record) -> str:
    """Rung and name of a gate for people."""
    return f"rung {rung}: {record.gate.replace('_', ' ')}"


def as_number(value: object) -> float | None:
    """A detail of a record as a number; ``None`` where it is none that can be drawn."""
    if not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def headline(run: EvidenceRun, what: str = "") -> str:
    """Title of a figure: which artifact was validated, when, and what is shown of it."""
    identity = f"{run.reference} (digest {run.artifact_digest[:12]}), validated {run.started:%Y-%m-%d}"
    title = f"{identity}: {what}" if what else identity
    return title if len(title) <= _TITLE else f"{textwrap.fill(identity, _TITLE)}{':' if what else ''}\n{what}".rstrip()

"""Evidence: machine-readable records of what was checked, bound to an artifact digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from ._frozen import Frozen, Sha256

Status = Literal["pass", "fail", "not run", "cannot decide"]
RUNG_NAMES: dict[int, str] = {
    1: "valid",
    2: "reproduces",
    3: "gates",
    4: "specific",
    5: "transfers",
    6: "model-derived",
}
"""The evidence ladder: number and name of each rung."""
PUBLISH_RUNG = 3
"""``publish`` demands this rung and all below it."""


class NullSummary(Frozen):
    """Summary of a null distribution: how many draws, and where they lie."""

    kind: str
    n: int = Field(ge=1)
    mean: float
    sd: float = Field(ge=0)
    minimum: float
    maximum: float
    quantiles: dict[str, float] = Field(default_factory=dict)
    n_arrangements: float | None = None
    """Distinct arrangements the blocks allow (``None`` where not counted)."""


class Record(Frozen):
    """One check: a statistic against a threshold, or the reason why there is none.

    ``status`` of a record with both a statistic and a threshold is derived, not stored free: a record whose
    status contradicts its own numbers fails validation.
    """

    gate: str
    status: Status
    reason: str
    statistic: float | None = None
    threshold: float | None = None
    direction: Literal[">=", "<=", "<", ">"] | None = None
    decides: bool = True
    """Whether the record counts towards its rung; ``False`` marks a figure shown as a warning only."""
    n: int | None = None
    seed: int | None = None
    null: NullSummary | None = None
    details: dict[str, float | int | str | bool | None] = Field(default_factory=dict)
    parts: dict[str, float] = Field(default_factory=dict)
    """Value of each part that the statistic sums up, such as each branch held out, by name."""

    @model_validator(mode="after")
    def _status_follows_from_numbers(self) -> Record:
        if self.statistic is None or self.threshold is None or self.direction is None:
            if self.status == "pass" and self.threshold is not None:
                raise ValueError(f"{self.gate}: a pass against a threshold needs its statistic")
            return self
        expected = "pass" if holds(self.statistic, self.direction, self.threshold) else "fail"
        if self.status != expected:
            raise ValueError(
                f"{self.gate}: status {self.status!r} contradicts {self.statistic} {self.direction} {self.threshold}"
            )
        return self


class RungResult(Frozen):
    """All records of one rung and the status they add up to."""

    rung: int = Field(ge=1, le=6)
    name: str
    status: Status
    reason: str
    records: list[Record] = Field(default_factory=list)

    @model_validator(mode="after")
    def _status_follows_from_records(self) -> RungResult:
        status, _ = _add_up(self.records)
        if self.status != status:
            raise ValueError(f"rung {self.rung} says {self.status!r} but its records add up to {status!r}")
        return self


class EvidenceRun(Frozen):
    """One validation run, stored as ``evidence/<started>-<digest>.json`` beside the artifact."""

    evidence_version: Literal[1] = 1
    artifact_digest: Sha256
    reference: str
    panel_digest: Sha256 | None = None
    started: AwareDatetime
    seconds: float = Field(ge=0)
    software: dict[str, str]
    rungs: list[RungResult]
    allowed_below: str | None = None
    """Reason given to publish below rung 3; kept for good."""

    @model_validator(mode="after")
    def _each_rung_once(self) -> EvidenceRun:
        numbers = [result.rung for result in self.rungs]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"each rung may be given once, got {numbers}")
        return self


def holds(statistic: float, direction: str, threshold: float) -> bool:
    """Whether ``statistic direction threshold`` is true."""
    return {
        ">=": statistic >= threshold,
        "<=": statistic <= threshold,
        ">": statistic > threshold,
        "<": statistic < threshold,
    }[direction]


def judge(
    gate: str,
    statistic: float,
    direction: Literal[">=", "<=", "<", ">"],
    threshold: float,
    *,
    n: int | None = None,
    seed: int | None = None,
    null: NullSummary | None = None,
    decides: bool = True,
    details: Mapping[str, float | int | str | bool | None] | None = None,
    parts: Mapping[str, float] | None = None,
) -> Record:
    """Make the record of a statistic held against a threshold; a non-finite statistic fails."""
    finite = statistic == statistic and abs(statistic) != float("inf")
    passed = finite and holds(statistic, direction, threshold)
    said = (
        f"{statistic:.4g} {direction} {threshold:g}" if passed else f"{statistic:.4g}, needed {direction} {threshold:g}"
    )
    return Record(
        gate=gate,
        status="pass" if passed else "fail",
        reason=said,
        statistic=statistic if finite else None,
        threshold=threshold,
        direction=direction,
        n=n,
        seed=seed,
        null=null,
        decides=decides,
        details=dict(details or {}),
        parts=dict(parts or {}),
    )


def undecided(gate: str, reason: str, *, status: Literal["not run", "cannot decide"] = "cannot decide") -> Record:
    """Make the record of a check that gave no answer."""
    return Record(gate=gate, status=status, reason=reason)


def _add_up(records: list[Record]) -> tuple[Status, str]:
    """Status and reason that records add up to: any fail fails, then any open question leaves it open."""
    deciding = [record for record in records if record.decides]
    statuses: tuple[Status, ...] = ("fail", "cannot decide", "not run")
    for status in statuses:
        found = [record for record in deciding if record.status == status]
        if found:
            by_reason: dict[str, list[str]] = {}
            for record in found:
                by_reason.setdefault(record.reason, []).append(record.gate)
            return status, "; ".join(f"{', '.join(gates)}: {reason}" for reason, gates in by_reason.items())
    if not deciding:
        return "not run", "no check was run"
    return "pass", f"{len(deciding)} checks passed"


def conclude(rung: int, records: list[Record]) -> RungResult:
    """Add the records of a rung up."""
    status, reason = _add_up(records)
    return RungResult(rung=rung, name=RUNG_NAMES[rung], status=status, reason=reason, records=records)


def not_run(rung: int, reason: str) -> RungResult:
    """Make the result of a rung that was not tried."""
    return conclude(rung, [Record(gate=RUNG_NAMES[rung], status="not run", reason=reason)])


def rung_reached(rungs: list[RungResult]) -> int:
    """Highest rung passed with every rung below it passed; 0 for none."""
    passed = {result.rung for result in rungs} - {result.rung for result in rungs if result.status != "pass"}
    reached = 0
    while reached + 1 in passed:
        reached += 1
    return reached

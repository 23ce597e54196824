"""Evidence: machine-readable records of what was checked, bound to an artifact digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import AwareDatetime, Field, model_validator

from ._evidence_plan import RunPlan, seed_of
from ._frozen import Frozen, Sha256
from ._own_panel import OwnPanelReport

Status = Literal["pass", "fail", "not run", "cannot decide"]
Direction = Literal[">=", "<=", "<", ">"]
RUNG_NAMES: dict[int, str] = {
    1: "valid",
    2: "reproduces",
    3: "gates",
    4: "specific",
    5: "transfers",
    6: "model-derived",
}
"""The evidence ladder: number and name of each rung."""
RUNG_CLAIMS: dict[int, str] = {
    1: "it is intact",
    2: "same numbers here",
    3: "the published gates hold on the extraction panel",
    4: "it is this biology",
    5: "it holds on strangers",
    6: "the foundation model adds something",
}
"""What a pass of each rung says."""
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
    direction: Direction | None = None
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


class RegisteredTest(Frozen):
    """One test as it stood before anything was computed."""

    rung: int = Field(ge=1, le=6)
    gate: str
    decides: bool = True
    """Whether its record counts towards the rung."""
    direction: Direction | None = None
    threshold: float | None = None
    """Null, as ``direction``, for a check without a number."""
    family: str | None = None
    """Tests that p-values are adjusted over together; null where nothing is adjusted."""

    @model_validator(mode="after")
    def _threshold_has_a_direction(self) -> RegisteredTest:
        if (self.direction is None) != (self.threshold is None):
            raise ValueError(f"{self.gate}: direction {self.direction!r} does not go with threshold {self.threshold}")
        return self


class EvidenceRun(Frozen):
    """One validation run, stored as ``evidence/<started>-<digest>.json`` beside the artifact.

    Version 2 holds the tests that were registered before the run and what fixed its computation, and is refused where
    its records are not those of the registered tests. Version 1, of manifoldzoo 0.2 and before, has neither.
    """

    evidence_version: Literal[1, 2] = 1
    artifact_digest: Sha256
    reference: str
    panel_digest: Sha256 | None = None
    started: AwareDatetime
    seconds: float = Field(ge=0)
    software: dict[str, str]
    rungs: list[RungResult]
    registered: list[RegisteredTest] = Field(default_factory=list)
    """Of every rung that was asked for, a pure function of the card."""
    plan: RunPlan | None = None
    own_panel: OwnPanelReport | None = None
    """Panel of cells that the user of the artifact brought; null where it was judged by what travels in it alone."""
    allowed_below: str | None = None
    """Reason given to publish below rung 3; kept for good."""

    @model_validator(mode="after")
    def _each_rung_once(self) -> EvidenceRun:
        numbers = [result.rung for result in self.rungs]
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"each rung may be given once, got {numbers}")
        return self

    @model_validator(mode="after")
    def _as_registered(self) -> EvidenceRun:
        if self.evidence_version == 1:
            if self.registered or self.plan is not None:
                raise ValueError("evidence of version 1 registers no tests and has no plan")
            return self
        if self.plan is None or not self.registered:
            raise ValueError("evidence of version 2 needs the tests that it registered, and its plan")
        _check_plan(self.plan, self.artifact_digest, self.rungs)
        names = [(test.rung, test.gate) for test in self.registered]
        if len(set(names)) != len(names):
            raise ValueError("a test is registered twice")
        beyond = sorted({test.rung for test in self.registered} - {result.rung for result in self.rungs})
        if beyond:
            raise ValueError(f"tests are registered for rung {beyond[0]}, of which the run has no result")
        for result in self.rungs:
            check_registered(result, self.registered)
        return self


def check_registered(result: RungResult, registered: Sequence[RegisteredTest]) -> None:
    """Refuse the result of a rung whose records are not those of its registered tests.

    Parameters
    ----------
    result
        Of a rung; one that was not run, or could not be decided, may have a single record that says so.
    registered
        Tests of this rung, and of any other.

    Raises
    ------
    ValueError
        If a registered test that decides has no record, a record decides that was not registered, or one of a
        registered test has another threshold or another direction.

    Notes
    -----
    Records that do not decide need not be registered: nothing hangs on them.
    """
    tests = {test.gate: test for test in registered if test.rung == result.rung}
    deciding = [record for record in result.records if record.decides]
    if len(result.records) == 1 and deciding and _is_open(deciding[0]) and deciding[0].gate not in tests:
        return
    gates = [record.gate for record in deciding]
    where = f"rung {result.rung}"
    for gate in gates:
        if gate not in tests or not tests[gate].decides:
            raise ValueError(f"{where}: the record {gate!r} decides, and no such test was registered")
    if len(set(gates)) != len(gates):
        raise ValueError(f"{where}: one test has two records that decide, among {gates}")
    missing = [gate for gate, test in tests.items() if test.decides and gate not in gates]
    if missing:
        raise ValueError(f"{where}: the registered test {missing[0]!r} has no record")
    for record in result.records:
        if record.gate in tests:
            _check_record(record, tests[record.gate], where)


def _check_record(record: Record, test: RegisteredTest, where: str) -> None:
    """Refuse a record with another threshold than its test; one that is open may have none."""
    found, expected = (record.direction, record.threshold), (test.direction, test.threshold)
    if found == expected or (_is_open(record) and found == (None, None)):
        return
    # what decides nothing may sum others up without a number of its own
    if record.decides or found != (None, None):
        raise ValueError(
            f"{where}: {record.gate!r} was held against {record.direction} {record.threshold}, registered was "
            f"{test.direction} {test.threshold}"
        )


def _check_plan(plan: RunPlan, digest: str, rungs: Sequence[RungResult]) -> None:
    """Refuse a seed that is not the digest's, and rungs that are not those that were asked for."""
    seed = seed_of(digest)
    if plan.seed != seed:
        raise ValueError(f"the seed of the run is {plan.seed}, that of the artifact digest {digest[:12]} is {seed}")
    for result in rungs:
        for record in result.records:
            if record.seed is not None and record.seed != seed:
                raise ValueError(
                    f"rung {result.rung}: {record.gate!r} has the seed {record.seed}, the artifact digest gives {seed}"
                )
    numbers = sorted(result.rung for result in rungs)
    if numbers != list(range(1, plan.through + 1)):
        raise ValueError(f"the run was asked for rungs 1 to {plan.through} and has {numbers}")


def _is_open(record: Record) -> bool:
    """Whether a record gives no answer."""
    return record.status in ("not run", "cannot decide")


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
    direction: Direction,
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


def counted_rung(run: EvidenceRun) -> int:
    """Rung that a run counts for where an artifact is shown: 0 with a user's own cells, which nobody else has."""
    return 0 if run.own_panel is not None else rung_reached(run.rungs)


def rung_reached(rungs: list[RungResult]) -> int:
    """Highest rung passed with every rung below it passed; 0 for none."""
    passed = {result.rung for result in rungs} - {result.rung for result in rungs if result.status != "pass"}
    reached = 0
    while reached + 1 in passed:
        reached += 1
    return reached


def best_run(runs: Sequence[EvidenceRun]) -> EvidenceRun:
    """The run that reached the highest rung, the newest among equals.

    One on a user's own cells is chosen only for want of others.

    Raises
    ------
    ValueError
        If there are none.
    """
    return max(runs, key=lambda run: (run.own_panel is None, rung_reached(run.rungs), run.started))

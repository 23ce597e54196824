"""The tables of a report: the ladder, what is open, what was registered, and every record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...cards._evidence import RUNG_CLAIMS, RUNG_NAMES, EvidenceRun, NullSummary, Record, RungResult, Status
from .._informing import CLASS_SEPARATION, PAIRED_NULL, PROGRAM_LOADINGS
from ._figure_holdouts import skipped_parts
from ._markup import Html, element, together
from ._statuses import rows_of

SIGNS: dict[Status, str] = {"pass": "\u25cf", "fail": "\u2715", "cannot decide": "\u25c6", "not run": "\u2013"}
"""A second mark beside the colour of a status."""
AXES, BESIDE = "axes", "beside"
"""Sections of their own, for records of so many numbers that only a table can be read."""
_IN_TABLES = {(3, CLASS_SEPARATION): AXES, (3, PROGRAM_LOADINGS): AXES, (4, PAIRED_NULL): BESIDE}


def ladder(run: EvidenceRun) -> Html:
    """All six rungs with claim, status and reason."""
    results = {result.rung: result for result in run.rungs}
    tried = max(results, default=0)
    rows = []
    for rung, name in RUNG_NAMES.items():
        status: Status = "not run"
        reason = f"the run was asked for rungs 1 to {tried}" if tried else "the run tried no rung"
        if rung in results:
            status, reason = results[rung].status, results[rung].reason
        rows.append((_whole(f"{rung} {name}"), RUNG_CLAIMS[rung], _status(status), reason))
    return table(
        "A rung counts as reached if it and every rung below it passed.", ("rung", "claim", "status", "why"), rows
    )


def open_questions(run: EvidenceRun) -> Html:
    """What did not run, could not be decided or was left out, each with the reason."""
    tried = {result.rung for result in run.rungs}
    rows: list[tuple[str, ...]] = []
    for rung, record in rows_of(run):
        if record.status == "not run" or (record.decides and record.status == "cannot decide"):
            rows.append((f"rung {rung}: {record.gate}", _status(record.status), record.reason))
        rows += [
            (f"rung {rung}: {record.gate}, {name}", _whole("part left out"), why) for name, why in skipped_parts(record)
        ]
    rows += [
        (f"rung {rung}: all of {name}", _status("not run"), "this run was not asked for it")
        for rung, name in RUNG_NAMES.items()
        if rung not in tried
    ]
    if not rows:
        return element("p", "Everything was run, and nothing was left open.")
    return table("None of these counts as a pass.", ("what", "status", "why"), rows)


def registered_tests(run: EvidenceRun) -> Html:
    """Tests as they stood before anything was computed."""
    if not run.registered:
        return element("p", "This run holds no list of tests that were registered before it.")
    rows = [
        (
            f"rung {test.rung}: {test.gate}",
            "" if test.threshold is None else f"{_sign(test.direction)} {test.threshold:g}",
            "yes" if test.decides else "no",
            test.family or "",
        )
        for test in run.registered
    ]
    said = "Which tests decide, and against what, follows from the card and stood before anything was computed."
    return table(said, ("test", "needed", "decides", "adjusted with"), rows)


def records_of_rung(result: RungResult) -> Html:
    """Every record of a rung: statistic, threshold and status, and below them all the rest that it holds."""
    head = _head(("check", "statistic", "needed", "status and reason"), (None, "number", "number", None))
    caption = element("caption", f"Records of rung {result.rung}, {result.name}: {RUNG_CLAIMS[result.rung]}.")
    rows = (_record(record, result.rung) for record in result.records)
    return element("table", caption, head, *rows, class_="records", role="table")


def table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table whose first column names its rows."""
    body = [_row(element("th", first, scope="row", role="rowheader"), *map(_cell, rest)) for first, *rest in rows]
    body_of_all = element("tbody", *body, role="rowgroup")
    return element("table", element("caption", caption), _head(columns), body_of_all, role="table")


def facts(pairs: Iterable[tuple[str, str]], *, short: bool = False) -> Html:
    """Names and what belongs to each, one a line, or one after the other."""
    rows = [together(element("dt", name), element("dd", value)) for name, value in pairs]
    if short:
        return element("dl", *(element("div", row) for row in rows), class_="short")
    return element("dl", *rows, class_="facts")


def number(value: float, shown: str = ".4g") -> Html:
    """A number, to four digits or as is asked for, that keeps all of them for machines."""
    return element("data", format(value, shown), value=repr(float(value)))


def _record(record: Record, rung: int) -> Html:
    """Two rows of the table: what was decided, and from what."""
    statistic = Html("") if record.statistic is None else number(record.statistic)
    needed = "" if record.threshold is None else f"{_sign(record.direction)} {record.threshold:g}"
    # reasons of records with both repeat the two numbers
    said = "" if statistic and needed else f" {record.reason}"
    beside = "" if record.decides else " (informs only, does not decide)"
    rows = [
        _row(
            element("th", _breakable(record.gate), scope="rowgroup", role="rowheader"),
            _cell(statistic, class_="number"),
            _cell(needed, class_="number"),
            _cell(_status(record.status), said, beside),
        )
    ]
    more = list(_more(record, rung))
    if more:
        rows.append(_row(_cell(facts(more, short=True), colspan="4"), class_="more"))
    return element("tbody", *rows, role="rowgroup")


def _more(record: Record, rung: int) -> Iterable[tuple[str, str]]:
    """All that a record holds besides its decision."""
    if record.n is not None:
        yield "n", f"{record.n:,}"
    if record.seed is not None:
        yield "seed", str(record.seed)
    elsewhere = (rung, record.gate) in _IN_TABLES
    for name, value in record.details.items():
        # names of one of many, such as an axis, are of more than one word
        if value is not None and value != "" and not (elsewhere and " " in name):
            yield name, detail(value)
    if elsewhere:
        yield "parts", element("a", "in tables above", href=f"#{_IN_TABLES[rung, record.gate]}")
    elif record.parts:
        yield "parts", together(*_joined(together(name, " ", number(value)) for name, value in record.parts.items()))
    if record.null is not None:
        yield "null", _null(record.null)


def _null(null: NullSummary) -> Html:
    """A null distribution in a line."""
    parts: list[Html] = [
        together(f"{null.kind}; {null.n:,} draws, mean ", number(null.mean), ", sd ", number(null.sd)),
        together("from ", number(null.minimum), " to ", number(null.maximum)),
    ]
    if null.quantiles:
        told = _joined(together(f"{level}: ", number(value)) for level, value in null.quantiles.items())
        parts.append(together("quantiles ", *told))
    if null.n_arrangements is not None:
        parts.append(together(number(null.n_arrangements), " distinct arrangements"))
    return together(*_joined(parts, "; "))


def _joined(parts: Iterable[Html], between: str = ", ") -> list[Html]:
    """Parts with something between them."""
    joined: list[Html] = []
    for part in parts:
        joined += [together(between), part] if joined else [part]
    return joined


def detail(value: object) -> str:
    """One detail of a record."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)


def _status(status: Status) -> Html:
    """A status by its name, with a sign and a colour."""
    sign = element("span", SIGNS[status], aria_hidden="true")
    return element("span", sign, f" {status}", class_=f"status {status.replace(' ', '-')}")


def _head(columns: Sequence[str], classes: Sequence[str | None] | None = None) -> Html:
    """Names of columns."""
    kinds = classes or [None] * len(columns)
    cells = (
        element("th", name, scope="col", role="columnheader", class_=kind)
        for name, kind in zip(columns, kinds, strict=True)
    )
    return element("thead", _row(*cells), role="rowgroup")


def _row(*cells: Html, class_: str | None = None) -> Html:
    """One row of a table."""
    return element("tr", *cells, role="row", class_=class_)


def _cell(*content: str, class_: str | None = None, colspan: str | None = None) -> Html:
    """One cell that is no header."""
    return element("td", *content, role="cell", class_=class_, colspan=colspan)


def _whole(text: str) -> Html:
    """Text that stays on one line."""
    return element("span", text, class_="whole")


def _sign(direction: str | None) -> str:
    """A comparison as people write it."""
    return {">=": "\u2265", "<=": "\u2264"}.get(direction or "", direction or "")


def _breakable(name: str) -> Html:
    """A name that may go on in the next line after each underscore."""
    return Html(Html("_<wbr>").join(together(part) for part in name.split("_")))

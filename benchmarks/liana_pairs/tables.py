"""Results as Markdown, made from the JSON document alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .measures import CELLS, HUBS, MANIFOLD, RULER
from .ranking import LEVEL, PRIMARY

Document = Mapping[str, Any]
OPENED, CLOSED = "<!-- numbers: made by benchmarks/communication_liana.py -->", "<!-- end of numbers -->"
SENSITIVITY = (MANIFOLD, RULER, f"{HUBS}, product", CELLS, "PCA-2", "expression, correlation")
ABSENT = "–"  # noqa: RUF001 a dash in a table


def render(document: Document) -> str:
    """All tables of a run."""
    studies = document["studies"]
    decided = {name: study for name, study in studies.items() if "agreement" in study}
    parts = [
        f"Artifact `{document['artifact']}` (digest `{document['digest'][:12]}`), LIANA {document['liana']}, resource "
        f"`{document['settings']['resource']}`, {document['settings']['n_perms']} permutations of LIANA, "
        f"{document['n_permutations']} of cell types, {document['n_draws']} draws of cell types.",
        "**Studies**",
        _studies(studies),
        *_notes(studies),
        f"**Agreement with LIANA over pairs of cell types** (Spearman; interactions of specificity rank <= {LEVEL:g}, "
        "both directions averaged; in brackets 2.5% and 97.5% over drawn cell types; p one-sided)",
        _agreement(decided, document),
        "**Manifold minus the other** (difference of the correlations above, same draws)",
        _differences(decided, document),
        f"**Beyond hubs** (partial Spearman, `{HUBS}, product` taken out; p one-sided)",
        _by_measure(decided, lambda study: study["beyond_hubs"]),
        "**Beyond the ruler's nulls** (partial Spearman, the mean of the paired null rulers taken out, which keep how "
        "many partners each ligand and receptor has and exchange who they are; p one-sided)",
        _by_measure(decided, lambda study: study["beyond_nulls"]),
        "**LIANA on one study with LIANA on another** (Spearman over shared cell types, their number in brackets)",
        _across(document["across"]),
        "**Other summaries of LIANA's ranking** (Spearman)",
        _sensitivity(decided),
        "**Ordered pairs, sender to receiver** (Spearman; p one-sided)",
        _by_measure(decided, lambda study: study["directed"]),
        "**Direction alone** (Spearman of what differs between the two directions)",
        _by_measure(decided, lambda study: study["direction"]),
        "**Time** (seconds on one thread: processor, in brackets elapsed)",
        _time(studies),
    ]
    return "\n\n".join(parts) + "\n"


def put_into(page: Path, tables: str) -> None:
    """Replace what stands between the two marks of a page."""
    text = page.read_text(encoding="utf-8")
    if text.count(OPENED) != 1 or text.count(CLOSED) != 1 or text.index(OPENED) > text.index(CLOSED):
        raise SystemExit(f"{page} needs the line {OPENED!r} and after it {CLOSED!r}, once each.")
    before, rest = text.split(OPENED)
    page.write_text(f"{before}{OPENED}\n\n{tables}\n{CLOSED}{rest.split(CLOSED)[1]}", encoding="utf-8")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay a table out."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _head(studies: Document) -> list[str]:
    """Name the columns."""
    return [f"{name} ({'seen' if study['seen'] else 'unseen'})" for name, study in studies.items()]


def _number(value: float | None) -> str:
    """Two decimals."""
    return ABSENT if value is None else f"{value:.2f}"


def _agreed(told: Mapping[str, float | None] | None) -> str:
    """Write a correlation with what was tested about it."""
    if told is None or told["rho"] is None:
        return ABSENT
    brackets = "" if told["low"] is None else f" [{_number(told['low'])}, {_number(told['high'])}]"
    return f"{_number(told['rho'])}{brackets}" + ("" if told["p"] is None else f", p {told['p']:.2g}")


def _spread(told: Mapping[str, float | None] | None) -> str:
    """Write a mean or a difference with its interval."""
    if told is None or told["value"] is None:
        return ABSENT
    return f"{_number(told['value'])} [{_number(told['low'])}, {_number(told['high'])}]"


def _studies(studies: Document) -> str:
    """What each study is, and what LIANA's table of it is like."""
    head = ["study", "ruler or fit", "cells", "cell types", "pairs", "LIANA's rows", "of them specific"]
    head += ["types alone", "same both ways", "two halves"]
    rows = []
    for name, study in studies.items():
        n = len(study["types"])
        row = [name, "seen" if study["seen"] else "unseen", f"{sum(study['sizes'])}", f"{n}", f"{n * (n - 1) // 2}"]
        row += [f"{study['n_rows']}", f"{study['n_specific']}"]
        kind = study.get("shape", {})
        row += [_number(kind.get(key)) for key in ("types alone", "same both ways")]
        rows.append([*row, _number(study.get("halves"))])
    return _table(head, rows)


def _notes(studies: Document) -> list[str]:
    """Say what could not be done, and why."""
    told = [
        f"- {name}: cannot decide, {study['cannot_decide']}."
        for name, study in studies.items()
        if "cannot_decide" in study
    ]
    told += [f"- {name}: not placed. {study['not_placed']}" for name, study in studies.items() if not study["placed"]]
    return ["\n".join(told)] if told else []


def _across(told: Document) -> str:
    """LIANA on each study with LIANA on each other."""
    names = list(told)
    rows = []
    for first in names:
        cells = [told[first].get(second) for second in names]
        rows.append(
            [first, *(ABSENT if each is None else f"{_number(each['rho'])} ({each['n_types']})" for each in cells)]
        )
    return _table(["study", *names], rows)


def _agreement(studies: Document, document: Document) -> str:
    """Each measure on each study, and its mean over those seen and unseen."""
    rows = []
    for name in _measures(study["agreement"][PRIMARY] for study in studies.values()):
        cells = [_agreed(study["agreement"][PRIMARY].get(name)) for study in studies.values()]
        means = [_spread(document["means"][kind].get(name)) for kind in ("seen", "unseen")]
        rows.append([name, *cells, *means])
    nulls = [[rho for rho in study["nulls"] if rho is not None] for study in studies.values()]
    # of a ruler without paired nulls there is nothing to tell
    if any(nulls):
        told = [f"{sum(each) / len(each):.2f}, largest {max(each):.2f}" if each else ABSENT for each in nulls]
        rows.append([f"{RULER}'s {max(map(len, nulls))} nulls, mean", *told, ABSENT, ABSENT])
    return _table(["closeness by", *_head(studies), "mean, seen", "mean, unseen"], rows)


def _differences(studies: Document, document: Document) -> str:
    """By how much the manifold agrees better than another measure."""
    rows = []
    for name in _measures(study["differences"] for study in studies.values()):
        cells = [_spread(study["differences"].get(name)) for study in studies.values()]
        means = [_spread(document["mean_differences"][kind].get(name)) for kind in ("seen", "unseen")]
        rows.append([name, *cells, *means])
    return _table([f"{MANIFOLD} minus", *_head(studies), "mean, seen", "mean, unseen"], rows)


def _by_measure(studies: Document, part: Callable[[Document], Document]) -> str:
    """Each measure on each study."""
    names = _measures(part(study) for study in studies.values())
    rows = [[name, *(_agreed(part(study).get(name)) for study in studies.values())] for name in names]
    return _table(["closeness by", *_head(studies)], rows)


def _sensitivity(studies: Document) -> str:
    """The same for every summary of the ranking."""
    rows = []
    for summary in _measures(study["agreement"] for study in studies.values()):
        for name in SENSITIVITY:
            told = [study["agreement"][summary].get(name) for study in studies.values()]
            rho = [None if each is None else each["rho"] for each in told]
            if any(value is not None for value in rho):
                rows.append([summary, name, *map(_number, rho)])
    return _table(["summary", "closeness by", *_head(studies)], rows)


def _time(studies: Document) -> str:
    """What each costs on the same cells."""
    rows = []
    for name, study in studies.items():
        liana, manifold, placed = study["seconds"]["liana"], study["seconds"]["manifold"], study["placed"]
        when = "" if study["liana_run_now"] else ", an earlier run"
        ours = [_seconds(manifold), f"{liana['processor'] / manifold['processor']:.0f}"] if placed else [ABSENT] * 2
        rows.append([name, f"{sum(study['sizes'])}", f"{_seconds(liana)}{when}", *ours])
    return _table(["study", "cells", "LIANA", "manifold", "ratio"], rows)


def _seconds(told: Mapping[str, float]) -> str:
    """Processor and elapsed time."""
    return f"{told['processor']:.2f} ({told['elapsed']:.2f})"


def _measures(parts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names in the order in which they first come."""
    return list(dict.fromkeys(name for part in parts for name in part))

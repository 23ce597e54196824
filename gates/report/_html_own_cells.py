"""The part of a report about cells that the user brought."""

from __future__ import annotations

from ...cards._own_panel import OwnPanelReport
from ._html_records import facts, number, table
from ._markup import Html, element, together

_LISTS = {"mapped", "left_out", "unmapped", "unused", "needs"}


def own_cells(own: OwnPanelReport) -> Html:
    """The panel made of them, what each check needed of it, and what became of each label.

    Parameters
    ----------
    own
        As a run holds it.
    """
    counts = own.model_dump(exclude=_LISTS | {"columns"})
    pairs: list[tuple[str, str]] = [(name.replace("_", " "), _told(value)) for name, value in counts.items()]
    pairs.append(("columns read", ", ".join(f"{what}: {column}" for what, column in own.columns.items())))
    needs = [
        (f"rung {need.rung}: {need.check}", need.needed, need.got, {True: "yes", False: "no", None: ""}[need.enough])
        for need in own.needs
    ]
    labels: list[tuple[str, ...]] = [
        (one.label, one.stage, one.by, f"{one.n_cells:,}", f"{one.n_anchors:,}") for one in own.mapped
    ]
    labels += [(label, "no stage", "nothing names one", f"{n:,}", "0") for label, n in own.unmapped.items()]
    labels += [(label, "left out", "own table", f"{n:,}", "0") for label, n in own.left_out.items()]
    labels += [(label, "not used", "own table", "0", "0") for label in own.unused]
    return together(
        facts(pairs),
        table("What each check needs of the panel.", ("check", "needed", "got", "enough"), needs),
        table("Labels of the cells.", ("label", "stage", "by", "cells", "anchors"), labels),
    )


def _told(value: object) -> str:
    """One fact of the panel."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, str) and len(value) == 64:
        return element("code", value)
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else str(value)

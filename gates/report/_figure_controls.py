"""Rung 6: the manifold's held-out score beside that of each comparator, and their difference."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun, Record
from ...manifolds.plots._colours import LARGE, NORMAL, SMALL, axes_to_draw_on
from ._statuses import COLOURS, MARKS, as_number, headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

# inches
_ROW = 0.3
_SAID = 46
_KEY_COLUMNS = 4
_TITLES = ("held-out score", "difference: own less comparator")


def controls(run: EvidenceRun, *, ax: Axes | None = None) -> NDArray[np.object_]:
    """Draw what rung 6 compares: the own score, that of each comparator, and the difference with its interval.

    Parameters
    ----------
    run
        A validation run with rung 6.
    ax
        Axes whose place the two panels share; a new figure by default.

    Returns
    -------
    The Axes of the panels, shape ``(2,)``: scores, where the own one is a black line and a comparator a mark, with a
    bar of one standard deviation to either side where it has several seeds; and differences, with the interval that
    the record holds, if it holds one. Right of zero the manifold is better. Mark and colour say what was decided, by
    the q value on the right; what is hollow informs only, such as a lookup of the labels, which is a ceiling. Verdicts
    stand below.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the run compares with nothing.
    """
    records = _compared(run)
    if not records:
        raise BadInputError("The run compares with nothing.", "Run `manifoldzoo validate --through 6`.")
    height = _ROW * len(records)
    ax = axes_to_draw_on(ax, 9.0, height + 1.6)
    ax.axis("off")
    title = headline(run, "rung 6, against its controls")
    n_lines = -(-len(_add_key(ax, records)) // _KEY_COLUMNS)
    ax.set_title(title, parse_math=False, fontsize=LARGE, loc="left", pad=9 + 13 * n_lines)
    panels = [ax.inset_axes((left, 0.0, width, 1.0)) for left, width in ((0.0, 0.46), (0.5, 0.5))]
    for panel, title in zip(panels, _TITLES, strict=True):
        panel.set_xlabel(title, fontsize=NORMAL)
        panel.set_ylim(len(records) - 0.5, -0.5)
        panel.tick_params(axis="x", labelsize=SMALL)
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.set_yticks([])
    scores, differences = panels
    scores.set_yticks(range(len(records)), [_name(record) for record in records], fontsize=SMALL, parse_math=False)
    n_verdicts = sum(map(_is_verdict, records))
    zero = [-0.5, len(records) - n_verdicts - 0.5]
    differences.plot([0.0, 0.0], zero, color="black", lw=0.8, ls=(0, (4, 3)), zorder=1)
    beside = differences.get_yaxis_transform()
    for row, record in enumerate(records):
        _draw_scores(scores, record, row)
        _draw_difference(differences, record, row)
        _draw_mark(differences, record, row, 1.03, None, f"mark {record.gate}", transform=beside, clip_on=False)
        said = textwrap.shorten(_said(record), _SAID, placeholder=" ...")
        differences.text(1.06, row, said, transform=beside, va="center", fontsize=SMALL, parse_math=False)
    for panel in panels:
        panel.margins(x=0.08)
        panel.locator_params(axis="x", nbins=6)
        if 0 < n_verdicts < len(records):
            panel.axhline(len(records) - n_verdicts - 0.5, color="0.8", lw=0.8)
    for label, record in zip(scores.get_yticklabels(), records, strict=True):
        label.set_fontweight("bold" if _is_verdict(record) else "normal")
    return np.array(panels, dtype=np.object_)


def has_controls(run: EvidenceRun) -> bool:
    """Whether ``controls`` has something to draw."""
    return bool(_compared(run))


def controls_in_words(run: EvidenceRun) -> str:
    """What the figure shows, for those who do not see it."""
    sentences = []
    for record in _compared(run):
        own, other = _number(record, "own"), _number(record, "other")
        scores = "" if own is None or other is None else f"own {own:.3f}, comparator {other:.3f}, "
        sentences.append(f"{_name(record)}: {scores}{_said(record)}.")
    return " ".join(sentences)


def _compared(run: EvidenceRun) -> list[Record]:
    """Records of rung 6, verdicts last; none where no scores were compared."""
    records = [record for result in run.rungs if result.rung == 6 for record in result.records]
    if all(_number(record, "own") is None for record in records):
        return []
    return sorted(records, key=_is_verdict)


def _draw_scores(panel: Axes, record: Record, row: int) -> None:
    """Own score and that of one comparator."""
    own, other = _number(record, "own"), _number(record, "other")
    if own is not None:
        panel.plot([own, own], [row - 0.4, row + 0.4], color="black", lw=2, zorder=2, gid=f"own {record.gate}")
    if other is not None:
        _draw_mark(panel, record, row, other, _number(record, "seed_sd"), f"other {record.gate}")


def _draw_difference(panel: Axes, record: Record, row: int) -> None:
    """Difference of one comparison, with its interval where there is one."""
    own, other = _number(record, "own"), _number(record, "other")
    if own is None or other is None:
        return
    low, high = _number(record, "interval_low"), _number(record, "interval_high")
    if low is not None and high is not None:
        colour = COLOURS[record.status]
        panel.plot([low, high], [row, row], color=colour, lw=1.4, marker="|", ms=6, gid=f"interval {record.gate}")
    _draw_mark(panel, record, row, own - other, None, f"difference {record.gate}")


def _draw_mark(panel: Axes, record: Record, row: int, at: float, spread: float | None, gid: str, **place: Any) -> None:
    """A mark in the colour of its status, with a bar to either side."""
    colour = COLOURS[record.status]
    if spread is not None:
        panel.plot([at - spread, at + spread], [row, row], color=colour, lw=1.4, gid=f"seeds {record.gate}")
    how = place if record.decides or _is_verdict(record) else {"mfc": "white", **place}
    panel.plot([at], [row], marker=MARKS[record.status], color=colour, ms=6, ls="", zorder=3, gid=gid, **how)


def _add_key(ax: Axes, records: Sequence[Record]) -> list[Line2D]:
    """What marks and lines mean, as far as they are there."""
    from matplotlib.lines import Line2D

    compared = [record for record in records if _number(record, "other") is not None]
    told = {"pass": "beaten", "fail": "not beaten", "cannot decide": "cannot decide", "not run": "not run"}
    handles = [Line2D([], [], marker="|", color="black", ls="", ms=9, mew=2, label="own score")]
    handles += [
        Line2D([], [], marker=MARKS[status], color=COLOURS[status], ls="", ms=6, label=told[status])
        for status in COLOURS
        if any(record.status == status for record in compared)
    ]
    if any(not record.decides for record in compared):
        handles.append(Line2D([], [], marker="o", color="0.4", mfc="white", ls="", ms=6, label="hollow: informs only"))
    if any(_number(record, "seed_sd") is not None for record in compared):
        handles.append(Line2D([], [], color="0.4", lw=1.4, label="sd over seeds"))
    if any(_number(record, "interval_low") is not None for record in compared):
        handles.append(Line2D([], [], color="0.4", lw=1.4, marker="|", ms=6, label="interval of the difference"))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=_KEY_COLUMNS,
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0.3,
        columnspacing=1.5,
    )
    return handles


def _number(record: Record, key: str) -> float | None:
    """A number among the details; older records lack some."""
    return as_number(record.details.get(key))


def _is_verdict(record: Record) -> bool:
    """Whether a record sums others up."""
    return record.gate.startswith("verdict_")


def _name(record: Record) -> str:
    """Name of a comparator, with its seeds where there are several."""
    if _is_verdict(record):
        return record.gate.removeprefix("verdict_").replace("_", " ")
    seeds = _number(record, "n_seeds") or 1
    name = record.gate.removeprefix("beats_").replace("_", " ")
    return textwrap.shorten(name, 34, placeholder=" ...") + (f" ({seeds:.0f} seeds)" if seeds > 1 else "")


def _said(record: Record) -> str:
    """What was decided, and by which q value."""
    if _number(record, "own") is None:
        return record.status if _is_verdict(record) else f"{record.status}: {record.reason}"
    q = "" if record.statistic is None or record.direction not in ("<", "<=") else f"q = {record.statistic:.3g}: "
    if record.decides:
        return f"{q}{record.status}"
    return f"{q}{'a ceiling, ' if 'lookup' in record.gate else ''}informs only"

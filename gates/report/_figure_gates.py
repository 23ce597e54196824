"""Every check of a run: statistics against their thresholds."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun, Record
from ...manifolds.plots._colours import LARGE, NORMAL, SMALL, axes_to_draw_on
from ._statuses import COLOURS, MARKS, Row, has_number, headline, rows_of, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# inches
_ROW, _BETWEEN = 0.26, 0.7
_REASON, _BARE_REASON = 48, 105


def gates(run: EvidenceRun, *, ax: Axes | None = None) -> NDArray[np.object_]:
    """Draw each gate's statistic as a bar against its threshold, with what was decided.

    Parameters
    ----------
    run
        A validation run, as ``validate`` returns it.
    ax
        Axes whose place the panels share; a new figure by default.

    Returns
    -------
    The Axes of the panels, shape ``(n_panels,)``, 1 to 4 of them: statistics that have to reach their threshold,
    statistics that have to stay below it, on a logarithmic axis and on a linear one, and checks that have no number. A
    row begins with its rung. Mark and colour
    say the same: blue disc for pass, vermilion cross for fail, dark diamond for what could not be decided, grey dash
    for what was not run. Hatched bars inform and do not decide.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the run has no records.

    Notes
    -----
    The axis of what has to stay below is logarithmic where threshold and statistic are not negative nor the threshold
    zero, because errors and p-values span many powers of ten; a statistic of 0 has no bar there, only its number
    beside it.
    """
    rows = rows_of(run)
    if not rows:
        raise BadInputError("The run has no records to draw.", "Run `manifoldzoo validate`.")
    numbered = [row for row in rows if has_number(row[1])]
    low = [row for row in numbered if row[1].direction in ("<=", "<")]
    groups = {
        "has to reach the line": [row for row in numbered if row[1].direction in (">=", ">")],
        "has to stay below the line, in powers of ten": [row for row in low if _has_powers(row[1])],
        "has to stay below the line": [row for row in low if not _has_powers(row[1])],
        "checks without a number": [row for row in rows if not has_number(row[1])],
    }
    groups = {title: group for title, group in groups.items() if group}
    heights = [_ROW * len(group) for group in groups.values()]
    total = sum(heights) + _BETWEEN * (len(heights) - 1)
    ax = axes_to_draw_on(ax, 9.0, total + 1.3)
    from matplotlib.transforms import ScaledTranslation

    ax.axis("off")
    ax.set_title(headline(run), parse_math=False, fontsize=LARGE, loc="left", pad=20)
    panels, top = [], total
    for (title, group), height in zip(groups.items(), heights, strict=True):
        panel = ax.inset_axes((0.0, (top - height) / total, 1.0, height / total))
        panel.set_title(title, fontsize=NORMAL, loc="left", style="italic")
        top -= height + _BETWEEN
        bare = not has_number(group[0][1])
        _list_rows(panel, group, bare=bare)
        if not bare:
            _draw_bars(panel, group)
        panels.append(panel)
    below = ax.transAxes + ScaledTranslation(0, -0.35, ax.figure.dpi_scale_trans)
    key: dict[str, Any] = {"ncols": 7, "frameon": False, "fontsize": SMALL, "borderaxespad": 0.0, "columnspacing": 1.5}
    handles = _key([record for _, record in rows])
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=below, **key)
    return np.array(panels, dtype=np.object_)


def gates_in_words(run: EvidenceRun) -> str:
    """What the figure shows, for those who do not see it."""
    rows = rows_of(run)
    counts = [(status, [row for row in rows if row[1].status == status]) for status in COLOURS]
    said = [
        f"{len(found)} {status}" + (f" ({', '.join(words(*row) for row in found)})" if status != "pass" else "")
        for status, found in counts
        if found
    ]
    return f"{len(rows)} checks against their thresholds: {'; '.join(said)}."


def _draw_bars(panel: Axes, group: Sequence[Row]) -> None:
    """A bar and a threshold for each row."""
    statistics = np.array([record.statistic for _, record in group], dtype=np.float64)
    thresholds = np.array([record.threshold for _, record in group], dtype=np.float64)
    logarithmic = str(group[0][1].direction).startswith("<") and _has_powers(group[0][1])
    left = 0.0
    if logarithmic:
        positive = np.concatenate([statistics[statistics > 0], thresholds])
        left = float(10.0 ** np.floor(np.log10(positive.min()) - 0.5))
        panel.set_xscale("log")
        panel.set_xlim(left, 3 * float(positive.max()))
    else:
        low, high = min(0.0, statistics.min(), thresholds.min()), max(statistics.max(), thresholds.max())
        panel.set_xlim(1.05 * low, 1.0 if 0.5 < high <= 1 else 1.05 * high or 1.0)
    for row, (_, record) in enumerate(group):
        panel.barh(
            row,
            max(float(statistics[row]) - left, 0.0) if logarithmic else float(statistics[row]),
            left=left,
            height=0.62,
            color=COLOURS[record.status] if record.decides else "white",
            edgecolor=COLOURS[record.status],
            hatch=None if record.decides else "////",
            zorder=2,
        )
        panel.plot([thresholds[row]] * 2, [row - 0.45, row + 0.45], color="black", lw=2, zorder=3)
    panel.tick_params(axis="x", labelsize=SMALL)


def _list_rows(panel: Axes, group: Sequence[Row], *, bare: bool) -> None:
    """Names and marks of rows on the left, what was said of each on the right."""
    from matplotlib.transforms import ScaledTranslation

    beside = panel.get_yaxis_transform()
    left, right = (ScaledTranslation(x / 72, 0, panel.figure.dpi_scale_trans) for x in (-8, 6))
    for row, (_, record) in enumerate(group):
        panel.plot(
            [0],
            [row],
            marker=MARKS[record.status],
            color=COLOURS[record.status],
            ms=6,
            ls="",
            transform=beside + left,
            clip_on=False,
            gid=f"mark {record.gate}",
        )
        said = textwrap.shorten(
            f"{record.status}: {record.reason}", _BARE_REASON if bare else _REASON, placeholder=" ..."
        )
        panel.text(
            0.0 if bare else 1.0, row, said, transform=beside + right, va="center", fontsize=SMALL, parse_math=False
        )
    panel.set_ylim(len(group) - 0.5, -0.5)
    names = [words(rung, record) for rung, record in group]
    panel.set_yticks(range(len(group)), names, fontsize=SMALL, parse_math=False)
    panel.tick_params(axis="y", length=0, pad=16)
    panel.spines[["top", "right", *(["bottom", "left"] if bare else [])]].set_visible(False)
    if bare:
        panel.set_xticks([])


def _key(records: Sequence[Record]) -> list[object]:
    """What marks, the line and hatching mean, as far as they are there."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    there = [status for status in COLOURS if any(record.status == status for record in records)]
    handles: list[object] = [
        Line2D([], [], marker=MARKS[status], color=COLOURS[status], ls="", ms=6, label=status) for status in there
    ]
    if any(map(has_number, records)):
        handles.append(Line2D([], [], marker="|", color="black", ls="", ms=9, mew=2, label="threshold"))
    if any(has_number(record) and not record.decides for record in records):
        handles.append(Patch(facecolor="white", edgecolor="0.4", hatch="////", label="informs only"))
    return handles


def _has_powers(record: Record) -> bool:
    """Whether statistic and threshold can stand on a logarithmic axis."""
    statistic, threshold = record.statistic, record.threshold
    return statistic is not None and threshold is not None and statistic >= 0 and threshold > 0

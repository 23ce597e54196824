"""Figures of evidence: statistics against their thresholds, and nulls with what was observed."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun, NullSummary, Record, Status
from ...manifolds.plots._colours import HUES, LARGE, NORMAL, SMALL, axes_to_draw_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = tuple[int, Record]
COLOURS: dict[Status, str] = {"pass": HUES[3], "fail": HUES[0], "cannot decide": "#444444", "not run": "#8c8c8c"}
"""Blue and vermilion are told apart with any colour vision (Okabe and Ito 2008)."""
MARKS: dict[Status, str] = {"pass": "o", "fail": "X", "cannot decide": "D", "not run": "_"}
# inches
_ROW, _BETWEEN, _TALL_ROW = 0.26, 0.7, 0.95
_REASON, _BARE_REASON, _KIND = 48, 105, 42
# densities of draws closer than this would overflow
_NO_SPREAD = 1e-200


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
    The Axes of the panels, shape ``(n_panels,)``, 1 to 3 of them: statistics that have to reach their threshold,
    statistics that have to stay below it, and checks that have no number. A row begins with its rung. Mark and colour
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
    The axis of what has to stay below is logarithmic where all thresholds are positive, because errors and p-values
    span many powers of ten; a statistic of 0 has no bar there, only its number beside it.
    """
    rows: list[Row] = [(result.rung, record) for result in run.rungs for record in result.records]
    if not rows:
        raise BadInputError("The run has no records to draw.", "Run `manifoldzoo validate`.")
    numbered = [row for row in rows if _has_number(row[1])]
    groups = {
        "has to reach the line": [row for row in numbered if row[1].direction in (">=", ">")],
        "has to stay below the line": [row for row in numbered if row[1].direction in ("<=", "<")],
        "checks without a number": [row for row in rows if not _has_number(row[1])],
    }
    groups = {title: group for title, group in groups.items() if group}
    heights = [_ROW * len(group) for group in groups.values()]
    total = sum(heights) + _BETWEEN * (len(heights) - 1)
    ax = axes_to_draw_on(ax, 9.0, total + 1.3)
    from matplotlib.transforms import ScaledTranslation

    ax.axis("off")
    what = f"{run.reference} (digest {run.artifact_digest[:12]}), validated {run.started:%Y-%m-%d}"
    ax.set_title(what, fontsize=LARGE, loc="left", pad=20)
    panels, top = [], total
    for (title, group), height in zip(groups.items(), heights, strict=True):
        panel = ax.inset_axes((0.0, (top - height) / total, 1.0, height / total))
        panel.set_title(title, fontsize=NORMAL, loc="left", style="italic")
        top -= height + _BETWEEN
        bare = not _has_number(group[0][1])
        _list_rows(panel, group, bare=bare)
        if not bare:
            _draw_bars(panel, group)
        panels.append(panel)
    below = ax.transAxes + ScaledTranslation(0, -0.35, ax.figure.dpi_scale_trans)
    key: dict[str, Any] = {"ncols": 7, "frameon": False, "fontsize": SMALL, "borderaxespad": 0.0, "columnspacing": 1.5}
    handles = _key([record for _, record in rows])
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=below, **key)
    return np.array(panels, dtype=np.object_)


def null(run: EvidenceRun, *, ax: Axes | None = None) -> Axes:
    """Draw every null distribution of a run with the statistic observed.

    Parameters
    ----------
    run
        A validation run, as ``validate`` returns it.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The Axes; a row per record that has a null, the first at the top, hatched where the record informs only.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If no record of the run has a null.

    Notes
    -----
    A record holds a summary of its null and not the draws. What is drawn is the histogram that the summary fixes:
    between two neighbouring quantiles lies their share of the draws, spread evenly, and the highest bar of a row is
    as high as the row. Where there are no quantiles, a line spans the draws and a box their mean and standard
    deviation to either side. Our choice.
    """
    rows: list[Row] = [(result.rung, record) for result in run.rungs for record in result.records if record.null]
    if not rows:
        raise BadInputError(
            "No record of the run has a null distribution.", "Run `manifoldzoo validate --through 3`, whose rung 3 has."
        )
    ax = axes_to_draw_on(ax, 8.5, _TALL_ROW * len(rows) + 1.2)
    nulls = [record.null for _, record in rows if record.null]
    for place, ((_, record), summary) in enumerate(zip(rows, nulls, strict=True)):
        _draw_null(ax, summary, -place, hatched=not record.decides)
    for place, (_, record) in enumerate(rows):
        _draw_observed(ax, record, -place)
    names = [
        "\n".join([_words(rung, record), *textwrap.wrap(f"{summary.n:,} draws, {summary.kind}", _KIND)])
        for (rung, record), summary in zip(rows, nulls, strict=True)
    ]
    ax.set_yticks([0.3 - place for place in range(len(rows))], names, fontsize=SMALL)
    ax.set_ylim(0.85 - len(rows), 1.05)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.set_xlabel("statistic", fontsize=NORMAL)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title(f"{run.reference}: nulls and what was observed", fontsize=LARGE, loc="left")
    return ax


def null_histogram(summary: NullSummary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The histogram that the quantiles of a summary fix.

    Parameters
    ----------
    summary
        Of a null; keys of its quantiles are levels between 0 and 1.

    Returns
    -------
    Edges ``(n_bins + 1,)`` and densities ``(n_bins,)``, which integrate to 1. No bins at all where the summary has no
    quantiles or all draws are equal; of quantiles that coincide (to a millionth of the range) the lowest stands.
    """
    inner = sorted((float(level), value) for level, value in summary.quantiles.items())
    span = summary.maximum - summary.minimum
    if not inner or span <= _NO_SPREAD:
        return np.array([summary.minimum]), np.empty(0)
    edges, levels = [summary.minimum], [0.0]
    for level, value in inner:
        if min(value - edges[-1], summary.maximum - value) > 1e-6 * span:
            edges.append(value)
            levels.append(level)
    edges, levels = [*edges, summary.maximum], [*levels, 1.0]
    return np.array(edges), np.diff(levels) / np.diff(edges)


def _draw_bars(panel: Axes, group: Sequence[Row]) -> None:
    """A bar and a threshold for each row."""
    statistics = np.array([record.statistic for _, record in group], dtype=np.float64)
    thresholds = np.array([record.threshold for _, record in group], dtype=np.float64)
    logarithmic = str(group[0][1].direction).startswith("<") and bool((thresholds > 0).all())
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
        panel.text(0.0 if bare else 1.0, row, said, transform=beside + right, va="center", fontsize=SMALL)
    panel.set_ylim(len(group) - 0.5, -0.5)
    panel.set_yticks(range(len(group)), [_words(rung, record) for rung, record in group], fontsize=SMALL)
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
    if any(map(_has_number, records)):
        handles.append(Line2D([], [], marker="|", color="black", ls="", ms=9, mew=2, label="threshold"))
    if any(_has_number(record) and not record.decides for record in records):
        handles.append(Patch(facecolor="white", edgecolor="0.4", hatch="////", label="informs only"))
    return handles


def _draw_null(ax: Axes, summary: NullSummary, base: float, *, hatched: bool) -> None:
    """The histogram of a null above a base line."""
    edges, density = null_histogram(summary)
    if density.size:
        ax.stairs(
            base + 0.66 * density / density.max(),
            edges,
            baseline=base,
            fill=not hatched,
            facecolor="0.75" if not hatched else "none",
            edgecolor="0.45",
            hatch="////" if hatched else None,
        )
    else:
        ax.barh(base + 0.2, 2 * summary.sd, left=summary.mean - summary.sd, height=0.4, color="0.75")
    ax.plot([summary.minimum, summary.maximum], [base, base], color="0.3", lw=1.2, marker="|", ms=6)


def _draw_observed(ax: Axes, record: Record, base: float) -> None:
    """The line of what was observed, marked by what was decided."""
    observed = record.details.get("observed")
    if observed is None and record.direction in (">=", ">"):
        observed = record.statistic
    if not isinstance(observed, int | float):
        ax.annotate("not recorded", (0.99, base + 0.8), xycoords=ax.get_yaxis_transform(), ha="right", fontsize=SMALL)
        return
    colour, (low, high) = COLOURS[record.status], ax.get_xlim()
    ax.plot([observed] * 2, [base, base + 0.8], color=colour, lw=2, gid=f"observed {record.gate}")
    ax.plot([observed], [base + 0.8], marker=MARKS[record.status], color=colour, ms=7)
    p = f", p = {record.statistic:.3g}" if record.statistic is not None and record.direction in ("<=", "<") else ""
    on_the_right = observed < (low + high) / 2
    ax.annotate(
        f"observed {observed:.3f}{p}: {record.status}{'' if record.decides else ' (informs only)'}",
        (observed, base + 0.8),
        (8 if on_the_right else -8, 0),
        textcoords="offset points",
        ha="left" if on_the_right else "right",
        va="center",
        fontsize=SMALL,
    )


def _has_number(record: Record) -> bool:
    """Whether a bar can be drawn."""
    return None not in (record.statistic, record.threshold, record.direction)


def _words(rung: int, record: Record) -> str:
    """Rung and name of a gate for people."""
    return f"rung {rung}: {record.gate.replace('_', ' ')}"

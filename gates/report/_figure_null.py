"""Null distributions, with what was observed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun, NullSummary, Record
from ...manifolds.plots._colours import LARGE, NORMAL, SMALL, axes_to_draw_on
from ._statuses import COLOURS, MARKS, as_number, headline, rows_of, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# inches
_TALL_ROW = 0.95
_KIND = 42
# densities of draws closer than this would overflow
_NO_SPREAD = 1e-200


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
    rows = [row for row in rows_of(run) if row[1].null]
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
        "\n".join([words(rung, record), *textwrap.wrap(f"{summary.n:,} draws, {summary.kind}", _KIND)])
        for (rung, record), summary in zip(rows, nulls, strict=True)
    ]
    ax.set_yticks([0.3 - place for place in range(len(rows))], names, fontsize=SMALL, parse_math=False)
    ax.set_ylim(0.85 - len(rows), 1.05)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.set_xlabel("statistic", fontsize=NORMAL)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_title(headline(run, "nulls and what was observed"), parse_math=False, fontsize=LARGE, loc="left")
    return ax


def null_in_words(run: EvidenceRun) -> str:
    """What the figure shows, for those who do not see it."""
    sentences = []
    for rung, record in rows_of(run):
        if record.null is not None:
            observed, summary = _observed(record), record.null
            told = "nothing recorded as observed" if observed is None else f"observed {observed:.3f}"
            span = f"{summary.n:,} draws of the null from {summary.minimum:.3f} to {summary.maximum:.3f}"
            beside = "" if record.decides else ", informs only"
            sentences.append(f"{words(rung, record)}: {told}, {span}; {record.status}, {record.reason}{beside}.")
    return " ".join(sentences)


def null_histogram(summary: NullSummary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The histogram that the quantiles of a summary fix.

    Parameters
    ----------
    summary
        Of a null; keys of its quantiles are levels between 0 and 1, and others are passed over.

    Returns
    -------
    Edges ``(n_bins + 1,)`` and densities ``(n_bins,)``, which integrate to 1. No bins at all where the summary has no
    quantiles or all draws are equal; of quantiles that coincide (to a millionth of the range) the lowest stands.
    """
    inner = sorted((level, value) for level, value in _levels(summary) if 0 < level < 1)
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


def _levels(summary: NullSummary) -> Iterator[tuple[float, float]]:
    """Quantiles whose level is a number, which nothing makes sure of in what was read from a file."""
    for level, value in summary.quantiles.items():
        with suppress(ValueError):
            yield float(level), value


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
    observed = _observed(record)
    if observed is None:
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


def _observed(record: Record) -> float | None:
    """What the null is compared with; a statistic that has to reach a threshold is it itself."""
    observed = record.details.get("observed")
    if observed is None and record.direction in (">=", ">"):
        observed = record.statistic
    return as_number(observed)

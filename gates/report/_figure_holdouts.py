"""Holdouts part by part, so that a part that is missed is seen by name."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun, Record, Status, holds
from ...manifolds.plots._colours import LARGE, NORMAL, SMALL, axes_to_draw_on
from ._statuses import COLOURS, MARKS, Row, headline, rows_of, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 24
"""Parts of one holdout that get a row of their own, the lowest; the others share one. Our choice."""
MOST_LEFT_OUT = 8
"""Parts left out of one holdout that get a row of their own; our choice."""
_DRAWN = re.compile(r"random \d+")
# inches
_ROW = 0.2
_NAME, _REASON, _SAID = 38, 76, 44


@dataclass(frozen=True)
class Line:
    """One row of the figure: a holdout as a whole, some of its parts, or a part that was left out.

    Parameters
    ----------
    name
        Written on the left.
    values
        A dot each.
    said
        Written on the right.
    record
        Whose holdout, and ``None`` for rows of parts.
    left_out
        Why there is no value.
    """

    name: str
    values: tuple[float, ...] = ()
    said: str = ""
    record: Record | None = None
    left_out: str = ""


def holdouts(run: EvidenceRun, *, ax: Axes | None = None) -> Axes:
    """Draw the score of every part that was held out, with mean and threshold of its holdout.

    Parameters
    ----------
    run
        A validation run, as ``validate`` returns it.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The Axes. Each holdout is a block: its mean on top, marked by what was decided, then its parts, lowest first, a
    vermilion cross where a part alone misses the threshold (black line) and a blue disc where it reaches it, then the
    parts that were left out with the reason. It is the mean that decides. Random draws that reach the threshold share
    a row, and so do the highest of very many parts.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If no record of the run holds the values of its parts.
    """
    blocks = [list(_block(row)) for row in _held_out(run)]
    if not blocks:
        raise BadInputError(
            "No record of the run holds the values of its parts.", "Run `manifoldzoo validate --through 3`."
        )
    # an empty row between blocks
    places = list(_places([len(block) for block in blocks]))
    last = places[-1] + len(blocks[-1])
    ax = axes_to_draw_on(ax, 9.0, _ROW * last + 1.3)
    lines = [
        (place + offset, line) for place, block in zip(places, blocks, strict=True) for offset, line in enumerate(block)
    ]
    for place, block in zip(places, blocks, strict=True):
        ax.axhspan(place - 0.5, place + len(block) - 0.5, color="0.96", zorder=0, lw=0)
        _draw_block(ax, place, block)
    ax.set_yticks([at for at, _ in lines], [line.name for _, line in lines], fontsize=SMALL, parse_math=False)
    for label, (_, line) in zip(ax.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if line.record else "normal")
    ax.set_ylim(last - 0.3, -0.7)
    shown = [value for _, line in lines for value in line.values]
    thresholds = [line.record.threshold for _, line in lines if line.record and line.record.threshold is not None]
    ax.set_xlim(min([0.0, *shown, *thresholds]) - 0.03, max([1.0, *shown, *thresholds]) + 0.03)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=SMALL)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.set_xlabel("held-out Spearman correlation of latent angle and ruler distance", fontsize=NORMAL)
    ax.set_title(headline(run, "part by part"), parse_math=False, fontsize=LARGE, loc="left", pad=22)
    _add_key(ax, [line for _, line in lines])
    return ax


def has_parts(run: EvidenceRun) -> bool:
    """Whether ``holdouts`` has something to draw."""
    return bool(_held_out(run))


def holdouts_in_words(run: EvidenceRun) -> str:
    """What the figure shows, for those who do not see it."""
    sentences = []
    for rung, record in _held_out(run):
        said = f"{words(rung, record)}: {record.status}, {record.reason}"
        if record.parts:
            name, value = min(record.parts.items(), key=lambda part: part[1])
            missed = [part for part, score in record.parts.items() if _status(record, score) == "fail"]
            said += f"; lowest of {len(record.parts)} parts {name} at {value:.2f}"
            said += f"; {len(missed)} below the threshold on their own" if missed else ""
        left_out = [part for part, _ in skipped_parts(record)]
        sentences.append(said + (f"; left out: {', '.join(left_out)}" if left_out else "") + ".")
    return " ".join(sentences)


def skipped_parts(record: Record) -> list[tuple[str, str]]:
    """Parts that were left out of a holdout, each with the reason, as its record tells them."""
    told = record.details.get("skipped")
    parts = str(told).split("; ") if told else []
    return [
        (name, reason) if found else ("left out", name) for name, found, reason in (p.partition(": ") for p in parts)
    ]


def _held_out(run: EvidenceRun) -> list[Row]:
    """Records of holdouts and their rungs; none where no record holds the values of its parts.

    Comparisons of rung 6, whose statistic is a q value, are no holdouts.
    """
    rows = [
        row
        for row in rows_of(run)
        if row[0] != 6
        and row[1].direction not in ("<", "<=")
        and (_has_scores(row[1]) or row[1].details.get("skipped") or "holdout" in row[1].gate)
    ]
    return rows if any(record.parts for _, record in rows) else []


def _has_scores(record: Record) -> bool:
    """Whether parts are scores of one statistic; records that describe have parts of other kinds, and no threshold."""
    return bool(record.parts) and record.direction is not None


def _block(row: Row) -> Iterator[Line]:
    """The rows of one holdout."""
    rung, record = row
    said = f"{record.status}: {record.reason}" + ("" if record.decides else " (informs only)")
    mean = () if record.statistic is None else (record.statistic,)
    yield Line(words(rung, record), mean, _short(said, _SAID), record)
    ranked = sorted(record.parts.items(), key=lambda part: part[1])
    named = [part for part in ranked if not (_DRAWN.fullmatch(part[0]) and _status(record, part[1]) == "pass")]
    named = named[:MOST_NAMED]
    for name, value in named:
        yield Line(_short(name, _NAME), (value,), f"{value:.2f}")
    rest = [part for part in ranked if part not in named]
    if rest:
        kind = "random draws" if all(_DRAWN.fullmatch(name) for name, _ in rest) else "others"
        values = tuple(value for _, value in rest)
        yield Line(f"{len(rest)} {kind}", values, f"{values[0]:.2f} to {values[-1]:.2f}")
    if not record.parts and record.details.get("n_folds"):
        yield Line("parts", left_out="their values were not recorded")
    skipped = skipped_parts(record)
    most = MOST_LEFT_OUT if len(skipped) <= MOST_LEFT_OUT else MOST_LEFT_OUT - 1
    for name, reason in skipped[:most]:
        yield Line(_short(name, _NAME), left_out=f"left out: {reason}")
    if skipped[most:]:
        yield Line(f"{len(skipped) - most} more", left_out="left out; the record names them")


def _places(lengths: list[int]) -> Iterator[int]:
    """First row of each block, with an empty row between blocks."""
    place = 0
    for length in lengths:
        yield place
        place += length + 1


def _draw_block(ax: Axes, place: int, block: list[Line]) -> None:
    """Dots, mean, threshold and what is said of one holdout."""
    record = block[0].record
    assert record is not None
    beside = ax.get_yaxis_transform()
    if record.threshold is not None:
        # not over the words of what was left out, which comes last
        ends = [place - 0.5, place + sum(not line.left_out for line in block) - 0.5]
        ax.plot([record.threshold] * 2, ends, color="black", lw=1.6, zorder=2, gid=f"threshold {record.gate}")
    for at, line in enumerate(block, start=place):
        if line.left_out:
            said = _short(line.left_out, _REASON)
            ax.text(0.01, at, said, transform=beside, va="center", fontsize=SMALL, style="italic", parse_math=False)
            continue
        ax.text(1.01, at, line.said, transform=beside, va="center", fontsize=SMALL, parse_math=False)
        for status in COLOURS:
            values = [
                value for value in line.values if (record.status if line.record else _status(record, value)) == status
            ]
            if values:
                ax.plot(
                    values,
                    [at] * len(values),
                    marker=MARKS[status],
                    color=COLOURS[status],
                    ms=8 if line.record else 5,
                    mec="white" if status == "pass" else None,
                    mew=0.5,
                    ls="",
                    zorder=3,
                    clip_on=False,
                    gid=f"{'mean' if line.record else 'part'} {record.gate} {line.name}",
                )


def _add_key(ax: Axes, lines: list[Line]) -> None:
    """What the marks mean, as far as they are there."""
    from matplotlib.lines import Line2D

    records = [line.record for line in lines if line.record]
    statuses = {_status(record, value) for record in records for value in record.parts.values()}
    told = {"pass": "part that reaches the threshold", "fail": "part that does not", "cannot decide": "part"}
    handles = [
        Line2D([], [], marker=MARKS[status], color=COLOURS[status], ls="", ms=5, label=told[status])
        for status in COLOURS
        if status in statuses
    ]
    handles.append(
        Line2D([], [], marker=MARKS["pass"], color="0.4", ls="", ms=8, label="larger: the mean, which decides")
    )
    if any(record.threshold is not None for record in records):
        handles.append(Line2D([], [], color="black", lw=1.6, label="threshold"))
    ax.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=4,
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0.0,
        columnspacing=1.5,
    )


def _status(record: Record, value: float) -> Status:
    """Whether one part alone reaches the threshold of its holdout."""
    if record.threshold is None or record.direction is None:
        return "cannot decide"
    return "pass" if holds(value, record.direction, record.threshold) else "fail"


def _short(text: str, width: int) -> str:
    """Text of one row; names of one word are cut too."""
    shortened = textwrap.shorten(text, width, placeholder=" ...")
    return shortened if shortened != " ..." and shortened != "..." else f"{text.split()[0][: width - 4]} ..."

"""Which figures a validation run has, and drawing them as files beside an artifact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...cards._evidence import EvidenceRun
from ...manifolds.plots._save import save_axes
from ._figure_axes import axes_and_programs, axes_in_words, has_programs
from ._figure_controls import controls, controls_in_words, has_controls
from ._figure_gates import gates, gates_in_words
from ._figure_holdouts import has_parts, holdouts, holdouts_in_words
from ._figure_null import null, null_in_words
from ._statuses import rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_ROWS = 300
"""Records that one figure can show; there are about fifty, and a picture of more than this nobody reads."""


@dataclass(frozen=True)
class RunFigure:
    """One figure of a run.

    Parameters
    ----------
    name
        Of its file, without a suffix.
    title
        For people.
    told
        What it shows, in words.
    draw
        Draws it in a new pyplot figure and returns one of its Axes.
    """

    name: str
    title: str
    told: str
    draw: Callable[[], Axes]


def figures_of(run: EvidenceRun) -> list[RunFigure]:
    """The figures that a run has records for; none of those that would have more than ``MOST_ROWS`` rows."""
    records = [record for _, record in rows_of(run)]
    found = []
    if 0 < len(records) <= MOST_ROWS:
        found.append(RunFigure("gates", "Checks and thresholds", gates_in_words(run), lambda: gates(run)[0]))
    if has_parts(run) and len(records) <= MOST_ROWS:
        found.append(RunFigure("holdouts", "Holdouts, part by part", holdouts_in_words(run), lambda: holdouts(run)))
    if 0 < sum(record.null is not None for record in records) <= MOST_ROWS:
        found.append(RunFigure("null", "Nulls and what was observed", null_in_words(run), lambda: null(run)))
    if has_programs(run):
        found.append(
            RunFigure("axes", "What the axes stand for", axes_in_words(run), lambda: axes_and_programs(run)[0])
        )
    if has_controls(run) and len(records) <= MOST_ROWS:
        found.append(RunFigure("controls", "Against its controls", controls_in_words(run), lambda: controls(run)[0]))
    return found


def draw_run(run: EvidenceRun, folder: Path) -> list[Path]:
    """Draw what a run shows to ``gates.png``, ``holdouts.png``, ``null.png``, ``axes.png`` and ``controls.png``.

    Each takes the place of that of an earlier run.

    Parameters
    ----------
    run
        As ``validate`` returns it. What it has no records for is not drawn.
    folder
        ``figures/`` of an artifact, made if it is not there.

    Returns
    -------
    The files written.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    StoreError
        If a file cannot be written.
    """
    return [save_axes(figure.draw(), folder / f"{figure.name}.png") for figure in figures_of(run)]

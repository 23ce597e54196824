"""What tests of figures share: a run made by hand, and whether all that is written can be read."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import combinations
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from manifoldzoo.cards._evidence import EvidenceRun, RungResult


def run_of(*rungs: RungResult, **fields: Any) -> EvidenceRun:
    """A run of the tiny manifold with these rungs."""
    told = {
        "artifact_digest": "a" * 64,
        "reference": "tiny@0.1.0",
        "started": datetime(2026, 1, 2, tzinfo=UTC),
        "seconds": 1.0,
        "software": {},
        "rungs": list(rungs),
    }
    return EvidenceRun.model_validate(told | fields)


def assert_readable(figure: Figure) -> None:
    """No text is cut off, tiny, or over another."""
    figure.draw_without_rendering()
    width, height = figure.canvas.get_width_height()
    axes = [ax for ax in figure.findobj(Axes) if ax.axison]
    hidden = {text for ax in figure.findobj(Axes) for axis in (ax.xaxis, ax.yaxis) for text in axis.findobj(Text)}
    for ax in axes:
        # ticks beyond the axes are there, and not drawn
        low, high = ax.get_xlim()
        hidden -= {text for text in ax.get_xticklabels() if low <= text.get_position()[0] <= high}
        hidden -= {*ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label}
    found = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in hidden]
    boxes = []
    for text in found:
        assert text.get_fontsize() >= 7, text
        box = Text.get_window_extent(text)
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text
        boxes.append((box.shrunk(0.98, 0.9), text.get_text()))
    assert len(boxes) > 8
    assert not [(a, b) for (x, a), (y, b) in combinations(boxes, 2) if x.overlaps(y)]

"""What figures share: an Axes to draw on, colours and marks, names beside points, and how labels are read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...cards._errors import BadInputError, MissingExtraError
from .._figure import PALETTE, shades, stage_colours
from .._ruler_interface import Ruler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colour = tuple[float, float, float]
Points = NDArray[np.float64]

SMALL, NORMAL, LARGE = 7.0, 8.0, 9.5
"""Sizes of text in points: labels in the picture, axes and keys, titles."""
COLOUR_MAP = "viridis"
"""For numbers: even steps in lightness with any colour vision (Smith and van der Walt 2015, SciPy)."""
MISSING: Colour = (0.8, 0.8, 0.8)
"""Of cells without a label or number."""
HUES = PALETTE[1:7]
"""The six of Okabe and Ito (2008) that show on white, for categories that are neither stages nor branches."""
SHAPES = ("o", "s", "^", "D", "v", "P", "X", "*")
"""A second mark, because nobody tells more than a handful of hues apart."""


# points: distances of a name from its dot that are tried, and half the width of a dot
_RADII = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0, 50.0, 65.0, 85.0)
_DOT = 5.0


def need_matplotlib() -> None:
    """Refuse to go on without matplotlib.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Figures need matplotlib.", "Run `pip install 'manifoldzoo[plot]'`.") from error


def axes_to_draw_on(ax: Axes | None, width: float, height: float) -> Axes:
    """Return the Axes given, or that of a new pyplot figure, so that a notebook shows it.

    Parameters
    ----------
    ax
        Axes of the caller, or ``None``.
    width, height
        Of a new figure, in inches.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    need_matplotlib()
    if ax is not None:
        return ax
    from matplotlib import pyplot

    _, new = pyplot.subplots(figsize=(width, height), layout="constrained")
    return new


def branch_colours(ruler: Ruler) -> dict[str, Colour]:
    """A colour per branch: that of its darkest stage."""
    ids = [stage.id for stage in ruler.stages]
    colours, depth = stage_colours(ruler, ids), shades(ruler, ids)
    return {
        branch: colours[max((s.id for s in ruler.stages if s.branch == branch), key=depth.__getitem__)]
        for branch in dict.fromkeys(stage.branch for stage in ruler.stages)
    }


def category_marks(categories: Sequence[str]) -> dict[str, tuple[Colour, str]]:
    """A hue and a shape per category, no two alike: the hues in turn, with another shape each time round (our choice).

    Raises
    ------
    BadInputError
        If there are more categories than marks.
    """
    from matplotlib.colors import to_rgb

    most = len(HUES) * len(SHAPES)
    if len(categories) > most:
        raise BadInputError(
            f"There are {len(categories)} categories to tell apart, expected at most {most}.",
            "Group them, or colour by another column.",
        )
    return {
        name: (to_rgb(HUES[i % len(HUES)]), SHAPES[i // len(HUES)]) for i, name in enumerate(dict.fromkeys(categories))
    }


def ink_on(colour: Iterable[float]) -> str:
    """Black or white, whichever reads better on a colour: the higher contrast ratio of WCAG 2.2."""
    channels = np.array(list(colour)[:3], dtype=np.float64)
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def name_points(ax: Axes, names: Sequence[str], at: Points, radii: Points | None = None) -> None:
    """Write names beside points, each where it covers least: other names, dots, or the edge (our choice).

    ``radii`` are those of the dots in points, ``(n,)``, 5 by default. Places are offsets in points, so that they hold
    when the Axes are drawn larger.
    """
    from matplotlib.patheffects import withStroke

    ax.figure.figure.draw_without_rendering()
    to_points = 72 / ax.figure.dpi
    dots = ax.transData.transform(at) * to_points
    frame = np.array(ax.get_window_extent().extents) * to_points
    reach_of = np.full(len(dots), _DOT) if radii is None else np.asarray(radii, dtype=np.float64)
    taken = np.column_stack([dots - reach_of[:, None], dots + reach_of[:, None]])
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    directions = np.column_stack([np.cos(turn), np.sin(turn)])
    for name, xy, dot, dot_radius in zip(names, at, dots, reach_of, strict=True):
        text = ax.annotate(
            name,
            xy,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=SMALL,
            zorder=5,
            path_effects=[withStroke(linewidth=2.2, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "0.15", "lw": 0.7, "shrinkA": 0, "shrinkB": 3},
        )
        half = np.array([text.get_window_extent().width, text.get_window_extent().height]) * to_points / 2
        # the nearest point of the box lies at the radius
        offsets = np.concatenate([directions * (radius + dot_radius - _DOT + half) for radius in _RADII])
        reach = np.repeat(_RADII, len(directions))
        boxes = np.column_stack([dot + offsets - half, dot + offsets + half])
        # a name over a name cannot be read, a name over a dot can
        covered = _overlap(boxes, taken) @ np.where(np.arange(len(taken)) < len(dots), 1.0, 10.0)
        outside = np.maximum(frame[:2] - boxes[:, :2], 0).sum(axis=1) + np.maximum(boxes[:, 2:] - frame[2:], 0).sum(1)
        best = int(np.argmin(covered + 20 * outside + 2 * reach))
        text.set_position((float(offsets[best, 0]), float(offsets[best, 1])))
        if reach[best] <= _RADII[1] and text.arrow_patch is not None:
            text.arrow_patch.set_visible(False)
        taken = np.vstack([taken, boxes[best]])


def _overlap(boxes: Points, others: Points) -> Points:
    """Area that boxes ``(left, bottom, right, top)`` share with others, ``(n_boxes, n_others)``."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.prod(np.maximum(high - low, 0), axis=2))


def read_labels(values: Any) -> list[str | None]:
    """Labels as text, ``None`` where there is none: NaN, ``None``, ``pandas.NA`` or an empty string."""
    # an object array of its own, because numpy would turn a missing label into the text 'nan'
    series = pd.Series(values, dtype=object)
    return [
        None if missing or value == "" else str(value)
        for missing, value in zip(series.isna(), series.tolist(), strict=True)
    ]


def complete_labels(values: Any, what: str, classes: Sequence[str] | None) -> list[str]:
    """Read labels that none may miss, and that must be among the classes where those are given.

    Raises
    ------
    BadInputError
        If there are none, some are missing, or one is no class.
    """
    labels = read_labels(values)
    known = [label for label in labels if label is not None]
    if not labels:
        raise BadInputError(f"{what} is empty, expected a label for each cell.")
    if len(known) < len(labels):
        missing = len(labels) - len(known)
        raise BadInputError(f"{what} lacks the label of {missing} of {len(labels)} cells.", "Leave those cells out.")
    if classes is not None:
        for label in dict.fromkeys(known):
            if label not in classes:
                n = known.count(label)
                raise BadInputError(
                    f"{what} has the label {label!r} in {n} cells, which is none of the {len(classes)} classes.",
                    suggest(label, classes) or "Leave those cells out, or name it among the classes.",
                )
    return known


def distinct_classes(classes: Iterable[Any]) -> list[str]:
    """Class names as text.

    Raises
    ------
    BadInputError
        If there are none, or one is named twice.
    """
    names = [str(name) for name in classes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        raise BadInputError(f"The classes name {twice[0]!r} twice." if twice else "There are no classes.")
    return names


def suggest(name: str, known: Iterable[str]) -> str:
    """The names nearest to one that is not known, as a question; empty if none is near."""
    near = difflib.get_close_matches(name, list(known), n=3)
    return f"Did you mean {', '.join(near)}?" if near else ""

"""The part of a report about axes: classes, genes and programs along each."""

from __future__ import annotations

import numpy as np

from .._informing import Q_SHOWN
from ._axis_table import AxisTable
from ._html_records import number, table
from ._markup import Html, element, together

_CLASSES = (
    "Part of each axis that lies between broad classes (eta squared), the same without bias (epsilon squared), the "
    "part between studies, and the genes at both ends with their correlations."
)
_PROGRAMS = (
    "Gene programs by axis: z under a null in which cell types change places, and q over all axes and programs in "
    f"brackets; * marks q below {Q_SHOWN:g}. Positive lies along the axis."
)
_PLAIN = (
    "The same by effect, the mean loading of the program less that of all other genes, and by plain ranks, in "
    "brackets: z of the Mann-Whitney test, which takes the genes of a program for independent and says far too much."
)


def axes_section(found: AxisTable) -> Html:
    """What each axis stands for.

    Parameters
    ----------
    found
        As ``axis_table`` reads it.
    """
    rows = [
        (
            axis,
            _number(found.eta[place]),
            _number(found.epsilon[place]),
            _number(found.study[place]),
            found.highest[place],
            found.lowest[place],
        )
        for place, axis in enumerate(found.axes)
    ]
    by_chance: list[str] = []
    if np.isfinite(found.by_chance):
        by_chance = ["Labels that mean nothing would give ", _number(found.by_chance), " of classes"]
        by_chance += (
            [", and ", _number(found.study_by_chance), " of studies"] if np.isfinite(found.study_by_chance) else []
        )
        by_chance.append(".")
    columns = ("axis", "classes", "without bias", "studies", "highest genes", "lowest genes")
    parts = [table(_CLASSES, columns, rows), element("p", *by_chance, class_="soft") if by_chance else Html("")]
    if not found.programs:
        return together(*parts, element("p", "No gene programs were given to describe the axes by."))
    heads = ("program", *found.axes)
    strong = [
        (program.told, *(_strong(found, row, place) for place in range(len(found.axes))))
        for row, program in enumerate(found.programs)
    ]
    plain = [
        (program.label, *(_plain(found, row, place) for place in range(len(found.axes))))
        for row, program in enumerate(found.programs)
        if np.isfinite(found.z[row]).any()
    ]
    return together(*parts, _scrolled(table(_PROGRAMS, heads, strong)), _scrolled(table(_PLAIN, heads, plain)))


def _strong(found: AxisTable, row: int, place: int) -> Html:
    """Z and q of one program on one axis."""
    z, q = found.z[row, place], found.q[row, place]
    if not np.isfinite(z):
        return Html("too few genes")
    said = together(number(z, ".1f"), "*" if q < Q_SHOWN else "")
    return together(element("strong", said) if q < Q_SHOWN else said, " (", number(q, ".2g"), ")")


def _plain(found: AxisTable, row: int, place: int) -> Html:
    """Effect and z of ranks of one program on one axis."""
    return together(_number(found.effect[row, place]), " (", number(found.rank_z[row, place], ".1f"), ")")


def _number(value: float) -> Html:
    """A number of two decimals, or nothing."""
    return number(value, ".2f") if np.isfinite(value) else Html("")


def _scrolled(content: Html) -> Html:
    """What may be wider than the page, and is moved about then, with the keyboard too."""
    return element("div", content, class_="wide", tabindex="0")

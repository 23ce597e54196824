"""What the axes of a head stand for: gene programs along them, and classes that they tell apart."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import EvidenceRun
from ...manifolds.plots._colours import HUES, LARGE, MISSING, NORMAL, SMALL, axes_to_draw_on, ink_on
from .._informing import Q_SHOWN
from ._axis_table import AxisTable, axis_table
from ._statuses import headline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

SHADES = "PuOr_r"
"""Two hues that are told apart with any colour vision (Brewer 2003), pale in the middle."""
MOST_SHADED = 4.0
"""Larger z have the same shade; their number is written. Our choice."""
# inches: a cell, a letter of a name, the bars above, between them, the colour bar, and the least width of it all
_WIDE, _TALL, _LETTER, _BARS, _BETWEEN, _BAR = 0.5, 0.24, 0.056, 1.0, 0.12, 0.14
_NAME, _LEAST = 44, 6.6


def axes_and_programs(run: EvidenceRun, *, ax: Axes | None = None) -> NDArray[np.object_]:
    """Draw which gene programs lie along which axes, and how much of each axis lies between classes.

    Parameters
    ----------
    run
        A validation run with the records ``program_loadings`` and ``class_separation`` of rung 3.
    ax
        Axes whose place the two panels share; a new figure by default.

    Returns
    -------
    The Axes of the panels, shape ``(2,)``. Above, a bar for each axis: eta squared of the broad classes, with a line at
    what labels that mean nothing would give, a dot for epsilon squared, which is without that bias, and a hollow
    diamond for eta squared of the studies. Below, a row for each program, with the genes that have a loading of those
    that it lists: z of their lying along the axis (orange) or against it (purple), under a null in which cell types
    change places. A star means a q value below 0.05. Programs with too few genes are grey.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the run says nothing of programs.
    """
    table = axis_table(run)
    if table is None or not table.programs:
        raise BadInputError("The run says nothing of gene programs.", "Its card may name none.")
    n_programs, d = table.z.shape
    names = [
        f"{textwrap.shorten(program.label, _NAME, placeholder=' ...')} ({program.n_genes}/{program.n_listed})"
        for program in table.programs
    ]
    beside = _LETTER * max(map(len, names))
    wide, tall = max(_WIDE * d, _LEAST - beside), _TALL * n_programs
    height = tall + _BETWEEN + _BARS
    ax = axes_to_draw_on(ax, wide + beside + _BAR + 1.0, height + 1.2)
    ax.axis("off")
    # above the names too, as axes may be few
    title = ax.set_title(headline(run, "what the axes stand for"), parse_math=False, fontsize=LARGE, loc="left", pad=22)
    left = -0.85 * beside / wide
    title.set_x(left)
    bars = ax.inset_axes((0.0, (tall + _BETWEEN) / height, 1.0, _BARS / height))
    grid = ax.inset_axes((0.0, 0.0, 1.0, tall / height))
    _draw_bars(bars, table, left=left)
    image = _draw_grid(grid, table, names)
    room = ax.inset_axes((1.0 + _BETWEEN / wide, 0.1 * tall / height, _BAR / wide, 0.8 * tall / height))
    bar = ax.figure.colorbar(image, cax=room, extend="both")
    bar.set_label("z along the axis", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    return np.array([bars, grid], dtype=np.object_)


def has_programs(run: EvidenceRun) -> bool:
    """Whether ``axes_and_programs`` has something to draw."""
    table = axis_table(run)
    return table is not None and bool(np.isfinite(table.z).any())


def axes_in_words(run: EvidenceRun) -> str:
    """What the figure shows, for those who do not see it."""
    table = axis_table(run)
    if table is None:
        return ""
    sentences = []
    for number, axis in enumerate(table.axes):
        starred = [
            f"{program.label} ({table.z[row, number]:+.1f})"
            for row, program in enumerate(table.programs)
            if table.q[row, number] < Q_SHOWN
        ]
        eta = f", eta squared of classes {table.eta[number]:.2f}" if np.isfinite(table.eta[number]) else ""
        sentences.append(f"{axis}: {', '.join(starred) or 'no program'}{eta}.")
    return f"Programs with q below {Q_SHOWN:g}, by axis. " + " ".join(sentences)


def _draw_bars(panel: Axes, table: AxisTable, *, left: float) -> None:
    """Eta squared of classes and studies, with a key that begins at the left."""
    at = np.arange(len(table.eta))
    panel.bar(
        at, np.nan_to_num(table.eta), width=0.62, color=HUES[3], label="classes: eta squared", gid="eta", zorder=2
    )
    known = np.isfinite(table.epsilon)
    panel.plot(
        at[known], table.epsilon[known], "o", color="black", ms=3.5, label="without bias", gid="epsilon", zorder=3
    )
    if np.isfinite(table.by_chance):
        panel.axhline(table.by_chance, color="black", lw=0.9, ls=(0, (4, 3)), label="by chance", gid="chance", zorder=3)
    known = np.isfinite(table.study)
    if known.any():
        panel.plot(
            at[known],
            table.study[known],
            "D",
            color=HUES[0],
            mfc="white",
            ms=4.5,
            label="studies",
            gid="study",
            zorder=4,
            clip_on=False,
        )
    panel.set_xlim(-0.5, len(at) - 0.5)
    panel.set_ylim(min(0.0, float(np.nanmin(np.append(table.epsilon, 0.0)))), 1.0)
    panel.set_yticks([0.0, 0.5, 1.0])
    panel.set_xticks([])
    panel.tick_params(axis="y", labelsize=SMALL)
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_ylabel("part of\nthe axis", fontsize=NORMAL)
    panel.legend(
        loc="lower left",
        bbox_to_anchor=(left, 1.0),
        ncols=4,
        frameon=False,
        fontsize=SMALL,
        borderaxespad=0.3,
        columnspacing=1.2,
    )


def _draw_grid(panel: Axes, table: AxisTable, names: list[str]) -> AxesImage:
    """Signed z of every program on every axis."""
    panel.set_facecolor(MISSING)
    shown = np.ma.masked_invalid(table.z)
    image = panel.imshow(shown, cmap=SHADES, vmin=-MOST_SHADED, vmax=MOST_SHADED, aspect="auto", gid="programs")
    shades = np.asarray(image.cmap(image.norm(np.nan_to_num(table.z))))
    for row, column in np.argwhere(np.isfinite(table.z)):
        star = "*" if table.q[row, column] < Q_SHOWN else ""
        panel.text(
            column,
            row,
            f"{table.z[row, column]:.1f}{star}".replace("-0.0", "0.0"),
            ha="center",
            va="center",
            fontsize=SMALL,
            fontweight="bold" if star else "normal",
            color=ink_on(shades[row, column]),
        )
    for row in np.flatnonzero(~np.isfinite(table.z).any(axis=1)).tolist():
        panel.text((table.z.shape[1] - 1) / 2, row, "too few genes to test", ha="center", va="center", fontsize=SMALL)
    panel.set_xticks(range(table.z.shape[1]), [str(axis + 1) for axis in range(table.z.shape[1])], fontsize=SMALL)
    panel.set_yticks(range(len(names)), names, fontsize=SMALL, parse_math=False)
    panel.tick_params(length=0)
    panel.set_xlabel(f"axis; * q < {Q_SHOWN:g} over all axes and programs", fontsize=NORMAL)
    return image

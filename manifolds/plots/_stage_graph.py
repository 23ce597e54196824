"""The stage graph of a ruler, drawn as a tree from left to right."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from ...cards._errors import BadInputError
from .._figure import stage_colours
from .._manifold import Manifold
from .._ruler import Edge, StageRuler
from ._colours import NORMAL, SMALL, Colour, axes_to_draw_on, branch_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# inches, at which text of the smallest size does not overlap
_LINE, _LETTER, _DOT, _GAP = 0.133, 0.063, 0.085, 0.07
_LETTERS = 15
_ROW_OF_KEY, _COLUMN_OF_KEY = 0.19, 2.4


def stage_graph(
    manifold_or_ruler: Manifold | StageRuler, *, ax: Axes | None = None, highlight: str | Sequence[str] | None = None
) -> Axes:
    """Draw a ruler as a tree: depth from left to right, a hue for each branch, darker with every step.

    Parameters
    ----------
    manifold_or_ruler
        A manifold, whose panel says which stages are filled, or a ruler alone, of which all are.
    ax
        Axes to draw on; by default a new figure, large enough that no two labels overlap. Axes of the caller keep
        their size; below that of the new figure labels will overlap, because text stays readable.
    highlight
        Id of a stage, or several, to ring and write in bold.

    Returns
    -------
    The Axes. Horizontal position is the depth in steps, vertical position inches from the top.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the ruler is no graph, or has no stage of a name to highlight.

    Notes
    -----
    Each stage hangs on one that is a step nearer to the root; steps beyond that tree are drawn as straight lines.
    Subtrees are set as close as their outlines allow, parents in the middle of their children (after Reingold and
    Tilford 1981, IEEE Trans. Softw. Eng. SE-7:223). A step whose source begins with an ontology id
    (``CL:0000837 develops_from ...``) is solid; one from a citation found by hand is dashed.
    """
    ruler = manifold_or_ruler.ruler if isinstance(manifold_or_ruler, Manifold) else manifold_or_ruler
    if not isinstance(ruler, StageRuler):
        raise BadInputError(
            f"The ruler {ruler.name!r} is no graph of stages.", "Draw `interaction_map` or `sender_receiver`."
        )
    ringed = [highlight] if isinstance(highlight, str) else list(highlight or [])
    ruler.depth(ringed)  # refuses names that the ruler does not have
    ids = [stage.id for stage in ruler.stages]
    anchored = set(ids)
    if isinstance(manifold_or_ruler, Manifold):
        anchored = {anchor.stage for anchor in manifold_or_ruler.card.panel.anchors}
    labels = {stage.id: wrap(stage.label.strip() or stage.id) for stage in ruler.stages}
    depth = {name: int(steps) for name, steps in zip(ids, ruler.depth(ids), strict=True)}
    hangs_on = tree(ruler)
    height = tidy(hangs_on, {name: _LINE * len(lines) + 2 * _DOT for name, lines in labels.items()})
    column = max(0.8, _LETTER * max(len(line) for lines in labels.values() for line in lines) + 0.12)
    columns, tall = max(depth.values()) + 1, max(height.values()) + 3 * _DOT
    width = max(columns * column, 5.0) + 0.2
    n_entries = len({stage.branch for stage in ruler.stages}) + 4
    key_columns = max(1, min(5, int((width if ax is None else _inches(ax)) / _COLUMN_OF_KEY)))
    ax = axes_to_draw_on(ax, width, tall + 0.85 + _ROW_OF_KEY * ceil(n_entries / key_columns))

    for edge in ruler.edges:
        in_tree = edge in hangs_on.values()
        _draw_step(ax, edge, depth, height, in_tree=in_tree)
    colours = stage_colours(ruler, ids)
    for name in ids:
        at, colour = (depth[name], height[name]), colours[name]
        fill = colour if name in anchored else "white"
        ax.scatter(*at, s=48, color=[fill], edgecolors=[colour], linewidths=1.6, zorder=3, gid=f"stage {name}")
        if name in ringed:
            ax.scatter(*at, s=130, facecolors="none", edgecolors="black", linewidths=1.8, zorder=4, gid=f"ring {name}")
        ax.annotate(
            "\n".join(labels[name]),
            at,
            (0, 72 * _DOT * (1.3 if name in ringed else 1.0)),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=SMALL,
            fontweight="bold" if name in ringed else "normal",
            linespacing=1.1,
            zorder=5,
        )
    _draw_key(ax, ruler, key_columns, with_panel=isinstance(manifold_or_ruler, Manifold))
    ax.set_xlim(-0.5, columns - 0.5)
    ax.set_ylim(tall, 0)
    ax.set_xticks(range(columns))
    ax.set_yticks([])
    ax.tick_params(labelsize=NORMAL)
    root = next(stage.label for stage in ruler.stages if stage.id == ruler.root)
    ax.set_xlabel(f"steps from {root}", fontsize=NORMAL)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def tree(ruler: StageRuler) -> dict[str, Edge]:
    """The step by which each stage hangs on one nearer to the root: the first such step in the ruler's order.

    Returns
    -------
    Edge of each stage but the root. Its ``parent`` may lie farther from the root than its ``child``, as a ruler's
    distances do not look at the direction of steps; the stage is the farther of the two ends.
    """
    found: dict[str, Edge] = {}
    depth = dict(zip((s.id for s in ruler.stages), ruler.depth([s.id for s in ruler.stages]), strict=True))
    # steps that lead away from the root go first
    for edge in sorted(ruler.edges, key=lambda edge: depth[edge.child] < depth[edge.parent]):
        near, far = sorted((edge.parent, edge.child), key=depth.__getitem__)
        if depth[near] < depth[far]:
            found.setdefault(far, edge)
    return {stage.id: found[stage.id] for stage in ruler.stages if stage.id in found}


def tidy(hangs_on: dict[str, Edge], room: dict[str, float]) -> dict[str, float]:
    """Place the stages of a tree vertically, so that none enters the room of another of its depth.

    Parameters
    ----------
    hangs_on
        As from ``tree``.
    room
        Height that each stage needs above its place, for its label.

    Returns
    -------
    Place of each stage, growing downwards from the top, in the unit of ``room``.
    """
    children: dict[str, list[str]] = {name: [] for name in room}
    for name, edge in hangs_on.items():
        children[edge.parent if edge.child == name else edge.child].append(name)
    (root,) = set(room) - set(hangs_on)
    order, place = [root], dict.fromkeys(room, 0.0)
    for name in order:
        order += children[name]
    outline: dict[str, list[tuple[float, float]]] = {}
    shift = dict.fromkeys(room, 0.0)
    # from the leaves to the root, without recursion: a ruler may be one long arm
    for name in reversed(order):
        below: list[tuple[float, float]] = []
        for child in children[name]:
            for (_, bottom), (top, _) in zip(below, outline[child], strict=False):
                shift[child] = max(shift[child], bottom + _GAP - top)
            if not below:
                shift[child] = 0.0
            moved = [(top + shift[child], bottom + shift[child]) for top, bottom in outline[child]]
            below = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(below, moved, strict=False)] + (
                below[len(moved) :] or moved[len(below) :]
            )
            place[child] += shift[child]
        middle = 0.0
        if children[name]:
            middle = (place[children[name][0]] + place[children[name][-1]]) / 2
        # the outline is told from the stage's own place
        outline[name] = [(-room[name], _DOT), *((top - middle, bottom - middle) for top, bottom in below)]
        for child in children[name]:
            place[child] -= middle
    for name in order:
        for child in children[name]:
            place[child] += place[name]
    top = min(place[name] - room[name] for name in place)
    return {name: at - top for name, at in place.items()}


def wrap(label: str) -> list[str]:
    """Break a label into as few lines as the width of a column allows, and those as even as can be."""
    n_lines = len(textwrap.wrap(label, _LETTERS, break_long_words=False))
    tried = (textwrap.wrap(label, width, break_long_words=False) for width in range(1, _LETTERS + 1))
    return next(lines for lines in tried if len(lines) == n_lines)


def from_ontology(edge: Edge) -> bool:
    """Whether the source of a step begins with an ontology id and not with a citation."""
    return re.match(r"[A-Za-z]+:\d+\b", edge.source) is not None


def _inches(ax: Axes) -> float:
    """Width of the Axes."""
    return float(ax.get_window_extent().width / ax.figure.dpi)


def _draw_step(ax: Axes, edge: Edge, depth: dict[str, int], height: dict[str, float], *, in_tree: bool) -> None:
    """A step: through a right angle between the columns in the tree, straight otherwise."""
    near, far = sorted((edge.parent, edge.child), key=depth.__getitem__)
    xs, ys = [float(depth[near]), float(depth[far])], [height[near], height[far]]
    if in_tree:
        middle = depth[near] + 0.5
        xs, ys = [xs[0], middle, middle, xs[1]], [height[near], height[near], height[far], height[far]]
    ax.plot(
        xs,
        ys,
        color="0.35",
        lw=1.1 if in_tree else 0.8,
        ls="-" if from_ontology(edge) else (0, (3.5, 2.0)),
        solid_joinstyle="round",
        zorder=1,
        gid=f"step {edge.parent} {edge.child}",
    )


def _draw_key(ax: Axes, ruler: StageRuler, n_columns: int, *, with_panel: bool) -> None:
    """The key below: branches, what fills a dot, and what a dash means."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    def dot(colour: Colour | str, edge: Colour | str, label: str) -> Line2D:
        return Line2D([], [], marker="o", ls="", ms=6, mfc=colour, mec=edge, mew=1.4, label=label)

    handles = [dot(hue, hue, branch.replace("_", " ")) for branch, hue in branch_colours(ruler).items()]
    if with_panel:
        handles += [dot("0.4", "0.4", "stage with anchors in the panel"), dot("white", "0.4", "stage without anchors")]
    handles += [
        Line2D([], [], color="0.35", lw=1.1, label="step from an ontology"),
        Line2D([], [], color="0.35", lw=1.1, ls=(0, (3.5, 2.0)), label="step from a citation by hand"),
    ]
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        # below the ticks and the label of the axis, however tall the Axes are
        bbox_transform=ax.transAxes + ScaledTranslation(0, -0.36, ax.figure.dpi_scale_trans),
        ncols=n_columns,
        frameon=False,
        fontsize=NORMAL,
    )

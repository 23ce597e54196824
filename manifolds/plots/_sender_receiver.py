"""How far cell types lie apart as senders and receivers, and how far groups of cells are predicted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from .._interaction_ruler import InteractionRuler
from .._keys import keys_for
from .._manifold import Manifold
from ._cell_types import by_branch, interaction_ruler, short_labels
from ._colours import COLOUR_MAP, LARGE, MISSING, NORMAL, SMALL, Colour, axes_to_draw_on, branch_colours

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

Floats = NDArray[np.float64]

# inches: of a cell of a table, a letter beside it, a strip of broad classes, the colour bar, a letter of the key
_CELL, _LETTER, _STRIP, _BAR, _OF_KEY = 0.17, 0.058, 0.09, 1.5, 0.062
_LEAST, _SHADES = 8, 32


@dataclass(frozen=True, eq=False)
class _Panel:
    """One table: a title, an entry for each row and column, and what the axes are."""

    title: str
    names: list[str]
    table: Floats
    axes: tuple[str, str]

    @property
    def side(self) -> float:
        """Inches."""
        return _CELL * max(len(self.names), _LEAST)


def sender_receiver(
    manifold_or_ruler: Manifold | InteractionRuler,
    adata: AnnData | None = None,
    *,
    key: str | None = None,
    ax: Axes | None = None,
) -> NDArray[np.object_]:
    """Draw the directed distances of an interaction ruler, and beside them what is predicted for groups of cells.

    Parameters
    ----------
    manifold_or_ruler
        A manifold with an interaction ruler, or such a ruler alone.
    adata
        Cells that the manifold has placed, in groups: those of ``groupby``, by default its own stages.
    key
        The ``key_added`` of the transform; the manifold's name by default.
    ax
        Axes whose place the panels share; a new figure by default, large enough for all names.

    Returns
    -------
    The Axes of the panels, shape ``(1,)``, with cells ``(2,)``: first the ruler, rows being senders and columns
    receivers, then the predicted distances between groups, which have no direction. Dark is near, and both panels have
    the same shades. Cell types are ordered by broad class, told by the strips; groups that are none come last.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the ruler has no directed distances, or the cells were not placed by this manifold, or not in groups.

    Notes
    -----
    A directed distance counts steps on the network of ligands and receptors. It depends on how many receptors the
    receiver expresses as well as on what is sent, and is no probability of an interaction. The diagonal of the ruler is
    a cell type as its own receiver; a group has no predicted distance from itself.
    """
    ruler = interaction_ruler(manifold_or_ruler)
    ids = by_branch(ruler, [stage.id for stage in ruler.stages])
    title = f"{ruler.name} {ruler.version}: sender to receiver"
    panels = [_Panel(title, ids, ruler.directed_distances(ids, ids), ("sender", "receiver"))]
    if adata is not None:
        if not isinstance(manifold_or_ruler, Manifold):
            raise BadInputError("A ruler alone predicts nothing for cells.", "Give the manifold that placed them.")
        panels.append(_predicted(adata, manifold_or_ruler, ruler, key or manifold_or_ruler.name))

    stages = {stage.id: stage for stage in ruler.stages}
    label_of = short_labels(ruler.stages)
    hues = branch_colours(ruler)
    longest = max(len(label_of.get(name, name)) for panel in panels for name in panel.names)
    beside = _LETTER * longest + _STRIP + 0.25
    inner = sum(panel.side for panel in panels) + beside * (len(panels) - 1)
    tall = max(panel.side for panel in panels)
    to_the_right = 0.6 + _OF_KEY * max(len("distance (steps)"), *map(len, hues))
    ax = axes_to_draw_on(ax, inner + beside + to_the_right, tall + beside + 0.4)
    ax.axis("off")
    seen = np.concatenate([panel.table[np.isfinite(panel.table)] for panel in panels])
    limits = (float(seen.min()), float(seen.max())) if seen.size else (0.0, 1.0)
    drawn, left = [], 0.0
    for panel in panels:
        # tables of the same scale hang from the same line
        room = (left / inner, 1 - panel.side / tall, panel.side / inner, panel.side / tall)
        part, strip = ax.inset_axes(room), _STRIP / panel.side
        image = _draw_table(part, panel, [label_of.get(name, name) for name in panel.names], limits)
        _draw_strips(part, [hues[stages[name].branch] if name in stages else None for name in panel.names], strip)
        drawn.append(part)
        left += panel.side + beside
    _draw_keys(ax, image, hues, inner, tall)
    return np.array(drawn, dtype=np.object_)


def _predicted(adata: AnnData, manifold: Manifold, ruler: InteractionRuler, stem: str) -> _Panel:
    """What a transform stored of the groups of cells."""
    where = keys_for(stem).uns
    told = adata.uns.get(where, {})
    if "group_distances" not in told:
        raise BadInputError(
            f"`uns` has no {where!r} with distances between groups of cells.",
            "Run `manifold.transform(adata, groupby=COLUMN)`.",
        )
    if told.get("digest") != manifold.digest:
        raise BadInputError(
            f"The distances in `uns[{where!r}]` are of another artifact than {manifold.reference}.",
            "Run `manifold.transform(adata)` again.",
        )
    names = [str(name) for name in told["groups"]]
    order = by_branch(ruler, names)
    index = [names.index(name) for name in order]
    table = np.array(told["group_distances"], dtype=np.float64)[np.ix_(index, index)]
    np.fill_diagonal(table, np.nan)
    by = str(told.get("groupby", "group"))
    return _Panel(f"predicted for {adata.n_obs:,} cells", order, table, (by, by))


def _draw_table(part: Axes, panel: _Panel, labels: Sequence[str], limits: tuple[float, float]) -> AxesImage:
    """A heat map with names of rows and columns."""
    from matplotlib import colormaps

    n = len(labels)
    part.set_facecolor(MISSING)
    shown = np.ma.masked_invalid(panel.table)
    # in steps, because the file of a figure has few colours
    shades = colormaps[COLOUR_MAP].resampled(_SHADES)
    image = part.imshow(shown, cmap=shades, vmin=limits[0], vmax=limits[1], interpolation="none")
    pad = 72 * _STRIP + 3
    part.set_xticks(range(n), labels, rotation=90, fontsize=SMALL, parse_math=False)
    part.set_yticks(range(n), labels, fontsize=SMALL, parse_math=False)
    part.tick_params(length=0, pad=pad)
    part.set_ylabel(panel.axes[0], fontsize=NORMAL)
    part.set_xlabel(panel.axes[1], fontsize=NORMAL)
    part.set_title(panel.title, fontsize=LARGE, loc="left", pad=4, parse_math=False)
    part.spines[:].set_visible(False)
    return image


def _draw_strips(part: Axes, colours: Sequence[Colour | None], strip: float) -> None:
    """The colour of the broad class beside each row and below each column."""
    from matplotlib.patches import Rectangle

    gap = strip / 4
    for index, colour in enumerate(colours):
        if colour is None:
            continue
        row = Rectangle((-strip - gap, index - 0.5), strip, 1, transform=part.get_yaxis_transform())
        column = Rectangle((index - 0.5, -strip - gap), 1, strip, transform=part.get_xaxis_transform())
        for patch in (row, column):
            patch.set(facecolor=colour, edgecolor="none", clip_on=False)
            part.add_patch(patch)


def _draw_keys(ax: Axes, image: AxesImage, hues: dict[str, Colour], inner: float, tall: float) -> None:
    """To the right of the tables the shades of the distance, and below them the broad classes."""
    from matplotlib.patches import Patch
    from matplotlib.transforms import ScaledTranslation

    height = min(_BAR, tall - 0.2) / tall
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1 + 0.2 / inner, 1 - height, 0.1 / inner, height)))
    bar.set_label("distance (steps)", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    bar.ax.invert_yaxis()
    handles = [Patch(color=hue, label=branch.replace("_", " ")) for branch, hue in hues.items()]
    ax.legend(
        handles=handles,
        title="broad class",
        title_fontsize=NORMAL,
        loc="upper left",
        bbox_to_anchor=(1.0, 1 - height),
        bbox_transform=ax.transAxes + ScaledTranslation(0.1, -0.2, ax.figure.dpi_scale_trans),
        handlelength=1.0,
        frameon=False,
        fontsize=SMALL,
        alignment="left",
    )

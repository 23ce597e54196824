"""Cells in the plane of a manifold's arms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from ...cards._errors import BadInputError
from .._figure import as_drawn, draw_steps, plane_of, stage_colours
from .._keys import keys_for
from .._manifold import Manifold
from .._readouts import branch_readout, stage_readout
from ._colours import (
    COLOUR_MAP,
    LARGE,
    MISSING,
    NORMAL,
    SMALL,
    Colour,
    axes_to_draw_on,
    branch_colours,
    category_marks,
    name_points,
    need_matplotlib,
    read_labels,
    suggest,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

Points = NDArray[np.float64]
Marks = dict[str, tuple[Colour, str]]
_ROWS_OF_KEY = 30


def embedding(
    adata: AnnData,
    manifold: Manifold,
    *,
    color: str = "stage",
    key: str | None = None,
    ax: Axes | None = None,
    size: float | None = None,
) -> Axes:
    """Draw cells in the plane of the manifold's arms, with the stages of its panel and the steps between them.

    The anchors of the manifold fix the plane, so that pictures of different cells can be laid side by side.

    Parameters
    ----------
    adata
        Cells that ``manifold.transform`` has placed.
    manifold
        The manifold they were placed on.
    color
        What the colours show. ``"stage"``, ``"branch"`` (also where their readouts have other names) and whatever else
        the transform wrote as ``obs['<name>_<color>']``. ``"depth"``: if that is not there, the depth expected under
        the stage probabilities. Otherwise a column of ``obs``, or a gene of ``var_names`` (values of ``X``).
    key
        The ``key_added`` of the transform; the manifold's name by default.
    ax
        Axes to draw on; a new figure by default.
    size
        Area of a cell's dot in points squared; smaller for more cells by default.

    Returns
    -------
    The Axes. Cells without a label or number are grey and lie below the others; the others are drawn in a random but
    fixed order. Large dots are the centres of each stage's anchors.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If there are no cells, they were not placed on this manifold, there is nothing called ``color``, or it has
        more categories than can be told apart.

    Notes
    -----
    Expected depth of a cell is ``sum_s p(s) depth(s)`` over stages ``s``, with ``depth`` in steps from the ruler's
    root (our choice).
    """
    need_matplotlib()
    stem = key or manifold.name
    if adata.n_obs == 0:
        raise BadInputError("There are no cells to draw.")
    if size is not None and not (np.isfinite(size) and size > 0):
        raise BadInputError(f"size is {size}, expected a positive area in points squared.")
    latent = _placed(adata, manifold, stem)
    values, title = _find(adata, manifold, color, stem)
    numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    labels = [] if numeric else read_labels(values)
    marks, centre_colours, key_title = ({}, {}, "") if numeric else _marks(values, labels, manifold, color)
    ax = axes_to_draw_on(ax, 9.5, 6.5)

    anchors = manifold.card.panel.anchors
    anchor_stage = np.array([anchor.stage for anchor in anchors])
    anchor_latent = manifold.project(manifold.tensors["panel.anchors"])
    flat = plane_of(manifold, anchor_latent)
    anchor_xy, xy = as_drawn(manifold, anchor_latent) @ flat, as_drawn(manifold, latent) @ flat
    centre = {name: anchor_xy[anchor_stage == name].mean(axis=0) for name in dict.fromkeys(anchor_stage.tolist())}

    area = float(np.clip(50_000 / adata.n_obs, 0.5, 16.0)) if size is None else float(size)
    if numeric:
        _draw_numbers(ax, xy, pd.to_numeric(values).to_numpy(dtype=np.float64, na_value=np.nan), title, area)
    else:
        _draw_labels(ax, xy, labels, marks, area)
        _draw_key(ax, labels, marks, manifold, key_title)
    draw_steps(ax, manifold.ruler, centre)
    at = np.array(list(centre.values()))
    fill = [centre_colours.get(name, (1.0, 1.0, 1.0)) for name in centre]
    ax.scatter(at[:, 0], at[:, 1], s=55, c=fill, edgecolors="black", linewidths=0.8, zorder=4)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel("first axis of the arms", fontsize=NORMAL)
    ax.set_ylabel("second axis of the arms", fontsize=NORMAL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_aspect("equal", adjustable="datalim")
    ax.set_title(f"{manifold.name} {manifold.version}: {adata.n_obs:,} cells by {title}", loc="left", fontsize=LARGE)
    name_of = {stage.id: stage.label for stage in manifold.ruler.stages}
    name_points(ax, [name_of.get(stage, stage) for stage in centre], at)
    return ax


def _placed(adata: AnnData, manifold: Manifold, stem: str) -> NDArray[np.floating]:
    """Coordinates of the cells on this manifold, ``(n_cells, d)``."""
    where = keys_for(stem).obsm
    if where not in adata.obsm:
        raise BadInputError(
            f"`obsm` has no {where!r}: the cells are not placed on {manifold.name!r} under that key.",
            "Run `manifold.transform(adata)`, or give the `key_added` of the transform as `key`.",
        )
    latent = np.asarray(adata.obsm[where])
    if latent.ndim != 2 or latent.shape[1] != manifold.n_components or not np.isfinite(latent).all():
        raise BadInputError(
            f"`obsm[{where!r}]` has the shape {latent.shape} or values that are not finite, expected "
            f"{manifold.n_components} coordinates of {manifold.name!r}."
        )
    return latent


def _find(adata: AnnData, manifold: Manifold, color: str, stem: str) -> tuple[pd.Series[Any], str]:
    """What to colour by, one value per cell, and what it is called."""
    task = f"{keys_for(stem).uns}_{color}"
    if task not in adata.obs and color not in manifold.tasks and color in ("stage", "branch"):
        # the ruler's own words find its readouts whatever a recipe calls them
        told = (stage_readout if color == "stage" else branch_readout)(manifold.card)
        task = task if told is None else keys_for(stem, told.task).obs
    if task in adata.obs:
        return adata.obs[task], color.replace("_", " ")
    if color == "depth" and manifold.ruler.root is not None:
        return _expected_depth(adata, manifold, stem), "expected depth (steps from the root)"
    if color in manifold.tasks:
        raise BadInputError(f"`obs` has no {task!r}.", "Run `manifold.transform(adata)`, which reads it out.")
    if color in adata.obs:
        return adata.obs[color], color
    column = np.flatnonzero(adata.var_names == color)
    if len(column) == 1:
        return _expression(adata, int(column[0])), f"{color} (values of X)"
    if len(column):
        raise BadInputError(f"{len(column)} genes are called {color!r}.", "Run `adata.var_names_make_unique()`.")
    depth = [] if manifold.ruler.root is None else ["depth"]
    own = [*manifold.tasks, *depth, *map(str, adata.obs.columns)]
    raise BadInputError(
        f"There is nothing called {color!r} to colour by: no task, column of `obs` or gene.",
        suggest(color, [*own, *map(str, adata.var_names)]) or f"Choose a gene, or one of {', '.join(own[:12])}.",
    )


def _expected_depth(adata: AnnData, manifold: Manifold, stem: str) -> pd.Series[Any]:
    """Mean depth of the stages, weighted with their probabilities."""
    if "stage" not in manifold.tasks:
        raise BadInputError(f"{manifold.name!r} reads no stages out, and `obs` has no depth.", "Colour by a task.")
    where, classes = keys_for(stem, "stage").obsm_proba, manifold.classes("stage")
    if where not in adata.obsm:
        raise BadInputError(f"`obsm` has no {where!r}.", "Run `manifold.transform(adata)`, which reads stages out.")
    proba = np.asarray(adata.obsm[where], dtype=np.float64)
    if proba.shape != (adata.n_obs, len(classes)):
        raise BadInputError(f"`obsm[{where!r}]` has the shape {proba.shape}, expected {len(classes)} columns.")
    return pd.Series(proba @ manifold.ruler.depth(classes), index=adata.obs_names)


def _expression(adata: AnnData, column: int) -> pd.Series[Any]:
    """Values of a gene in ``X``, whatever it is stored as."""
    if adata.X is None:
        raise BadInputError("The cells have no X to colour by a gene.")
    part = adata[:, [column]]
    values = part.to_memory().X if adata.isbacked else part.X
    values = values.compute() if hasattr(values, "compute") else values
    values = values.toarray() if sparse.issparse(values) else np.asarray(values)
    return pd.Series(values.ravel().astype(np.float64), index=adata.obs_names)


def _marks(
    values: pd.Series[Any], labels: Sequence[str | None], manifold: Manifold, color: str
) -> tuple[Marks, dict[str, Colour], str]:
    """Mark of each category, colour of each stage centre, and title of the key.

    Stages and branches of the ruler have the colours they have everywhere; labels of a stage or branch task that the
    ruler does not know have no mark and are drawn grey.
    """
    ids = [stage.id for stage in manifold.ruler.stages]
    of_stage, hues = stage_colours(manifold.ruler, ids), branch_colours(manifold.ruler)
    key = "branch" if manifold.ruler.root is None else "branch (darker = later)"
    present = {label for label in labels if label is not None}
    if color == "stage" or (present and present <= set(of_stage)):
        return {name: (of_stage[name], "o") for name in ids}, of_stage, key
    if color == "branch" or (present and present <= set(hues)):
        of_centre = {stage.id: hues[stage.branch] for stage in manifold.ruler.stages}
        return {name: (colour, "o") for name, colour in hues.items()}, of_centre, "branch"
    ordered = map(str, values.cat.categories) if isinstance(values.dtype, pd.CategoricalDtype) else sorted(present)
    return category_marks([name for name in ordered if name in present]), {}, color


def _draw_numbers(ax: Axes, xy: Points, values: Points, title: str, area: float) -> None:
    """Cells in the shades of a number, with a colour bar; those without one grey and below."""
    known = np.isfinite(values)
    ax.scatter(xy[~known, 0], xy[~known, 1], s=area, color=[MISSING], linewidths=0, rasterized=True, zorder=1)
    order = _order(np.flatnonzero(known))
    drawn = ax.scatter(
        xy[order, 0], xy[order, 1], c=values[order], s=area, cmap=COLOUR_MAP, linewidths=0, rasterized=True, zorder=2
    )
    if known.any():
        bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.6, aspect=25)
        bar.set_label(title if known.all() else f"{title}; grey: none", fontsize=NORMAL)
        bar.ax.tick_params(labelsize=SMALL)


def _draw_labels(ax: Axes, xy: Points, labels: Sequence[str | None], marks: Marks, area: float) -> None:
    """Cells in the marks of their labels; those without a mark grey and below."""
    known = np.array([label in marks for label in labels])
    ax.scatter(xy[~known, 0], xy[~known, 1], s=area, color=[MISSING], linewidths=0, rasterized=True, zorder=1)
    shape = np.array([marks[label][1] if label in marks else "" for label in labels])
    for marker in dict.fromkeys(marker for _, marker in marks.values()):
        order = _order(np.flatnonzero(shape == marker))
        colours = [marks[labels[cell] or ""][0] for cell in order]
        if colours:
            ax.scatter(
                xy[order, 0], xy[order, 1], c=colours, s=area, marker=marker, linewidths=0, rasterized=True, zorder=2
            )


def _draw_key(ax: Axes, labels: Sequence[str | None], marks: Marks, manifold: Manifold, title: str) -> None:
    """The key beside the picture: branches for stages, categories with their number of cells otherwise."""
    from matplotlib.lines import Line2D

    counts = Counter(labels)
    entries, n_of = marks, counts
    if title.startswith("branch"):
        branch_of = {stage.id: stage.branch for stage in manifold.ruler.stages}
        n_of = Counter(branch_of.get(label, label) for label in labels if label in marks)
        there = {anchor.branch for anchor in manifold.card.panel.anchors} | set(n_of)
        entries = {name: (hue, "o") for name, hue in branch_colours(manifold.ruler).items() if name in there}
    # matplotlib leaves entries out whose text begins with an underscore
    words = {name: f" {name}" if name.startswith("_") else name for name in entries}
    handles = [
        Line2D([], [], marker=m, ls="", ms=5, mew=0, color=c, label=f"{words[name]} ({n_of[name]:,})")
        for name, (c, m) in entries.items()
    ]
    rest = len(labels) - sum(counts[name] for name in marks)
    if rest:
        handles.append(Line2D([], [], marker="o", ls="", ms=5, mew=0, color=MISSING, label=f"no label ({rest:,})"))
    ax.legend(
        handles=handles,
        title=title,
        title_fontsize=NORMAL,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=SMALL,
        ncols=1 + (len(handles) - 1) // _ROWS_OF_KEY,
    )


def _order(cells: NDArray[np.integer]) -> NDArray[np.integer]:
    """A random but fixed order, so that no category lies on top of the others."""
    return cells[np.random.default_rng(0).permutation(len(cells))]

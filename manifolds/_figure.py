"""The picture of a manifold: cells in the plane that shows its arms best, coloured by stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cards._adaptor import GEODESIC_KINDS
from ..cards._errors import BadInputError, MissingExtraError
from ._files import replacing
from ._ruler import StageRuler
from ._ruler_interface import Ruler

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ._manifold import Manifold

# Okabe and Ito (2008), told apart with any colour vision, and some that lie between; a stage is a shade of its branch
PALETTE = (
    *("#555555", "#D55E00", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#56B4E9", "#8C6D31", "#7A5195", "#117733"),
    *("#882255", "#AFAF28", "#A8DCC8"),
)


def plane(
    anchor_latent: NDArray[np.floating],
    stage: Sequence[str],
    branch: Sequence[str],
    root: str | None,
    *,
    angular: bool = True,
) -> NDArray[np.float64]:
    """Find the plane to draw in: the two principal axes of the branches' ends, seen from the root.

    Where distances are angles, latents are scaled to unit length first. Stages are averaged before branches, and
    branches weigh the same, because panels hold many more T cells than erythroblasts. Axes are turned so that the
    branch with most anchors lies to the upper right. All of this is our choice.

    Parameters
    ----------
    anchor_latent
        ``(n_anchors, d)``.
    stage, branch
        Of each anchor.
    root
        Stage that the arms are seen from; the middle of all where there is none.
    angular
        Whether distances on the manifold are angles, as those of LET heads are.

    Returns
    -------
    ``(d, 2)``; multiply latents with it, of unit length where distances are angles: see ``as_drawn``.
    """
    towards = unit(anchor_latent) if angular else np.asarray(anchor_latent, dtype=np.float64)
    stages = np.asarray(stage)
    centre = {name: towards[stages == name].mean(axis=0) for name in sorted(set(stage))}
    branch_of = dict(zip(stage, branch, strict=True))
    middle = np.mean(list(centre.values()), axis=0)
    origin = middle if root is None else centre.get(root, middle)
    arms = {
        arm: np.mean([at for name, at in centre.items() if branch_of[name] == arm], axis=0) - origin
        for arm in sorted(set(branch))
    }
    _, extent, axes = np.linalg.svd(np.array(list(arms.values())), full_matrices=False)
    if (extent > 1e-6 * extent[0]).sum() < 2:
        # a single arm spans a line; its stages fill the plane as well as they can
        _, _, axes = np.linalg.svd(np.array(list(centre.values())) - origin, full_matrices=False)
    chosen = np.zeros((towards.shape[1], 2))
    chosen[:, : min(2, len(axes))] = axes[:2].T
    ahead = arms[max(sorted(arms), key=list(branch).count)] @ chosen
    return np.asarray(chosen * np.where(ahead < 0, -1.0, 1.0), dtype=np.float64)


def stage_colours(ruler: Ruler, stages: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """A colour per stage: the hue of its branch, darker with every step away from the root, or down the list."""
    from matplotlib.colors import hsv_to_rgb, to_rgb

    branches = list(dict.fromkeys(stage.branch for stage in ruler.stages))
    hue = {branch: np.array(to_rgb(PALETTE[i % len(PALETTE)])) for i, branch in enumerate(branches)}
    if len(branches) > len(PALETTE):
        # beyond what anybody tells apart by eye, but no two branches may share a colour
        hue = {branch: np.array(hsv_to_rgb((i / len(branches), 0.9, 0.7))) for i, branch in enumerate(branches)}
    depth = shades(ruler, stages)
    branch_of = dict(zip(stages, ruler.branch(stages), strict=True))
    colours = {}
    for stage in stages:
        peers = [depth[other] for other in stages if branch_of[other] == branch_of[stage]]
        low, high = min(peers), max(peers)
        shade = 0.5 if high == low else (depth[stage] - low) / (high - low)
        light = 0.55 * (1 - shade)
        red, green, blue = hue[branch_of[stage]] * (1 - light) + light
        colours[stage] = (float(red), float(green), float(blue))
    return colours


def shades(ruler: Ruler, stages: Sequence[str]) -> dict[str, float]:
    """What a stage is darker by than others of its branch: depth, or its place in a ruler without a root."""
    if ruler.root is not None:
        return {name: float(steps) for name, steps in zip(stages, ruler.depth(stages), strict=True)}
    place = {stage.id: float(index) for index, stage in enumerate(ruler.stages)}
    return {name: place[name] for name in stages}


def draw_manifold(
    manifold: Manifold,
    latent: NDArray[np.floating],
    stage: Sequence[str],
    path: str | Path,
    *,
    title: str = "",
    subtitle: str = "",
) -> Path:
    """Draw cells on a manifold, coloured by stage, with the anchors of its panel and the steps between stages.

    Parameters
    ----------
    manifold
        The manifold; its anchors fix the plane, so that pictures of different cells can be compared.
    latent
        Coordinates of the cells, ``(n_cells, d)``.
    stage
        Stage of each cell, ``(n_cells,)``; cells of unknown stages are grey.
    path
        PNG or SVG to write.
    title, subtitle
        Text above the picture.

    Returns
    -------
    The file written.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If latents and stages differ in number, or the file is neither PNG nor SVG.
    StoreError
        If the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        from .plots._colours import name_points
    except ImportError as error:
        raise MissingExtraError("Figures need matplotlib.", "Run `pip install 'manifoldzoo[plot]'`.") from error

    if len(stage) != len(latent):
        raise BadInputError(f"Got {len(stage)} stages for {len(latent)} cells, expected one for each.")
    path = Path(path)
    if path.suffix.lower() not in (".png", ".svg"):
        raise BadInputError(f"{str(path)!r} is no picture this can write, expected .png or .svg.")
    ruler = manifold.ruler
    anchors = manifold.card.panel.anchors
    anchor_stage = np.array([anchor.stage for anchor in anchors])
    anchor_latent = manifold.project(manifold.tensors["panel.anchors"])
    axes_of_plane = plane_of(manifold, anchor_latent)
    anchor_xy = as_drawn(manifold, anchor_latent) @ axes_of_plane
    cell_xy = as_drawn(manifold, latent) @ axes_of_plane
    colours = stage_colours(ruler, [entry.id for entry in ruler.stages])

    figure = Figure(figsize=(11, 7.5), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    plot = figure.add_subplot()
    shown = [entry for entry in ruler.stages if entry.id in set(stage) | set(anchor_stage)]
    known = np.array([colours.get(name, (0.8, 0.8, 0.8)) for name in stage])
    order = np.random.default_rng(0).permutation(len(cell_xy))
    plot.scatter(cell_xy[order, 0], cell_xy[order, 1], c=known[order], s=13, alpha=0.7, linewidths=0, rasterized=True)
    centre = {name: anchor_xy[anchor_stage == name].mean(axis=0) for name in dict.fromkeys(anchor_stage.tolist())}
    draw_steps(plot, ruler, centre)
    for entry in shown:
        if entry.id in centre:
            x, y = centre[entry.id]
            plot.scatter(x, y, s=70, color=[colours[entry.id]], edgecolors="black", linewidths=0.8, zorder=4)
    _legend(plot, ruler, colours)
    plot.set(xticks=[], yticks=[], xlabel="first axis of the arms", ylabel="second axis of the arms")
    plot.spines[["top", "right"]].set_visible(False)
    plot.set_aspect("equal", adjustable="datalim")
    plot.set_title(title + (f"\n{subtitle}" if subtitle else ""), loc="left", fontsize=11)
    named = [entry for entry in shown if entry.id in centre]
    # last, because names are placed where they cover least
    name_points(plot, [entry.label for entry in named], np.array([centre[entry.id] for entry in named]))
    with replacing(path) as part:
        figure.savefig(part, format=path.suffix[1:].lower())
    return path


def draw_anchors(manifold: Manifold, path: str | Path) -> Path:
    """Draw the anchors of a manifold's own panel, coloured by stage; see ``draw_manifold``."""
    anchors = manifold.card.panel.anchors
    return draw_manifold(
        manifold,
        manifold.project(manifold.tensors["panel.anchors"]),
        [anchor.stage for anchor in anchors],
        path,
        title=f"{manifold.name} {manifold.version}: {len(anchors)} anchors of the extraction panel",
        subtitle="small dots: anchors; large dots: stages"
        + ("; arrows: steps of the ruler" if isinstance(manifold.ruler, StageRuler) else ""),
    )


def plane_of(manifold: Manifold, anchor_latent: NDArray[np.floating]) -> NDArray[np.float64]:
    """The plane that cells of a manifold are drawn in, ``(d, 2)``, from latents of its own anchors: see ``plane``."""
    anchors = manifold.card.panel.anchors
    stage, branch = [anchor.stage for anchor in anchors], [anchor.branch for anchor in anchors]
    return plane(anchor_latent, stage, branch, manifold.ruler.root, angular=_angular(manifold))


def as_drawn(manifold: Manifold, latent: NDArray[np.floating]) -> NDArray[np.float64]:
    """Latents as points that lie as far apart as the head means: directions where distances are angles."""
    return unit(latent) if _angular(manifold) else np.asarray(latent, dtype=np.float64)


def _angular(manifold: Manifold) -> bool:
    """Whether distances on a manifold are angles."""
    return manifold.card.extraction.adaptor.kind not in GEODESIC_KINDS


def unit(latent: NDArray[np.floating]) -> NDArray[np.float64]:
    """Directions of latents; a zero latent stays at the origin."""
    wide = np.asarray(latent, dtype=np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12))


def draw_steps(plot: Axes, ruler: Ruler, centre: dict[str, NDArray[np.float64]]) -> None:
    """Lines between stages that follow each other, over stages that the panel lacks where need be; none on a table."""
    if not isinstance(ruler, StageRuler):
        return
    parent = {edge.child: edge.parent for edge in ruler.edges}
    for name, at in centre.items():
        above, passed = parent.get(name), {name}
        # steps may form a ring of stages that the panel lacks
        while above is not None and above not in centre and above not in passed:
            passed.add(above)
            above = parent.get(above)
        if above in centre and above != name:
            (x0, y0), (x1, y1) = centre[above], at
            plot.annotate(
                "",
                (x1, y1),
                (x0, y0),
                arrowprops={"arrowstyle": "-|>", "color": "0.35", "lw": 1.0, "shrinkA": 5, "shrinkB": 5},
                zorder=3,
            )


def _legend(plot: Axes, ruler: Ruler, colours: dict[str, tuple[float, float, float]]) -> None:
    """One entry per branch, in the colour of its deepest stage."""
    from matplotlib.lines import Line2D

    ids = [entry.id for entry in ruler.stages]
    depth = shades(ruler, ids)
    deepest: dict[str, str] = {}
    for entry in ruler.stages:
        if entry.branch not in deepest or depth[entry.id] > depth[deepest[entry.branch]]:
            deepest[entry.branch] = entry.id
    handles = [
        Line2D([], [], marker="o", linestyle="", color=colours[stage], label=branch.replace("_", " "))
        for branch, stage in deepest.items()
    ]
    plot.legend(
        handles=handles,
        title="branch" if ruler.root is None else "branch (darker = later)",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=8,
    )

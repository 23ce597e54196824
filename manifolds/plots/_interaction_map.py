"""Cell types of an interaction ruler on the manifold, and who lies nearest to whom."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from .._figure import as_drawn
from .._group_distances import head_distance
from .._interaction_ruler import InteractionRuler
from .._manifold import Manifold
from ._cell_types import by_branch, interaction_ruler, short_labels
from ._colours import LARGE, NORMAL, SMALL, axes_to_draw_on, branch_colours, name_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

# points: radius of a node with one anchor, and how much one with four times as many anchors is larger
_RADIUS, _GROWTH = 4.0, 1.4
_THIN, _THICK = 0.6, 2.6


def interaction_map(manifold: Manifold, *, n_edges: int = 30, ax: Axes | None = None) -> Axes:
    """Draw the cell types of a manifold's panel where its anchors lie, and the shortest directed distances as arrows.

    Parameters
    ----------
    manifold
        A manifold with an interaction ruler.
    n_edges
        Arrows: so many of the shortest distances from a sender to another receiver among the cell types shown.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The Axes. Small dots are anchors, nodes the middle of those of a cell type, their area growing with the number of
    anchors; both are coloured by broad class. An arrow leads from sender to receiver and is the thicker, the shorter
    the distance of the ruler is.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If the ruler has no directed distances, or the number of arrows is negative.

    Notes
    -----
    With two coordinates these are drawn (their directions, where distances are angles). With more, the plane is that
    of classical multidimensional scaling of the distances between the mean latents of cell types, so that each weighs
    the same, and the axes tell their share: see ``classical_plane``. What lies close together in the plane need not do
    so on the manifold. Nodes that would cover each other are moved apart.

    Positions are the model's, arrows the ruler's: the model took no part in them. Short distances favour receivers with
    many receptors; nothing is taken off for that.
    """
    ruler = interaction_ruler(manifold)
    if isinstance(n_edges, bool) or not isinstance(n_edges, int | np.integer) or n_edges < 0:
        raise BadInputError(f"n_edges is {n_edges!r}, expected a whole number of at least 0.")
    anchors = np.array(manifold.anchor_stages)
    counts = Counter(anchors.tolist())
    names = by_branch(ruler, list(counts))
    latent = np.asarray(manifold.project(manifold.tensors["panel.anchors"]), dtype=np.float64)
    points, at, words = plane_points(manifold, latent, np.array([names.index(name) for name in anchors]))
    hues, stages = branch_colours(ruler), {stage.id: stage for stage in ruler.stages}
    colours = [hues[stages[name].branch] for name in names]
    radii = _RADIUS * np.array([counts[name] for name in names]) ** (np.log(_GROWTH) / np.log(4))

    ax = axes_to_draw_on(ax, 10.5, 7.0)
    of_anchor = [hues[stages[name].branch] for name in anchors]
    ax.scatter(points[:, 0], points[:, 1], s=7, c=of_anchor, alpha=0.45, linewidths=0, zorder=1)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(words[0], fontsize=NORMAL)
    ax.set_ylabel(words[1], fontsize=NORMAL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.06)
    ax.update_datalim(at)
    ax.autoscale_view()
    at = _without_overlap(ax, at, radii)
    ax.scatter(at[:, 0], at[:, 1], s=(2 * radii) ** 2, c=colours, edgecolors="black", linewidths=0.8, zorder=4)
    edges = shortest(ruler, names, int(n_edges))
    _draw_arrows(ax, at, radii, edges)
    ax.set_title(
        f"{manifold.name} {manifold.version}: {len(names)} cell types, sized by their number of anchors\n"
        f"arrows: the {len(edges)} shortest distances of the ruler {ruler.name} {ruler.version}, sender to receiver",
        loc="left",
        fontsize=LARGE,
        parse_math=False,
    )
    _draw_key(ax, ruler, names, counts)
    # last, because names are placed where they cover least
    label_of = short_labels(ruler.stages)
    name_points(ax, [label_of[name] for name in names], at, radii + 3.0)
    return ax


def plane_points(manifold: Manifold, latent: Floats, of: NDArray[np.intp]) -> tuple[Floats, Floats, tuple[str, str]]:
    """Anchors and the middles of their cell types in a plane, and what its axes are.

    Parameters
    ----------
    manifold
        Its kind of head says what a distance is.
    latent
        Of the anchors, ``(n, d)``.
    of
        Number of each anchor's cell type, ``(n,)``.

    Returns
    -------
    Anchors ``(n, 2)``, cell types ``(n_types, 2)``, and the words of both axes.
    """
    share = np.eye(of.max() + 1)[of]
    share /= share.sum(axis=0)
    if latent.shape[1] == 2:
        points = as_drawn(manifold, latent)
        return points, share.T @ points, ("first coordinate", "second coordinate")
    together = np.vstack([share.T @ latent, latent])
    distances = head_distance(manifold.card.extraction.adaptor.kind)(together)
    n = share.shape[1]
    nodes, points, shares = classical_plane(distances[:n, :n], distances[n:, :n])
    first, second = (f"axis {number} of classical scaling ({part:.0%})" for number, part in enumerate(shares, 1))
    return points, nodes, (first, second)


def classical_plane(distances: Floats, of_others: Floats) -> tuple[Floats, Floats, Floats]:
    """Lay points out by classical multidimensional scaling to two axes, and place others among them.

    Parameters
    ----------
    distances
        Between the points, ``(n, n)``, symmetric.
    of_others
        Of others to the points, ``(m, n)``.

    Returns
    -------
    Points ``(n, 2)``, each axis turned so that its largest entry is positive; others ``(m, 2)``; and the share of the
    sum of the positive eigenvalues that each axis has.

    Notes
    -----
    The two leading eigenvectors of ``B = -1/2 J D^2 J``, ``J = I - 11'/n``, scaled by the roots of their eigenvalues
    (Torgerson 1952, Psychometrika 17:401). A further point with squared distances ``a`` lies at
    ``1/2 L^-1 X' (diag(B) - a)``, with coordinates ``X`` and eigenvalues ``L`` (Gower 1968, Biometrika 55:582).
    """
    squared = np.asarray(distances, dtype=np.float64) ** 2
    centred = -(squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean()) / 2
    values, vectors = np.linalg.eigh(centred)
    # an axis that nothing extends along stays at zero
    kept = [index for index in (-1, -2) if len(values) >= -index and values[index] > 1e-9 * max(values[-1], 1e-300)]
    axes = vectors[:, kept]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), range(len(kept))] < 0, -1.0, 1.0) * np.sqrt(values[kept])
    points, others, shares = np.zeros((len(squared), 2)), np.zeros((len(of_others), 2)), np.zeros(2)
    points[:, : len(kept)] = axes
    others[:, : len(kept)] = (np.diag(centred) - np.asarray(of_others) ** 2) @ axes / (2 * values[kept])
    shares[: len(kept)] = values[kept] / values[values > 0].sum() if kept else 0.0
    return points, others, shares


def apart(at: Floats, radii: Floats, *, gap: float = 2.0, n_rounds: int = 200) -> Floats:
    """Push discs apart, along the line between two, until none covers another (our choice).

    Parameters
    ----------
    at
        Middles, ``(n, 2)``, in the unit of ``radii`` ``(n,)`` and of ``gap``, the room left between two discs.
    n_rounds
        Rounds at most; in each a disc moves by half of what it lacks towards each neighbour.
    """
    placed, needed = np.array(at, dtype=np.float64), radii[:, None] + radii[None, :] + gap
    np.fill_diagonal(needed, 0.0)
    # discs at one place part along directions that no two pairs share
    turn = np.add.outer(np.arange(len(placed)), np.arange(len(placed))) * 2.399963
    sign = np.sign(np.subtract.outer(np.arange(len(placed)), np.arange(len(placed))))
    aside = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * sign[:, :, None]
    for _ in range(n_rounds):
        between = placed[:, None] - placed[None, :]
        far = np.linalg.norm(between, axis=-1)
        lacking = np.maximum(needed - far, 0)
        if not (lacking > 1e-6).any():
            break
        along = np.where(far[:, :, None] > 1e-9, between / np.maximum(far, 1e-9)[:, :, None], aside)
        placed += (along * lacking[:, :, None]).sum(axis=1) / 2
    return placed


def _without_overlap(ax: Axes, at: Floats, radii: Floats) -> Floats:
    """Places of nodes, moved apart where they would cover each other at the present size of the Axes."""
    ax.figure.figure.draw_without_rendering()
    to_points = 72 / ax.figure.dpi
    moved = apart(ax.transData.transform(at) * to_points, radii)
    return np.asarray(ax.transData.inverted().transform(moved / to_points))


def shortest(ruler: InteractionRuler, names: list[str], n: int) -> list[tuple[int, int, float]]:
    """The ``n`` shortest directed distances between different cell types, nearest first: sender, receiver, distance."""
    directed = ruler.directed_distances(names, names)
    senders, receivers = np.nonzero(~np.eye(len(names), dtype=bool))
    found = directed[senders, receivers]
    order = np.argsort(found, kind="stable")[:n]
    return [(int(senders[i]), int(receivers[i]), float(found[i])) for i in order]


def _draw_arrows(ax: Axes, at: Floats, radii: Floats, edges: list[tuple[int, int, float]]) -> None:
    """A bent arrow for each edge, so that both directions between two cell types can be told apart."""
    if not edges:
        return
    near, far = edges[0][2], edges[-1][2]
    # the nearest above the others
    for sender, receiver, distance in reversed(edges):
        strength = 1.0 if far == near else (far - distance) / (far - near)
        look: dict[str, Any] = {
            "arrowstyle": "-|>",
            "mutation_scale": 8,
            "lw": _THIN + (_THICK - _THIN) * strength,
            "color": str(0.62 - 0.42 * strength),
            "connectionstyle": "arc3,rad=0.18",
            "shrinkA": radii[sender] + 1,
            "shrinkB": radii[receiver] + 1,
        }
        note = ax.annotate("", at[receiver], at[sender], arrowprops=look, zorder=2 + strength)
        note.set_gid(f"edge {sender} {receiver}")


def _draw_key(ax: Axes, ruler: InteractionRuler, names: list[str], counts: Counter[str]) -> None:
    """Broad classes and sizes, beside the picture."""
    from matplotlib.lines import Line2D

    n_of: Counter[str] = Counter()
    for name, branch in zip(names, ruler.branch(names), strict=True):
        n_of[branch] += counts[name]
    handles = [
        Line2D([], [], marker="o", ls="", ms=6, mew=0, color=hue, label=f"{branch.replace('_', ' ')} ({n_of[branch]})")
        for branch, hue in branch_colours(ruler).items()
        if n_of[branch]
    ]
    ax.legend(
        handles=handles,
        title="broad class (anchors)",
        title_fontsize=NORMAL,
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        frameon=False,
        fontsize=SMALL,
        alignment="left",
    )

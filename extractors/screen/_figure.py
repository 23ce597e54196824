"""The heat map of a head atlas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

_CELL_INCHES = 0.52
_LARGEST_WITH_NUMBERS = 16


def draw_atlas(scores: NDArray[np.float64], best: Sequence[tuple[int, int]], title: str, path: Path) -> None:
    """Draw scores of layers and heads as a PNG.

    Parameters
    ----------
    scores
        ``(n_layers, n_heads)``; NaN is drawn grey.
    best
        Layer and head of those to frame.
    title
        Of the figure.
    path
        File to write.
    """
    n_layers, n_heads = scores.shape
    width, height = max(4.2, _CELL_INCHES * n_heads + 2.2), max(2.6, _CELL_INCHES * 0.72 * n_layers + 1.5)
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("0.85")
    image = axes.imshow(np.ma.masked_invalid(scores), cmap="cividis", aspect="auto")
    axes.set_xticks(range(n_heads))
    axes.set_yticks(range(n_layers))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("held-out partial Spearman\n(donor, study, tissue out)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.tick_params(labelsize=7)
    if max(n_layers, n_heads) <= _LARGEST_WITH_NUMBERS:
        middle = np.nanmean([np.nanmin(scores), np.nanmax(scores)])
        for layer in range(n_layers):
            for head in range(n_heads):
                value = scores[layer, head]
                text = "-" if np.isnan(value) else f"{value:.2f}"
                colour = "black" if np.isnan(value) or value > middle else "white"
                axes.text(head, layer, text, ha="center", va="center", fontsize=7, color=colour)
    for layer, head in best:
        frame = Rectangle((head - 0.46, layer - 0.46), 0.92, 0.92, fill=False, edgecolor="#d55e00", linewidth=2)
        axes.add_patch(frame)
    figure.savefig(path, format="png", dpi=160)

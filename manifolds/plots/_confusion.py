"""The confusion matrix of a readout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...cards._errors import BadInputError
from ._colours import LARGE, NORMAL, SMALL, axes_to_draw_on, complete_labels, distinct_classes, ink_on

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHADES = "Blues"
# inches that a number takes, and that a letter does
_CELL, _LETTER = 0.36, 0.066
_WORDS = {
    "true": "share of the cells of the true class",
    "pred": "share of the cells of the predicted class",
    "all": "share of all cells",
    None: "cells",
}


def confusion(
    truth: Sequence[Any],
    predicted: Sequence[Any],
    *,
    classes: Sequence[str] | None = None,
    normalise: Literal["true", "pred", "all"] | None = "true",
    ax: Axes | None = None,
) -> Axes:
    """Draw how often each class is predicted as each, with the balanced accuracy.

    Parameters
    ----------
    truth, predicted
        Class of each cell, ``(n_cells,)``: a list, an array, or a column of ``obs``.
    classes
        Order of rows and columns; by default all classes met, sorted.
    normalise
        What the numbers of a row (``"true"``), of a column (``"pred"``) or of the matrix (``"all"``) are shares of;
        ``None`` for counts.
    ax
        Axes to draw on; by default a new figure, large enough for the numbers. Axes that are too small for them are
        left without.

    Returns
    -------
    The Axes. Rows and columns without cells, whose shares are not defined, are grey.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If there are no cells, numbers of cells differ, a label is missing or none of the classes, or there is no such
        normalisation.

    Notes
    -----
    Balanced accuracy is the mean over classes with cells of the share predicted right (Brodersen et al. 2010, ICPR
    3121). Both it and the matrix are those of scikit-learn's ``balanced_accuracy_score`` and ``confusion_matrix``,
    except that shares of nothing are not given as 0.
    """
    if normalise not in _WORDS:
        raise BadInputError(f"normalise is {normalise!r}, expected 'true', 'pred', 'all' or None.")
    if len(truth) != len(predicted):
        raise BadInputError(f"Got {len(truth)} true and {len(predicted)} predicted labels, expected as many of each.")
    names = None if classes is None else distinct_classes(classes)
    true, said = complete_labels(truth, "truth", names), complete_labels(predicted, "predicted", names)
    if names is None:
        names = sorted(set(true) | set(said))
    position = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, ([position[name] for name in true], [position[name] for name in said]), 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.diag(counts) / counts.sum(axis=1)
        total = {"true": counts.sum(axis=1, keepdims=True), "pred": counts.sum(axis=0), "all": counts.sum(), None: 1}
        shown = counts / total[normalise]

    n, longest = len(names), max(map(len, names)) * _LETTER
    cell = max(_CELL, _LETTER * len(str(counts.max()))) if normalise is None else _CELL
    own = ax is None
    ax = axes_to_draw_on(ax, max(4.4, cell * n + longest + 1.8), max(3.4, cell * n + longest + 0.9))
    ax.set_facecolor("0.8")
    image = ax.imshow(np.ma.masked_invalid(shown), cmap=_SHADES, vmin=0, vmax=None if normalise is None else 1)
    if own or _inches(ax) >= cell * n:
        shades = np.asarray(image.cmap(image.norm(np.nan_to_num(shown))))
        for row, column in np.argwhere(np.isfinite(shown)):
            value = float(shown[row, column])
            ax.text(
                column,
                row,
                _number(value, counts=normalise is None),
                ha="center",
                va="center",
                fontsize=SMALL,
                color=ink_on(shades[row, column]),
            )
    ax.set_xticks(range(n), names, rotation=90, fontsize=SMALL)
    ax.set_yticks(range(n), [f"{w} ({k:,})" for w, k in zip(names, counts.sum(axis=1), strict=True)], fontsize=SMALL)
    ax.set_xlabel("predicted", fontsize=NORMAL)
    ax.set_ylabel("true (cells)", fontsize=NORMAL)
    ax.set_title(
        f"balanced accuracy {np.nanmean(recall):.3f} ({len(true):,} cells, {np.isfinite(recall).sum()} true classes)",
        fontsize=LARGE,
        loc="left",
    )
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.6, aspect=25)
    bar.set_label(_WORDS[normalise], fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL)
    return ax


def _inches(ax: Axes) -> float:
    """The shorter side of the Axes."""
    extent = ax.get_window_extent()
    return float(min(extent.width, extent.height)) / ax.figure.dpi


def _number(value: float, *, counts: bool) -> str:
    """A count, or a share in two digits without the leading zero."""
    if counts or value in (0.0, 1.0):
        return f"{value:.0f}"
    return f"{value:.2f}".removeprefix("0") if value >= 0.005 else "<.01"

"""Whether a readout is right as often as it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cards._errors import BadInputError
from ._colours import HUES, LARGE, NORMAL, SMALL, axes_to_draw_on, complete_labels, distinct_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence and accuracy in bins of confidence.

    Attributes
    ----------
    edges
        Of the bins, ``(n_bins + 1,)`` from 0 to 1.
    n, confidence, accuracy
        Number of cells of each bin, their mean confidence and the share predicted right; NaN in an empty bin.
    """

    edges: NDArray[np.float64]
    n: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_calibration_error(self) -> float:
        """``sum_b n_b / n |accuracy_b - confidence_b|`` (Naeini et al. 2015; Guo et al. 2017, equation 3)."""
        gap = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(gap * self.n) / self.n.sum())


def reliability(confidence: NDArray[np.floating], right: NDArray[np.bool_], n_bins: int) -> Reliability:
    """Sort cells into bins of equal width by confidence.

    Parameters
    ----------
    confidence
        Probability of the class predicted, ``(n_cells,)``.
    right
        Whether it is the true one, ``(n_cells,)``.
    n_bins
        Number of bins; bin ``b`` holds ``(b / n_bins, (b + 1) / n_bins]``, and the first 0 too.
    """
    edges = np.linspace(0, 1, n_bins + 1)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, n_bins - 1)
    n = np.bincount(which, minlength=n_bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, weights=confidence, minlength=n_bins) / n
        accuracy = np.bincount(which, weights=right, minlength=n_bins) / n
    return Reliability(edges, n.astype(np.int64), mean, accuracy)


def calibration(
    truth: Sequence[Any], proba: ArrayLike, classes: Sequence[str], *, n_bins: int = 10, ax: Axes | None = None
) -> Axes:
    """Draw how often the most probable class is right against how probable it was said to be.

    Parameters
    ----------
    truth
        Class of each cell, ``(n_cells,)``.
    proba
        Class probabilities, ``(n_cells, n_classes)``, rows summing to 1 (to 0.001).
    classes
        Name of each column.
    n_bins
        Bins of equal width between 0 and 1.
    ax
        Axes to draw on; a new figure by default.

    Returns
    -------
    The Axes. The number of cells of each bin stands above it; the grey bars are their shares of all cells.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    BadInputError
        If there are no cells, numbers of cells or classes differ, a label is missing or none of the classes, rows are
        no probabilities, or there is no bin.

    Notes
    -----
    The title gives the expected calibration error ``sum_b n_b / n |accuracy_b - confidence_b|`` over bins ``b`` with
    ``n_b`` of ``n`` cells (Naeini, Cooper and Hauskrecht 2015, AAAI; Guo et al. 2017, ICML, equation 3). It grows with
    the number of bins where cells are few.
    """
    if isinstance(n_bins, bool) or not isinstance(n_bins, int | np.integer) or n_bins < 1:
        raise BadInputError(f"n_bins is {n_bins!r}, expected a whole number of at least 1.")
    names, values = distinct_classes(classes), np.asarray(proba, dtype=np.float64)
    if values.ndim != 2 or values.shape != (len(truth), len(names)):
        raise BadInputError(
            f"proba has the shape {values.shape}, expected {len(truth)} cells x {len(names)} classes.",
            "Name the classes in the order of its columns.",
        )
    labels = complete_labels(truth, "truth", names)
    off = ~(np.isfinite(values).all(axis=1) & (values >= 0).all(axis=1))
    off |= ~(np.abs(values.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if off.any():
        raise BadInputError(
            f"{off.sum()} rows of proba are no probabilities, the first that of cell {int(np.argmax(off))}; expected "
            "numbers of at least 0 that sum to 1."
        )
    best = values.argmax(axis=1)
    confidence = np.minimum(values[np.arange(len(values)), best], 1.0)
    right = np.array([names[column] == label for column, label in zip(best, labels, strict=True)])
    bins = reliability(confidence, right, int(n_bins))

    ax = axes_to_draw_on(ax, 5.2, 5.0)
    middle, width = (bins.edges[:-1] + bins.edges[1:]) / 2, np.diff(bins.edges)
    ax.bar(middle, bins.n / bins.n.sum(), width=0.92 * width, color="0.88", zorder=1, label="share of the cells")
    ax.plot([0, 1], [0, 1], color="0.4", ls="--", lw=1, zorder=2, label="right as often as said")
    there = bins.n > 0
    curve: dict[str, Any] = {"color": HUES[3], "marker": "o", "ms": 5, "lw": 1.5, "clip_on": False, "zorder": 3}
    ax.plot(bins.confidence[there], bins.accuracy[there], label="readout", **curve)
    above: dict[str, Any] = {
        "xycoords": ax.get_xaxis_transform(),
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    for x, n in zip(middle[there], bins.n[there], strict=True):
        ax.annotate(_count(int(n)), (x, 1.0), (0, 4), ha="center", va="bottom", fontsize=SMALL, **above)
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_xlabel("probability of the most probable class", fontsize=NORMAL)
    ax.set_ylabel("share of cells in which it is the true one", fontsize=NORMAL)
    ax.tick_params(labelsize=SMALL)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_title(
        f"expected calibration error {bins.expected_calibration_error:.3f}\n"
        f"accuracy {right.mean():.3f}, {len(labels):,} cells; cells of each bin:",
        fontsize=LARGE,
        loc="left",
        pad=16,
    )
    ax.legend(loc="upper left", frameon=False, fontsize=NORMAL)
    return ax


def _count(n: int) -> str:
    """A number of cells in at most four letters, so that ten of them stand side by side."""
    for size, letter in ((10**6, "M"), (10**3, "k")):
        if n >= 10 * size or (size == 10**6 and n >= 999_500):
            return f"{n / size:.0f}{letter}"
    return str(n)

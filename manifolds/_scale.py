"""Recognising the scale of expression values, and bringing counts to the manifold's scale."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import ScaleError, ScaleWarning

TARGET_SUM = 1e4
Scale = Literal["log1p", "counts"]
# log1p of 1e4 reads is 9.2: no value normalised to 10,000 per cell can pass it
LOG_CEILING = 9.5


@dataclass(frozen=True)
class ValueSummary:
    """What a look at some values shows.

    Attributes
    ----------
    maximum
        Largest value.
    whole
        Whether all values are whole numbers.
    cell_sum
        Median over cells of the sum of ``expm1`` of the values; about 10,000 for ``log1p`` of CP10k.
    """

    maximum: float
    whole: bool
    cell_sum: float


def check_finite(values: NDArray[Any]) -> None:
    """Refuse NaN, infinite and negative values.

    Raises
    ------
    ScaleError
        Naming what was found.
    """
    if not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if np.isnan(low) or np.isnan(high):
        raise ScaleError("The matrix holds NaN values.", "Fill or drop them first.")
    if np.isinf(low) or np.isinf(high):
        raise ScaleError("The matrix holds infinite values.", "Undo the logarithm or division that made them.")
    if low < 0:
        raise ScaleError(
            f"The matrix holds negative values (smallest {low:.3g}): scaled or centred data cannot be used.",
            "Pass counts or log1p values, for example with `layer='counts'`.",
        )


def summarise(block: Any) -> ValueSummary:
    """Summarise a sparse or dense block of cells, ``(n_cells, n_genes)``."""
    stored = stored_values(block)
    if not stored.size:
        return ValueSummary(maximum=0.0, whole=True, cell_sum=0.0)
    maximum = float(stored.max())
    whole = bool((stored == np.rint(stored)).all())
    if (whole and maximum > 0) or maximum > LOG_CEILING:
        return ValueSummary(maximum, whole, float("nan"))
    linear = block.astype(np.float64).expm1() if sparse.issparse(block) else np.expm1(np.asarray(block, np.float64))
    return ValueSummary(maximum, whole, float(np.median(np.asarray(linear.sum(axis=1)).ravel())))


def stored_values(block: Any) -> NDArray[Any]:
    """The stored values of a sparse or dense block, without copying where possible."""
    return np.asarray(block.data if sparse.issparse(block) else block)


def decide_scale(summary: ValueSummary, asked: Scale | Literal["auto"], *, all_genes: bool) -> Scale:
    """Decide what scale values are on, or object to the scale that was declared.

    Parameters
    ----------
    summary
        Of a sample of cells.
    asked
        ``"auto"`` recognises whole numbers as counts and anything with a maximum up to 9.5 as ``log1p``.
    all_genes
        Whether the input looks like a full gene matrix, so that cell sums can be checked.

    Raises
    ------
    ScaleError
        If the values contradict ``asked``, or are neither counts nor logarithms.

    Warns
    -----
    ScaleWarning
        If counts are normalised unasked, or the logarithms were scaled to another sum than 10,000.
    """
    counts = summary.whole and summary.maximum > 0
    if asked == "counts" and not summary.whole:
        raise ScaleError(
            f"Counts were announced but the values are not whole numbers (largest {summary.maximum:.4g}).",
            "Pass scale='log1p', or name the layer that holds counts with `layer`.",
        )
    if asked == "log1p" and counts and summary.maximum > 1:
        raise ScaleError(
            f"log1p values were announced but all values are whole numbers (largest {summary.maximum:.4g}): "
            "they look like raw counts.",
            "Pass scale='counts'.",
        )
    if not counts and summary.maximum > LOG_CEILING:
        raise ScaleError(
            f"The largest value, {summary.maximum:.4g}, is too high for log1p of counts per 10,000 and the values are "
            "not whole numbers: they look normalised but not log-transformed.",
            "Apply `scanpy.pp.log1p` first, or pass the counts.",
        )
    if asked != "auto":
        return asked
    if counts:
        warnings.warn(
            "The values look like raw counts and were normalised to log1p of counts per 10,000 "
            "(say scale='counts' to confirm).",
            ScaleWarning,
            stacklevel=4,
        )
        return "counts"
    if all_genes and not TARGET_SUM / 2 <= summary.cell_sum <= TARGET_SUM * 2:
        warnings.warn(
            f"Cells sum to about {summary.cell_sum:.3g} before the logarithm, the manifold expects 10,000; "
            "coordinates may be shifted.",
            ScaleWarning,
            stacklevel=4,
        )
    return "log1p"


def log_normalise(block: Any, totals: NDArray[np.floating]) -> Any:
    """``log1p(x / total * 10,000)`` per cell, float32, sparse in sparse out; cells without counts stay zero."""
    factor = np.divide(TARGET_SUM, totals, out=np.zeros(len(totals)), where=totals > 0)
    if sparse.issparse(block):
        scaled = sparse.csr_matrix(block, dtype=np.float32, copy=True)
        scaled.data *= np.repeat(factor.astype(np.float32), np.diff(scaled.indptr))
        np.log1p(scaled.data, out=scaled.data)
        return scaled
    return np.log1p(np.asarray(block, dtype=np.float32) * factor[:, None].astype(np.float32))

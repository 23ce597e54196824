"""The values that models of the scGPT family read of a cell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._scgpt_settings import InputStyle


def input_values(values: NDArray[np.float32], style: InputStyle, n_bins: int) -> NDArray[np.float32]:
    """Turn values as extraction hands them over into what a model was trained on.

    Parameters
    ----------
    values
        ``(n_cells, n_tokens)``: raw counts for ``style="counts"``, else ``log1p`` of counts scaled to 10,000 per cell.
    style
        What the model reads.
    n_bins
        For ``style="binned"``.
    """
    if style == "normed_raw":
        return np.expm1(values)
    return bin_values(values, n_bins) if style == "binned" else values


def bin_values(values: NDArray[np.float32], n_bins: int) -> NDArray[np.float32]:
    """Rank the positive values of each cell in bins of equal size, as scGPT does.

    Parameters
    ----------
    values
        ``(n_cells, n_tokens)``; zeros stay in bin 0 and take no part.
    n_bins
        Number of bins, bin 0 included.

    Returns
    -------
    NDArray[np.float32]
        Bins 0 to ``n_bins - 1``, ``(n_cells, n_tokens)``.

    Notes
    -----
    Edges are the ``n_bins - 1`` evenly spaced quantiles of the cell's positive values. A value between two edges is
    in the bin of the number of edges below it. A value that equals one or more edges, as most small counts do, lies
    between ``r``, the number of edges below it, and ``l``, the number of edges up to it, and scGPT draws
    ``ceil(l - u * (l - r))`` with ``u`` uniform in [0, 1). Here ``u`` is one half, the middle of those bins: our
    choice, so that a cell is always read alike and equal values share a bin.

    Bins depend on the order of values alone, so ``log1p`` of scaled counts gives those of the counts that scGPT was
    trained on. They do depend on which genes are there: scGPT's pre-training ranked all genes of a cell, its
    fine-tuning the chosen ones, as is done here.
    """
    binned = np.zeros(values.shape, dtype=np.float32)
    for row, target in zip(values, binned, strict=True):
        positive = row > 0
        if positive.any():
            edges = _edges(np.sort(row[positive]).astype(np.float64), n_bins)
            below = np.searchsorted(edges, row[positive], side="left")
            up_to = np.searchsorted(edges, row[positive], side="right")
            target[positive] = (below + up_to + 1) // 2
    return binned


def _edges(ordered: NDArray[np.float64], n_bins: int) -> NDArray[np.float64]:
    """Quantiles of ordered values, or where one lies between two values, their middle, which bins alike.

    Which quantiles are values is decided in whole numbers: the rounding of ``np.quantile`` puts some of them beside the
    value that they are.
    """
    whole, part = np.divmod(np.arange(n_bins - 1) * (len(ordered) - 1), max(n_bins - 2, 1))
    after = np.minimum(whole + (part > 0), len(ordered) - 1)
    middles: NDArray[np.float64] = (ordered[whole] + ordered[after]) / 2
    return middles

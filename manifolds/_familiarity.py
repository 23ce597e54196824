"""How much a cell looks like the cells a manifold was made from: cosines to the centroids of its stages.

A manifold places any cell somewhere. Neither its coordinates nor how well they reconstruct the cell tell whether the
cell belongs there; the expression itself does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Float32 = NDArray[np.float32]

SCALE_FLOOR = 0.1
"""Floor of a gene's scale, as a fraction of the median of the genes that vary; our choice."""


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What turns expression into two scores between -1 and 1, on some genes of a panel.

    Attributes
    ----------
    linear
        ``(n_genes, 2 n_stages + 1)`` float32: centroids as they are, centroids standardised, and the mean in units of
        the variance, all divided so that products with ``log1p`` expression are parts of the scores.
    constant
        ``(2 n_stages + 1,)`` float32, to be added to those products.
    squares
        ``(n_genes, 2)`` float32, to be multiplied with squared expression: lengths of cells, plain and standardised.

    Notes
    -----
    With ``c_s`` the mean of the anchors of a stage, ``m`` and ``s`` mean and standard deviation of the ``c_s`` per gene
    (``s`` floored), the first score of a cell ``x`` is ``max_s cos(x, c_s)``, the second
    ``max_s cos((x - m) / s, (c_s - m) / s)``. A platform that measures genes otherwise turns all its cells
    away from all centroids and so lowers the first; on the second it weighs less. Both are our choice. That the second
    is offered was decided after both had been seen on the cells of a heart; see the documentation of the gates.
    """

    linear: Float32
    constant: Float32
    squares: Float32

    @property
    def n_columns(self) -> int:
        """Products per cell that ``scores`` needs: linear ones first, then those with squares."""
        return int(self.linear.shape[1] + self.squares.shape[1])

    def products(self, values: Any) -> Float32:
        """Multiply expression, dense or CSR ``(n_cells, n_genes)``: ``(n_cells, n_columns)``."""
        if sparse.issparse(values):
            squared = values.copy()
            squared.data **= 2
        else:
            squared = np.square(values)
        return np.hstack([values @ self.linear, squared @ self.squares]).astype(np.float32, copy=False)

    def scores(self, products: Float32) -> Float32:
        """Turn products into both scores, ``(n_cells, 2)``; 0 for a cell without any expression."""
        n_stages = (self.linear.shape[1] - 1) // 2
        linear = products[:, : self.linear.shape[1]] + self.constant
        plain, scaled = products[:, -2], products[:, -1] - linear[:, -1]
        found = np.stack([linear[:, :n_stages].max(axis=1), linear[:, n_stages : 2 * n_stages].max(axis=1)], axis=1)
        size = np.sqrt(np.maximum(np.stack([plain, scaled], axis=1), 1e-12))
        return np.where(plain[:, None] > 0, np.clip(found / size, -1, 1), 0).astype(np.float32)


def familiarity(anchors: NDArray[np.floating], stage: Sequence[str]) -> Familiarity:
    """Prepare the scores from the anchors of a panel.

    Parameters
    ----------
    anchors
        Mean ``log1p`` expression, ``(n_anchors, n_genes)``; only of the genes that the cells to score have.
    stage
        Of each anchor.
    """
    wide = np.asarray(anchors, dtype=np.float64)
    _, code = np.unique(np.asarray(stage, dtype=str), return_inverse=True)
    centroids = np.stack([wide[code == s].mean(axis=0) for s in range(code.max() + 1)])
    mean, spread = centroids.mean(axis=0), centroids.std(axis=0)
    varies = spread > 1e-9
    scale = np.maximum(spread, SCALE_FLOOR * np.median(spread[varies]) if varies.any() else 1.0)
    plain, scaled = _unit(centroids), _unit((centroids - mean) / scale)
    weights = scaled / scale
    # |(x - m) / s|^2 = sum x^2 / s^2 - (2 sum x m / s^2 - sum m^2 / s^2)
    last = 2 * mean / scale**2
    return Familiarity(
        linear=np.vstack([plain, weights, last]).T.astype(np.float32),
        constant=np.concatenate([np.zeros(len(plain)), -weights @ mean, [-(mean**2 / scale**2).sum()]]).astype(
            np.float32
        ),
        squares=np.stack([np.ones_like(scale), 1 / scale**2], axis=1).astype(np.float32),
    )


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of length one; a zero row stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

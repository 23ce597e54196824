"""Stage 1, and stages 1 and 2 folded into one projection."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError


def apply_operator(values: Any, operator: NDArray[np.floating]) -> NDArray[np.float64]:
    """Apply every block of an operator: ``f(x) = [x A_1; ...; x A_k]``.

    Parameters
    ----------
    values
        Expression, dense or sparse ``(n, n_genes)``.
    operator
        ``(k, n_genes, n_features)``; of attention kinds rows are queries (inputs) and columns keys (outputs).

    Returns
    -------
    Float64 ``(n, k * n_features)``, the products side by side; sparse values are never made dense.

    Raises
    ------
    BadInputError
        If the numbers of genes differ, or the operator is no stack of matrices.
    """
    if operator.ndim != 3:
        raise BadInputError(f"Expected a stack of matrices (k, n_genes, n_features), got shape {operator.shape}.")
    if values.ndim != 2 or values.shape[1] != operator.shape[1]:
        raise BadInputError(f"Values of shape {values.shape} do not match an operator of {operator.shape[1]} genes.")
    return np.hstack([np.asarray(values @ block, dtype=np.float64) for block in operator])


def fold_projection(
    operator: NDArray[np.floating],
    weights: NDArray[np.floating],
    bias: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fold operator and adaptor into ``z = x P + o``.

    Parameters
    ----------
    operator
        ``(k, n_genes, n_features)``.
    weights
        ``W``, ``(d, k * n_features)``.
    bias, mean, scale
        ``(k * n_features,)``.

    Returns
    -------
    ``P`` ``(n_genes, d)`` and ``o`` ``(d,)``, float64.

    Notes
    -----
    ``z = W ((x A - mean) / scale - bias)``, hence ``P = sum_k A_k diag(1 / scale_k) W_k^T`` and
    ``o = -W (mean / scale + bias)``.
    """
    scaled = (weights.astype(np.float64) / scale).T.reshape(len(operator), operator.shape[2], -1)
    projection = np.einsum("kij,kjd->id", operator.astype(np.float64), scaled, optimize=True)
    return projection, -(weights.astype(np.float64) @ (mean.astype(np.float64) / scale + bias))

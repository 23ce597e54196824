"""Combining attention of layers and heads into the gene-by-gene operator of stage 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError

Float32 = NDArray[np.float32]


def drift(layers: Float32) -> Float32:
    """Contrast early, middle and late layers: ``[A_early - A_mid, A_mid - A_late]``.

    Parameters
    ----------
    layers
        Head-averaged attention, ``(n_layers, n_genes, n_genes)``.

    Returns
    -------
    ndarray
        ``(2, n_genes, n_genes)`` float32, which turns expression into ``2 * n_genes`` features.

    Raises
    ------
    BadInputError
        If there are fewer than three layers or the layers are not square matrices.

    Notes
    -----
    ``f(x) = [x A_early - x A_mid ; x A_mid - x A_late]`` with layers in three equal blocks averaged per block
    (Kendiukhov, arXiv:2603.10261). Where the number of layers is no multiple of three the earlier blocks take one
    layer more (``numpy.array_split``): our choice.
    """
    _check_square(layers)
    if len(layers) < 3:
        raise BadInputError(f"The drift operator needs at least 3 layers, got {len(layers)}.")
    early, middle, late = (_average(layers[block]) for block in np.array_split(np.arange(len(layers)), 3))
    return np.stack([early - middle, middle - late]).astype(np.float32)


def mean_operator(layers: Float32) -> Float32:
    """Average over layers, ``(1, n_genes, n_genes)`` float32 from ``(n_layers, n_genes, n_genes)``."""
    _check_square(layers)
    return _average(layers)[None].astype(np.float32)


def single(heads: Float32, *, layer: int, head: int) -> Float32:
    """Take one head, ``(1, n_genes, n_genes)`` float32.

    Parameters
    ----------
    heads
        Attention per head, ``(n_layers, n_heads, n_genes, n_genes)``.
    layer, head
        Indices from 0, as the published ``L2H5``.

    Raises
    ------
    BadInputError
        If the layer or head does not exist, or ``heads`` is averaged over heads.
    """
    if heads.ndim != 4:
        raise BadInputError(f"A single head needs attention per head with 4 dimensions, got shape {heads.shape}.")
    _check_square(heads[0])
    if not (0 <= layer < heads.shape[0] and 0 <= head < heads.shape[1]):
        raise BadInputError(f"Head L{layer}H{head} is not one of {heads.shape[0]} layers x {heads.shape[1]} heads.")
    chosen: Float32 = heads[layer, head][None].astype(np.float32)
    return chosen


def numerical_rank(matrix: Float32) -> int:
    """Count the singular values of a float32 matrix that stand out from its rounding.

    Notes
    -----
    Those above ``s_max * max(shape) * eps`` with ``eps`` of float32, the precision the matrix was stored in;
    the decomposition itself is in float64. The tolerance is that of ``numpy.linalg.matrix_rank``.
    """
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    if not singular.size:
        return 0
    return int((singular > singular[0] * max(matrix.shape) * np.finfo(np.float32).eps).sum())


def _average(layers: Float32) -> NDArray[np.float64]:
    """Mean over the first axis in float64."""
    return np.asarray(layers.mean(axis=0, dtype=np.float64))


def _check_square(layers: Float32) -> None:
    """Refuse anything but a stack of square matrices."""
    if layers.ndim != 3 or not len(layers) or layers.shape[1] != layers.shape[2]:
        raise BadInputError(f"Expected a stack of square matrices (k, n_genes, n_genes), got shape {layers.shape}.")

"""Joining the matrices of layers and heads into the operator of stage 1."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError

Float32 = NDArray[np.float32]


class WeightedHead(NamedTuple):
    """A head of ``top_k``, indices from 0, and its weight in the sum."""

    layer: int
    head: int
    weight: float


def drift(layers: Float32) -> Float32:
    """Contrast early, middle and late layers: ``[A_early - A_mid, A_mid - A_late]``.

    Parameters
    ----------
    layers
        Matrices averaged over heads, ``(n_layers, n_genes, n_genes)``.

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
        Matrices per head, ``(n_layers, n_heads, n_genes, n_genes)``.
    layer, head
        Indices from 0, as the published ``L2H5``.

    Raises
    ------
    BadInputError
        If the layer or head does not exist, or ``heads`` is averaged over heads.
    """
    _check_heads(heads)
    if not (0 <= layer < heads.shape[0] and 0 <= head < heads.shape[1]):
        raise BadInputError(f"Head L{layer}H{head} is not one of {heads.shape[0]} layers x {heads.shape[1]} heads.")
    chosen: Float32 = heads[layer, head][None].astype(np.float32)
    return chosen


def top_k(heads: Float32, scores: NDArray[np.floating], *, k: int) -> tuple[Float32, tuple[WeightedHead, ...]]:
    """Sum the heads with the highest scores, weighted by score.

    Parameters
    ----------
    heads
        Matrices per head, ``(n_layers, n_heads, n_genes, n_genes)``.
    scores
        Score of each head in a screen, ``(n_layers, n_heads)``.
    k
        Heads to take; 1 and 3 were published.

    Returns
    -------
    operator
        ``(1, n_genes, n_genes)`` float32.
    chosen
        The heads taken, highest score first, earlier ones first among equals.

    Raises
    ------
    BadInputError
        If ``k`` is not among the number of heads, or the scores do not belong to the heads or are not finite.

    Notes
    -----
    The paper has a "weighted sum of the k best heads by screen score" (Kendiukhov, arXiv:2603.10261) without the
    weights. Our choice: in proportion to the scores, brought to a sum of one; a score that is not positive weighs
    nothing, and where none is positive, as in a control, all weigh the same.
    """
    _check_heads(heads)
    if scores.shape != heads.shape[:2] or not np.isfinite(scores).all():
        raise BadInputError(
            f"Scores must be finite and one for each of {heads.shape[0]} layers x {heads.shape[1]} heads, "
            f"got shape {scores.shape}."
        )
    if not 1 <= k <= scores.size:
        raise BadInputError(f"k must lie between 1 and the {scores.size} heads, got {k}.")
    flat = scores.astype(np.float64).ravel()
    best = np.argsort(-flat, kind="stable")[:k]
    weights = flat[best].clip(min=0)
    weights = weights / weights.sum() if weights.any() else np.full(k, 1 / k)
    chosen = tuple(
        WeightedHead(int(index) // scores.shape[1], int(index) % scores.shape[1], float(weight))
        for index, weight in zip(best, weights, strict=True)
    )
    total = np.zeros(heads.shape[2:], dtype=np.float64)
    for layer, head, weight in chosen:
        total += weight * heads[layer, head]
    return total[None].astype(np.float32), chosen


def numerical_rank(matrix: Float32) -> int:
    """Count the singular values of a float32 matrix that stand out from its rounding.

    Notes
    -----
    Those above ``s_max * max(shape) * eps`` with ``eps`` of float32, the precision the matrix was stored in, as in
    ``numpy.linalg.matrix_rank``. They are the roots of the eigenvalues of the smaller Gram matrix in float64, which
    is faster than their decomposition, and whose rounding (``eps`` of float64 on squares) lies far
    below the tolerance.
    """
    wide = matrix.astype(np.float64)
    if not wide.any():
        return 0
    # scaled, so that squares neither overflow nor vanish
    wide /= np.abs(wide).max()
    squares = np.linalg.eigvalsh(wide @ wide.T if wide.shape[0] <= wide.shape[1] else wide.T @ wide)
    tolerance = max(matrix.shape) * float(np.finfo(np.float32).eps)
    return int((squares > squares[-1] * tolerance**2).sum())


def _average(layers: Float32) -> NDArray[np.float64]:
    """Mean over the first axis in float64."""
    return np.asarray(layers.mean(axis=0, dtype=np.float64))


def _check_square(layers: Float32) -> None:
    """Refuse anything but a stack of square matrices."""
    if layers.ndim != 3 or not len(layers) or layers.shape[1] != layers.shape[2]:
        raise BadInputError(f"Expected a stack of square matrices (k, n_genes, n_genes), got shape {layers.shape}.")


def _check_heads(heads: Float32) -> None:
    """Refuse anything but square matrices of several layers and heads."""
    if heads.ndim != 4:
        raise BadInputError(f"Expected matrices per head, with 4 dimensions, got shape {heads.shape}.")
    _check_square(heads.reshape(-1, *heads.shape[2:]))

"""Operators with what a model knows taken out: only the spectrum, or only the values, are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError

Float32 = NDArray[np.float32]


def spectrum_matched(operator: NDArray[np.floating], *, seed: int) -> Float32:
    """Replace the singular vectors of each block by random ones.

    Parameters
    ----------
    operator
        ``(k, n_genes, n_features)``.
    seed
        Of the draw; each block has its own.

    Returns
    -------
    ndarray
        Float32 of the same shape, with the same singular values per block and directions that know no gene.

    Raises
    ------
    BadInputError
        If the operator is no stack of matrices.

    Notes
    -----
    Singular vectors are drawn from the Haar measure: the ``Q`` of a Gaussian matrix, its columns turned so that the
    diagonal of ``R`` is positive (Mezzadri 2007, arXiv:math-ph/0609050).
    """
    _check_stack(operator)
    random = np.empty(operator.shape, dtype=np.float32)
    for index, rng in enumerate(np.random.default_rng(seed).spawn(len(operator))):
        values = np.linalg.svd(operator[index].astype(np.float64), compute_uv=False)
        left = _haar(operator.shape[1], len(values), rng)
        right = _haar(operator.shape[2], len(values), rng)
        random[index] = (left * values) @ right.T
    return random


def gene_permuted(operator: Float32, *, seed: int) -> Float32:
    """Give the rows of each block to other genes, and the columns alike where they are genes too.

    Parameters
    ----------
    operator
        ``(k, n_genes, n_features)``; with as many features as genes, columns are taken for genes.
    seed
        Of the permutation, which all blocks share.

    Returns
    -------
    ndarray
        Float32 of the same shape: the same matrix, read with wrong names.

    Raises
    ------
    BadInputError
        If the operator is no stack of matrices.
    """
    _check_stack(operator)
    order = np.random.default_rng(seed).permutation(operator.shape[1])
    permuted = operator[:, order]
    if operator.shape[1] == operator.shape[2]:
        permuted = permuted[:, :, order]
    return np.ascontiguousarray(permuted, dtype=np.float32)


def _haar(n: int, k: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``k`` orthonormal columns of length ``n``, uniform over all such."""
    q, r = np.linalg.qr(rng.standard_normal((n, k)))
    turned: NDArray[np.float64] = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return turned


def _check_stack(operator: NDArray[np.floating]) -> None:
    """Refuse anything but a stack of matrices."""
    if operator.ndim != 3 or not operator.size:
        raise BadInputError(f"Expected a stack of matrices (k, n_genes, n_features), got shape {operator.shape}.")

"""Operators from weights alone: what a head would do with the bare embeddings of two genes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import CheckpointError
from ..checkpoints._interface import Checkpoint, HeadWeights
from ._cells import GENE_FLOOR, known_genes

TokenKind = Literal["token_ov", "token_qk"]


def token_operators(
    checkpoint: Checkpoint,
    genes: Sequence[str],
    kind: TokenKind,
    *,
    per_head: bool = False,
    gene_floor: float = GENE_FLOOR,
) -> NDArray[np.float32]:
    """Compute the operator of each layer from embeddings and weights, without cells.

    Parameters
    ----------
    checkpoint
        The frozen model.
    genes
        Gene of each row and column.
    kind
        ``"token_ov"``: what a head writes, seen along the embedding of the column gene, when it reads the row gene;
        ``"token_qk"``: the score with which the row gene, as query, attends to the column gene, as key.
    per_head
        Keep heads apart instead of averaging them.
    gene_floor
        Smallest fraction of ``genes`` that the model must know.

    Returns
    -------
    ndarray
        ``(n_layers, n_genes, n_genes)``, or ``(n_layers, n_heads, n_genes, n_genes)``, float32; zero for genes that
        the model does not know. A head has at most rank ``d_head``, the average of a layer at most ``d_model``.

    Raises
    ------
    GeneError
        If genes repeat, or too few are known to the model.
    CheckpointError
        If embeddings or weights are not finite.

    Notes
    -----
    With ``E`` the embeddings, ``(n_genes, d_model)``: ``E Wv_h^T Wo_h^T E^T`` and
    ``E Wq_h^T Wk_h E^T / sqrt(d_head)``. Biases, layer norms, values and positions are left out, so that these are
    the bilinear forms of the weights and not what the model computes of any cell. Products in float64.
    """
    known = known_genes(checkpoint, genes, gene_floor=gene_floor)
    source = checkpoint.with_genes([gene for gene, is_known in zip(genes, known, strict=True) if is_known])
    rows = np.flatnonzero(known)
    embedding = source.embedding().detach().to(device="cpu", dtype=torch.float64)
    shape = (source.n_layers, source.n_heads) if per_head else (source.n_layers,)
    operators = np.zeros((*shape, len(genes), len(genes)), dtype=np.float32)
    for layer in range(source.n_layers):
        read, write = _factors(embedding, source.heads(layer), kind)
        product = read @ write.transpose(1, 2) if per_head else _side_by_side(read) @ _side_by_side(write).T / len(read)
        if not bool(torch.isfinite(product).all()):
            raise CheckpointError(f"{kind} of layer {layer} of {checkpoint.name} is not finite.")
        operators[layer][..., rows[:, None], rows] = product.numpy()
    return operators


def _factors(embedding: Tensor, weights: HeadWeights, kind: TokenKind) -> tuple[Tensor, Tensor]:
    """Left and right factor of each head's operator, ``(n_heads, n_genes, d_head)`` each."""
    query, key, value, output = (
        part.detach().to(device="cpu", dtype=torch.float64)
        for part in (weights.query, weights.key, weights.value, weights.output)
    )
    if kind == "token_ov":
        return embedding @ value.transpose(1, 2), embedding @ output
    return embedding @ query.transpose(1, 2), embedding @ key.transpose(1, 2) / query.shape[1] ** 0.5


def _side_by_side(factor: Tensor) -> Tensor:
    """Factors of all heads as one, ``(n_genes, n_heads * d_head)``: their product is the sum over heads."""
    return factor.transpose(0, 1).reshape(factor.shape[1], -1)

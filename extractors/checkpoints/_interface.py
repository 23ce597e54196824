"""What extraction needs of a foundation-model checkpoint, whatever its family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError

PADDING = -1
"""Gene index that fills up the shorter cells of a batch."""

InputScale = Literal["log1p", "counts"]
"""What a model is fed: ``log1p`` of counts scaled to 10,000 per cell, or raw counts."""


def check_batch(genes: NDArray[np.int64], values: NDArray[np.float32], max_genes: int) -> None:
    """Refuse what is no batch of cells by its shape.

    Raises
    ------
    BadInputError
        If the shapes differ or have not two dimensions, or there are more genes per cell than the model reads.
    """
    if genes.ndim != 2 or genes.shape != values.shape or genes.shape[1] > max_genes:
        raise BadInputError(
            f"Genes {genes.shape} and values {values.shape} must have the same two dimensions, "
            f"at most {max_genes} genes per cell."
        )


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """Projections of the heads of one layer, without biases, float32.

    Attributes
    ----------
    query, key, value
        ``(n_heads, d_head, d_model)``: ``q = query @ x``.
    output
        ``(n_heads, d_model, d_head)``: the layer adds ``sum_h output_h @ (attention-weighted value_h @ x)``.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


class Checkpoint(Protocol):
    """A frozen model that can be read gene by gene, whatever it makes of a cell inside.

    Notes
    -----
    A reader for another family is one function that returns an object of this shape, offered under the entry point
    ``manifoldzoo.checkpoints``; extraction uses nothing else of it. Genes are addressed by their index into
    ``genes``; how a model orders, bins or spells them is its own affair, and what it returns is in the order it was
    given.
    """

    @property
    def name(self) -> str:
        """Name shown in cards."""

    @property
    def family(self) -> str:
        """Family, as ``manifoldzoo.checkpoints`` calls its reader."""

    @property
    def licence(self) -> str:
        """Licence of the weights, SPDX where there is one."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies weights, vocabulary and settings together."""

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes that indices refer to; empty for a model that reads any symbol until ``with_genes`` names some."""

    @property
    def n_layers(self) -> int:
        """Number of transformer layers."""

    @property
    def n_heads(self) -> int:
        """Number of attention heads per layer."""

    @property
    def d_model(self) -> int:
        """Width of the hidden state."""

    @property
    def max_genes(self) -> int:
        """Most genes the model reads of one cell, special tokens not counted."""

    @property
    def scale(self) -> InputScale:
        """Scale of the values that ``attention`` and ``pooled`` take."""

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which genes the model has a token for, ``(n_names,)``."""

    def with_genes(self, names: Sequence[str]) -> Checkpoint:
        """Return the same model with ``genes`` set to ``names``, in their order.

        Raises
        ------
        GeneError
            If the model does not know a name, or two names are the same token.
        """

    def attention(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False
    ) -> Iterator[Tensor]:
        """Yield post-softmax attention between the genes of each cell, one layer at a time.

        Parameters
        ----------
        genes
            Indices into ``genes``, ``(n_cells, n_tokens)``, ``PADDING`` at the end of shorter cells; a cell does
            not name a gene twice.
        values
            Expression on the scale ``scale``, positive, 0 at padding, ``(n_cells, n_tokens)``.
        weighted
            Multiply the attention to each gene by the length of what the head would add for it,
            ``||output_h (value_h x_j + b_v)||`` (Kobayashi et al. 2020, doi:10.18653/v1/2020.emnlp-main.574).

        Yields
        ------
        Tensor
            ``(n_cells, n_heads, n_tokens, n_tokens)`` float32, row = query, column = key, special tokens left
            out, in the order of ``genes``. Where a gene has several tokens, rows are averaged over those of the
            query and columns summed over those of the key. What stands at padded positions means nothing.
        """

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        """Return the last hidden state averaged over the genes of each cell, ``(n_cells, d_model)`` float32.

        Parameters are those of ``attention``.
        """

    def embedding(self) -> Tensor:
        """Return the vector of each gene before any context, value or position, ``(n_genes, d_model)`` float32.

        As the first layer receives it from the table of tokens; averaged where a gene has several tokens.
        """

    def heads(self, layer: int) -> HeadWeights:
        """Return the projections of a layer's heads."""

    def random_initialisation(self, seed: int) -> Checkpoint:
        """Build the same architecture and vocabulary with fresh weights: a control for trained weights."""

    def shuffled_weights(self, seed: int) -> Checkpoint:
        """Permute the entries within each weight matrix, leaving biases and norms: a control for their structure."""

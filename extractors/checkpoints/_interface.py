"""What an extractor needs of a foundation-model checkpoint, whatever its family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

PADDING = -1
"""Gene index that fills up the shorter cells of a batch."""


class Checkpoint(Protocol):
    """A frozen model whose attention over the genes of a cell can be read.

    Notes
    -----
    A reader for another family is one function ``read_<family>(folder)`` that returns an object of this
    shape; extraction uses nothing else of it.
    """

    @property
    def name(self) -> str:
        """Name shown in cards."""

    @property
    def licence(self) -> str:
        """Licence of the weights, SPDX where there is one."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies weights, vocabulary and settings together."""

    @property
    def genes(self) -> tuple[str, ...]:
        """Vocabulary without special tokens; gene indices below refer to it."""

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

    def attention(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Iterator[Tensor]:
        """Yield post-softmax attention between the genes of each cell, one layer at a time.

        Parameters
        ----------
        genes
            Indices into ``genes`` of the vocabulary, ``(n_cells, n_tokens)``, ``PADDING`` at the end of
            shorter cells.
        values
            Expression on the scale the model reads, ``(n_cells, n_tokens)``.

        Yields
        ------
        Tensor
            ``(n_cells, n_heads, n_tokens, n_tokens)`` float32, row = query, column = key, special tokens
            left out. What stands at padded positions means nothing.
        """

    def random_initialisation(self, seed: int) -> Checkpoint:
        """Build the same architecture and vocabulary with fresh weights: the control for trained weights."""

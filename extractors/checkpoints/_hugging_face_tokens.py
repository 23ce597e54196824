"""Cells as sequences of tokens, and what a family does to get there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Tokens:
    """Cells as sequences of tokens, those of genes first and in the order of the genes given.

    Where a token stands in the sequence that the model reads is said by its position, which is all that a
    transformer knows of order: so nothing has to be put back into order afterwards.

    Attributes
    ----------
    ids
        Token ids, ``(n_cells, n_tokens)``.
    positions
        Place in the sequence, ``(n_cells, n_tokens)``.
    padded
        Whether a token only fills up, ``(n_cells, n_tokens)``.
    per_gene
        Tokens of each gene, ``(n_cells, n_genes)``.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    padded: NDArray[np.bool_]
    per_gene: NDArray[np.int64]

    @property
    def of_genes(self) -> NDArray[np.bool_]:
        """Whether a token is that of a gene, ``(n_cells, n_tokens)``."""
        within: NDArray[np.bool_] = np.arange(self.ids.shape[1]) < self.per_gene.sum(axis=1)[:, None]
        return within & ~self.padded

    def mask(self, *, causal: bool) -> Tensor | None:
        """What to add to the scores, ``(n_cells, 1, n_tokens or 1, n_tokens)``; ``None`` where all tokens are seen."""
        hidden = self.padded[:, None, :]
        if causal:
            hidden = hidden | (self.positions[:, None, :] > self.positions[:, :, None])
        elif not hidden.any():
            return None
        lowest = torch.finfo(torch.float32).min
        return torch.zeros(hidden.shape).masked_fill_(torch.from_numpy(hidden), lowest).unsqueeze(1)

    def between_genes(self, maps: Tensor) -> Tensor:
        """Bring maps between tokens to maps between genes: mean over the rows of a gene, sum over its columns."""
        n_genes = self.per_gene.shape[1]
        if (self.per_gene == 1).all():
            return maps[:, :, :n_genes, :n_genes]
        joined = maps.new_zeros((*maps.shape[:2], n_genes, n_genes))
        for target, tokens, per_gene in zip(joined, maps, torch.from_numpy(self.per_gene), strict=True):
            gene = torch.repeat_interleave(per_gene)
            n_tokens = len(gene)
            rows = maps.new_zeros((len(tokens), n_genes, n_tokens))
            rows.index_add_(1, gene, tokens[:, :n_tokens, :n_tokens])
            target.index_add_(2, gene, rows / per_gene.clamp(min=1)[:, None])
        return joined


class Vocabulary(Protocol):
    """How a family names genes and turns cells into tokens."""

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes that indices refer to."""

    @property
    def max_genes(self) -> int:
        """Most genes of a cell."""

    @property
    def spelling(self) -> Sequence[NDArray[np.int64]]:
        """Token ids of each gene."""

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which names can be said."""

    def with_genes(self, names: Sequence[str]) -> Self:
        """Return the same vocabulary with these genes; ``GeneError`` if they cannot be told apart or said."""

    def write(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tokens:
        """Turn cells into tokens."""

"""A checkpoint of no known family, written out in plain PyTorch: what the interface asks for and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from manifoldzoo.cards._errors import GeneError
from manifoldzoo.extractors.checkpoints._interface import PADDING, HeadWeights, InputScale

SYMBOLS = tuple(f"G{index}" for index in range(24))


@dataclass(frozen=True, eq=False)
class PlainCheckpoint:
    """Random attention layers with residuals over ``embedding + value * direction``; no norms, no biases."""

    n_layers: int = 3
    n_heads: int = 2
    d_model: int = 8
    d_head: int = 3
    max_genes: int = 24
    scale: InputScale = "log1p"
    seed: int = 0
    vocabulary: tuple[str, ...] = SYMBOLS
    genes: tuple[str, ...] = SYMBOLS
    sharpness: float = 2.0
    name: str = "plain"
    family: str = "plain"
    licence: str = "none"
    table: Tensor = field(init=False)
    direction: Tensor = field(init=False)
    layers: tuple[HeadWeights, ...] = field(init=False)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)

        def matrix(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw) * self.sharpness / shape[-1] ** 0.5

        object.__setattr__(self, "table", matrix(len(self.vocabulary), self.d_model))
        object.__setattr__(self, "direction", matrix(self.d_model))
        inner, outer = (self.n_heads, self.d_head, self.d_model), (self.n_heads, self.d_model, self.d_head)
        layers = tuple(
            HeadWeights(matrix(*inner), matrix(*inner), matrix(*inner), matrix(*outer)) for _ in range(self.n_layers)
        )
        object.__setattr__(self, "layers", layers)

    @property
    def digest(self) -> str:
        return f"{self.seed:064d}"

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        return np.array([name in self.vocabulary for name in names], dtype=bool)

    def with_genes(self, names: Sequence[str]) -> PlainCheckpoint:
        if not self.knows(names).all():
            raise GeneError(f"There is no token for one of {names}.")
        return replace(self, genes=tuple(names))

    def _tokens(self, genes: NDArray[np.int64]) -> Tensor:
        place = {name: index for index, name in enumerate(self.vocabulary)}
        own = torch.tensor([place[name] for name in self.genes])
        return own[torch.from_numpy(genes).clamp(min=0)]

    def _run(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        hidden = self.table[self._tokens(genes)] + torch.from_numpy(values)[..., None] * self.direction
        padded = torch.from_numpy(genes == PADDING)
        for weights in self.layers:
            query, key, value = (
                torch.einsum("hkd,ctd->chtk", part, hidden) for part in (weights.query, weights.key, weights.value)
            )
            scores = query @ key.transpose(2, 3) / self.d_head**0.5
            attention = scores.masked_fill(padded[:, None, None], float("-inf")).softmax(-1)
            written = torch.einsum("hdk,chtk->chtd", weights.output, value)
            after = torch.tanh(hidden + (attention @ written).sum(1))
            yield attention, written.norm(dim=-1), after
            hidden = after

    def attention(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False
    ) -> Iterator[Tensor]:
        for attention, length, _ in self._run(genes, values):
            yield attention * length[:, :, None, :] if weighted else attention

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        (*_, (_, _, hidden)) = self._run(genes, values)
        kept = torch.from_numpy(genes != PADDING)[..., None]
        return (hidden * kept).sum(1) / kept.sum(1)

    def embedding(self) -> Tensor:
        return self.table[self._tokens(np.arange(len(self.genes)))]

    def heads(self, layer: int) -> HeadWeights:
        return self.layers[layer]

    def random_initialisation(self, seed: int) -> PlainCheckpoint:
        return replace(self, seed=seed + 1000)

    def shuffled_weights(self, seed: int) -> PlainCheckpoint:
        return replace(self, seed=seed + 2000)

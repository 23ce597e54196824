"""Random cells to try a checkpoint on, and what is compared."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError
from ..checkpoints._interface import PADDING, Checkpoint
from ._conformance import Mismatch

TOLERANCE = 1e-4
"""Largest deviation, relative to the largest value, between two ways to compute one thing in float32; our choice."""
MIN_GENES, MOST_GENES, LONGEST = 6, 12, 512
_TOTAL = 5_000


@dataclass(frozen=True, eq=False)
class Trial:
    """A checkpoint whose genes are named, and the generator that draws cells for it."""

    checkpoint: Checkpoint
    rng: np.random.Generator

    @classmethod
    def of(cls, checkpoint: Checkpoint, genes: Sequence[str] | None, seed: int) -> Trial:
        """Name the genes of a checkpoint that reads any; every check starts from the same seed."""
        named = checkpoint if genes is None else checkpoint.with_genes(list(genes))
        if min(len(named.genes), named.max_genes) < MIN_GENES:
            raise BadInputError(
                f"{named.name} has {len(named.genes)} genes and reads {named.max_genes} of a cell, the checks need "
                f"{MIN_GENES}.",
                "Pass `genes`, names that the checkpoint knows." if genes is None else "Pass more genes.",
            )
        return cls(named, np.random.default_rng(seed))

    @property
    def n_read(self) -> int:
        """Genes of an ordinary cell: fewer than the model reads at most, so that its border is a check of its own."""
        return min(len(self.checkpoint.genes), self.checkpoint.max_genes - 1, MOST_GENES)

    def cells(self, *lengths: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Genes and distinct values of cells of these lengths, padded to the longest."""
        genes = np.full((len(lengths), max(lengths)), PADDING, dtype=np.int64)
        values = np.zeros(genes.shape, dtype=np.float32)
        for row, length in enumerate(lengths):
            genes[row, :length] = self.rng.choice(len(self.checkpoint.genes), length, replace=False)
            counts = self.rng.choice(np.arange(1, max(60, length + 1)), length, replace=False)
            values[row, :length] = counts if self.checkpoint.scale == "counts" else np.log1p(1e4 * counts / _TOTAL)
        return genes, values

    def maps(self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False) -> list[Tensor]:
        """Attention of all layers, their number and shapes checked, since every other comparison needs them."""
        maps = list(self.checkpoint.attention(genes, values, weighted=weighted))
        shape = (len(genes), self.checkpoint.n_heads, genes.shape[1], genes.shape[1])
        same_shapes(maps, [shape] * self.checkpoint.n_layers, "maps of attention, one a layer")
        return maps


def same_shapes(found: Sequence[Tensor], expected: Sequence[tuple[int, ...]], what: str) -> None:
    """Refuse other than tensors of some shapes."""
    shapes = [tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__ for tensor in found]
    if shapes != list(expected):
        raise Mismatch(f"{what}, of the shapes {_few(shapes)}", _few(list(expected)))


def sound(tensor: Tensor, what: str) -> None:
    """Refuse other than finite float32."""
    if tensor.dtype != torch.float32:
        raise Mismatch(f"{what} of {tensor.dtype}", "torch.float32")
    n_bad = int((~tensor.isfinite()).sum())
    if n_bad:
        raise Mismatch(f"{what} with {n_bad} values that are NaN or infinite", "finite values")


def same(found: Tensor, expected: Tensor, what: str, because: str) -> None:
    """Refuse values that differ by more than rounding."""
    if found.shape != expected.shape:
        raise Mismatch(f"{what} of shape {tuple(found.shape)}", f"{tuple(expected.shape)}, {because}")
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    furthest = float((found - expected).abs().max()) if expected.numel() else 0.0
    # written so that NaN fails
    if not furthest <= TOLERANCE * largest:
        raise Mismatch(f"{what} that differs by {furthest:.2g} where its largest value is {largest:.2g}", because)


def weights_of(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Copies of all matrices that a checkpoint shows, by what they are."""
    matrices = {"embedding": checkpoint.embedding().detach().clone()}
    for layer in range(checkpoint.n_layers):
        heads = checkpoint.heads(layer)
        for part in ("query", "key", "value", "output"):
            matrices[f"{part} of layer {layer}"] = getattr(heads, part).detach().clone()
    return matrices


@contextmanager
def nothing_global_changes() -> Iterator[None]:
    """Refuse a change of random states and gradient modes of the process."""
    before = _global_state()
    yield
    changed = [what for what, state in _global_state().items() if state != before[what]]
    if changed:
        raise Mismatch(f"{changed[0]} changed", "it left as it was")


def _global_state() -> dict[str, Any]:
    """Everything that all code of a process shares and that a model may be tempted to change."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "PyTorch's random state": torch.random.get_rng_state().numpy().tobytes(),
        "NumPy's global random state": (name, np.asarray(keys).tobytes(), *rest),
        "Python's global random state": random.getstate(),
        "the gradient mode": torch.is_grad_enabled(),
        "the inference mode": torch.is_inference_mode_enabled(),
        "the default type of tensors": torch.get_default_dtype(),
        "the number of PyTorch's threads": torch.get_num_threads(),
    }


def _few(shapes: Sequence[object]) -> str:
    """First three of some shapes, and how many there are."""
    shown = ", ".join(map(str, shapes[:3]))
    return f"{shown} ... ({len(shapes)} in all)" if len(shapes) > 3 else shown or "none"

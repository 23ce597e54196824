"""A family of checkpoints: one attention layer over gene vectors that expression scales."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from manifoldzoo.cards import BadInputError, CheckpointError, GeneError
from manifoldzoo.extractors import HeadWeights, InputScale

WEIGHTS, GENES, README = "embedding.safetensors", "genes.txt", "README.md"
PARTS = ("embedding", "query", "key", "value", "output")
MAX_GENES = 2048


@dataclass(frozen=True, eq=False)
class StaticEmbedding:
    """A model that sees of gene ``j`` in a cell its vector times its expression, ``x_j = v_j e_j``.

    Head ``h`` attends with ``softmax_j(x_i^T Q_h^T K_h x_j / sqrt(d_head))`` and adds ``O_h V_h x_j``; there is one
    layer, and neither biases nor special tokens. Satisfies ``manifoldzoo.extractors.Checkpoint``.

    Attributes
    ----------
    name
        Name of the folder.
    licence
        ``license`` in the header of ``README.md``, ``"not stated"`` where there is none.
    digest
        SHA-256 over the SHA-256 of weights and genes.
    genes
        Genes that indices refer to, one a row of ``weights["embedding"]``.
    weights
        ``embedding`` ``(n_genes, d_model)``, ``query``, ``key`` and ``value`` ``(n_heads, d_head, d_model)``,
        ``output`` ``(n_heads, d_model, d_head)``; float32.
    """

    name: str
    licence: str
    digest: str
    genes: tuple[str, ...]
    weights: dict[str, Tensor]
    family: str = "static-embedding"
    scale: InputScale = "log1p"
    max_genes: int = MAX_GENES
    n_layers: int = 1

    @property
    def n_heads(self) -> int:
        """Number of attention heads."""
        return len(self.weights["query"])

    @property
    def d_model(self) -> int:
        """Width of a gene's vector."""
        return self.weights["embedding"].shape[1]

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which genes have a vector, ``(n_names,)``."""
        known = set(self.genes)
        return np.array([name in known for name in names], dtype=bool)

    def with_genes(self, names: Sequence[str]) -> StaticEmbedding:
        """Return the same model with ``genes`` set to ``names``, in their order.

        Raises
        ------
        GeneError
            If a name has no vector, or is named twice.
        """
        place = {gene: index for index, gene in enumerate(self.genes)}
        for name in names:
            if name not in place:
                raise GeneError(f"{self.name} has no vector for gene {name!r}.", "Leave out genes that `knows` denies.")
        if len(set(names)) != len(names):
            raise GeneError(f"{len(names) - len(set(names))} of {len(names)} genes are named twice.")
        rows = self.weights["embedding"][[place[name] for name in names]]
        return replace(self, genes=tuple(names), weights={**self.weights, "embedding": rows})

    def attention(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False
    ) -> Iterator[Tensor]:
        """Yield the attention of the only layer; see ``manifoldzoo.extractors.Checkpoint``."""
        states, padded = self._read(genes, values)
        attention = self._attend(states, padded)
        if weighted:
            added = torch.einsum("hdk,hke,cte->chtd", self.weights["output"], self.weights["value"], states)
            attention = attention * added.norm(dim=-1)[:, :, None, :]
        yield attention

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        """Return the mean over genes of what they carry after the layer, ``(n_cells, d_model)`` float32."""
        states, padded = self._read(genes, values)
        mixed = torch.einsum("chij,hke,cje->chik", self._attend(states, padded), self.weights["value"], states)
        states = states + torch.einsum("hdk,chik->cid", self.weights["output"], mixed)
        real = (~padded).to(torch.float32)
        return torch.einsum("ct,ctd->cd", real, states) / real.sum(dim=1, keepdim=True)

    def embedding(self) -> Tensor:
        """Return the vector of each gene, ``(n_genes, d_model)`` float32."""
        return self.weights["embedding"]

    def heads(self, layer: int) -> HeadWeights:
        """Return the projections of the only layer."""
        if layer != 0:
            raise BadInputError(f"{self.name} has no layer {layer}, only layer 0.")
        return HeadWeights(*(self.weights[part] for part in ("query", "key", "value", "output")))

    def random_initialisation(self, seed: int) -> StaticEmbedding:
        """Draw all weights anew, normal and of variance one over their last dimension: a control for trained ones."""
        # a generator of its own: the global random state belongs to the caller
        draw = torch.Generator().manual_seed(seed)
        shapes = {part: self.weights[part].shape for part in PARTS}
        fresh = {part: torch.randn(shape, generator=draw) / shape[-1] ** 0.5 for part, shape in shapes.items()}
        return self._derived("random", seed, fresh)

    def shuffled_weights(self, seed: int) -> StaticEmbedding:
        """Permute the entries within each matrix: a control for their structure."""
        draw = torch.Generator().manual_seed(seed)
        shuffled = {}
        for part in PARTS:
            flat = self.weights[part].reshape(-1)
            shuffled[part] = flat[torch.randperm(len(flat), generator=draw)].reshape(self.weights[part].shape)
        return self._derived("shuffled", seed, shuffled)

    def _derived(self, kind: str, seed: int, weights: dict[str, Tensor]) -> StaticEmbedding:
        """The same model around other weights."""
        origin = json.dumps({"of": self.digest, "kind": kind, "seed": seed}, sort_keys=True)
        digest = hashlib.sha256(origin.encode()).hexdigest()
        return replace(self, name=f"{self.name}-{kind}-{seed}", digest=digest, weights=weights)

    def _read(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
        """Scaled gene vectors ``(n_cells, n_tokens, d_model)``, 0 at padding, and what is padding."""
        if genes.ndim != 2 or genes.shape != values.shape or genes.shape[1] > self.max_genes:
            raise BadInputError(
                f"Genes {genes.shape} and values {values.shape} must have the same two dimensions, "
                f"at most {self.max_genes} genes per cell."
            )
        padded = torch.from_numpy(genes < 0)
        vectors = self.weights["embedding"][torch.from_numpy(np.where(genes < 0, 0, genes))]
        return vectors * torch.from_numpy(np.where(genes < 0, 0, values))[:, :, None], padded

    def _attend(self, states: Tensor, padded: Tensor) -> Tensor:
        """Attention ``(n_cells, n_heads, n_tokens, n_tokens)``, row = query, column = key."""
        query, key = (torch.einsum("hke,cte->chtk", self.weights[part], states) for part in ("query", "key"))
        scores: Tensor = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        return scores.masked_fill(padded[:, None, None, :], -torch.inf).softmax(dim=-1)


class StaticEmbeddingReader:
    """Reads folders of ``embedding.safetensors`` and ``genes.txt``; a ``manifoldzoo.extractors.CheckpointReader``."""

    name = "static-embedding"

    def recognises(self, folder: Path) -> bool:
        """Tell from the names of its files."""
        return (folder / WEIGHTS).is_file() and (folder / GENES).is_file()

    def read(self, folder: Path) -> StaticEmbedding:
        """Read a folder.

        Raises
        ------
        CheckpointError
            If a file is missing or damaged, or the two do not fit together.
        """
        contents = [_content(folder / name) for name in (WEIGHTS, GENES)]
        weights = _parse_weights(folder / WEIGHTS, contents[0])
        genes = _parse_genes(folder / GENES, contents[1])
        if len(genes) != len(weights["embedding"]):
            raise CheckpointError(
                f"{folder / GENES} names {len(genes)} genes for {len(weights['embedding'])} vectors in {WEIGHTS}."
            )
        digest = hashlib.sha256()
        for content in contents:
            digest.update(hashlib.sha256(content).digest())
        return StaticEmbedding(folder.resolve().name, _licence(folder / README), digest.hexdigest(), genes, weights)


def _content(path: Path) -> bytes:
    """Bytes of a file, read once so that what is hashed is what is parsed."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def _parse_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """The five matrices, of shapes that fit together."""
    try:
        found = load(content)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}.", "Download it again.") from error
    if set(found) != set(PARTS):
        raise CheckpointError(f"{path} holds {', '.join(sorted(found)) or 'nothing'}, expected {', '.join(PARTS)}.")
    shapes = {part: tuple(found[part].shape) for part in PARTS}
    n_heads, d_head, d_model = (*shapes["query"], 0, 0, 0)[:3]
    inward, outward = (n_heads, d_head, d_model), (n_heads, d_model, d_head)
    expected = {"query": inward, "key": inward, "value": inward, "output": outward}
    if 0 in inward or shapes["embedding"][1:] != (d_model,) or any(shapes[part] != expected[part] for part in expected):
        raise CheckpointError(f"{path} holds matrices of the shapes {shapes}, which do not fit together.")
    for part in PARTS:
        if not found[part].is_floating_point() or not bool(found[part].isfinite().all()):
            raise CheckpointError(f"{path}: {part} is {found[part].dtype} or not finite, expected finite floats.")
    return {part: found[part].to(torch.float32).contiguous() for part in PARTS}


def _parse_genes(path: Path, content: bytes) -> tuple[str, ...]:
    """One name a line, each once."""
    try:
        genes = tuple(content.decode("utf-8").splitlines())
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8: {error}.") from error
    if not all(gene.strip() == gene and gene for gene in genes) or len(set(genes)) != len(genes):
        raise CheckpointError(f"{path} has empty, padded or repeated lines, expected one gene a line.")
    return genes


def _licence(path: Path) -> str:
    """What the header of a README says."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(r"^license:\s*(\S+)\s*$", text, re.MULTILINE)
    return found[1] if found else "not stated"

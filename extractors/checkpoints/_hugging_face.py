"""The checkpoint that all families of the ``transformers`` library make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError
from ...cards._names import canonical_json, sha256_bytes
from ._files import CheckpointFile
from ._hugging_face_network import Network
from ._hugging_face_tokens import Vocabulary
from ._interface import HeadWeights, InputScale, check_batch


@dataclass(frozen=True, eq=False)
class TransformersCheckpoint:
    """A frozen model of the ``transformers`` library; satisfies ``Checkpoint``.

    Attributes
    ----------
    name
        Name of the folder.
    family
        ``"geneformer"`` or ``"cell2sentence"``.
    licence
        ``license`` in the metadata of ``README.md``, ``"not stated"`` where there is none.
    digest
        SHA-256 over name, size and SHA-256 of ``files``.
    files
        All files read.
    ignored_keys
        Weights and buffers in the files that are known and not needed, such as heads for training.
    network
        The model.
    vocabulary
        How genes and cells become tokens.
    """

    name: str
    family: str
    licence: str
    digest: str
    files: tuple[CheckpointFile, ...] = field(repr=False)
    ignored_keys: tuple[str, ...] = field(repr=False)
    network: Network = field(repr=False)
    vocabulary: Vocabulary = field(repr=False)
    scale: InputScale = "log1p"

    @property
    def genes(self) -> tuple[str, ...]:
        """Genes that indices refer to."""
        return self.vocabulary.genes

    @property
    def n_layers(self) -> int:
        """Number of transformer layers."""
        return len(self.network.layers)

    @property
    def n_heads(self) -> int:
        """Number of attention heads per layer."""
        return int(self.network.model.config.num_attention_heads)

    @property
    def d_model(self) -> int:
        """Width of the hidden state."""
        return int(self.network.model.config.hidden_size)

    @property
    def max_genes(self) -> int:
        """Most genes the model reads of one cell, special tokens not counted."""
        return self.vocabulary.max_genes

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which genes the model has tokens for, ``(n_names,)``."""
        return self.vocabulary.knows(names)

    def with_genes(self, names: Sequence[str]) -> TransformersCheckpoint:
        """Return the same model with ``genes`` set to ``names``, in their order.

        Raises
        ------
        GeneError
            If the model does not know a name, or two names are the same tokens.
        """
        return replace(self, vocabulary=self.vocabulary.with_genes(names))

    def attention(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False
    ) -> Iterator[Tensor]:
        """Yield post-softmax attention between the genes of each cell, one layer at a time.

        Parameters and what is yielded are those of ``Checkpoint.attention``. Rows sum to one where a model has no
        special tokens, to less where it has. The attention of models that read from left to right is left as it is:
        0 for genes that stand after the query in the cell's sentence.

        Raises
        ------
        BadInputError
            If the shapes differ, a value is not finite, an index names no gene or a cell has more than ``max_genes``.
        """
        self._check(genes, values)
        tokens = self.vocabulary.write(genes, values)
        return (tokens.between_genes(maps) for maps in self.network.maps(tokens, weighted=weighted))

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        """Return the last hidden state averaged over the tokens of a cell's genes, ``(n_cells, d_model)`` float32.

        Parameters and errors are those of ``attention``.
        """
        self._check(genes, values)
        tokens = self.vocabulary.write(genes, values)
        share = torch.from_numpy(tokens.of_genes).to(torch.float32)
        share /= share.sum(dim=1, keepdim=True).clamp(min=1)
        return torch.einsum("ct,ctd->cd", share, self.network.run(tokens))

    def embedding(self) -> Tensor:
        """Return the embedding of each gene from the table of tokens, ``(n_genes, d_model)`` float32.

        Averaged over the tokens of a gene.
        """
        table = self.network.embeddings
        rows = [table[torch.from_numpy(ids)].mean(dim=0) for ids in self.vocabulary.spelling]
        return torch.stack(rows) if rows else table.new_zeros((0, table.shape[1]))

    def heads(self, layer: int) -> HeadWeights:
        """Return the projections of a layer's heads.

        Raises
        ------
        BadInputError
            If there is no such layer.
        """
        if not 0 <= layer < self.n_layers:
            raise BadInputError(f"{self.name} has no layer {layer}, its layers are 0 to {self.n_layers - 1}.")
        return self.network.heads(layer)[0]

    def random_initialisation(self, seed: int) -> TransformersCheckpoint:
        """Build the same architecture and vocabulary with the weights that the library starts training from.

        Normal with the configuration's ``initializer_range``. PyTorch's global random state is left as it was.
        """
        return self._derived("random", {"architecture_of": self.digest, "seed": seed}, self.network.fresh(seed), seed)

    def shuffled_weights(self, seed: int) -> TransformersCheckpoint:
        """Permute the entries within each weight matrix, leaving biases and norms: a control for their structure."""
        origin = {"shuffled_weights_of": self.digest, "seed": seed}
        return self._derived("shuffled", origin, self.network.shuffled(seed), seed)

    def _derived(self, kind: str, origin: dict[str, object], network: Network, seed: int) -> TransformersCheckpoint:
        """Return the checkpoint around other weights."""
        return replace(
            self,
            name=f"{self.name}-{kind}-{seed}",
            digest=sha256_bytes(canonical_json(origin)),
            files=(),
            ignored_keys=(),
            network=network,
        )

    def _check(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        """Refuse what is no batch of cells."""
        check_batch(genes, values, self.max_genes)
        if genes.size and genes.max() >= len(self.genes):
            raise BadInputError(f"Gene {genes.max()} is none of the {len(self.genes)} genes of {self.name}.")
        if not np.isfinite(values).all():
            raise BadInputError("Values are NaN or infinite, expected log1p of counts per 10,000.")

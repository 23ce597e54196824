"""Checkpoints of the scGPT family: args.json, vocab.json and a state_dict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError, CheckpointError, GeneError
from ...cards._names import canonical_json, sha256_bytes
from ._files import (
    CheckpointFile,
    digest_files,
    find_file,
    find_weights,
    parse_object,
    read_content,
    stated_licence,
)
from ._interface import HeadWeights, InputScale, check_batch
from ._scgpt_model import ScGPTModel
from ._scgpt_settings import CLS, ScGPTSettings, parse_settings, parse_vocabulary
from ._scgpt_values import input_values
from ._scgpt_weights import load_network, name_weights
from ._tensor_file import TensorFile

_SPECIAL = re.compile(r"^<.*>$")


@dataclass(frozen=True, eq=False)
class ScGPTCheckpoint:
    """A frozen model in scGPT's layout; satisfies ``Checkpoint``.

    Attributes
    ----------
    name
        Name of the folder.
    licence
        ``license`` in the metadata of ``README.md``, ``"not stated"`` where there is none.
    digest
        SHA-256 over name, size and SHA-256 of ``files``.
    files
        The three files read.
    settings
        Architecture and input.
    genes
        Vocabulary without special tokens, in the order of their ids, or the genes that were chosen of it.
    token_ids
        Token id of each gene, ``(n_genes,)`` int64.
    cls_id, pad_id
        Token ids of ``<cls>`` and of padding.
    offset
        Constant added to the prediction of each gene, ``(n_genes,)`` float32; ``None`` where the folder has
        no ``gene_offset.safetensors``.
    ignored_keys
        Weights in the file that neither hidden states nor predictions need.
    model
        The network, in evaluation mode and without gradients.
    full
        The same with all genes, where ``with_genes`` chose some.

    Notes
    -----
    A cell is read as ``<cls>`` followed by its genes. There are no positions: the order of genes changes nothing.
    """

    name: str
    licence: str
    digest: str
    files: tuple[CheckpointFile, ...]
    settings: ScGPTSettings
    genes: tuple[str, ...]
    token_ids: NDArray[np.int64]
    cls_id: int
    pad_id: int
    offset: NDArray[np.float32] | None
    ignored_keys: tuple[str, ...]
    model: ScGPTModel
    full: ScGPTCheckpoint | None = None

    @property
    def family(self) -> str:
        """``"scgpt"``, for scFormer's models as well."""
        return "scgpt"

    @property
    def n_layers(self) -> int:
        """Number of transformer layers."""
        return self.settings.n_layers

    @property
    def n_heads(self) -> int:
        """Number of attention heads per layer."""
        return self.settings.n_heads

    @property
    def d_model(self) -> int:
        """Width of the hidden state."""
        return self.settings.d_model

    @property
    def max_genes(self) -> int:
        """Most genes read of one cell: the longest sequence less ``<cls>``."""
        return self.settings.max_seq_len - 1

    @property
    def scale(self) -> InputScale:
        """``"counts"`` for models of raw counts; others make what they read of ``log1p`` values."""
        return "counts" if self.settings.input_style == "counts" else "log1p"

    @cached_property
    def _positions(self) -> dict[str, int]:
        """Index of each gene."""
        return {gene: index for index, gene in enumerate(self.genes)}

    def knows(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Tell which genes have a token, ``(n_names,)``; special tokens are no genes."""
        known = (self.full or self)._positions
        return np.array([name in known for name in names], dtype=np.bool_)

    def with_genes(self, names: Sequence[str]) -> ScGPTCheckpoint:
        """Return the same model with ``genes`` set to ``names``, in their order; the digest stays.

        Raises
        ------
        GeneError
            If a name has no token or stands twice.
        """
        full = self.full or self
        unknown = [name for name in names if name not in full._positions]
        if unknown:
            raise GeneError(f"{self.name} has no token for {len(unknown)} of {len(names)} genes: {unknown[0]!r}, ...")
        if len(set(names)) != len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise GeneError(f"{twice!r} stands twice among the genes.")
        index = np.array([full._positions[name] for name in names], dtype=np.int64)
        offset = None if full.offset is None else full.offset[index]
        return replace(self, genes=tuple(names), token_ids=full.token_ids[index], offset=offset, full=full)

    def attention(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool = False
    ) -> Iterator[Tensor]:
        """Yield post-softmax attention between the genes of each cell, one layer at a time.

        Parameters
        ----------
        genes
            Indices into ``self.genes``, ``(n_cells, n_tokens)``, ``PADDING`` at the end of shorter cells.
        values
            Expression on the scale ``scale``, ``(n_cells, n_tokens)``.
        weighted
            Multiply the attention to each gene by the length of what the head would add for it,
            ``||output_h (value_h x_j + b_v)||`` (Kobayashi et al. 2020, doi:10.18653/v1/2020.emnlp-main.574).

        Yields
        ------
        Tensor
            ``(n_cells, n_heads, n_tokens, n_tokens)`` float32, row = query, column = key, the caller's to keep or
            change. ``<cls>`` stands first in the sequence, takes part in the softmax and is left out of the result,
            so rows sum to less than one.

        Raises
        ------
        BadInputError
            If the shapes differ, a cell has more than ``max_genes`` genes, or an index is out of range.
        """
        ids, inputs, mask = self._sequence(genes, values)
        hidden = self.model.embed(ids, inputs)
        layers = self.model.layers
        for index, layer in enumerate(layers):
            attention, value = layer.attend(hidden, mask)
            if index + 1 < len(layers):
                hidden = layer.finish(hidden, layer.self_attn.mix(attention, value))
            between_genes = attention[:, :, 1:, 1:]
            if weighted:
                between_genes *= layer.self_attn.lengths(value)[:, :, None, 1:]
            del attention
            yield between_genes

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        """Return the last hidden state averaged over the genes of each cell, ``(n_cells, d_model)`` float32.

        Parameters are those of ``attention``; ``<cls>`` is left out of the average.
        """
        ids, inputs, mask = self._sequence(genes, values)
        hidden = self.model.hidden(ids, inputs, mask)[:, 1:]
        if mask is None:
            return hidden.mean(dim=1)
        kept = (~mask[:, 1:]).to(hidden.dtype)
        # Where everything is padding there is nothing to average; what stands at padding may be anything.
        total = hidden.masked_fill(mask[:, 1:, None], 0.0).sum(dim=1)
        return total / kept.sum(dim=1, keepdim=True).clamp(min=1)

    def predict(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], *, masked: NDArray[np.bool_] | None = None
    ) -> Tensor:
        """Predict the value of every gene of each cell, ``(n_cells, n_tokens)`` float32.

        Parameters
        ----------
        genes, values
            As for ``attention``. The values under ``masked`` are hidden from the model, except that a model of binned
            values takes the bins from all of them, as in its training.
        masked
            Positions to predict from the others, ``(n_cells, n_tokens)``; none by default, and then the model
            reproduces what it was shown.

        Returns
        -------
        Tensor
            On the scale that the model was trained on: ``log1p``, scaled counts, bins or counts; ``offset`` is added
            where there is one. What stands at padded positions means nothing.

        Raises
        ------
        BadInputError
            As for ``attention``, and if ``masked`` has another shape.
        CheckpointError
            If the decoder reads more than the hidden state, such as the batch of a cell.
        """
        if self.model.decoder is None:
            raise CheckpointError(
                f"{self.name} predicts from the batch or modality as well, which are not known here.",
                "Attention and hidden states can be read.",
            )
        if masked is not None and masked.shape != values.shape:
            raise BadInputError(f"Masked positions {masked.shape} and values {values.shape} must have one shape.")
        predicted = self.model.decode(self.model.hidden(*self._sequence(genes, values, masked)))[:, 1:]
        return predicted if self.offset is None else predicted + torch.from_numpy(self.offset[genes])

    def _sequence(
        self, genes: NDArray[np.int64], values: NDArray[np.float32], masked: NDArray[np.bool_] | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Token ids, inputs and padding of each cell, ``<cls>`` first, ``(n_cells, n_tokens + 1)``."""
        check_batch(genes, values, self.max_genes)
        if genes.size and genes.max() >= len(self.genes):
            raise BadInputError(f"Gene index {genes.max()} is out of range, expected at most {len(self.genes) - 1}.")
        padded = genes < 0
        read = input_values(np.where(padded, np.float32(0), values), self.settings.input_style, self.settings.n_bins)
        if masked is not None:
            read = np.where(masked & ~padded, np.float32(self.settings.mask_value), read)
        ids = np.full((len(genes), genes.shape[1] + 1), self.cls_id, dtype=np.int64)
        ids[:, 1:] = np.where(padded, self.pad_id, self.token_ids[genes])
        inputs = np.full(ids.shape, self.settings.cls_value, dtype=np.float32)
        inputs[:, 1:] = read
        mask = torch.from_numpy(np.pad(padded, ((0, 0), (1, 0)))) if padded.any() else None
        return torch.from_numpy(ids), torch.from_numpy(inputs), mask

    def embedding(self) -> Tensor:
        """Return the vector of each gene before any context or value, ``(n_genes, d_model)`` float32, normalised."""
        embedded: Tensor = self.model.encoder(torch.from_numpy(self.token_ids))
        return embedded

    def heads(self, layer: int) -> HeadWeights:
        """Return the projections of a layer's heads.

        Raises
        ------
        BadInputError
            If there is no such layer.
        """
        if not 0 <= layer < self.n_layers:
            raise BadInputError(f"Layer {layer} is out of range, expected 0 to {self.n_layers - 1}.")
        attention = self.model.layers[layer].self_attn
        query, key, value = attention.in_proj_weight.view(3, self.n_heads, -1, self.d_model)
        output = attention.out_proj.weight.view(self.d_model, self.n_heads, -1).transpose(0, 1)
        return HeadWeights(query=query, key=key, value=value, output=output)

    def random_initialisation(self, seed: int) -> ScGPTCheckpoint:
        """Build the same architecture and vocabulary with the weights that training with ``seed`` starts from.

        The global random state of PyTorch is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.settings.build(self.model.encoder.embedding.num_embeddings, self.pad_id)
        return self._control(f"{self.name}-random-{seed}", "architecture_of", seed, model, keep_offset=False)

    def shuffled_weights(self, seed: int) -> ScGPTCheckpoint:
        """Permute the entries within each weight matrix, leaving biases, norms and ``offset``.

        The query, key and value blocks of an attention projection are matrices of their own.
        """
        rng = np.random.default_rng(seed)
        shuffled = {}
        for key, tensor in self.model.state_dict().items():
            if tensor.ndim < 2:
                shuffled[key] = tensor
                continue
            entries = tensor.numpy().copy()
            for block in np.split(entries, 3) if key.endswith("in_proj_weight") else [entries]:
                rng.shuffle(block.reshape(-1))
            shuffled[key] = torch.from_numpy(entries)
        with torch.device("meta"):
            model = self.settings.build(self.model.encoder.embedding.num_embeddings, self.pad_id)
        model.load_state_dict(shuffled, assign=True)
        model.requires_grad_(requires_grad=False)
        return self._control(f"{self.name}-shuffled-{seed}", "shuffled_weights_of", seed, model, keep_offset=True)

    def _control(self, name: str, what: str, seed: int, model: ScGPTModel, *, keep_offset: bool) -> ScGPTCheckpoint:
        """Put another network in the place of this one, under a digest that says how it was made."""
        return replace(
            self,
            name=name,
            digest=sha256_bytes(canonical_json({what: self.digest, "seed": seed})),
            files=(),
            offset=self.offset if keep_offset else None,
            ignored_keys=(),
            model=model,
            full=None if self.full is None else self.full._control(name, what, seed, model, keep_offset=keep_offset),
        )


def read_scgpt(folder: str | Path) -> ScGPTCheckpoint:
    """Read a checkpoint folder in scGPT's layout, or in that of its predecessor scFormer.

    Parameters
    ----------
    folder
        Holds ``args.json``, ``vocab.json``, the weights as ``model.safetensors``, else ``best_model.pt``, else a
        single ``*.pt``, and perhaps ``gene_offset.safetensors`` and a ``README.md`` whose metadata state the licence.

    Returns
    -------
    ScGPTCheckpoint
        Half-precision weights are brought to float32; flash-attention's ``Wqkv`` is read as ``in_proj``. Reading takes
        little more memory than the weights in float32.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged or changes meanwhile, asks for code to be run, or contradicts another; if the
        weights are not finite; if the model computes hidden states in a way that this reader does not.
    """
    folder = Path(folder)
    args_path, vocab_path = find_file(folder, "args.json"), find_file(folder, "vocab.json")
    weights_path = find_weights(folder)
    args_content, args_file = read_content(args_path)
    args = parse_object(args_path, args_content)
    vocab_content, vocab_file = read_content(vocab_path)
    with TensorFile(weights_path) as file:
        weights = name_weights(file)
        settings = parse_settings(args_path, args, weights.decoder)
        ids = parse_vocabulary(vocab_path, parse_object(vocab_path, vocab_content), settings.pad_token)
        pad_id = ids[settings.pad_token]
        model, settings, ignored = load_network(file, weights, settings, len(ids), pad_id)
        files = (args_file, vocab_file, file.identity())
    special = {settings.pad_token, CLS}
    genes = sorted((token for token in ids if token not in special and not _SPECIAL.match(token)), key=ids.__getitem__)
    return ScGPTCheckpoint(
        name=folder.resolve().name,
        licence=stated_licence(folder / "README.md"),
        digest=digest_files(files),
        files=files,
        settings=settings,
        genes=tuple(genes),
        token_ids=np.array([ids[gene] for gene in genes], dtype=np.int64),
        cls_id=ids[CLS],
        pad_id=pad_id,
        offset=_read_offset(folder / "gene_offset.safetensors", len(genes)),
        ignored_keys=ignored,
        model=model,
    )


def _read_offset(path: Path, n_genes: int) -> NDArray[np.float32] | None:
    """Read the per-gene constant of the prediction, where there is one."""
    if not path.is_file():
        return None
    with TensorFile(path) as file:
        if "offset" not in file.tensors or file.tensors["offset"].shape != (n_genes,):
            raise CheckpointError(f"{path} must hold one tensor named offset with {n_genes} values, one per gene.")
        values: NDArray[np.float32] = file.read("offset").numpy()
    return values

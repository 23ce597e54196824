"""Reading checkpoints in scGPT's layout: args.json, vocab.json and a state_dict."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError, CheckpointError
from ._files import (
    CheckpointFile,
    as_float32,
    digest_files,
    find_file,
    parse_object,
    parse_weights,
    read_content,
    stated_licence,
)
from ._scgpt_model import ScGPTModel

_HEADS_NOT_READ = ("mvc_decoder.", "cls_decoder.", "flag_encoder.", "grad_reverse_discriminator.")
_LAYER = re.compile(r"^transformer_encoder\.layers\.(\d+)\.")
_SPECIAL = re.compile(r"^<.*>$")


@dataclass(frozen=True)
class ScGPTSettings:
    """What ``args.json`` says of the architecture.

    Attributes
    ----------
    n_layers, n_heads, d_model, d_hid
        ``nlayers``, ``nheads``, ``embsize`` and ``d_hid``.
    max_seq_len
        Longest sequence, ``<cls>`` included.
    pre_norm
        Whether layers normalise before attention; scGPT's default is after.
    pad_token
        Name of the padding token.
    """

    n_layers: int
    n_heads: int
    d_model: int
    d_hid: int
    max_seq_len: int
    pre_norm: bool
    pad_token: str


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
        Architecture.
    genes
        Vocabulary without special tokens, in the order of their ids.
    token_ids
        Token id of each gene, ``(n_genes,)`` int64.
    cls_id, pad_id
        Token ids of ``<cls>`` and of padding.
    offset
        Constant added to the prediction of each gene, ``(n_genes,)`` float32; ``None`` where the folder has
        no ``gene_offset.safetensors``.
    ignored_keys
        Weights in the file that attention does not need.
    model
        The network, in evaluation mode and without gradients.
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

    def attention(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Iterator[Tensor]:
        """Yield post-softmax attention between the genes of each cell, one layer at a time.

        Parameters
        ----------
        genes
            Indices into ``self.genes``, ``(n_cells, n_tokens)``, ``PADDING`` at the end of shorter cells.
        values
            ``log1p`` of counts scaled to 10,000 per cell, ``(n_cells, n_tokens)``.

        Yields
        ------
        Tensor
            ``(n_cells, n_heads, n_tokens, n_tokens)`` float32, row = query, column = key. ``<cls>`` stands
            first in the sequence with value 0, takes part in the softmax and is left out of the result,
            so rows sum to less than one.

        Raises
        ------
        BadInputError
            If the shapes differ or a cell has more than ``max_genes`` genes.
        """
        if genes.ndim != 2 or genes.shape != values.shape or genes.shape[1] > self.max_genes:
            raise BadInputError(
                f"Genes {genes.shape} and values {values.shape} must have the same two dimensions, "
                f"at most {self.max_genes} genes per cell."
            )
        padded = genes < 0
        ids = np.full((len(genes), genes.shape[1] + 1), self.cls_id, dtype=np.int64)
        ids[:, 1:] = np.where(padded, self.pad_id, self.token_ids[genes])
        inputs = np.zeros(ids.shape, dtype=np.float32)
        inputs[:, 1:] = np.where(padded, 0.0, values)
        mask = None
        if padded.any():
            mask = torch.from_numpy(np.pad(padded, ((0, 0), (1, 0))))
        hidden = self.model.embed(torch.from_numpy(ids), torch.from_numpy(inputs))
        for layer in self.model.transformer_encoder.layers:
            hidden, attention = layer(hidden, mask)
            yield attention[:, :, 1:, 1:]

    def random_initialisation(self, seed: int) -> ScGPTCheckpoint:
        """Build the same architecture and vocabulary with the weights that training with ``seed`` starts from.

        The global random state of PyTorch is left as it was.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = _build(self.settings, self.model.encoder.embedding.num_embeddings, self.pad_id)
        origin = json.dumps({"architecture_of": self.digest, "seed": seed}, sort_keys=True, separators=(",", ":"))
        return replace(
            self,
            name=f"{self.name}-random-{seed}",
            digest=hashlib.sha256(origin.encode()).hexdigest(),
            files=(),
            offset=None,
            ignored_keys=(),
            model=_frozen(model),
        )


def read_scgpt(folder: str | Path) -> ScGPTCheckpoint:
    """Read a checkpoint folder in scGPT's layout.

    Parameters
    ----------
    folder
        Holds ``args.json``, ``vocab.json``, the weights as ``model.safetensors`` or else ``best_model.pt``,
        and perhaps ``gene_offset.safetensors`` and a ``README.md`` whose metadata state the licence.

    Returns
    -------
    ScGPTCheckpoint
        Half-precision weights are brought to float32; flash-attention's ``Wqkv`` is read as ``in_proj``.

    Raises
    ------
    CheckpointError
        If a file is missing or damaged, asks for code to be run, or contradicts another; if the weights are
        not finite; if the model reads anything but ``log1p`` values.
    """
    folder = Path(folder)
    args_path = find_file(folder, "args.json")
    vocab_path = find_file(folder, "vocab.json")
    weights_path = find_file(folder, "model.safetensors", "best_model.pt")
    args_content, args_file = read_content(args_path)
    settings = _parse_settings(args_path, parse_object(args_path, args_content))
    vocab_content, vocab_file = read_content(vocab_path)
    ids = _parse_vocabulary(vocab_path, parse_object(vocab_path, vocab_content), settings.pad_token)
    weights_content, weights_file = read_content(weights_path)
    weights = _rename(weights_path, parse_weights(weights_path, weights_content))
    ignored = tuple(sorted(key for key in weights if key.startswith(_HEADS_NOT_READ)))
    used = {key: tensor for key, tensor in weights.items() if key not in ignored}
    _check_sizes(weights_path, used, settings, len(ids))
    with torch.device("meta"):
        model = _build(settings, len(ids), ids[settings.pad_token])
    _check_keys(weights_path, used, model)
    model.load_state_dict({key: as_float32(weights_path, key, used[key]) for key in used}, assign=True)
    genes = tuple(sorted((gene for gene in ids if not _SPECIAL.match(gene)), key=ids.__getitem__))
    files = (args_file, vocab_file, weights_file)
    return ScGPTCheckpoint(
        name=folder.resolve().name,
        licence=stated_licence(folder / "README.md"),
        digest=digest_files(files),
        files=files,
        settings=settings,
        genes=genes,
        token_ids=np.array([ids[gene] for gene in genes], dtype=np.int64),
        cls_id=ids["<cls>"],
        pad_id=ids[settings.pad_token],
        offset=_read_offset(folder / "gene_offset.safetensors", len(genes)),
        ignored_keys=ignored,
        model=_frozen(model),
    )


def _parse_settings(path: Path, args: dict[str, object]) -> ScGPTSettings:
    """Take the architecture from ``args.json``."""
    if args.get("input_style") != "log1p":
        raise CheckpointError(
            f"{path} states input_style {args.get('input_style')!r}; only 'log1p' is supported.",
            "Models that read binned or raw counts need a reader of their own.",
        )
    if args.get("input_emb_style", "continuous") != "continuous":
        raise CheckpointError(f"{path} states input_emb_style {args['input_emb_style']!r}, expected 'continuous'.")
    pre_norm, pad_token = args.get("pre_norm", False), args.get("pad_token", "<pad>")
    if not isinstance(pre_norm, bool):
        raise CheckpointError(f"{path} states pre_norm {pre_norm!r}, expected true or false.")
    if not isinstance(pad_token, str):
        raise CheckpointError(f"{path} states pad_token {pad_token!r}, expected the name of a token.")
    settings = ScGPTSettings(
        n_layers=_count(path, args, "nlayers"),
        n_heads=_count(path, args, "nheads"),
        d_model=_count(path, args, "embsize"),
        d_hid=_count(path, args, "d_hid"),
        max_seq_len=_count(path, args, "max_seq_len", minimum=2),
        pre_norm=pre_norm,
        pad_token=pad_token,
    )
    if settings.d_model % settings.n_heads:
        raise CheckpointError(f"{path}: embsize {settings.d_model} is not a multiple of nheads {settings.n_heads}.")
    return settings


def _count(path: Path, args: dict[str, object], key: str, minimum: int = 1) -> int:
    """Take a whole number from ``args.json``."""
    value = args.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise CheckpointError(f"{path} states {key} {value!r}, expected a whole number of at least {minimum}.")
    return value


def _parse_vocabulary(path: Path, vocabulary: dict[str, object], pad_token: str) -> dict[str, int]:
    """Check that ``vocab.json`` numbers its tokens 0 to n - 1 and has the special ones."""
    ids = {
        token: index for token, index in vocabulary.items() if isinstance(index, int) and not isinstance(index, bool)
    }
    if len(ids) != len(vocabulary) or sorted(ids.values()) != list(range(len(vocabulary))):
        raise CheckpointError(
            f"{path} must number its {len(vocabulary)} tokens from 0 to {len(vocabulary) - 1}, each once."
        )
    missing = [token for token in (pad_token, "<cls>") if token not in ids]
    if missing:
        raise CheckpointError(f"{path} has no token {missing[0]}.")
    return ids


def _rename(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give flash-attention's packed projection the name it has in PyTorch; both stack query, key and value."""
    renamed = {key.replace(".self_attn.Wqkv.", ".self_attn.in_proj_"): tensor for key, tensor in weights.items()}
    if len(renamed) != len(weights):
        raise CheckpointError(f"{path} holds the attention projection twice, as Wqkv and as in_proj.")
    return renamed


def _check_sizes(path: Path, weights: dict[str, Tensor], settings: ScGPTSettings, n_tokens: int) -> None:
    """Compare the weights with vocabulary and settings before a model of the stated size is built."""
    embedding = weights.get("encoder.embedding.weight")
    if embedding is None or embedding.ndim != 2:
        raise CheckpointError(
            f"{path} has no gene embedding (encoder.embedding.weight) among its {len(weights)} weights.",
            "Check that the weights belong to a model of the scGPT layout.",
        )
    if len(embedding) != n_tokens:
        raise CheckpointError(f"{path} embeds {len(embedding)} tokens but vocab.json names {n_tokens}.")
    if embedding.shape[1] != settings.d_model:
        raise CheckpointError(f"{path} has width {embedding.shape[1]} but args.json states embsize {settings.d_model}.")
    layers = {int(found[1]) for key in weights if (found := _LAYER.match(key))}
    highest = max(layers, default=-1)
    if not len(layers) == highest + 1 == settings.n_layers:
        raise CheckpointError(
            f"{path} holds {len(layers)} layers (highest index {highest}) "
            f"but args.json states nlayers {settings.n_layers}."
        )
    key = "transformer_encoder.layers.0.linear1.weight"
    if key not in weights:
        raise CheckpointError(f"{path} lacks {key}.")
    shape, expected = tuple(weights[key].shape), (settings.d_hid, settings.d_model)
    if shape != expected:
        raise CheckpointError(
            f"{path}: {key} has shape {shape}, expected {expected} after d_hid {settings.d_hid} of args.json."
        )


def _check_keys(path: Path, weights: dict[str, Tensor], model: ScGPTModel) -> None:
    """Compare names and shapes with those of the architecture."""
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing:
        raise CheckpointError(f"{path} lacks {len(missing)} weights: {_few(missing)}.")
    if unknown:
        raise CheckpointError(
            f"{path} holds {len(unknown)} weights that this reader does not know: {_few(unknown)}.",
            "They may change what the model computes, so they are not skipped.",
        )
    for key, shape in expected.items():
        if tuple(weights[key].shape) != shape:
            raise CheckpointError(f"{path}: {key} has shape {tuple(weights[key].shape)}, expected {shape}.")


def _few(names: list[str]) -> str:
    """First three names of a list."""
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")


def _build(settings: ScGPTSettings, n_tokens: int, pad_id: int) -> ScGPTModel:
    """Build the network that the settings describe."""
    return ScGPTModel(
        n_tokens=n_tokens,
        pad_id=pad_id,
        d_model=settings.d_model,
        n_heads=settings.n_heads,
        n_layers=settings.n_layers,
        d_hid=settings.d_hid,
        pre_norm=settings.pre_norm,
    )


def _frozen(model: ScGPTModel) -> ScGPTModel:
    """Put a model in evaluation mode, without gradients."""
    return model.eval().requires_grad_(requires_grad=False)


def _read_offset(path: Path, n_genes: int) -> NDArray[np.float32] | None:
    """Read the per-gene constant of the prediction, where there is one."""
    if not path.is_file():
        return None
    tensors = parse_weights(path, read_content(path)[0])
    offset = tensors.get("offset")
    if offset is None or tuple(offset.shape) != (n_genes,):
        raise CheckpointError(f"{path} must hold one tensor named offset with {n_genes} values, one per gene.")
    values: NDArray[np.float32] = as_float32(path, "offset", offset).numpy()
    return values

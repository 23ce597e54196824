"""From the tensors of a file to the network they belong to."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

import torch

from ...cards._errors import CheckpointError
from ._files import few
from ._recognise import names_look_like
from ._scgpt_model import DecoderKind, ScGPTModel
from ._scgpt_settings import ScGPTSettings
from ._tensor_file import TensorFile

_NOT_READ = (
    "mvc_decoder.",
    "cls_decoder.",
    "flag_encoder.",
    "grad_reverse_discriminator.",
    "batch_encoder.",
    "mod_encoder.",
    "decoder.zero_logit.",
    "bn.num_batches_tracked",
)
"""What serves other outputs than hidden states and predicted values: other decoders, and what only they read."""
_NOT_COMPUTED = {
    "dsbn.": "normalise by the batch a cell belongs to, which is not known here",
    "pert_encoder.": "mark genes as perturbed, which no gene is here",
    "transformer_encoder.fast_transformer_encoder.": "compute linear attention, which has no attention matrix",
}
_CROSS_ATTENTION = ".self_attn.cross_attn."
_LAYER = re.compile(r"^transformer_encoder\.layers\.(\d+)\.")
_WRAPPED = re.compile(r"\.self_attn\._impl\.")
_FLASH = re.compile(r"\.self_attn\.Wqkv\.")
_BATCH_NORM = "bn.running_mean"


class Weights(NamedTuple):
    """Which tensor of a file is which weight of the network.

    ``sources`` names, for each weight, the tensors that may be meant, more than one where a file holds the attention
    projection under several names.
    """

    sources: dict[str, list[str]]
    ignored: tuple[str, ...]
    decoder: DecoderKind
    batch_norm: bool


def name_weights(file: TensorFile) -> Weights:
    """Bring names to those of the network.

    ``module.`` of parallel training is dropped. Flash attention's packed projection, ``Wqkv``, is PyTorch's
    ``in_proj``: both stack query, key and value.

    Raises
    ------
    CheckpointError
        If there is no gene embedding, or a weight that changes hidden states in a way that is not computed here.
    """
    prefix = "module." if file.tensors and all(key.startswith("module.") for key in file.tensors) else ""
    names = {key: key.removeprefix(prefix) for key in file.tensors}
    for start, reason in _NOT_COMPUTED.items():
        refused = [key for key, name in names.items() if name.startswith(start)]
        if refused:
            raise CheckpointError(f"{file.path} holds weights that {reason}: {few(sorted(refused))}.")
    if "encoder.embedding.weight" not in names.values():
        family = names_look_like(names.values())
        raise CheckpointError(
            f"{file.path} has no gene embedding (encoder.embedding.weight) among its {len(names)} weights"
            + (f"; they look like those of a {family} checkpoint." if family else "."),
            "Check that the weights belong to a model of the scGPT layout.",
        )
    decoder = _decoder(file, {name: key for key, name in names.items()})
    sources = defaultdict(list)
    ignored = []
    for key, name in names.items():
        if (
            name.startswith(_NOT_READ)
            or _CROSS_ATTENTION in name
            or (decoder == "none" and name.startswith("decoder."))
        ):
            ignored.append(key)
        else:
            sources[_FLASH.sub(".self_attn.in_proj_", _WRAPPED.sub(".self_attn.", name))].append(key)
    return Weights(dict(sources), tuple(sorted(ignored)), decoder, _BATCH_NORM in sources)


def _decoder(file: TensorFile, keys: dict[str, str]) -> DecoderKind:
    """Tell scFormer's decoder, scGPT's, and one that reads more than the hidden state, such as the batch of a cell."""
    if "decoder.weight" in keys:
        return "linear"
    width, first = (keys.get(name) for name in ("encoder.enc_norm.weight", "decoder.fc.0.weight"))
    if width is None or first is None:
        return "mlp"
    return "none" if file.tensors[first].shape[1:] == (2 * file.tensors[width].shape[0],) else "mlp"


def load_network(
    file: TensorFile, weights: Weights, settings: ScGPTSettings, n_tokens: int, pad_id: int
) -> tuple[ScGPTModel, ScGPTSettings, tuple[str, ...]]:
    """Build the network and fill it, reading one tensor at a time.

    Returns
    -------
    ScGPTModel
        In evaluation mode and without gradients.
    ScGPTSettings
        Completed by what only the weights tell.
    tuple of str
        Tensors of the file that were left out.

    Raises
    ------
    CheckpointError
        If weights and settings do not belong together, or a weight is not finite.
    """
    _check_sizes(file, weights, settings, n_tokens)
    settings = replace(settings, decoder=weights.decoder, batch_norm=weights.batch_norm)
    with torch.device("meta"):
        model = settings.build(n_tokens, pad_id)
    chosen = _choose(file, weights, settings)
    _check_shapes(file, chosen, model)
    model.load_state_dict({name: file.read(key) for name, key in chosen.items()}, assign=True)
    if settings.batch_norm and bool((model.state_dict()["bn.running_var"] < 0).any()):
        raise CheckpointError(f"{file.path}: bn.running_var holds negative variances.")
    left_out = {key for keys in weights.sources.values() for key in keys} - set(chosen.values())
    return model.requires_grad_(requires_grad=False), settings, tuple(sorted({*weights.ignored, *left_out}))


def _choose(file: TensorFile, weights: Weights, settings: ScGPTSettings) -> dict[str, str]:
    """Pick one tensor for each weight.

    Where a file holds flash attention's projection beside PyTorch's and they differ, ``fast_transformer`` decides.
    """
    chosen = {}
    for name, keys in weights.sources.items():
        chosen[name] = keys[0]
        if len(keys) == 1 or _are_equal(file, keys):
            continue
        flash = [key for key in keys if _FLASH.search(_WRAPPED.sub(".self_attn.", key))]
        used = flash if settings.fast_transformer else [key for key in keys if key not in flash]
        if settings.fast_transformer is None or len(used) != 1:
            raise CheckpointError(
                f"{file.path} holds one weight twice, and not alike: {' and '.join(sorted(keys))}.",
                "State fast_transformer in args.json: true where Wqkv is used, false where in_proj is.",
            )
        chosen[name] = used[0]
    return chosen


def _are_equal(file: TensorFile, keys: list[str]) -> bool:
    """Whether tensors hold the same values."""
    if len({file.tensors[key].shape for key in keys}) > 1:
        return False
    first = file.read(keys[0])
    return all(torch.equal(first, file.read(key)) for key in keys[1:])


def _check_sizes(file: TensorFile, weights: Weights, settings: ScGPTSettings, n_tokens: int) -> None:
    """Compare the weights with vocabulary and settings before a model of the stated size is built."""
    path, shapes = file.path, {name: file.tensors[keys[0]].shape for name, keys in weights.sources.items()}
    embedding = shapes["encoder.embedding.weight"]
    if len(embedding) != 2 or embedding[0] != n_tokens:
        raise CheckpointError(f"{path} embeds {(*embedding, 0)[0]} tokens but vocab.json names {n_tokens}.")
    if embedding[1] != settings.d_model:
        raise CheckpointError(f"{path} has width {embedding[1]} but args.json states embsize {settings.d_model}.")
    layers = {int(found[1]) for name in shapes if (found := _LAYER.match(name))}
    highest = max(layers, default=-1)
    if not len(layers) == highest + 1 == settings.n_layers:
        raise CheckpointError(
            f"{path} holds {len(layers)} layers (highest index {highest}) "
            f"but args.json states nlayers {settings.n_layers}."
        )
    expected = {"transformer_encoder.layers.0.linear1.weight": (settings.d_hid, settings.d_model, "d_hid")}
    if settings.value_style == "category":
        expected["value_encoder.embedding.weight"] = (settings.n_bins + 2, settings.d_model, "n_bins")
    for name, (n_rows, n_columns, setting) in expected.items():
        if name not in shapes:
            raise CheckpointError(f"{path} lacks {name}.")
        if shapes[name] != (n_rows, n_columns):
            raise CheckpointError(
                f"{path}: {name} has shape {shapes[name]}, expected {n_rows, n_columns} "
                f"after {setting} {getattr(settings, setting)} of args.json."
            )


def _check_shapes(file: TensorFile, chosen: dict[str, str], model: ScGPTModel) -> None:
    """Compare names and shapes with those of the architecture."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = sorted(expected.keys() - chosen.keys())
    unknown = sorted(key for name, key in chosen.items() if name not in expected)
    if missing:
        raise CheckpointError(f"{file.path} lacks {len(missing)} weights: {few(missing)}.")
    if unknown:
        raise CheckpointError(
            f"{file.path} holds {len(unknown)} weights that this reader does not know: {few(unknown)}.",
            "They may change what the model computes, so they are not skipped.",
        )
    for name, shape in expected.items():
        found = file.tensors[chosen[name]].shape
        if found != shape:
            raise CheckpointError(f"{file.path}: {chosen[name]} has shape {found}, expected {shape}.")

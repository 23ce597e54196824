"""Random checkpoint folders in the layouts of the scGPT family, written without the reader they test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

GENES = tuple(f"GENE{index}" for index in range(12))
SPECIAL_TOKENS = ("<pad>", "<cls>", "<eoc>")

N_BINS = 51

InputStyle = Literal["log1p", "binned", "normed_raw", "counts"]
ValueStyle = Literal["continuous", "category", "scaling"]
Naming = Literal["in_proj", "Wqkv", "_impl.Wqkv"]


def tiny_scgpt_args(
    *,
    n_tokens: int,
    n_layers: int,
    n_heads: int,
    d_model: int,
    d_hid: int,
    input_style: str,
    value_style: str,
    pre_norm: bool,
) -> dict[str, Any]:
    """``args.json``; raw counts are scFormer's, which states no ``input_style``."""
    args: dict[str, Any] = {
        "pad_token": "<pad>",
        "pad_value": 0 if input_style == "counts" else -2,
        "mask_value": -1,
        "max_seq_len": n_tokens - len(SPECIAL_TOKENS) + 1,
        "nlayers": n_layers,
        "nheads": n_heads,
        "embsize": d_model,
        "d_hid": d_hid,
        "dropout": 0.2,
        "pre_norm": pre_norm,
    }
    if input_style != "counts":
        args |= {"input_style": input_style, "input_emb_style": value_style, "n_bins": N_BINS}
    if value_style == "category":
        args |= {"mask_value": N_BINS + 1, "pad_value": N_BINS}
    return args


def tiny_scgpt_weights(
    *, n_tokens: int, n_layers: int, d_model: int, d_hid: int, input_style: str, value_style: str, seed: int
) -> dict[str, torch.Tensor]:
    """Random weights, large enough for attention to differ from cell to cell, with norms and biases at work."""
    draw = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw) * (1.5 / shape[-1] ** 0.5)

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {
            f"{name}.weight": 1 + 0.2 * torch.randn(d_model, generator=draw),
            f"{name}.bias": 0.2 * torch.randn(d_model, generator=draw),
        }

    def linear(name: str, n_out: int, n_in: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": matrix(n_out, n_in), f"{name}.bias": 0.3 * torch.randn(n_out, generator=draw)}

    weights = {"encoder.embedding.weight": matrix(n_tokens, d_model), **norm("encoder.enc_norm")}
    if value_style == "continuous":
        weights |= {**linear("value_encoder.linear1", d_model, 1), **linear("value_encoder.linear2", d_model, d_model)}
        weights |= norm("value_encoder.norm")
    elif value_style == "category":
        weights |= {"value_encoder.embedding.weight": matrix(N_BINS + 2, d_model), **norm("value_encoder.enc_norm")}
    for index in range(n_layers):
        layer = f"transformer_encoder.layers.{index}"
        in_proj = linear("in_proj", 3 * d_model, d_model)
        weights[f"{layer}.self_attn.in_proj_weight"] = in_proj["in_proj.weight"]
        weights[f"{layer}.self_attn.in_proj_bias"] = in_proj["in_proj.bias"]
        weights |= linear(f"{layer}.self_attn.out_proj", d_model, d_model)
        weights |= {**linear(f"{layer}.linear1", d_hid, d_model), **linear(f"{layer}.linear2", d_model, d_hid)}
        weights |= {**norm(f"{layer}.norm1"), **norm(f"{layer}.norm2")}
    if input_style == "counts":
        return {**weights, **linear("decoder", 1, d_model), **linear("cls_decoder.out_layer", 3, d_model)}
    weights |= {**linear("decoder.fc.0", d_model, d_model), **linear("decoder.fc.2", d_model, d_model)}
    return {**weights, **linear("decoder.fc.4", 1, d_model)}


def write_tiny_scgpt(
    folder: Path,
    *,
    genes: Sequence[str] | None = None,
    n_layers: int = 3,
    n_heads: int = 2,
    d_model: int = 16,
    d_hid: int = 20,
    input_style: InputStyle = "log1p",
    value_style: ValueStyle = "continuous",
    pre_norm: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    naming: Naming = "in_proj",
    file: Literal["model.safetensors", "best_model.pt"] = "model.safetensors",
    args: dict[str, Any] | None = None,
    extra: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a random valid checkpoint and return its folder.

    ``args`` overrides settings of ``args.json``; ``extra`` adds weights, or replaces them, under the names of
    ``naming``.
    """
    genes = GENES if genes is None else genes
    tokens = [*genes, *SPECIAL_TOKENS]
    sizes = {"n_tokens": len(tokens), "n_layers": n_layers, "d_model": d_model, "d_hid": d_hid}
    styles = {"input_style": input_style, "value_style": value_style}
    weights = tiny_scgpt_weights(**sizes, **styles, seed=seed)
    stated = tiny_scgpt_args(**sizes, **styles, n_heads=n_heads, pre_norm=pre_norm)
    if naming != "in_proj":
        weights = {key.replace(".in_proj_", f".{naming}."): tensor for key, tensor in weights.items()}
    if naming.startswith("_impl"):
        weights = {key.replace("attn.out_proj", "attn._impl.out_proj"): tensor for key, tensor in weights.items()}
    weights = {key: tensor.to(dtype) for key, tensor in weights.items()} | (extra or {})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.json").write_text(json.dumps(stated | (args or {})))
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    if file == "model.safetensors":
        save_file(weights, folder / file)
    else:
        torch.save(weights, folder / file)
    return folder

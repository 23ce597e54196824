"""The scGPT family computed with PyTorch's own encoder layer from the files of a folder: what the reader must equal."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F


def stored_weights(folder: Path) -> dict[str, Tensor]:
    """Weights of a folder in float32, under PyTorch's names."""
    path = folder / "model.safetensors"
    weights = (
        load_file(path)
        if path.exists()
        else torch.load(folder / "best_model.pt", map_location="cpu", weights_only=True)
    )
    renamed = {key.replace("._impl.", ".").replace(".Wqkv.", ".in_proj_"): value for key, value in weights.items()}
    return {key: value.float() for key, value in renamed.items()}


def plain_embedding(weights: dict[str, Tensor], ids: Tensor, inputs: Tensor) -> Tensor:
    """Gene and value embeddings of sequences ``(n, tokens)``, in the style that the weights tell."""
    width = weights["encoder.enc_norm.weight"].shape

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, width, weights[f"{name}.weight"], weights[f"{name}.bias"])

    genes = norm(weights["encoder.embedding.weight"][ids], "encoder.enc_norm")
    if "value_encoder.linear1.weight" in weights:
        w = {key: weights[f"value_encoder.linear{key}"] for key in ("1.weight", "1.bias", "2.weight", "2.bias")}
        hidden = F.linear(torch.minimum(inputs, torch.tensor(512.0))[..., None], w["1.weight"], w["1.bias"]).relu()
        return genes + norm(F.linear(hidden, w["2.weight"], w["2.bias"]), "value_encoder.norm")
    if "value_encoder.embedding.weight" in weights:
        return genes + norm(weights["value_encoder.embedding.weight"][inputs.long()], "value_encoder.enc_norm")
    return genes * inputs[..., None]


def plain_forward(
    folder: Path, ids: Tensor, inputs: Tensor, padding: Tensor | None = None
) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states ``(n, tokens, d)``, the embedding first, and the attention maps of each layer."""
    args, weights = json.loads((folder / "args.json").read_text()), stored_weights(folder)
    pre_norm, d_model = args.get("pre_norm", False), args["embsize"]
    hidden, maps = [plain_embedding(weights, ids, inputs)], []
    for index in range(args["nlayers"]):
        layer = nn.TransformerEncoderLayer(
            d_model, args["nheads"], args["d_hid"], dropout=0.0, batch_first=True, norm_first=pre_norm
        )
        start = f"transformer_encoder.layers.{index}."
        layer.load_state_dict({k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)})
        layer.train()  # without dropout this only keeps PyTorch off its fused path
        with torch.no_grad():
            x = layer.norm1(hidden[-1]) if pre_norm else hidden[-1]
            maps.append(layer.self_attn(x, x, x, key_padding_mask=padding, average_attn_weights=False)[1])
            hidden.append(layer(hidden[-1], src_key_padding_mask=padding))
    return hidden, maps

"""The two language models that Cell2Sentence was trained from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._hugging_face_files import Settings
from ._hugging_face_network import Network
from ._interface import HeadWeights


class NeoXNetwork(Network):
    """GPT-NeoX, the architecture of Pythia: rotary positions, projections interleaved by head."""

    prefix = "gpt_neox."
    ignored = re.compile(
        r"(embed_out|lm_head)\.weight|(layers\.\d+\.attention\.)?rotary_emb\.inv_freq"
        r"|layers\.\d+\.attention\.(bias|masked_bias)"
    )
    layer = re.compile(r"layers\.(\d+)\.")
    table = "embed_in.weight"
    causal = True

    @classmethod
    def configuration(cls, settings: Settings) -> Any:
        from transformers import GPTNeoXConfig

        settings.expect_not("rope_scaling")
        width, n_heads = _width(settings, "hidden_size", "num_attention_heads")
        theta, share = _rotary(settings)
        return GPTNeoXConfig(
            vocab_size=settings.count("vocab_size"),
            hidden_size=width,
            num_hidden_layers=settings.count("num_hidden_layers"),
            num_attention_heads=n_heads,
            intermediate_size=settings.count("intermediate_size"),
            hidden_act=settings.activation("hidden_act", "gelu"),
            rope_parameters={"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": share},
            max_position_embeddings=settings.count("max_position_embeddings"),
            initializer_range=settings.number("initializer_range", default=0.02, above=0, most=10),
            layer_norm_eps=settings.number("layer_norm_eps", default=1e-5, above=0, most=1),
            use_parallel_residual=settings.flag("use_parallel_residual", default=True),
            attention_bias=settings.flag("attention_bias", default=True),
            bos_token_id=None,
            eos_token_id=None,
        )

    @classmethod
    def build(cls, configuration: Any) -> Any:
        from transformers import GPTNeoXModel

        return GPTNeoXModel(configuration)

    @property
    def layers(self) -> Sequence[Any]:
        layers: Sequence[Any] = self.model.layers
        return layers

    def attention_of(self, layer: Any) -> Any:
        return layer.attention

    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Any]]:
        embedded = self.model.embed_in(ids)
        return embedded, {"position_embeddings": self.model.rotary_emb(embedded, position_ids=positions)}

    def end(self, hidden: Tensor) -> Tensor:
        last: Tensor = self.model.final_layer_norm(hidden)
        return last

    def heads(self, index: int) -> tuple[HeadWeights, Tensor]:
        attention, n_heads = self.layers[index].attention, self.model.config.num_attention_heads
        packed = attention.query_key_value
        width = packed.weight.shape[1]
        # every head has its query, key and value one after another
        query, key, value = packed.weight.view(n_heads, 3, -1, width).unbind(1)
        output = attention.dense.weight.view(width, n_heads, -1).permute(1, 0, 2)
        bias = torch.zeros(n_heads, value.shape[1]) if packed.bias is None else packed.bias.view(n_heads, 3, -1)[:, 2]
        return HeadWeights(query, key, value, output), bias

    def restore_buffers(self) -> None:
        self.model.rotary_emb = type(self.model.rotary_emb)(self.model.config)


class GPT2Network(Network):
    """GPT-2: learnt positions, transposed projections."""

    prefix = "transformer."
    ignored = re.compile(r"lm_head\.weight|h\.\d+\.attn\.(bias|masked_bias)")
    layer = re.compile(r"h\.(\d+)\.")
    table = "wte.weight"
    causal = True

    @classmethod
    def configuration(cls, settings: Settings) -> Any:
        from transformers import GPT2Config

        settings.expect_not("add_cross_attention")
        width, n_heads = _width(settings, "n_embd", "n_head")
        return GPT2Config(
            vocab_size=settings.count("vocab_size"),
            n_embd=width,
            n_layer=settings.count("n_layer"),
            n_head=n_heads,
            n_inner=None if settings.values.get("n_inner") is None else settings.count("n_inner"),
            activation_function=settings.activation("activation_function", "gelu_new"),
            n_positions=settings.count("n_positions"),
            initializer_range=settings.number("initializer_range", default=0.02, above=0, most=10),
            layer_norm_epsilon=settings.number("layer_norm_epsilon", default=1e-5, above=0, most=1),
            scale_attn_weights=settings.flag("scale_attn_weights", default=True),
            scale_attn_by_inverse_layer_idx=settings.flag("scale_attn_by_inverse_layer_idx", default=False),
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
        )

    @classmethod
    def build(cls, configuration: Any) -> Any:
        from transformers import GPT2Model

        return GPT2Model(configuration)

    @property
    def layers(self) -> Sequence[Any]:
        layers: Sequence[Any] = self.model.h
        return layers

    def attention_of(self, layer: Any) -> Any:
        return layer.attn

    def begin(self, ids: Tensor, positions: Tensor) -> tuple[Tensor, dict[str, Any]]:
        return self.model.wte(ids) + self.model.wpe(positions), {}

    def end(self, hidden: Tensor) -> Tensor:
        last: Tensor = self.model.ln_f(hidden)
        return last

    def heads(self, index: int) -> tuple[HeadWeights, Tensor]:
        attention, n_heads = self.layers[index].attn, self.model.config.num_attention_heads
        width = attention.c_attn.weight.shape[0]
        # columns are outputs: all queries, all keys, all values
        query, key, value = attention.c_attn.weight.T.reshape(3, n_heads, -1, width)
        output = attention.c_proj.weight.view(n_heads, -1, width).transpose(1, 2)
        return HeadWeights(query, key, value, output), attention.c_attn.bias.view(3, n_heads, -1)[2]

    def restore_buffers(self) -> None:
        pass


def _width(settings: Settings, width_key: str, heads_key: str) -> tuple[int, int]:
    """Width and number of heads, which divides it."""
    width, n_heads = settings.count(width_key), settings.count(heads_key)
    if width % n_heads:
        raise settings.error(width_key, f"a multiple of {heads_key}, which is {n_heads}")
    return width, n_heads


def _rotary(settings: Settings) -> tuple[float, float]:
    """Base and share of the rotary positions, by whichever of the library's names they are stated."""
    nested = settings.values.get("rope_parameters")
    values = settings.values if nested is None else nested
    if not isinstance(values, dict):
        raise settings.error("rope_parameters", "an object")
    inner = Settings(settings.path, values)
    inner.expect("rope_type", "default")
    found = []
    for keys, default, most in (
        (("rope_theta", "rotary_emb_base"), 10000.0, 1e12),
        (("partial_rotary_factor", "rotary_pct"), 0.25, 1.0),
    ):
        stated = [inner.number(key, default=default, above=0, most=most) for key in keys if key in values]
        if len(set(stated)) > 1:
            raise inner.error(keys[0], f"the same as {keys[1]}")
        found.append(stated[0] if stated else default)
    return found[0], found[1]

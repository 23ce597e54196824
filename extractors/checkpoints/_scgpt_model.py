"""The encoder of the scGPT family in PyTorch, with scGPT's own parameter names."""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ValueStyle = Literal["continuous", "category", "scaling"]
"""How a value joins its gene: added after a small network, added from a table, or as a factor."""

DecoderKind = Literal["mlp", "linear", "none"]
"""What predicts a value from a hidden state: scGPT's three layers, scFormer's one, or nothing that can be read."""


class Table(nn.Embedding):
    """``nn.Embedding`` that is built without its weights faster and in less memory."""

    def reset_parameters(self) -> None:
        # Drawing on the meta device draws nothing, but imports a package for symbolic algebra (75 MB).
        if not self.weight.is_meta:
            super().reset_parameters()


class GeneEncoder(nn.Module):
    """Gene token embedding followed by layer normalisation."""

    def __init__(self, n_tokens: int, d_model: int, pad_id: int) -> None:
        super().__init__()
        self.embedding = Table(n_tokens, d_model, padding_idx=pad_id)
        self.enc_norm = nn.LayerNorm(d_model)

    def forward(self, token_ids: Tensor) -> Tensor:
        encoded: Tensor = self.enc_norm(self.embedding(token_ids))
        return encoded


class ContinuousValueEncoder(nn.Module):
    """Two-layer encoding of one expression value per token."""

    def __init__(self, d_model: int, max_value: float = 512.0) -> None:
        super().__init__()
        self.linear1 = nn.Linear(1, d_model)
        self.linear2 = nn.Linear(d_model, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.max_value = max_value

    def forward(self, values: Tensor) -> Tensor:
        clipped = values.unsqueeze(-1).clamp(max=self.max_value)
        encoded: Tensor = self.norm(self.linear2(F.relu(self.linear1(clipped))))
        return encoded


class CategoryValueEncoder(nn.Module):
    """Table of one vector per bin, followed by layer normalisation."""

    def __init__(self, n_categories: int, d_model: int) -> None:
        super().__init__()
        self.embedding = Table(n_categories, d_model)
        self.enc_norm = nn.LayerNorm(d_model)

    def forward(self, values: Tensor) -> Tensor:
        encoded: Tensor = self.enc_norm(self.embedding(values.long()))
        return encoded


class FrozenBatchNorm(nn.Module):
    """Batch normalisation of the embeddings as it acts in evaluation, by the running statistics."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))
        self.bias = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("running_mean", torch.zeros(d_model))
        self.register_buffer("running_var", torch.ones(d_model))
        self.eps = 6.1e-5  # scGPT's

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.running_mean) * (self.weight / (self.running_var + self.eps).sqrt()) + self.bias


class SelfAttention(nn.Module):
    """Multi-head self-attention holding the parameters of ``nn.MultiheadAttention``.

    Written out because the probabilities are what extraction reads, and because the CPU backward
    of the fused kernel is several times slower than two matrix products at these sizes.
    """

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * d_model, d_model))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * d_model))
        self.out_proj = nn.Linear(d_model, d_model)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the output ``(batch, tokens, d)`` and probabilities ``(batch, heads, tokens, tokens)``."""
        attention, value = self.attend(x, key_padding_mask)
        return self.mix(attention, value), attention

    def attend(self, x: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return probabilities and values ``(batch, heads, tokens, d_head)``."""
        query, key, value = self._project(x)
        scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
        if key_padding_mask is not None:
            scores.masked_fill_(key_padding_mask[:, None, None, :], float("-inf"))
        if scores.requires_grad or scores.dtype != torch.float32:
            return scores.softmax(dim=-1), value
        # In place: a second tensor of this size costs more than the softmax itself.
        return torch.softmax(scores, dim=-1, out=scores), value

    def mix(self, attention: Tensor, value: Tensor) -> Tensor:
        """Return what the heads add together, ``(batch, tokens, d)``."""
        return self._merge(attention.to(value.dtype) @ value)

    def fused(self, x: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Return the output alone, without ever holding the probabilities."""
        kept = None if key_padding_mask is None else ~key_padding_mask[:, None, None, :]
        return self._merge(F.scaled_dot_product_attention(*self._project(x), attn_mask=kept))

    def lengths(self, value: Tensor) -> Tensor:
        """Return the length of what each head adds for each token, ``(batch, heads, tokens)``.

        The triangular factor of a head's output projection keeps lengths and is far smaller than the projection.
        """
        output = self.out_proj.weight.view(value.shape[1] * value.shape[3], self.n_heads, value.shape[3])
        triangular = torch.linalg.qr(output.transpose(0, 1), mode="r").R
        lengths: Tensor = torch.linalg.vector_norm(value @ triangular.transpose(1, 2), dim=-1)
        return lengths

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each ``(batch, heads, tokens, d_head)``."""
        n_batch, n_tokens, d_model = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        parts = qkv.view(n_batch, n_tokens, 3, self.n_heads, d_model // self.n_heads).permute(2, 0, 3, 1, 4)
        return parts[0], parts[1], parts[2]

    def _merge(self, mixed: Tensor) -> Tensor:
        """Put the heads side by side and project them."""
        n_batch, n_heads, n_tokens, d_head = mixed.shape
        merged: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(n_batch, n_tokens, n_heads * d_head))
        return merged


class EncoderLayer(nn.Module):
    """A transformer encoder layer with the parameter names of ``nn.TransformerEncoderLayer``.

    ``flash`` is about layers that normalise first: scGPT's own layer for flash attention goes on from the normalised
    input, where PyTorch's adds to the input itself.
    """

    def __init__(
        self, d_model: int, n_heads: int, d_hid: int, dropout: float, *, pre_norm: bool, flash: bool = False
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_hid)
        self.linear2 = nn.Linear(d_hid, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm
        self.flash = flash

    def forward(self, x: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        attention, value = self.attend(x, key_padding_mask)
        return self.finish(x, self.self_attn.mix(attention, value)), attention

    def attend(self, x: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return probabilities and values of the heads."""
        return self.self_attn.attend(self.norm1(x) if self.pre_norm else x, key_padding_mask)

    def fused(self, x: Tensor, key_padding_mask: Tensor | None) -> Tensor:
        """Return the output alone."""
        return self.finish(x, self.self_attn.fused(self.norm1(x) if self.pre_norm else x, key_padding_mask))

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Return the output from the input and what the heads add."""
        if not self.pre_norm:
            x = self.norm1(x + self.dropout(mixed))
            return cast(Tensor, self.norm2(x + self.dropout(self._feed_forward(x))))
        x = (self.norm1(x) if self.flash else x) + self.dropout(mixed)
        normed = self.norm2(x)
        return cast(Tensor, (normed if self.flash else x) + self.dropout(self._feed_forward(normed)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        fed: Tensor = self.linear2(self.dropout(F.relu(self.linear1(x))))
        return fed


class Encoder(nn.Module):
    """The stack of encoder layers."""

    def __init__(self, layers: list[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)


class ExpressionDecoder(nn.Module):
    """scGPT's three-layer read-out of one expression value per token."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(d_model, d_model),
            nn.LeakyReLU(),
            nn.Linear(d_model, d_model),
            nn.LeakyReLU(),
            nn.Linear(d_model, 1),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        values: Tensor = self.fc(hidden)
        return values


class ScGPTModel(nn.Module):
    """Masked-value transformer whose ``state_dict`` has the keys of an scGPT checkpoint.

    Parameters
    ----------
    n_tokens
        Size of the vocabulary, special tokens included.
    pad_id
        Token id of ``<pad>``.
    d_model, n_heads, n_layers, d_hid, dropout, pre_norm
        As ``embsize``, ``nheads``, ``nlayers``, ``d_hid``, ``dropout`` and ``pre_norm`` in ``args.json``.
    flash
        Whether layers that normalise first are scGPT's own (see ``EncoderLayer``).
    value_style
        ``input_emb_style`` in ``args.json``.
    n_categories
        Rows of the table of values, for ``value_style="category"``.
    decoder
        What predicts values.
    batch_norm
        Whether embeddings pass through a batch normalisation before the first layer.
    """

    def __init__(
        self,
        *,
        n_tokens: int,
        pad_id: int,
        d_model: int,
        n_heads: int,
        n_layers: int,
        d_hid: int,
        dropout: float = 0.0,
        pre_norm: bool = False,
        flash: bool = False,
        value_style: ValueStyle = "continuous",
        n_categories: int = 0,
        decoder: DecoderKind = "mlp",
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = GeneEncoder(n_tokens, d_model, pad_id)
        self.value_encoder: nn.Module | None = None
        if value_style != "scaling":
            continuous = value_style == "continuous"
            self.value_encoder = (
                ContinuousValueEncoder(d_model) if continuous else CategoryValueEncoder(n_categories, d_model)
            )
        self.bn = FrozenBatchNorm(d_model) if batch_norm else None
        self.transformer_encoder = Encoder(
            [EncoderLayer(d_model, n_heads, d_hid, dropout, pre_norm=pre_norm, flash=flash) for _ in range(n_layers)]
        )
        self.decoder: nn.Module | None = None
        if decoder != "none":
            self.decoder = ExpressionDecoder(d_model) if decoder == "mlp" else nn.Linear(d_model, 1)

    @property
    def layers(self) -> list[EncoderLayer]:
        """The encoder layers, first to last."""
        return cast(list[EncoderLayer], list(self.transformer_encoder.layers))

    def embed(self, token_ids: Tensor, values: Tensor) -> Tensor:
        """Join gene and value embeddings, ``(batch, tokens, d_model)``."""
        embedded: Tensor = self.encoder(token_ids)
        if self.value_encoder is None:
            embedded = embedded * values.unsqueeze(-1)
        else:
            embedded = embedded + self.value_encoder(values)
        return embedded if self.bn is None else self.bn(embedded)

    def hidden(self, token_ids: Tensor, values: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Return the last hidden state without gradients in mind, ``(batch, tokens, d_model)``."""
        hidden = self.embed(token_ids, values)
        for layer in self.layers:
            hidden = layer.fused(hidden, key_padding_mask)
        return hidden

    def decode(self, hidden: Tensor) -> Tensor:
        """Predict one value per token from hidden states, ``(batch, tokens)``."""
        if self.decoder is None:
            raise ValueError("This model has no decoder.")
        predicted: Tensor = self.decoder(hidden).squeeze(-1)
        return predicted

    def forward(self, token_ids: Tensor, values: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Predict one value per token, ``(batch, tokens)``; the caller adds the per-gene offset."""
        hidden = self.embed(token_ids, values)
        for layer in self.layers:
            hidden, _ = layer(hidden, key_padding_mask)
        return self.decode(hidden)

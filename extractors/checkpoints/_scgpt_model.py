"""The scGPT encoder in PyTorch, with scGPT's own parameter names."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GeneEncoder(nn.Module):
    """Gene token embedding followed by layer normalisation."""

    def __init__(self, n_tokens: int, d_model: int, pad_id: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, d_model, padding_idx=pad_id)
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
        n_batch, n_tokens, d_model = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(n_batch, n_tokens, 3, self.n_heads, d_model // self.n_heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(d_model // self.n_heads)
        if key_padding_mask is not None:
            scores = scores.masked_fill(key_padding_mask[:, None, None, :], float("-inf"))
        attention = scores.softmax(dim=-1)
        mixed = (attention.to(v.dtype) @ v).transpose(1, 2).reshape(n_batch, n_tokens, d_model)
        return self.out_proj(mixed), attention


class EncoderLayer(nn.Module):
    """A transformer encoder layer with the parameter names of ``nn.TransformerEncoderLayer``."""

    def __init__(self, d_model: int, n_heads: int, d_hid: int, dropout: float, *, pre_norm: bool) -> None:
        super().__init__()
        self.self_attn = SelfAttention(d_model, n_heads)
        self.linear1 = nn.Linear(d_model, d_hid)
        self.linear2 = nn.Linear(d_hid, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.pre_norm = pre_norm

    def forward(self, x: Tensor, key_padding_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.pre_norm:
            mixed, attention = self.self_attn(self.norm1(x), key_padding_mask)
            x = x + self.dropout(mixed)
            return x + self.dropout(self._feed_forward(self.norm2(x))), attention
        mixed, attention = self.self_attn(x, key_padding_mask)
        x = self.norm1(x + self.dropout(mixed))
        return self.norm2(x + self.dropout(self._feed_forward(x))), attention

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
        values: Tensor = self.fc(hidden).squeeze(-1)
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
    ) -> None:
        super().__init__()
        self.encoder = GeneEncoder(n_tokens, d_model, pad_id)
        self.value_encoder = ContinuousValueEncoder(d_model)
        self.transformer_encoder = Encoder(
            [EncoderLayer(d_model, n_heads, d_hid, dropout, pre_norm=pre_norm) for _ in range(n_layers)]
        )
        self.decoder = ExpressionDecoder(d_model)

    def embed(self, token_ids: Tensor, values: Tensor) -> Tensor:
        """Sum of gene and value embeddings, ``(batch, tokens, d_model)``."""
        embedded: Tensor = self.encoder(token_ids) + self.value_encoder(values)
        return embedded

    def forward(self, token_ids: Tensor, values: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        """Predict one value per token, ``(batch, tokens)``; the caller adds the per-gene offset."""
        hidden = self.embed(token_ids, values)
        for layer in self.transformer_encoder.layers:
            hidden, _ = layer(hidden, key_padding_mask)
        predicted: Tensor = self.decoder(hidden)
        return predicted

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from manifoldzoo.extractors.checkpoints._scgpt_model import Encoder, EncoderLayer, ScGPTModel, SelfAttention

D_MODEL, N_HEADS, D_HID = 12, 3, 20


def tiny(seed: int = 0, *, pre_norm: bool = False, dropout: float = 0.0) -> ScGPTModel:
    torch.manual_seed(seed)
    model = ScGPTModel(
        n_tokens=30,
        pad_id=27,
        d_model=D_MODEL,
        n_heads=N_HEADS,
        n_layers=3,
        d_hid=D_HID,
        dropout=dropout,
        pre_norm=pre_norm,
    )
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, 0.5, 0.3)
    return model.eval()


def run_encoder(encoder: Encoder, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    for layer in encoder.layers:
        x, _ = layer(x, mask)
    return x


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_encoder_equals_torch_transformer_encoder(pre_norm: bool, padded: bool) -> None:
    ours = tiny(pre_norm=pre_norm).transformer_encoder
    layer = nn.TransformerEncoderLayer(D_MODEL, N_HEADS, D_HID, dropout=0.0, batch_first=True, norm_first=pre_norm)
    theirs = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    theirs.train()  # without dropout this only keeps PyTorch off its fused path
    x = torch.randn(4, 7, D_MODEL)
    mask = torch.arange(7)[None] >= torch.tensor([7, 5, 2, 6])[:, None] if padded else None
    kept = ~mask if padded else torch.ones(4, 7, dtype=torch.bool)

    got, want = run_encoder(ours, x, mask), theirs(x, src_key_padding_mask=mask)

    torch.testing.assert_close(got[kept], want[kept], rtol=1e-5, atol=1e-5)
    got[kept].square().sum().backward()
    want[kept].square().sum().backward()
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("padded", [False, True])
def test_attention_probabilities_equal_multihead_attention(padded: bool) -> None:
    torch.manual_seed(1)
    ours, theirs = SelfAttention(D_MODEL, N_HEADS), nn.MultiheadAttention(D_MODEL, N_HEADS, batch_first=True)
    nn.init.normal_(ours.in_proj_bias)
    nn.init.normal_(ours.out_proj.bias)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(3, 6, D_MODEL)
    mask = torch.arange(6)[None] >= torch.tensor([6, 4, 1])[:, None] if padded else None

    output, probabilities = ours(x, mask)
    want_output, want = theirs(x, x, x, key_padding_mask=mask, need_weights=True, average_attn_weights=False)

    assert probabilities.shape == (3, N_HEADS, 6, 6)
    torch.testing.assert_close(probabilities, want, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output, want_output, rtol=1e-5, atol=1e-5)
    if mask is not None:
        assert probabilities.masked_select(mask[:, None, None, :]).eq(0).all()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_kept=st.integers(1, 6), n_padding=st.integers(1, 5), pre_norm=st.booleans())
def test_padding_changes_nothing_for_the_real_tokens(seed: int, n_kept: int, n_padding: int, pre_norm: bool) -> None:
    model = tiny(pre_norm=pre_norm)
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 27, (1, n_kept), generator=draw)
    values = torch.rand(1, n_kept, generator=draw)
    rubbish = torch.randint(0, 30, (1, n_padding), generator=draw)
    longer_ids, longer_values = torch.cat([ids, rubbish], 1), torch.cat([values, torch.full((1, n_padding), 7.0)], 1)
    mask = torch.arange(n_kept + n_padding)[None] >= n_kept

    torch.testing.assert_close(
        model(longer_ids, longer_values, mask)[:, :n_kept], model(ids, values), rtol=1e-4, atol=1e-5
    )


def test_tokens_have_no_positions() -> None:
    model = tiny()
    ids, values, order = torch.tensor([[3, 1, 8, 20]]), torch.tensor([[0.1, 2.0, 0.0, 1.5]]), torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model(ids[:, order], values[:, order]), model(ids, values)[:, order], rtol=1e-5, atol=1e-5
    )
    assert model(ids, values)[0].unique().numel() == 4


def test_values_are_clipped_at_512() -> None:
    model, ids = tiny(), torch.tensor([[3, 1]])
    capped = model(ids, torch.tensor([[512.0, 1.0]]))
    assert torch.equal(model(ids, torch.tensor([[9000.0, 1.0]])), capped)
    assert not torch.equal(model(ids, torch.tensor([[500.0, 1.0]])), capped)


def test_input_is_the_sum_of_gene_and_value_embeddings() -> None:
    model, ids, values = tiny(), torch.tensor([[4, 9]]), torch.tensor([[0.5, 3.0]])
    e, v = model.encoder, model.value_encoder
    gene = nn.functional.layer_norm(e.embedding.weight[ids], (D_MODEL,), e.enc_norm.weight, e.enc_norm.bias)
    first = (values[..., None] * v.linear1.weight[:, 0] + v.linear1.bias).clamp(min=0)
    hidden = first @ v.linear2.weight.T + v.linear2.bias
    value = nn.functional.layer_norm(hidden, (D_MODEL,), v.norm.weight, v.norm.bias)
    torch.testing.assert_close(model.embed(ids, values), gene + value, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_only() -> None:
    model, ids, values = tiny(dropout=0.5), torch.tensor([[4, 9, 2]]), torch.rand(1, 3)
    assert torch.equal(model(ids, values), model(ids, values))
    model.train()
    assert not torch.equal(model(ids, values), model(ids, values))


def test_layer_returns_the_attention_it_mixes_with() -> None:
    layer = EncoderLayer(D_MODEL, N_HEADS, D_HID, 0.0, pre_norm=False).eval()
    x = torch.randn(2, 5, D_MODEL)
    _, attention = layer(x, None)
    torch.testing.assert_close(attention, layer.self_attn(x, None)[1])
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, N_HEADS, 5))


@pytest.mark.shared
def test_names_and_shapes_are_those_of_a_real_checkpoint(shared: Path) -> None:
    real = torch.load(shared / "checkpoints/scformer_pbmc/best_model.pt", map_location="cpu", weights_only=True)
    ours = ScGPTModel(n_tokens=1002, pad_id=999, d_model=64, n_heads=4, n_layers=4, d_hid=64).state_dict()
    read_out = ("decoder.", "cls_decoder.")
    assert {key: value.shape for key, value in ours.items() if not key.startswith(read_out)} == {
        key: value.shape for key, value in real.items() if not key.startswith(read_out)
    }

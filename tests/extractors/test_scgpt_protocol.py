from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_scgpt import plain_forward, stored_weights
from safetensors.torch import save_file
from tiny_scgpt import GENES, InputStyle, Naming, write_tiny_scgpt

from manifoldzoo.cards._errors import BadInputError, CheckpointError, GeneError
from manifoldzoo.extractors import reference_checkpoint
from manifoldzoo.extractors.checkpoints._interface import PADDING, Checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt

CELL = np.array([[3, 0, 7, 11, 4]]), np.array([[0.5, 2.0, 1.25, 3.0, 0.75]], dtype=np.float32)
TWO_CELLS = (
    np.array([[3, 0, 7, 11, 4], [9, 2, 1, PADDING, PADDING]]),
    np.array([[0.5, 2.0, 1.25, 3.0, 0.75], [1.0, 0.25, 2.5, 0.0, 0.0]], dtype=np.float32),
)
PAD, CLS = 12, 13  # after the twelve genes


def as_sequence(genes: np.ndarray, values: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, inputs and padding with ``<cls>`` in front; gene index and token id are the same in tiny folders."""
    ids = torch.from_numpy(np.pad(np.where(genes < 0, PAD, genes), ((0, 0), (1, 0)), constant_values=CLS))
    return ids, torch.from_numpy(np.pad(values, ((0, 0), (1, 0)))), ids == PAD


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=2e-5, atol=2e-6)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_scgpt(tmp_path_factory.mktemp("scgpt") / "tiny")


def test_the_protocol_is_satisfied(tiny: Path) -> None:
    checkpoint: Checkpoint = read_scgpt(tiny)
    assert (checkpoint.name, checkpoint.family, checkpoint.scale) == ("tiny", "scgpt", "log1p")
    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.d_model, checkpoint.max_genes) == (3, 2, 16, 12)
    assert checkpoint.genes == GENES


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("naming", ["in_proj", "Wqkv", "_impl.Wqkv"])
@pytest.mark.parametrize("style", ["log1p", "counts"])
def test_attention_and_hidden_states_are_those_of_torch_layers(
    tmp_path: Path, pre_norm: bool, naming: Naming, style: InputStyle
) -> None:
    folder = write_tiny_scgpt(tmp_path, pre_norm=pre_norm, naming=naming, input_style=style)
    checkpoint = read_scgpt(folder)
    hidden, maps = plain_forward(folder, *as_sequence(*TWO_CELLS))
    for got, want in zip(checkpoint.attention(*TWO_CELLS), maps, strict=True):
        assert got.shape == (2, 2, 5, 5)
        assert_close(got[0], want[0, :, 1:, 1:])
        assert_close(got[1, :, :3, :3], want[1, :, 1:4, 1:4])
    pooled = checkpoint.pooled(*TWO_CELLS)
    assert_close(pooled[0], hidden[-1][0, 1:].mean(0))
    assert_close(pooled[1], hidden[-1][1, 1:4].mean(0))


def test_rows_leave_out_what_goes_to_cls(tiny: Path) -> None:
    for layer in read_scgpt(tiny).attention(*CELL):
        rows = layer.sum(-1)
        assert bool(((rows > 0) & (rows < 1)).all())


def test_flash_names_give_the_very_same_results(tmp_path: Path, tiny: Path) -> None:
    plain = list(read_scgpt(tiny).attention(*CELL))
    for naming in ("Wqkv", "_impl.Wqkv"):
        flash = read_scgpt(write_tiny_scgpt(tmp_path / naming, naming=naming)).attention(*CELL)
        assert all(torch.equal(a, b) for a, b in zip(plain, flash, strict=True))


def test_flash_pre_norm_goes_on_from_the_normalised_input(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path, pre_norm=True, naming="Wqkv", args={"fast_transformer": True})
    weights = stored_weights(folder)
    x = plain_forward(folder, *as_sequence(*CELL))[0][0]
    maps = []
    for index in range(3):
        w = {k.split(f"layers.{index}.")[1]: v for k, v in weights.items() if f"layers.{index}." in k}
        x = torch.nn.functional.layer_norm(x, (16,), w["norm1.weight"], w["norm1.bias"])
        mha = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        mha.load_state_dict({k.removeprefix("self_attn."): v for k, v in w.items() if k.startswith("self_attn")})
        added, attention = mha(x, x, x, average_attn_weights=False)
        maps.append(attention.detach())
        x = torch.nn.functional.layer_norm(x + added.detach(), (16,), w["norm2.weight"], w["norm2.bias"])
        x = x + (x @ w["linear1.weight"].T + w["linear1.bias"]).relu() @ w["linear2.weight"].T + w["linear2.bias"]
    checkpoint = read_scgpt(folder)
    for got, want in zip(checkpoint.attention(*CELL), maps, strict=True):
        assert_close(got, want[:, :, 1:, 1:])
    assert_close(checkpoint.pooled(*CELL), x[:, 1:].mean(1))
    textbook = read_scgpt(write_tiny_scgpt(tmp_path / "no", pre_norm=True, naming="Wqkv"))
    assert not torch.allclose(textbook.pooled(*CELL), checkpoint.pooled(*CELL), atol=1e-2)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_weighted_attention_by_brute_force(tmp_path: Path, pre_norm: bool) -> None:
    folder = write_tiny_scgpt(tmp_path, pre_norm=pre_norm)
    weights, checkpoint = stored_weights(folder), read_scgpt(folder)
    hidden, maps = plain_forward(folder, *as_sequence(*CELL))
    layers = list(checkpoint.attention(*CELL, weighted=True))
    assert len(layers) == 3
    for index, got in enumerate(layers):
        name = f"transformer_encoder.layers.{index}"
        x = hidden[index][0]
        if pre_norm:
            norm = weights[f"{name}.norm1.weight"], weights[f"{name}.norm1.bias"]
            x = torch.nn.functional.layer_norm(x, (16,), *norm)
        projection, bias = weights[f"{name}.self_attn.in_proj_weight"], weights[f"{name}.self_attn.in_proj_bias"]
        output = weights[f"{name}.self_attn.out_proj.weight"]
        for head in range(2):
            rows = slice(32 + 8 * head, 32 + 8 * (head + 1))
            for key in range(5):
                value = projection[rows] @ x[key + 1] + bias[rows]
                length = (output[:, 8 * head : 8 * (head + 1)] @ value).norm()
                assert_close(got[0, head, :, key], maps[index][0, head, 1:, key + 1] * length)


def test_heads_give_back_scores_of_the_attention(tiny: Path) -> None:
    checkpoint, weights = read_scgpt(tiny), stored_weights(tiny)
    hidden, _ = plain_forward(tiny, *as_sequence(*CELL))
    for index, want in enumerate(checkpoint.attention(*CELL)):
        heads = checkpoint.heads(index)
        assert heads.query.shape == heads.key.shape == heads.value.shape == (2, 8, 16)
        assert heads.output.shape == (2, 16, 8)
        biases = weights[f"transformer_encoder.layers.{index}.self_attn.in_proj_bias"].view(3, 2, 8)
        output = weights[f"transformer_encoder.layers.{index}.self_attn.out_proj.weight"]
        for head in range(2):
            query = hidden[index][0] @ heads.query[head].T + biases[0, head]
            key = hidden[index][0] @ heads.key[head].T + biases[1, head]
            assert_close((query @ key.T / 8**0.5).softmax(-1)[1:, 1:], want[0, head])
            projection = weights[f"transformer_encoder.layers.{index}.self_attn.in_proj_weight"]
            assert torch.equal(heads.value[head], projection[32 + 8 * head : 40 + 8 * head])
            assert torch.equal(heads.output[head], output[:, 8 * head : 8 * head + 8])


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_out_of_range_is_named(tiny: Path, layer: int) -> None:
    with pytest.raises(BadInputError, match=f"Layer {layer} "):
        read_scgpt(tiny).heads(layer)


def test_embedding_is_the_normalised_table_in_the_order_of_genes(tiny: Path) -> None:
    checkpoint, weights = read_scgpt(tiny), stored_weights(tiny)
    norm = weights["encoder.enc_norm.weight"], weights["encoder.enc_norm.bias"]
    table = torch.nn.functional.layer_norm(weights["encoder.embedding.weight"], (16,), *norm)
    assert_close(checkpoint.embedding(), table[:12])
    assert_close(checkpoint.with_genes(["GENE7", "GENE2"]).embedding(), table[[7, 2]])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), n_padding=st.integers(1, 4), weighted=st.booleans())
def test_neither_padding_nor_order_changes_anything(
    tiny: Path, data: st.DataObject, n_padding: int, weighted: bool
) -> None:
    checkpoint = read_scgpt(tiny)
    genes, values = CELL
    order = np.array(data.draw(st.permutations(range(5))))
    padded = np.pad(genes[:, order], ((0, 0), (0, n_padding)), constant_values=PADDING)
    rubbish = np.pad(
        values[:, order], ((0, 0), (0, n_padding)), constant_values=data.draw(st.sampled_from([0, 7, 1e9]))
    )
    plain = checkpoint.attention(genes, values, weighted=weighted)
    for got, want in zip(checkpoint.attention(padded, rubbish, weighted=weighted), plain, strict=True):
        assert_close(got[:, :, :5, :5], want[:, :, order][:, :, :, order])
    assert_close(checkpoint.pooled(padded, rubbish), checkpoint.pooled(genes, values))
    assert_close(checkpoint.predict(padded, rubbish)[:, :5], checkpoint.predict(genes, values)[:, order])


def test_what_was_yielded_stays_and_is_the_callers(tiny: Path) -> None:
    checkpoint = read_scgpt(tiny)
    kept = list(checkpoint.attention(*CELL))
    for weighted in (False, True):
        plain = list(checkpoint.attention(*CELL, weighted=weighted))
        for got, want in zip(checkpoint.attention(*CELL, weighted=weighted), plain, strict=True):
            assert torch.equal(got, want)
            got.zero_()
    assert not any(torch.equal(a, b) for a, b in pairwise(kept))


def test_stopping_early_computes_no_further_layer(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = read_scgpt(tiny)
    last = checkpoint.model.layers[-1]
    monkeypatch.setattr(last, "finish", lambda *_: pytest.fail("nobody reads the output of the last layer"))
    assert len(list(checkpoint.attention(*CELL))) == 3
    monkeypatch.setattr(last, "attend", lambda *_: pytest.fail("the caller stopped before this layer"))
    layers = checkpoint.attention(*CELL)
    assert next(layers).shape == next(layers).shape == (1, 2, 5, 5)


@pytest.mark.parametrize(
    ("genes", "values", "named"),
    [
        (np.zeros((1, 3), int), np.zeros((1, 2), np.float32), r"\(1, 3\)"),
        (np.zeros(3, int), np.zeros(3, np.float32), r"\(3,\)"),
        (np.arange(13)[None] % 12, np.ones((1, 13), np.float32), "at most 12"),
        (np.array([[0, 12]]), np.ones((1, 2), np.float32), "index 12"),
    ],
)
def test_bad_sequences_are_refused(tiny: Path, genes: np.ndarray, values: np.ndarray, named: str) -> None:
    checkpoint = read_scgpt(tiny)
    with pytest.raises(BadInputError, match=named):
        next(iter(checkpoint.attention(genes, values)))
    with pytest.raises(BadInputError, match=named):
        checkpoint.pooled(genes, values)
    with pytest.raises(BadInputError, match=named):
        checkpoint.predict(genes, values)


def test_knows_genes_and_no_special_tokens(tiny: Path) -> None:
    checkpoint = read_scgpt(tiny).with_genes(["GENE1"])
    known = checkpoint.knows(["GENE0", "gene0", "<cls>", "<pad>", "<eoc>", "GENE11", ""])
    assert known.dtype == np.bool_
    assert known.tolist() == [True, False, False, False, False, True, False]
    assert checkpoint.knows([]).shape == (0,)


def test_with_genes_renames_indices_and_nothing_else(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path / "tiny")
    save_file({"offset": torch.arange(12.0)}, folder / "gene_offset.safetensors")
    checkpoint = read_scgpt(folder)
    genes, values = CELL
    names = [GENES[index] for index in (4, 11, 3, 0, 7, 9)]
    chosen = checkpoint.with_genes(names[:5]).with_genes(names)  # chosen of all, not of what was chosen before
    there = np.array([[names.index(GENES[index]) for index in genes[0]]])
    assert chosen.genes == tuple(names)
    assert (chosen.digest, chosen.name, chosen.max_genes) == (checkpoint.digest, checkpoint.name, checkpoint.max_genes)
    pairs = zip(chosen.attention(there, values), checkpoint.attention(genes, values), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert torch.equal(chosen.predict(there, values), checkpoint.predict(genes, values))
    assert chosen.offset is not None
    assert chosen.offset.tolist() == [4, 11, 3, 0, 7, 9]
    assert chosen.model is checkpoint.model


@pytest.mark.parametrize(
    ("names", "named"),
    [(["GENE1", "NOPE"], "'NOPE'"), (["<cls>"], "'<cls>'"), (["GENE1", "GENE2", "GENE1"], "'GENE1'")],
)
def test_genes_that_cannot_be_chosen_are_named(tiny: Path, names: list[str], named: str) -> None:
    with pytest.raises(GeneError, match=named):
        read_scgpt(tiny).with_genes(names)


def test_predict_is_the_decoder_on_the_last_hidden_state(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path / "tiny")
    weights = stored_weights(folder)
    save_file({"offset": torch.arange(12.0)}, folder / "gene_offset.safetensors")
    genes, values = CELL
    masked = np.array([[False, True, False, False, True]])
    shown = np.where(masked, -1.0, values).astype(np.float32)
    hidden, _ = plain_forward(folder, *as_sequence(genes, shown))
    x = hidden[-1][0, 1:]
    for index in (0, 2, 4):
        x = x @ weights[f"decoder.fc.{index}.weight"].T + weights[f"decoder.fc.{index}.bias"]
        x = torch.nn.functional.leaky_relu(x) if index < 4 else x
    assert_close(read_scgpt(folder).predict(genes, values, masked=masked)[0], x[:, 0] + torch.from_numpy(genes[0]))


def test_predictions_depend_on_masked_values_in_no_way(tiny: Path) -> None:
    checkpoint = read_scgpt(tiny)
    genes, values = CELL
    masked = np.array([[True, False, False, True, False]])
    other = np.where(masked, 9.0, values).astype(np.float32)
    one, same, shown = (
        checkpoint.predict(genes, values, masked=masked),
        checkpoint.predict(genes, other, masked=masked),
        checkpoint.predict(genes, other),
    )
    assert torch.equal(one, same)
    assert not torch.allclose(one, shown, atol=1e-3)
    with pytest.raises(BadInputError, match=r"\(1, 4\)"):
        checkpoint.predict(genes, values, masked=masked[:, :4])


def test_predict_needs_a_decoder_that_reads_the_hidden_state_alone(tmp_path: Path) -> None:
    wide = {"decoder.fc.0.weight": torch.ones(16, 32), "batch_encoder.embedding.weight": torch.ones(2, 16)}
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, extra=wide))
    assert checkpoint.settings.decoder == "none"
    assert {"decoder.fc.0.weight", "decoder.fc.4.bias", "batch_encoder.embedding.weight"} <= set(
        checkpoint.ignored_keys
    )
    assert len(list(checkpoint.attention(*CELL))) == 3
    with pytest.raises(CheckpointError, match="batch"):
        checkpoint.predict(*CELL)


def test_controls_are_reproducible_and_told_apart_by_their_digests(tiny: Path) -> None:
    checkpoint = read_scgpt(tiny).with_genes(GENES[::-1])
    torch.manual_seed(11)
    state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    made: dict[str, ScGPTCheckpoint] = {}
    for seed in (5, 6):
        for again in ("", " again"):
            made[f"random {seed}{again}"] = checkpoint.random_initialisation(seed)
            made[f"shuffled {seed}{again}"] = checkpoint.shuffled_weights(seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    prints = {}
    for name, control in made.items():
        assert control.genes == checkpoint.genes
        assert (control.family, control.scale, control.max_genes) == ("scgpt", "log1p", 12)
        assert control.knows(["GENE3", "NOPE"]).tolist() == [True, False]
        content = b"".join(layer.numpy().tobytes() for layer in control.attention(*CELL))
        prints[name] = control.digest, hashlib.sha256(content).hexdigest()
        assert control.with_genes(["GENE3"]).digest == control.digest
        assert control.with_genes(["GENE3"]).model is control.model
    for kind in ("random", "shuffled"):
        for seed in (5, 6):
            assert prints[f"{kind} {seed}"] == prints[f"{kind} {seed} again"]
    firsts = {prints[f"{kind} {seed}"] for kind in ("random", "shuffled") for seed in (5, 6)}
    assert len({digest for digest, _ in firsts} | {checkpoint.digest}) == 5
    assert len({attention for _, attention in firsts}) == 4


def test_shuffling_permutes_within_each_matrix_and_leaves_the_rest(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path / "tiny")
    save_file({"offset": torch.arange(12.0)}, folder / "gene_offset.safetensors")
    checkpoint = read_scgpt(folder)
    before = {key: tensor.clone() for key, tensor in checkpoint.model.state_dict().items()}
    control = checkpoint.shuffled_weights(3)
    after = control.model.state_dict()
    assert before.keys() == after.keys()
    n_moved = 0
    for key, tensor in before.items():
        assert torch.equal(checkpoint.model.state_dict()[key], tensor), "the original must stay as it is"
        if tensor.ndim == 1:
            assert torch.equal(after[key], tensor), key
            continue
        blocks = 3 if key.endswith("in_proj_weight") else 1
        for a, b in zip(tensor.chunk(blocks), after[key].chunk(blocks), strict=True):
            assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), key
            n_moved += not torch.equal(a, b)
    assert n_moved == sum(3 if k.endswith("in_proj_weight") else 1 for k, t in before.items() if t.ndim > 1)
    assert control.offset is not None
    fresh = checkpoint.with_genes(["GENE3"]).random_initialisation(3)
    assert checkpoint.random_initialisation(3).offset is fresh.offset is fresh.with_genes(["GENE4"]).offset is None
    assert not any(parameter.requires_grad for parameter in control.model.parameters())


@pytest.mark.parametrize("change", [{"input_style": "counts"}, {"input_style": "binned", "value_style": "category"}])
def test_random_initialisation_keeps_the_architecture(tmp_path: Path, change: dict[str, Any]) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, **change))
    control = checkpoint.random_initialisation(0)
    shapes = [{k: v.shape for k, v in c.model.state_dict().items()} for c in (checkpoint, control)]
    assert shapes[0] == shapes[1]
    assert control.scale == checkpoint.scale
    assert torch.isfinite(control.predict(*CELL)).all()


# made with the reader of before other layouts were read; the bits hold on any machine with the same kernels
REFERENCE_DIGEST = "dfd54aaa4250444b2d031a14f395b8af97341f8ec20097681b7d5f417e0d7fe1"


def test_the_reference_checkpoint_is_what_it_was() -> None:
    checkpoint = read_scgpt(reference_checkpoint())
    assert checkpoint.digest == REFERENCE_DIGEST
    assert (checkpoint.settings.cls_value, checkpoint.settings.mask_value, checkpoint.settings.decoder) == (
        0,
        -1,
        "mlp",
    )
    assert checkpoint.ignored_keys == ()
    assert checkpoint.random_initialisation(3).digest == (
        "6b1d99845347dda522732f9e56ee4f14a873b358fbe2f675b940ab900a20ddc0"
    )
    rng = np.random.default_rng(0)
    genes = rng.permutation(1200)[None, :60]
    values = rng.gamma(1.0, 1.0, genes.shape).astype(np.float32)
    weights = checkpoint.model.state_dict()
    x = checkpoint.model.embed(
        torch.tensor([[checkpoint.cls_id, *checkpoint.token_ids[genes[0]]]]), torch.tensor([[0.0, *values[0].tolist()]])
    )
    # the formula of before, written out
    qkv = torch.nn.functional.linear(
        x,
        weights["transformer_encoder.layers.0.self_attn.in_proj_weight"],
        weights["transformer_encoder.layers.0.self_attn.in_proj_bias"],
    )
    q, k, _ = qkv.view(1, 61, 3, 8, 16).permute(2, 0, 3, 1, 4)
    want = (q @ k.transpose(-2, -1) / 4.0).softmax(dim=-1)[:, :, 1:, 1:]
    assert torch.equal(next(iter(checkpoint.attention(genes, values))), want)

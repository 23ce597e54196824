from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._interface import PADDING
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt
from manifoldzoo.extractors.checkpoints._scgpt_model import ScGPTModel

N_GENES = 6
ARGS: dict[str, Any] = {
    "input_style": "log1p",
    "input_emb_style": "continuous",
    "pad_token": "<pad>",
    "max_seq_len": 7,
    "nlayers": 2,
    "nheads": 2,
    "embsize": 4,
    "d_hid": 5,
    "dropout": 0.3,
}
# special tokens first and genes out of alphabetical order: ids must come from the file
VOCAB = {"<cls>": 1, "<pad>": 0, "<eoc>": 8, **{f"Z{5 - i}": i + 2 for i in range(N_GENES)}}


def tiny_model(**changes: Any) -> ScGPTModel:
    torch.manual_seed(3)
    sizes = {"n_tokens": 9, "pad_id": 0, "d_model": 4, "n_heads": 2, "n_layers": 2, "d_hid": 5}
    return ScGPTModel(**{**sizes, **changes}).eval()


def write(
    folder: Path,
    weights: dict[str, Any] | bytes | None = None,
    *,
    args: dict[str, Any] | bytes | None = None,
    vocab: dict[str, Any] | bytes | None = None,
    pt: bool = False,
) -> Path:
    """Write a checkpoint folder; dicts are encoded, bytes are taken as they are, ``None`` is the valid content."""
    folder.mkdir(exist_ok=True)
    settings_and_tokens = {"args.json": ARGS if args is None else args, "vocab.json": VOCAB if vocab is None else vocab}
    for name, content in settings_and_tokens.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    weights = dict(tiny_model().state_dict()) if weights is None else weights
    target = folder / ("best_model.pt" if pt else "model.safetensors")
    if isinstance(weights, bytes):
        target.write_bytes(weights)
    elif pt:
        torch.save(weights, target)
    else:
        save_file(weights, target)
    return folder


def one_cell(checkpoint: ScGPTCheckpoint) -> torch.Tensor:
    genes, values = np.array([[0, 3, 5, PADDING]]), np.array([[1.0, 0.5, 2.0, 0.0]], np.float32)
    return torch.stack([layer[:, :, :3, :3] for layer in checkpoint.attention(genes, values)])


@pytest.mark.parametrize("pt", [False, True])
def test_reads_what_was_written(tmp_path: Path, pt: bool) -> None:
    checkpoint = read_scgpt(write(tmp_path / "tiny", pt=pt))
    assert checkpoint.name == "tiny"
    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.d_model, checkpoint.max_genes) == (2, 2, 4, 6)
    assert checkpoint.genes == ("Z5", "Z4", "Z3", "Z2", "Z1", "Z0")
    assert checkpoint.token_ids.tolist() == [2, 3, 4, 5, 6, 7]
    assert (checkpoint.cls_id, checkpoint.pad_id) == (1, 0)
    assert checkpoint.offset is None
    assert checkpoint.ignored_keys == ()
    assert not checkpoint.model.training
    assert not any(parameter.requires_grad for parameter in checkpoint.model.parameters())
    for key, tensor in tiny_model().state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[key], tensor), key


def test_attention_of_a_cell_is_the_models_own_with_cls_in_front(tmp_path: Path) -> None:
    checkpoint, model = read_scgpt(write(tmp_path)), tiny_model()
    x = model.embed(torch.tensor([[1, 2, 5, 7]]), torch.tensor([[0.0, 1.0, 0.5, 2.0]]))
    for index, layer in enumerate(model.transformer_encoder.layers):
        x, want = layer(x, None)
        torch.testing.assert_close(one_cell(checkpoint)[index], want[:, :, 1:, 1:], rtol=1e-5, atol=1e-6)


def test_pre_norm_follows_the_settings(tmp_path: Path) -> None:
    after = one_cell(read_scgpt(write(tmp_path / "a")))
    before = one_cell(read_scgpt(write(tmp_path / "b", args={**ARGS, "pre_norm": True})))
    x = tiny_model().embed(torch.tensor([[1, 2, 5, 7]]), torch.tensor([[0.0, 1.0, 0.5, 2.0]]))
    _, want = tiny_model(pre_norm=True).transformer_encoder.layers[0](x, None)
    torch.testing.assert_close(before[0], want[:, :, 1:, 1:], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("pt", [False, True])
def test_other_precisions_are_brought_to_float32(tmp_path: Path, dtype: torch.dtype, pt: bool) -> None:
    stored = {key: tensor.to(dtype) for key, tensor in tiny_model().state_dict().items()}
    checkpoint = read_scgpt(write(tmp_path, stored, pt=pt))
    for key, tensor in checkpoint.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[key].float()), key


def test_extra_heads_are_listed_and_left_out(tmp_path: Path) -> None:
    extra = {"mvc_decoder.gene2query.weight": torch.ones(4, 4), "cls_decoder.out_layer.bias": torch.ones(2)}
    checkpoint = read_scgpt(write(tmp_path, {**tiny_model().state_dict(), **extra}))
    assert checkpoint.ignored_keys == tuple(sorted(extra))
    assert not set(checkpoint.model.state_dict()) & set(extra)


def test_unknown_weights_are_named_not_skipped(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"encoder\.position\.weight"):
        read_scgpt(write(tmp_path, {**tiny_model().state_dict(), "encoder.position.weight": torch.zeros(4)}))


def test_digest_is_the_canonical_hash_of_the_three_files(tmp_path: Path) -> None:
    folder = write(tmp_path / "one")
    entries = [
        {
            "name": n,
            "sha256": hashlib.sha256((folder / n).read_bytes()).hexdigest(),
            "size": (folder / n).stat().st_size,
        }
        for n in ("args.json", "model.safetensors", "vocab.json")
    ]
    canonical = json.dumps(entries, separators=(",", ":"), sort_keys=True).encode()
    digest = read_scgpt(folder).digest
    assert digest == hashlib.sha256(canonical).hexdigest()
    (folder / "README.md").write_text("no part of the identity")
    folder.rename(tmp_path / "other")
    assert read_scgpt(tmp_path / "other").digest == digest
    assert read_scgpt(write(tmp_path / "three", args={**ARGS, "dropout": 0.1})).digest != digest


def test_offset_is_optional_and_checked(tmp_path: Path) -> None:
    folder = write(tmp_path)
    save_file({"offset": torch.arange(6.0)}, folder / "gene_offset.safetensors")
    offset = read_scgpt(folder).offset
    assert offset is not None
    assert offset.tolist() == [0, 1, 2, 3, 4, 5]
    save_file({"offset": torch.arange(5.0)}, folder / "gene_offset.safetensors")
    with pytest.raises(CheckpointError, match="6"):
        read_scgpt(folder)


def test_random_initialisation_is_seeded_and_leaves_the_global_state(tmp_path: Path) -> None:
    checkpoint = read_scgpt(write(tmp_path))
    torch.manual_seed(11)
    expected_next = torch.rand(3)
    torch.manual_seed(11)
    one, again, other = (checkpoint.random_initialisation(seed) for seed in (5, 5, 6))
    assert torch.equal(torch.rand(3), expected_next)
    assert torch.equal(one_cell(one), one_cell(again))
    assert not torch.allclose(one_cell(one), one_cell(other), atol=1e-4)
    assert not torch.allclose(one_cell(one), one_cell(checkpoint), atol=1e-4)
    assert one.digest == again.digest
    assert len({one.digest, other.digest, checkpoint.digest}) == 3
    assert (one.genes, one.n_layers, one.max_genes) == (checkpoint.genes, checkpoint.n_layers, checkpoint.max_genes)
    torch.manual_seed(5)
    start = ScGPTModel(n_tokens=9, pad_id=0, d_model=4, n_heads=2, n_layers=2, d_hid=5)
    assert torch.equal(one.model.encoder.embedding.weight, start.encoder.embedding.weight)


BAD_ARGS = [
    ({"nlayers": 3}, "nlayers 3"),
    ({"nlayers": 1}, "nlayers 1"),
    ({"nlayers": 10**9}, "nlayers 1000000000"),
    ({"nlayers": 0}, "nlayers 0"),
    ({"nlayers": "2"}, "nlayers '2'"),
    ({"nheads": True}, "nheads True"),
    ({"nheads": 3}, "nheads 3"),
    ({"embsize": 8}, "embsize 8"),
    ({"embsize": 10**18}, "embsize 1000000000000000000"),
    ({"d_hid": 7}, "d_hid 7"),
    ({"d_hid": 2.5}, "d_hid 2.5"),
    ({"max_seq_len": 1}, "max_seq_len 1"),
    ({"pre_norm": "yes"}, "yes"),
    ({"pad_token": 0}, "pad_token 0"),
    ({"pad_token": "<nil>"}, "<nil>"),
]


@pytest.mark.parametrize(("change", "named"), BAD_ARGS)
def test_settings_that_contradict_the_weights_are_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_scgpt(write(tmp_path, args={**ARGS, **change}))


@pytest.mark.parametrize("key", ["nlayers", "nheads", "embsize", "d_hid", "max_seq_len", "input_style"])
def test_settings_that_are_missing_are_named(tmp_path: Path, key: str) -> None:
    with pytest.raises(CheckpointError, match=key):
        read_scgpt(write(tmp_path, args={k: v for k, v in ARGS.items() if k != key}))


BAD_VOCABULARIES = [
    ({**VOCAB, "EXTRA": 9}, "10"),
    ({k: v for k, v in VOCAB.items() if k != "<eoc>"}, "8"),
    ({k: v for k, v in VOCAB.items() if k != "<cls>"} | {"Q": 1}, "<cls>"),
    (VOCAB | {"Z0": 2}, "0 to 8"),
    (VOCAB | {"Z0": 70}, "0 to 8"),
    (VOCAB | {"Z0": "7"}, "0 to 8"),
    ({}, "<pad>"),
]


@pytest.mark.parametrize(("vocab", "named"), BAD_VOCABULARIES)
def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path, vocab: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_scgpt(write(tmp_path, vocab=vocab))


@pytest.mark.parametrize(
    "key",
    [
        "transformer_encoder.layers.0.linear1.weight",
        "transformer_encoder.layers.1.norm2.bias",
        "encoder.enc_norm.weight",
        "decoder.fc.4.bias",
    ],
)
def test_missing_weights_are_named(tmp_path: Path, key: str) -> None:
    weights = {k: v for k, v in tiny_model().state_dict().items() if k != key}
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        read_scgpt(write(tmp_path, weights))


BAD_WEIGHTS: list[tuple[str, Callable[[torch.Tensor], Any]]] = [
    ("decoder.fc.0.weight", lambda w: w[:2].clone()),
    ("value_encoder.norm.bias", lambda w: torch.full_like(w, float("nan"))),
    ("value_encoder.norm.bias", lambda w: torch.full_like(w, float("-inf"))),
    ("value_encoder.norm.bias", lambda w: torch.full((4,), 1e300, dtype=torch.float64)),
    ("encoder.enc_norm.weight", lambda w: w.to(torch.int64)),
    ("encoder.embedding.weight", lambda w: w[:8].clone()),
    ("encoder.embedding.weight", lambda w: w.flatten()),
    ("transformer_encoder.layers.0.linear1.weight", lambda w: w[0, 0].clone()),
    ("transformer_encoder.layers.1.norm1.weight", lambda w: w[0].clone()),
]


@pytest.mark.parametrize(("key", "change"), BAD_WEIGHTS)
@pytest.mark.parametrize("pt", [False, True])
def test_bad_weights_are_refused(tmp_path: Path, key: str, change: Callable[[torch.Tensor], Any], pt: bool) -> None:
    weights = dict(tiny_model().state_dict())
    weights[key] = change(weights[key])
    with pytest.raises(CheckpointError):
        read_scgpt(write(tmp_path, weights, pt=pt))


@pytest.mark.parametrize("missing", ["args.json", "vocab.json", "model.safetensors"])
def test_a_missing_file_is_named_with_what_is_there(tmp_path: Path, missing: str) -> None:
    folder = write(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(CheckpointError, match=missing) as caught:
        read_scgpt(folder)
    assert all(path.name in str(caught.value) for path in folder.iterdir())


def test_folders_of_other_kinds_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        read_scgpt(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file"):
        read_scgpt(tmp_path / "file")
    other = tmp_path / "geneformer"
    other.mkdir()
    (other / "config.json").write_text("{}")
    save_file({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 2)}, other / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        read_scgpt(other)
    assert "family" in caught.value.hint
    with pytest.raises(CheckpointError, match=r"encoder\.embedding\.weight"):
        read_scgpt(write(tmp_path / "mixed", {"bert.embeddings.word_embeddings.weight": torch.zeros(3, 2)}))


def saved(pt: bool) -> bytes:
    if not pt:
        return save(dict(tiny_model().state_dict()))
    stream = io.BytesIO()
    torch.save(dict(tiny_model().state_dict()), stream)
    return stream.getvalue()


SAVED = {pt: saved(pt) for pt in (True, False)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), pt=st.booleans())
def test_damaged_weights_are_refused_or_change_the_digest(tmp_path: Path, data: st.DataObject, pt: bool) -> None:
    whole = SAVED[pt]
    digest = read_scgpt(write(tmp_path / f"whole{pt}", whole, pt=pt)).digest
    kind = data.draw(st.sampled_from(["cut", "flip", "random"]))
    if kind == "cut":
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "flip":
        position = data.draw(st.integers(0, len(whole) - 1))
        damaged = whole[:position] + bytes([whole[position] ^ data.draw(st.integers(1, 255))]) + whole[position + 1 :]
    else:
        damaged = data.draw(st.binary(max_size=200))
    folder = write(tmp_path / f"damaged{pt}", damaged, pt=pt)
    try:
        checkpoint = read_scgpt(folder)
    except CheckpointError:
        return
    assert kind == "flip", "cut or random bytes must never be read"
    assert checkpoint.digest != digest


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(sorted(ARGS)),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=4,
    ),
)
def test_any_setting_is_read_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = write(tmp_path, args={**ARGS, key: value})
    try:
        checkpoint = read_scgpt(folder)
    except CheckpointError:
        return
    assert (checkpoint.n_layers, checkpoint.d_model) == (2, 4)


@pytest.mark.shared
def test_real_folders_of_other_kinds_are_refused_with_the_reason(shared: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors or best_model\.pt"):
        read_scgpt(shared / "checkpoints/scgpt_human_meta")
    with pytest.raises(CheckpointError, match=r"args\.json"):
        read_scgpt(shared / "checkpoints/geneformer_v2_meta")

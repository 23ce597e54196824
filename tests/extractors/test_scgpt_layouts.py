from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_scgpt import plain_embedding, stored_weights
from safetensors.torch import load_file, save_file
from tiny_scgpt import GENES, N_BINS, InputStyle, ValueStyle, write_tiny_scgpt

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt
from manifoldzoo.extractors.checkpoints._scgpt_values import bin_values

GENES_OF_CELL = np.array([[3, 0, 7, 11, 4]])
COUNTS = np.array([[1.0, 3.0, 1.0, 700.0, 2.0]], dtype=np.float32)
VALUES = np.log1p(COUNTS * 10)
IDS = torch.tensor([[13, 3, 0, 7, 11, 4]])


def shown_to_the_model(checkpoint: ScGPTCheckpoint, values: np.ndarray, **masked: Any) -> np.ndarray:
    """Inputs of one cell, ``<cls>`` first."""
    return checkpoint._sequence(GENES_OF_CELL, values, **masked)[1].numpy()[0]


@pytest.mark.parametrize(
    ("style", "scale", "values", "want"),
    [
        ("log1p", "log1p", VALUES, VALUES),
        ("binned", "log1p", VALUES, bin_values(COUNTS, N_BINS)),
        ("normed_raw", "log1p", VALUES, COUNTS * 10),
        ("counts", "counts", COUNTS, COUNTS),
    ],
)
def test_input_styles(tmp_path: Path, style: InputStyle, scale: str, values: np.ndarray, want: np.ndarray) -> None:
    folder = write_tiny_scgpt(tmp_path, input_style=style)
    checkpoint = read_scgpt(folder)
    assert (checkpoint.scale, checkpoint.settings.input_style) == (scale, style)
    np.testing.assert_allclose(shown_to_the_model(checkpoint, values), [0, *want[0]], rtol=1e-5)
    masked = np.array([[False, True, False, False, False]])
    hidden = [0, want[0, 0], -1, *want[0, 2:]]
    np.testing.assert_allclose(shown_to_the_model(checkpoint, values, masked=masked), hidden, rtol=1e-5)
    assert torch.isfinite(checkpoint.predict(GENES_OF_CELL, values)).all()


def test_counts_are_clipped_at_512_by_the_value_encoder(tmp_path: Path) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, input_style="counts"))
    clipped = np.minimum(COUNTS, 512)
    assert torch.equal(checkpoint.pooled(GENES_OF_CELL, COUNTS), checkpoint.pooled(GENES_OF_CELL, clipped))
    lower = np.minimum(COUNTS, 500)
    assert not torch.equal(checkpoint.pooled(GENES_OF_CELL, COUNTS), checkpoint.pooled(GENES_OF_CELL, lower))


@pytest.mark.parametrize(
    ("style", "value_style"),
    [("log1p", "continuous"), ("binned", "continuous"), ("binned", "category"), ("log1p", "scaling")],
)
def test_value_styles_are_embedded_as_scgpt_does(tmp_path: Path, style: InputStyle, value_style: ValueStyle) -> None:
    folder = write_tiny_scgpt(tmp_path, input_style=style, value_style=value_style)
    checkpoint = read_scgpt(folder)
    inputs = torch.from_numpy(shown_to_the_model(checkpoint, VALUES))[None]
    want = plain_embedding(stored_weights(folder), IDS, inputs)
    torch.testing.assert_close(checkpoint.model.embed(IDS, inputs), want, rtol=1e-5, atol=1e-6)
    if value_style == "category":
        masked = np.array([[True, False, False, False, False]])
        assert shown_to_the_model(checkpoint, VALUES, masked=masked)[1] == N_BINS + 1


@pytest.mark.parametrize(
    ("args", "beside_cls"),
    [
        ({"pad_value": -2}, 0),
        ({"pad_value": -2, "training_tasks": "both"}, -2),
        ({"pad_value": 0, "training_tasks": "pcpt"}, 0),
    ],
)
def test_pre_training_puts_the_padding_value_beside_cls(tmp_path: Path, args: dict[str, Any], beside_cls: int) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, args=args))
    assert shown_to_the_model(checkpoint, VALUES)[0] == beside_cls


def test_batch_norm_of_embeddings_is_applied(tmp_path: Path) -> None:
    statistics = {
        "bn.weight": torch.linspace(0.5, 2, 16),
        "bn.bias": torch.linspace(-1, 1, 16),
        "bn.running_mean": torch.linspace(-0.3, 0.3, 16),
        "bn.running_var": torch.linspace(0.2, 3, 16),
    }
    folder = write_tiny_scgpt(tmp_path / "bn", extra={**statistics, "bn.num_batches_tracked": torch.tensor(7)})
    checkpoint = read_scgpt(folder)
    assert checkpoint.ignored_keys == ("bn.num_batches_tracked",)
    theirs = torch.nn.BatchNorm1d(16, eps=6.1e-5).eval()
    theirs.load_state_dict({k.removeprefix("bn."): v for k, v in statistics.items()}, strict=False)
    inputs = torch.from_numpy(shown_to_the_model(checkpoint, VALUES))[None]
    plain = plain_embedding(stored_weights(folder), IDS, inputs)
    want = theirs(plain.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(checkpoint.model.embed(IDS, inputs), want, rtol=1e-5, atol=1e-5)
    assert read_scgpt(folder).shuffled_weights(0).settings.batch_norm
    with pytest.raises(CheckpointError, match=r"bn\.running_var"):
        read_scgpt(write_tiny_scgpt(tmp_path / "neg", extra={**statistics, "bn.running_var": -torch.ones(16)}))
    with pytest.raises(CheckpointError, match=r"bn\.bias"):
        read_scgpt(write_tiny_scgpt(tmp_path / "half", extra={"bn.running_mean": torch.zeros(16)}))


KNOWN_AND_LEFT_OUT = [
    "mvc_decoder.gene2query.weight",
    "mvc_decoder.W.weight",
    "cls_decoder._decoder.0.weight",
    "cls_decoder.out_layer.bias",
    "flag_encoder.weight",
    "grad_reverse_discriminator.out_layer.weight",
    "batch_encoder.embedding.weight",
    "mod_encoder.embedding.weight",
    "decoder.zero_logit.0.weight",
    "transformer_encoder.layers.0.self_attn.cross_attn.in_proj_weight",
]


def test_what_serves_other_outputs_is_listed_and_left_out(tmp_path: Path) -> None:
    extra = {key: torch.ones(3, 3) for key in KNOWN_AND_LEFT_OUT}
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path / "more", extra=extra))
    assert checkpoint.ignored_keys == tuple(sorted(extra))
    plain = read_scgpt(write_tiny_scgpt(tmp_path / "plain"))
    assert torch.equal(checkpoint.predict(GENES_OF_CELL, VALUES), plain.predict(GENES_OF_CELL, VALUES))


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("dsbn.bns.0.running_mean", "batch"),
        ("pert_encoder.weight", "perturbed"),
        ("transformer_encoder.fast_transformer_encoder.layers.0.linear1.weight", "linear attention"),
        ("encoder.position.weight", "does not know"),
        ("transformer_encoder.layers.0.self_attn.rotary.inv_freq", "does not know"),
    ],
)
def test_what_changes_hidden_states_otherwise_is_refused_by_name(tmp_path: Path, key: str, reason: str) -> None:
    folder = write_tiny_scgpt(tmp_path, extra={key: torch.ones(3)})
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_scgpt(folder)
    assert key in str(caught.value)


def flash_beside_plain(*, alike: bool) -> dict[str, torch.Tensor]:
    """Flash attention's projection for all layers of a tiny folder of seed 0, equal or not to the plain one."""
    plain = {}
    for index in range(3):
        start = f"transformer_encoder.layers.{index}.self_attn"
        draw = torch.Generator().manual_seed(index)
        plain[f"{start}.Wqkv.weight"] = torch.randn(48, 16, generator=draw)
        plain[f"{start}.Wqkv.bias"] = torch.randn(48, generator=draw)
    if not alike:
        return plain
    return plain | {key.replace(".Wqkv.", ".in_proj_"): tensor.clone() for key, tensor in plain.items()}


def test_a_projection_held_twice_alike_is_read_once(tmp_path: Path) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, extra=flash_beside_plain(alike=True)))
    assert len(checkpoint.ignored_keys) == 6
    weights = flash_beside_plain(alike=True)
    assert torch.equal(
        checkpoint.model.layers[1].self_attn.in_proj_bias,
        weights["transformer_encoder.layers.1.self_attn.in_proj_bias"],
    )


@pytest.mark.parametrize("stated", [True, False])
def test_a_projection_held_twice_is_the_one_that_was_used(tmp_path: Path, stated: bool) -> None:
    folder = write_tiny_scgpt(tmp_path, extra=flash_beside_plain(alike=False), args={"fast_transformer": stated})
    checkpoint, stored = read_scgpt(folder), load_file(folder / "model.safetensors")
    used, other = (".Wqkv.", ".in_proj_") if stated else (".in_proj_", ".Wqkv.")
    for index, layer in enumerate(checkpoint.model.layers):
        start = f"transformer_encoder.layers.{index}.self_attn"
        assert torch.equal(layer.self_attn.in_proj_weight, stored[f"{start}{used}weight"])
        assert torch.equal(layer.self_attn.in_proj_bias, stored[f"{start}{used}bias"])
        assert {f"{start}{other}weight", f"{start}{other}bias"} <= set(checkpoint.ignored_keys)


def test_a_projection_held_twice_without_saying_which_is_used_is_refused(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path, extra=flash_beside_plain(alike=False))
    with pytest.raises(CheckpointError, match=r"layers\.0\.self_attn\.Wqkv\..* and .*in_proj_") as caught:
        read_scgpt(folder)
    assert "fast_transformer" in caught.value.hint


def test_names_of_parallel_training_are_read(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path / "tiny")
    plain = read_scgpt(folder).predict(GENES_OF_CELL, VALUES)
    weights = load_file(folder / "model.safetensors")
    save_file({f"module.{key}": tensor for key, tensor in weights.items()}, folder / "model.safetensors")
    assert torch.equal(read_scgpt(folder).predict(GENES_OF_CELL, VALUES), plain)
    weights["module.extra"] = torch.ones(1)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"module\.extra"):
        read_scgpt(folder)


def test_special_tokens_are_those_the_files_name(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path, args={"pad_token": "PADDING"})
    vocabulary = {"PADDING": 4, "<cls>": 0, "<eoc>": 9, "<mask>": 2}
    vocabulary |= dict(zip(GENES[:11], [14, 1, 3, 5, 6, 7, 8, 10, 11, 12, 13], strict=True))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    checkpoint = read_scgpt(folder)
    assert (checkpoint.pad_id, checkpoint.cls_id) == (4, 0)
    assert checkpoint.genes == (*GENES[1:11], GENES[0])
    assert checkpoint.token_ids.tolist() == [1, 3, 5, 6, 7, 8, 10, 11, 12, 13, 14]
    ids, _, mask = checkpoint._sequence(np.array([[10, 0, -1]]), np.float32([[1, 2, 0]]))
    assert ids.tolist() == [[0, 14, 1, 4]]
    assert mask is not None
    assert mask.tolist() == [[False, False, False, True]]


def test_a_single_pt_file_of_another_name_is_read(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path, file="best_model.pt")
    (folder / "best_model.pt").rename(folder / "model_e7.pt")
    assert read_scgpt(folder).files[2].name == "model_e7.pt"
    (folder / "model_e8.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"model_e7\.pt, model_e8\.pt"):
        read_scgpt(folder)


BAD_ARGS = [
    ({"input_style": "scaled"}, "'scaled'"),
    ({"input_style": None}, "None"),
    ({"input_style": ["log1p"]}, r"\['log1p'\]"),
    ({"input_emb_style": "category"}, "'category'.*'log1p'"),
    ({"input_emb_style": "token"}, "'token'"),
    ({"input_style": "binned", "input_emb_style": "scaling"}, "'scaling'.*'binned'"),
    ({"input_style": "binned", "n_bins": None}, "n_bins None"),
    ({"input_style": "binned", "n_bins": 1}, "n_bins 1"),
    ({"input_style": "binned", "n_bins": 51.0}, r"n_bins 51\.0"),
    ({"input_style": "binned", "n_bins": 10**12}, "n_bins 1000000000000"),
    ({"fast_transformer": "yes"}, "fast_transformer 'yes'"),
    ({"mask_value": "auto"}, "mask_value 'auto'"),
    ({"mask_value": True}, "mask_value True"),
    ({"pad_value": None, "training_tasks": "both"}, "pad_value None"),
    ({"pad_value": float("inf"), "training_tasks": "both"}, "pad_value inf"),
]


@pytest.mark.parametrize(("change", "named"), BAD_ARGS)
def test_settings_of_wrong_types_or_in_contradiction_are_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_scgpt(write_tiny_scgpt(tmp_path, args=change))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"n_bins": 50, "mask_value": 51}, r"\(53, 16\), expected \(52, 16\) after n_bins 50"),
        ({"mask_value": -1}, "mask_value -1"),
        ({"mask_value": 53}, "mask_value 53"),
        ({"mask_value": 0.5}, r"mask_value 0\.5"),
        ({"pad_value": -2, "training_tasks": "both"}, "pad_value -2"),
    ],
)
def test_categories_must_have_a_row_each(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    folder = write_tiny_scgpt(tmp_path, input_style="binned", value_style="category", args=change)
    with pytest.raises(CheckpointError, match=named):
        read_scgpt(folder)


def test_a_model_without_input_style_must_have_scformers_decoder(tmp_path: Path) -> None:
    folder = write_tiny_scgpt(tmp_path)
    args = json.loads((folder / "args.json").read_text())
    del args["input_style"]
    (folder / "args.json").write_text(json.dumps(args))
    with pytest.raises(CheckpointError, match="input_style None"):
        read_scgpt(folder)

"""What may be wrong with a folder of Geneformer, and where its files may lie."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_transformers import SYMBOLS, write_tiny_geneformer

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._geneformer import read_geneformer


def rewrite(folder: Path, name: str, change) -> None:
    weights = load_file(folder / name)
    change(weights)
    save_file(weights, folder / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: w.pop("bert.encoder.layer.1.output.dense.bias"), r"lacks 1 weights: encoder\.layer\.1\.output"),
        (lambda w: w.pop("bert.embeddings.word_embeddings.weight"), "no table of tokens"),
        (lambda w: w.update({"bert.adapter.weight": torch.ones(2)}), r"1 weights that this reader does not know: adap"),
        (
            lambda w: w.update({"bert.embeddings.word_embeddings.weight": torch.ones(33, 16)}),
            r"shape \(33, 16\), but config.json states 34 tokens of width 16",
        ),
        (
            lambda w: w.update({"bert.encoder.layer.0.intermediate.dense.bias": torch.ones(21)}),
            r"dense.bias has shape \(21,\), expected \(20,\)",
        ),
        (lambda w: [w.pop(key) for key in list(w) if ".layer.2." in key], r"holds 2 layers \(highest index 1\).*3"),
        (lambda w: [w.pop(key) for key in list(w) if ".layer.1." in key], r"holds 2 layers \(highest index 2\).*3"),
        (lambda w: w["bert.encoder.layer.0.output.dense.weight"].fill_(float("nan")), "NaN or infinite"),
        (lambda w: w.update({"embeddings.LayerNorm.bias": torch.ones(16)}), r"embeddings\.LayerNorm\.bias twice"),
        (
            lambda w: w.update({"bert.embeddings.LayerNorm.bias": torch.ones(16, dtype=torch.int64)}),
            "expected floating-point",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, said):
    folder = write_tiny_geneformer(tmp_path)
    rewrite(folder, "model.safetensors", change)
    with pytest.raises(CheckpointError, match=said):
        read_geneformer(folder)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000, expected a whole number from 1 to"),
        ({"num_hidden_layers": 1000}, "holds 3 layers .* states 1000"),
        ({"num_hidden_layers": 0}, "num_hidden_layers 0"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers '3'"),
        ({"num_hidden_layers": True}, "num_hidden_layers True"),
        ({"num_hidden_layers": None}, "num_hidden_layers None"),
        ({"hidden_size": 15}, "hidden_size 15, expected a multiple of num_attention_heads, which is 2"),
        ({"hidden_size": 32}, r"shape \(34, 16\), but config.json states 34 tokens of width 32"),
        ({"num_attention_heads": 3}, "a multiple of num_attention_heads, which is 3"),
        ({"intermediate_size": 21}, r"has shape \(20, 16\), expected \(21, 16\)|has shape \(20,\), expected \(21,\)"),
        ({"intermediate_size": 2.5}, "intermediate_size 2.5"),
        ({"vocab_size": 35}, r"vocab_size 35, but token_dictionary_gc104M.pkl names 34 tokens"),
        ({"max_position_embeddings": 35}, r"position_embeddings.weight has shape \(34, 16\), expected \(35, 16\)"),
        ({"max_position_embeddings": 2}, "leaves no place for genes"),
        ({"hidden_act": "no_such"}, "hidden_act 'no_such', expected the name of an activation"),
        ({"hidden_act": 3}, "hidden_act 3"),
        ({"layer_norm_eps": 0}, "layer_norm_eps 0, expected a number above 0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps nan"),
        ({"initializer_range": float("inf")}, "initializer_range inf"),
        ({"position_embedding_type": "relative_key"}, "'relative_key', expected 'absolute'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"model_type": "gpt2"}, "model_type 'gpt2', expected 'bert'"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"model_type": "x" * 1000}, "model_type 'xxx"),
    ],
)
def test_settings_that_do_not_fit_are_named_and_nothing_is_built(tmp_path, config, said):
    folder = write_tiny_geneformer(tmp_path, config=config)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_geneformer(folder)
    assert len(str(caught.value)) < 600


def test_a_missing_setting_is_named(tmp_path):
    folder = write_tiny_geneformer(tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    del settings["hidden_size"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="states no hidden_size"):
        read_geneformer(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", "not valid JSON"),
        ("config.json", b"[" * 100_000, "not valid JSON"),
        ("config.json", b"[]", "must hold a JSON object"),
        ("config.json", b"\xff", "not valid JSON"),
        ("config.json", None, "has no config.json; it holds gene_median"),
        ("model.safetensors", None, "has no model.safetensors or .*pytorch_model.bin"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        ("token_dictionary_gc104M.pkl", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("model.safetensors", b"", "safetensors"),
        ("token_dictionary_gc104M.pkl", None, r"has no token_dictionary\*.pkl"),
        ("gene_median_dictionary_gc104M.pkl", None, "gene_median_dictionary_gc104M.pkl is missing"),
        ("gene_name_id_dict_gc104M.pkl", None, "gene_name_id_dict_gc104M.pkl is missing"),
        ("gene_median_dictionary_gc104M.pkl", b"\x80\x04}.", "shares no gene with the medians"),
        ("gene_name_id_dict_gc104M.pkl", b"garbage", "not a whole pickled dictionary|asks for"),
        ("token_dictionary_gc104M.pkl", b"cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(tmp_path, name, content, said):
    folder = write_tiny_geneformer(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_geneformer(folder)


def test_a_truncated_or_random_file_of_weights_is_refused(tmp_path):
    for file in ("model.safetensors", "pytorch_model.bin"):
        folder = write_tiny_geneformer(tmp_path / file, file=file)
        whole = (folder / file).read_bytes()
        for content in (whole[:-100], whole[: len(whole) // 2], np.random.default_rng(0).bytes(1 << 22)):
            (folder / file).write_bytes(content)
            with pytest.raises(CheckpointError, match=file):
                read_geneformer(folder)


def test_a_pickle_in_the_place_of_weights_runs_nothing(tmp_path):
    folder = write_tiny_geneformer(tmp_path, file="pytorch_model.bin")
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (mark,))

    torch.save({"bert.embeddings.word_embeddings.weight": Hostile()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as tensors alone"):
        read_geneformer(folder)
    for stem in ("token_dictionary", "gene_median_dictionary", "gene_name_id_dict"):
        again = write_tiny_geneformer(tmp_path / stem)
        (again / f"{stem}_gc104M.pkl").write_bytes(pickle.dumps({"<pad>": Hostile()}))
        with pytest.raises(CheckpointError, match="asks for"):
            read_geneformer(again)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"<pad>": 5}), "must number its 34 tokens from 0 to 33, each once"),
        (lambda t: t.update({"<pad>": -1}), "each once"),
        (lambda t: t.update({"<pad>": "0"}), "'<pad>' is str, expected a dictionary from str to int"),
        (lambda t: t.update({"<pad>": 0.0}), "'<pad>' is float"),
        (lambda t: t.update({"<PAD>": t.pop("<pad>")}), "has no <pad>"),
        (lambda t: t.update({"<other>": t.pop("<eos>")}), "only one of <cls> and <eos>"),
    ],
)
def test_token_dictionaries_that_make_no_sense_are_refused(tmp_path, change, said):
    folder = write_tiny_geneformer(tmp_path)
    path = folder / "token_dictionary_gc104M.pkl"
    tokens = pickle.loads(path.read_bytes())
    change(tokens)
    path.write_bytes(pickle.dumps(tokens))
    with pytest.raises(CheckpointError, match=said):
        read_geneformer(folder)


def test_dictionaries_are_found_where_the_repository_has_them(tmp_path):
    one = write_tiny_geneformer(tmp_path / "V1", version=1, genes=SYMBOLS[:20])
    two = write_tiny_geneformer(tmp_path / "V2", version=2)
    wanted = {folder: read_geneformer(folder).digest for folder in (one, two)}
    old = tmp_path / "geneformer" / "gene_dictionaries_30m"
    old.mkdir(parents=True)
    for folder, place in ((one, old), (two, tmp_path / "geneformer")):
        for path in folder.glob("*.pkl"):
            path.rename(place / path.name)
    for folder in (one, two):
        assert read_geneformer(folder).digest == wanted[folder]
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "geneformer").rename(elsewhere)
    assert read_geneformer(two, dictionaries=elsewhere).digest == wanted[two]
    with pytest.raises(CheckpointError, match=r"no token_dictionary\*"):
        read_geneformer(two)
    with pytest.raises(CheckpointError, match=r"vocab_size 34, but token_dictionary\.pkl names 22 tokens"):
        read_geneformer(two, dictionaries=elsewhere / "gene_dictionaries_30m")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.clear(), "has no weight_map"),
        (
            lambda m: m.update({next(iter(m)): "../model-00001-of-00002.safetensors"}),
            "expected a file of weights beside",
        ),
        (lambda m: m.update({next(iter(m)): "/etc/passwd"}), "expected a file of weights beside"),
        (lambda m: m.update({next(iter(m)): 3}), "expected a file of weights beside"),
        (lambda m: m.update({next(iter(m)): "config.json"}), "expected a file of weights beside"),
        (lambda m: m.update({next(iter(m)): "model-00003-of-00003.safetensors"}), "which is missing"),
        (lambda m: m.pop(next(iter(m))), "disagree on"),
        (lambda m: m.update({"more": "model-00001-of-00002.safetensors"}), "disagree on more"),
    ],
)
def test_an_index_of_shards_is_checked(tmp_path, change, said):
    folder = write_tiny_geneformer(tmp_path, file="sharded")
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said):
        read_geneformer(folder)

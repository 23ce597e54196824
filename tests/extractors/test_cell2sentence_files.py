"""What may be wrong with a folder of Cell2Sentence."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_transformers import SYMBOLS, write_tiny_cell2sentence

from manifoldzoo.cards._errors import CheckpointError
from manifoldzoo.extractors.checkpoints._cell2sentence import read_cell2sentence


@pytest.mark.parametrize(
    ("layout", "change", "said"),
    [
        ("gpt_neox", lambda w: w.pop("gpt_neox.layers.1.mlp.dense_4h_to_h.bias"), r"lacks 1 weights: layers\.1\.mlp"),
        ("gpt_neox", lambda w: w.pop("gpt_neox.embed_in.weight"), "no table of tokens"),
        (
            "gpt_neox",
            lambda w: w.update({"gpt_neox.lora_a": torch.ones(2)}),
            "1 weights that this reader does not know",
        ),
        ("gpt_neox", lambda w: w["gpt_neox.final_layer_norm.bias"].fill_(float("inf")), "NaN or infinite"),
        (
            "gpt_neox",
            lambda w: w.update({"gpt_neox.layers.0.attention.dense.weight": torch.ones(16, 8)}),
            r"dense\.weight has shape \(16, 8\), expected \(16, 16\)",
        ),
        ("gpt_neox", lambda w: [w.pop(key) for key in list(w) if ".layers.2." in key], "holds 2 layers .* states 3"),
        ("gpt2", lambda w: w.pop("transformer.wpe.weight"), r"lacks 1 weights: wpe\.weight"),
        ("gpt2", lambda w: w.update({"wpe.weight": torch.ones(256, 16)}), r"wpe\.weight twice"),
        (
            "gpt2",
            lambda w: w.update({"transformer.h.0.attn.c_attn.weight": torch.ones(48, 16)}),
            r"c_attn\.weight has shape \(48, 16\), expected \(16, 48\)",
        ),
        ("gpt2", lambda w: w.update({"transformer.h.0.crossattention.bias": torch.ones(2)}), "crossattention"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, layout, change, said):
    folder = write_tiny_cell2sentence(tmp_path, layout=layout)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=said):
        read_cell2sentence(folder)


@pytest.mark.parametrize(
    ("layout", "config", "said"),
    [
        ("gpt_neox", {"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000"),
        ("gpt_neox", {"num_hidden_layers": 4}, "holds 3 layers .* states 4"),
        ("gpt_neox", {"hidden_size": 17}, "hidden_size 17, expected a multiple of num_attention_heads"),
        ("gpt_neox", {"hidden_size": 2**19}, "of width 524288"),
        ("gpt_neox", {"vocab_size": 7}, r"embed_in\.weight has shape \(\d+, 16\), but config\.json states 7 tokens"),
        ("gpt_neox", {"max_position_embeddings": 10**12}, "max_position_embeddings 1000000000000"),
        ("gpt_neox", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling"),
        ("gpt_neox", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn', expected 'default'"),
        ("gpt_neox", {"rope_parameters": [1]}, r"rope_parameters \[1\], expected an object"),
        ("gpt_neox", {"rotary_pct": 0}, "rotary_pct 0, expected a number above 0"),
        ("gpt_neox", {"rotary_pct": 1.5}, "rotary_pct 1.5"),
        ("gpt_neox", {"rotary_emb_base": "10000"}, "rotary_emb_base '10000'"),
        ("gpt_neox", {"rope_theta": 500}, "rope_theta 500, expected the same as rotary_emb_base"),
        ("gpt_neox", {"use_parallel_residual": 1}, "use_parallel_residual 1, expected true or false"),
        ("gpt_neox", {"attention_bias": None}, "attention_bias None"),
        ("gpt_neox", {"attention_bias": False}, r"6 weights that this reader does not know: layers\.0\.attention"),
        ("gpt_neox", {"hidden_act": "nothing"}, "hidden_act 'nothing'"),
        ("gpt_neox", {"quantization_config": {}}, "quantization_config"),
        ("gpt_neox", {"model_type": "llama"}, "model_type 'llama', expected 'gpt_neox' or 'gpt2'"),
        ("gpt_neox", {"model_type": "gpt2"}, "states no n_embd"),
        ("gpt2", {"n_layer": 2**40}, "n_layer 1099511627776"),
        ("gpt2", {"n_positions": 512}, r"wpe\.weight has shape \(256, 16\), expected \(512, 16\)"),
        ("gpt2", {"n_head": 3}, "n_embd 16, expected a multiple of n_head, which is 3"),
        ("gpt2", {"n_inner": 0}, "n_inner 0"),
        ("gpt2", {"n_inner": 32}, r"expected \(.*32.*\)"),
        ("gpt2", {"scale_attn_weights": "yes"}, "scale_attn_weights 'yes'"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention True"),
    ],
)
def test_settings_that_do_not_fit_are_named_and_nothing_is_built(tmp_path, layout, config, said):
    folder = write_tiny_cell2sentence(tmp_path, layout=layout, config=config)
    with pytest.raises(CheckpointError, match=said) as caught:
        read_cell2sentence(folder)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", None, r"has no tokenizer\.json or vocab\.json"),
        ("tokenizer.json", b"", "is no tokenizer"),
        ("tokenizer.json", b"\xff\xfe", "is no tokenizer"),
        ("tokenizer.json", b'{"version": "1.0"}', "is no tokenizer: Model missing"),
        ("tokenizer.json", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("model.safetensors", None, r"has no model\.safetensors or"),
        ("model.safetensors", b"\x00" * 4096, "safetensors"),
        ("config.json", None, r"has no config\.json"),
        ("config.json", b"\x00", "not valid JSON"),
    ],
)
def test_files_that_are_missing_or_damaged_are_named(tmp_path, name, content, said):
    folder = write_tiny_cell2sentence(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=said):
        read_cell2sentence(folder)


@pytest.mark.parametrize(
    ("vocabulary", "merges", "said"),
    [
        (b"[]", b"", "must hold a JSON object"),
        (b'{"a": "b"}', b"", "is no tokenizer"),
        (b'{"a": -1}', b"", "is no tokenizer"),
        (b'{"a": 0}', b"#version: 0.2\na b\n", "is no tokenizer: .*`b` out of vocabulary"),
        (b'{"a": 0}', b"a b c\n", "is no tokenizer"),
        (b'{"a": 0}', b"\xff", "is no tokenizer"),
        (b'{"a": 0}', None, r"has no merges\.txt"),
        (b'{"a": 0, "b": 4000}', b"", r"has 2 tokens, numbered up to 4000, the model \d+"),
    ],
)
def test_vocabularies_and_merges_that_do_not_fit_are_named(tmp_path, vocabulary, merges, said):
    folder = write_tiny_cell2sentence(tmp_path, layout="gpt2", tokenizer="vocab.json")
    (folder / "vocab.json").write_bytes(vocabulary)
    (folder / "merges.txt").unlink()
    if merges is not None:
        (folder / "merges.txt").write_bytes(merges)
    with pytest.raises(CheckpointError, match=said):
        read_cell2sentence(folder)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    folder = write_tiny_cell2sentence(tmp_path / "a")
    other = write_tiny_cell2sentence(tmp_path / "b", n_merges=60)
    (other / "tokenizer.json").rename(folder / "tokenizer.json")
    with pytest.raises(CheckpointError, match=r"has 317 tokens, numbered up to 316, the model 300"):
        read_cell2sentence(folder)


def test_a_tokenizer_that_cuts_or_fills_is_kept_from_it(tmp_path):
    folder = write_tiny_cell2sentence(tmp_path)
    wanted = read_cell2sentence(folder).with_genes(SYMBOLS).embedding()
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    settings["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    assert torch.equal(read_cell2sentence(folder).with_genes(SYMBOLS).embedding(), wanted)


def test_a_pattern_that_takes_for_ever_ends_in_an_error(tmp_path):
    folder = write_tiny_cell2sentence(tmp_path)
    settings = json.loads((folder / "tokenizer.json").read_text())
    settings["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(A+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    (folder / "tokenizer.json").write_text(json.dumps(settings))
    checkpoint = read_cell2sentence(folder)
    with pytest.raises(CheckpointError, match="The tokenizer fails on ' AAAAA"):
        checkpoint.knows(["A" * 60 + "B"])


def test_truncated_random_and_hostile_weights_are_refused_and_run_nothing(tmp_path):
    mark = tmp_path / "ran"

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (mark,))

    for layout, file in (("gpt_neox", "model.safetensors"), ("gpt2", "pytorch_model.bin")):
        folder = write_tiny_cell2sentence(tmp_path / layout, layout=layout, file=file)
        whole = (folder / file).read_bytes()
        for content in (whole[:-64], np.random.default_rng(0).bytes(1 << 22), pickle.dumps(Hostile())):
            (folder / file).write_bytes(content)
            with pytest.raises(CheckpointError, match=file):
                read_cell2sentence(folder)
    torch.save({"transformer.wte.weight": Hostile()}, folder / file)
    with pytest.raises(CheckpointError, match="cannot be read as tensors alone"):
        read_cell2sentence(folder)
    assert not mark.exists()


def test_a_shard_that_is_a_pointer_is_refused(tmp_path):
    folder = write_tiny_cell2sentence(tmp_path, file="sharded")
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"00002\.safetensors is a Git LFS pointer"):
        read_cell2sentence(folder)


def test_no_code_of_a_folder_is_run(tmp_path):
    auto = {"auto_map": {"AutoModel": "modeling.Evil", "AutoConfig": "modeling.Evil"}}
    folder = write_tiny_cell2sentence(tmp_path, config=auto)
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    assert read_cell2sentence(folder).n_layers == 3
    assert not (tmp_path / "ran").exists()

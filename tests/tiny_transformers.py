"""Random folders in the layouts of Geneformer and Cell2Sentence, written without the readers they test."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

SYMBOLS = (
    "CD34",
    "GATA1",
    "GATA2",
    "MPO",
    "HBB",
    "HLA-DRA",
    "CD79A",
    "CD79B",
    "MS4A1",
    "LYZ",
    "S100A8",
    "S100A9",
    "IL7R",
    "CCR7",
    "NKG7",
    "GNLY",
    "CD3E",
    "CD8A",
    "FCGR3A",
    "MALAT1",
    "SPINK2",
    "AVP",
    "KLF1",
    "MT-CO1",
    "RP11-34P13.7",
    "C1ORF56",
    "TMSB4X",
    "B2M",
    "ELANE",
    "PF4",
)
Layout = Literal["gpt_neox", "gpt2"]
WeightsFile = Literal["model.safetensors", "pytorch_model.bin", "sharded"]


def tiny_ensembl(index: int) -> str:
    """Ensembl id of the gene at an index of those written."""
    return f"ENSG{index + 1000:011d}"


def write_tiny_geneformer(
    folder: Path,
    *,
    version: Literal[1, 2] = 2,
    genes: Sequence[str] | None = None,
    n_layers: int = 3,
    n_heads: int = 2,
    d_model: int = 16,
    d_hid: int = 20,
    max_size: int | None = None,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    file: WeightsFile = "model.safetensors",
    prefix: str = "bert.",
    head: bool = True,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a random valid folder; ``config`` overrides settings of ``config.json``. Returns the folder.

    Symbols are ``genes``, Ensembl ids those of ``tiny_ensembl``; medians differ from gene to gene.
    """
    genes = SYMBOLS if genes is None else tuple(genes)
    special = ("<pad>", "<mask>") if version == 1 else ("<pad>", "<mask>", "<cls>", "<eos>")
    ids = [tiny_ensembl(index) for index in range(len(genes))]
    tokens = {token: index for index, token in enumerate([*special, *ids])}
    rng = np.random.default_rng(seed)
    medians = dict(zip(ids, np.exp(rng.normal(0.8, 0.6, len(ids))), strict=True))
    suffix = "" if version == 1 else "_gc104M"
    stated = {
        "architectures": ["BertForMaskedLM"],
        "attention_probs_dropout_prob": 0.02 if version == 1 else 0.1,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02 if version == 1 else 0.1,
        "hidden_size": d_model,
        "initializer_range": 0.02,
        "intermediate_size": d_hid,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": len(tokens) if max_size is None else max_size,
        "model_type": "bert",
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "type_vocab_size": 2,
        "use_cache": True,
        "vocab_size": len(tokens),
    }
    weights = _bert_weights(stated, seed=seed, prefix=prefix, head=head)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(stated | (config or {})))
    for name, content in (
        ("token_dictionary", tokens),
        ("gene_median_dictionary", medians),
        ("gene_name_id_dict", dict(zip(genes, ids, strict=True))),
    ):
        (folder / f"{name}{suffix}.pkl").write_bytes(pickle.dumps(content, protocol=4))
    _write_weights(folder, {key: tensor.to(dtype) for key, tensor in weights.items()}, file)
    return folder


def write_tiny_cell2sentence(
    folder: Path,
    *,
    layout: Layout = "gpt_neox",
    genes: Sequence[str] | None = None,
    n_layers: int = 3,
    n_heads: int = 2,
    d_model: int = 16,
    context: int = 256,
    n_merges: int = 40,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    file: WeightsFile = "model.safetensors",
    tokenizer: Literal["tokenizer.json", "vocab.json"] = "tokenizer.json",
    prefix: bool = True,
    head: bool = True,
    config: dict[str, Any] | None = None,
) -> Path:
    """Write a random valid folder; ``config`` overrides settings of ``config.json``. Returns the folder.

    The tokenizer is a byte-level BPE learnt on ``genes`` with so few merges that most fall into several tokens.
    """
    genes = SYMBOLS if genes is None else tuple(genes)
    folder.mkdir(parents=True, exist_ok=True)
    bpe = _tiny_bpe(genes, n_merges)
    if tokenizer == "tokenizer.json":
        bpe.save(str(folder / "tokenizer.json"))
    else:
        # writes vocab.json and merges.txt
        bpe.model.save(str(folder))
    # real tables are longer than the vocabulary
    n_tokens = bpe.get_vocab_size() + 3
    if layout == "gpt_neox":
        stated = {
            "architectures": ["GPTNeoXForCausalLM"],
            "bos_token_id": 0,
            "eos_token_id": 0,
            "hidden_act": "gelu",
            "hidden_size": d_model,
            "initializer_range": 0.02,
            "intermediate_size": 4 * d_model,
            "layer_norm_eps": 1e-05,
            "max_position_embeddings": context,
            "model_type": "gpt_neox",
            "num_attention_heads": n_heads,
            "num_hidden_layers": n_layers,
            "rotary_emb_base": 10000,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "use_cache": True,
            "use_parallel_residual": True,
            "vocab_size": n_tokens,
        }
        weights = _neox_weights(stated, seed=seed, prefix="gpt_neox." if prefix else "", head=head)
    else:
        stated = {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "embd_pdrop": 0.1,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-05,
            "model_type": "gpt2",
            "n_ctx": context,
            "n_embd": d_model,
            "n_head": n_heads,
            "n_layer": n_layers,
            "n_positions": context,
            "resid_pdrop": 0.1,
            "vocab_size": n_tokens,
        }
        weights = _gpt2_weights(stated, seed=seed, prefix="transformer." if prefix else "", head=head)
    (folder / "config.json").write_text(json.dumps(stated | (config or {})))
    written = {key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in weights.items()}
    _write_weights(folder, written, file)
    return folder


def _tiny_bpe(genes: Sequence[str], n_merges: int) -> Tokenizer:
    """A byte-level BPE as GPT-2 and Pythia have it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1 + len(alphabet) + n_merges,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    bpe.train_from_iterator([" ".join(genes)] * 2, trainer)
    return bpe


class _Draw:
    """Weights large enough for attention to differ from cell to cell, with norms and biases at work."""

    def __init__(self, seed: int) -> None:
        self.source = torch.Generator().manual_seed(seed)

    def matrix(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.source) * (1.2 / shape[-1] ** 0.5)

    def vector(self, n: int) -> Tensor:
        return 0.3 * torch.randn(n, generator=self.source)

    def linear(self, name: str, n_out: int, n_in: int) -> dict[str, Tensor]:
        return {f"{name}.weight": self.matrix(n_out, n_in), f"{name}.bias": self.vector(n_out)}

    def transposed(self, name: str, n_out: int, n_in: int) -> dict[str, Tensor]:
        """GPT-2's Conv1D."""
        return {f"{name}.weight": self.matrix(n_out, n_in).T.contiguous(), f"{name}.bias": self.vector(n_out)}

    def norm(self, name: str, n: int) -> dict[str, Tensor]:
        return {f"{name}.weight": 1 + self.vector(n), f"{name}.bias": self.vector(n)}


def _bert_weights(stated: dict[str, Any], *, seed: int, prefix: str, head: bool) -> dict[str, Tensor]:
    """Names as Geneformer's files have them."""
    draw, d, d_hid = _Draw(seed), stated["hidden_size"], stated["intermediate_size"]
    weights = {
        f"{prefix}embeddings.word_embeddings.weight": 2 * draw.matrix(stated["vocab_size"], d),
        f"{prefix}embeddings.position_embeddings.weight": draw.matrix(stated["max_position_embeddings"], d),
        f"{prefix}embeddings.token_type_embeddings.weight": draw.matrix(2, d),
        **draw.norm(f"{prefix}embeddings.LayerNorm", d),
    }
    for index in range(stated["num_hidden_layers"]):
        layer = f"{prefix}encoder.layer.{index}"
        for part in ("query", "key", "value"):
            weights |= draw.linear(f"{layer}.attention.self.{part}", d, d)
        weights |= draw.linear(f"{layer}.attention.output.dense", d, d)
        weights |= draw.norm(f"{layer}.attention.output.LayerNorm", d)
        weights |= draw.linear(f"{layer}.intermediate.dense", d_hid, d)
        weights |= {**draw.linear(f"{layer}.output.dense", d, d_hid), **draw.norm(f"{layer}.output.LayerNorm", d)}
    if head:
        weights |= draw.linear("cls.predictions.transform.dense", d, d)
        weights |= draw.norm("cls.predictions.transform.LayerNorm", d)
        weights["cls.predictions.bias"] = draw.vector(stated["vocab_size"])
    return weights


def _neox_weights(stated: dict[str, Any], *, seed: int, prefix: str, head: bool) -> dict[str, Tensor]:
    """Names as Pythia's files have them, buffers of older versions among them."""
    draw, d, d_hid = _Draw(seed), stated["hidden_size"], stated["intermediate_size"]
    n_rotary = d // stated["num_attention_heads"] // 4
    weights = {f"{prefix}embed_in.weight": 2 * draw.matrix(stated["vocab_size"], d)}
    for index in range(stated["num_hidden_layers"]):
        layer = f"{prefix}layers.{index}"
        weights |= {**draw.norm(f"{layer}.input_layernorm", d), **draw.norm(f"{layer}.post_attention_layernorm", d)}
        weights |= draw.linear(f"{layer}.attention.query_key_value", 3 * d, d)
        weights |= draw.linear(f"{layer}.attention.dense", d, d)
        weights[f"{layer}.attention.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.bool).tril()
        weights[f"{layer}.attention.masked_bias"] = torch.tensor(-1e9)
        weights[f"{layer}.attention.rotary_emb.inv_freq"] = torch.ones(max(1, n_rotary // 2))
        weights |= {**draw.linear(f"{layer}.mlp.dense_h_to_4h", d_hid, d)}
        weights |= {**draw.linear(f"{layer}.mlp.dense_4h_to_h", d, d_hid)}
    weights |= draw.norm(f"{prefix}final_layer_norm", d)
    if head:
        weights["embed_out.weight"] = draw.matrix(stated["vocab_size"], d)
    return weights


def _gpt2_weights(stated: dict[str, Any], *, seed: int, prefix: str, head: bool) -> dict[str, Tensor]:
    """Names as GPT-2's files have them, buffers of older versions among them."""
    draw, d = _Draw(seed), stated["n_embd"]
    weights = {
        f"{prefix}wte.weight": 2 * draw.matrix(stated["vocab_size"], d),
        f"{prefix}wpe.weight": draw.matrix(stated["n_positions"], d),
    }
    for index in range(stated["n_layer"]):
        layer = f"{prefix}h.{index}"
        weights |= {**draw.norm(f"{layer}.ln_1", d), **draw.norm(f"{layer}.ln_2", d)}
        weights |= {
            **draw.transposed(f"{layer}.attn.c_attn", 3 * d, d),
            **draw.transposed(f"{layer}.attn.c_proj", d, d),
        }
        weights[f"{layer}.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
        weights[f"{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        weights |= {
            **draw.transposed(f"{layer}.mlp.c_fc", 4 * d, d),
            **draw.transposed(f"{layer}.mlp.c_proj", d, 4 * d),
        }
    weights |= draw.norm(f"{prefix}ln_f", d)
    if head:
        weights["lm_head.weight"] = weights[f"{prefix}wte.weight"].clone()
    return weights


def _write_weights(folder: Path, weights: dict[str, Tensor], file: WeightsFile) -> None:
    """One file, or two with an index."""
    if file == "model.safetensors":
        save_file(weights, folder / file, metadata={"format": "pt"})
    elif file == "pytorch_model.bin":
        torch.save(weights, folder / file)
    else:
        names = sorted(weights)
        parts = {
            "model-00001-of-00002.safetensors": names[: len(names) // 2],
            "model-00002-of-00002.safetensors": names[len(names) // 2 :],
        }
        for part, keys in parts.items():
            save_file({key: weights[key] for key in keys}, folder / part, metadata={"format": "pt"})
        index = {"metadata": {}, "weight_map": {key: part for part, keys in parts.items() for key in keys}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

"""Cell2Sentence: sentences, tokens and numbers against the libraries' own on the whole text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_transformers import SYMBOLS, write_tiny_cell2sentence
from tokenizers import Tokenizer
from torch import Tensor

from manifoldzoo.cards._errors import BadInputError, CheckpointError, GeneError
from manifoldzoo.extractors.checkpoints._cell2sentence import TOKENS_PER_GENE, read_cell2sentence
from manifoldzoo.extractors.checkpoints._interface import PADDING

LAYOUTS = ("gpt_neox", "gpt2")
N_HEADS, D_HEAD, D_MODEL = 2, 8, 16


@pytest.fixture(params=LAYOUTS, scope="module")
def folder(request, tmp_path_factory) -> Path:
    return write_tiny_cell2sentence(tmp_path_factory.mktemp(request.param), layout=request.param, seed=5)


@pytest.fixture
def checkpoint(folder):
    return read_cell2sentence(folder).with_genes(SYMBOLS)


def cells(rng: np.random.Generator, lengths: tuple[int, ...]):
    """Unsorted, padded cells with ties, and the symbols and values of each."""
    genes = np.full((len(lengths), max(lengths)), PADDING, dtype=np.int64)
    values = np.zeros(genes.shape, dtype=np.float32)
    for row, length in enumerate(lengths):
        genes[row, :length] = rng.choice(len(SYMBOLS), length, replace=False)
        values[row, :length] = rng.choice([0.5, 1.25, 2.0, 2.5, 3.5], length)
    return genes, values


def sentence_of(genes, values) -> tuple[str, list[int]]:
    """Text of a cell, and the place among the genes given of each word."""
    order = sorted(range(len(genes)), key=lambda place: -values[place])
    return " ".join(SYMBOLS[genes[place]] for place in order), order


def spans(text: str) -> list[tuple[int, int]]:
    """First and last character of each word."""
    found, start = [], 0
    for word in text.split(" "):
        found.append((start, start + len(word)))
        start += len(word) + 1
    return found


def tokenised(folder: Path, text: str) -> tuple[list[int], list[list[int]]]:
    """Token ids of a text, and the tokens that spell each of its words."""
    encoding = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text)
    owners = [
        [token for token, (a, b) in enumerate(encoding.offsets) if max(a, start) < min(b, stop)]
        for start, stop in spans(text)
    ]
    return encoding.ids, owners


def library(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def by_gene(maps: Tensor, owners: list[list[int]], order: list[int]) -> Tensor:
    """Rows averaged over a gene's tokens, columns summed, in the order given; one by one."""
    joined = torch.zeros(len(maps), len(order), len(order))
    for i, rows in zip(order, owners, strict=True):
        for j, columns in zip(order, owners, strict=True):
            joined[:, i, j] = maps[:, rows][:, :, columns].sum(dim=2).mean(dim=1)
    return joined


def test_attention_is_the_librarys_on_the_whole_sentence_gene_by_gene(folder, checkpoint):
    genes, values = cells(np.random.default_rng(0), (9, 14, 5, 1))
    found = list(checkpoint.attention(genes, values))
    assert [tuple(layer.shape) for layer in found] == [(4, 2, 14, 14)] * 3
    assert all(layer.dtype == torch.float32 and layer.stride(-1) == 1 for layer in found)
    model = library(folder)
    for row, length in enumerate((9, 14, 5, 1)):
        text, order = sentence_of(genes[row, :length], values[row, :length])
        ids, owners = tokenised(folder, text)
        assert len(ids) > len(order)
        run = model(torch.tensor([ids]), output_attentions=True)
        for layer, truth in zip(found, run.attentions, strict=True):
            wanted = by_gene(truth[0].detach(), owners, order)
            torch.testing.assert_close(layer[row, :, :length, :length], wanted, rtol=0, atol=1e-5)
            assert length == 1 or wanted.std() > 1e-3


def test_genes_see_only_those_before_them_in_the_sentence(checkpoint):
    genes, values = np.array([[3, 8, 1]]), np.array([[1.0, 3.0, 2.0]], dtype=np.float32)
    for layer in checkpoint.attention(genes, values):
        seen = (layer[0] > 0).all(dim=0)
        assert seen.tolist() == [[True, True, True], [False, True, False], [False, True, True]]


def test_pooled_is_the_librarys_last_hidden_state_over_tokens_of_genes(folder, checkpoint):
    genes, values = cells(np.random.default_rng(1), (9, 14, 5))
    found = checkpoint.pooled(genes, values)
    model = library(folder)
    for row, length in enumerate((9, 14, 5)):
        text, _ = sentence_of(genes[row, :length], values[row, :length])
        ids, owners = tokenised(folder, text)
        hidden = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1][0].detach()
        wanted = hidden[[token for tokens in owners for token in tokens]].mean(dim=0)
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-5)


def projections(folder: Path, layer: int) -> dict[str, Tensor]:
    """Query, key, value ``(n_heads, d_head, d_model)``, their biases and the output, by definition of the layouts."""
    stored = load_file(folder / "model.safetensors")
    weights = {key: tensor.double() for key, tensor in stored.items() if "attn." in key or "attention." in key}
    parts: dict[str, Tensor] = {}
    if any(key.startswith("gpt_neox") for key in weights):
        key = f"gpt_neox.layers.{layer}.attention"
        packed, bias = weights[f"{key}.query_key_value.weight"], weights[f"{key}.query_key_value.bias"]
        for place, name in enumerate(("query", "key", "value")):
            rows = torch.tensor([[(3 * h + place) * D_HEAD + d for d in range(D_HEAD)] for h in range(N_HEADS)])
            parts[name], parts[f"{name}_bias"] = packed[rows], bias[rows]
        dense = weights[f"{key}.dense.weight"]
        parts["output"] = torch.stack([dense[:, h * D_HEAD : (h + 1) * D_HEAD] for h in range(N_HEADS)])
        return parts
    key = f"transformer.h.{layer}.attn"
    packed, bias = weights[f"{key}.c_attn.weight"], weights[f"{key}.c_attn.bias"]
    for place, name in enumerate(("query", "key", "value")):
        columns = torch.tensor([[place * D_MODEL + h * D_HEAD + d for d in range(D_HEAD)] for h in range(N_HEADS)])
        parts[name] = torch.stack([packed[:, of_head].T for of_head in columns])
        parts[f"{name}_bias"] = bias[columns]
    proj = weights[f"{key}.c_proj.weight"]
    parts["output"] = torch.stack([proj[h * D_HEAD : (h + 1) * D_HEAD].T for h in range(N_HEADS)])
    return parts


def test_heads_are_the_projections_of_the_file(folder, checkpoint):
    for layer in range(3):
        heads, wanted = checkpoint.heads(layer), projections(folder, layer)
        for name in ("query", "key", "value", "output"):
            assert torch.equal(getattr(heads, name).double(), wanted[name]), name
    with pytest.raises(BadInputError, match="no layer -1"):
        checkpoint.heads(-1)


def normed_input(model, layer: int, hidden: Tensor) -> Tensor:
    inner = getattr(model, "gpt_neox", None)
    norm = inner.layers[layer].input_layernorm if inner is not None else model.transformer.h[layer].ln_1
    return norm(hidden).detach().double()


def rotated(x: Tensor, positions: Tensor, n_rotary: int) -> Tensor:
    """Rotary positions by their definition: pairs ``(x_k, x_k+n/2)`` turned by ``position * 10000^(-2k/n)``."""
    turned = x.clone()
    for k in range(n_rotary // 2):
        angle = positions.double() * 10_000.0 ** (-2 * k / n_rotary)
        a, b = x[..., k], x[..., k + n_rotary // 2]
        turned[..., k] = a * angle.cos() - b * angle.sin()
        turned[..., k + n_rotary // 2] = b * angle.cos() + a * angle.sin()
    return turned


def test_attention_is_recomputed_from_the_heads_and_biases(folder, checkpoint):
    text = " ".join(SYMBOLS[:9])
    ids, _ = tokenised(folder, text)
    model = library(folder)
    run = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    positions = torch.arange(len(ids))
    later = positions[None] > positions[:, None]
    for layer in range(3):
        heads, biases = checkpoint.heads(layer), projections(folder, layer)
        x = normed_input(model, layer, run.hidden_states[layer][0])
        for head in range(N_HEADS):
            query = x @ heads.query[head].double().T + biases["query_bias"][head]
            key = x @ heads.key[head].double().T + biases["key_bias"][head]
            if "neox" in folder.name:
                query, key = rotated(query, positions, D_HEAD // 4), rotated(key, positions, D_HEAD // 4)
            scores = (query @ key.T / D_HEAD**0.5).masked_fill(later, float("-inf"))
            wanted = run.attentions[layer][0, head].detach()
            torch.testing.assert_close(scores.softmax(dim=1).float(), wanted, rtol=0, atol=1e-5)


def test_rotary_positions_leave_the_score_of_a_token_with_itself(tmp_path):
    checkpoint = read_cell2sentence(write_tiny_cell2sentence(tmp_path))
    x = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heads = checkpoint.heads(1)
    query, key = heads.query[1].double() @ x, heads.key[1].double() @ x
    for place in (0, 5, 200):
        here = torch.tensor(place)
        turned = rotated(query, here, D_HEAD // 4) @ rotated(key, here, D_HEAD // 4)
        torch.testing.assert_close(turned, query @ key)


def test_weighted_attention_is_what_heads_would_add_by_brute_force(folder, checkpoint):
    genes, values = cells(np.random.default_rng(2), (8, 11))
    found = list(checkpoint.attention(genes, values, weighted=True))
    model = library(folder)
    for row, length in enumerate((8, 11)):
        text, order = sentence_of(genes[row, :length], values[row, :length])
        ids, owners = tokenised(folder, text)
        run = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
        for layer, truth in enumerate(run.attentions):
            parts = projections(folder, layer)
            received = normed_input(model, layer, run.hidden_states[layer][0])
            lengths = torch.stack(
                [
                    torch.stack(
                        [torch.linalg.norm(parts["output"][h] @ (parts["value"][h] @ x + parts["value_bias"][h]))
                         for x in received]
                    )
                    for h in range(N_HEADS)
                ]
            )  # fmt: skip
            wanted = by_gene((truth[0].detach() * lengths[:, None, :]).float(), owners, order)
            torch.testing.assert_close(found[layer][row, :, :length, :length], wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_equals_a_batch_of_many_and_order_does_not_matter(checkpoint):
    rng = np.random.default_rng(3)
    genes, values = cells(rng, (6, 12, 9))
    values += np.where(genes >= 0, rng.random(genes.shape), 0).astype(np.float32)
    together, pooled = list(checkpoint.attention(genes, values)), checkpoint.pooled(genes, values)
    for row, length in enumerate((6, 12, 9)):
        turned = np.random.default_rng(row).permutation(length)
        one_genes, one_values = genes[row : row + 1, turned], values[row : row + 1, turned]
        for all_cells, one in zip(together, checkpoint.attention(one_genes, one_values), strict=True):
            torch.testing.assert_close(one[0], all_cells[row][:, turned][:, :, turned], rtol=0, atol=1e-5)
        torch.testing.assert_close(checkpoint.pooled(one_genes, one_values)[0], pooled[row], rtol=0, atol=1e-5)


def test_equal_values_stand_in_the_order_given(checkpoint):
    tokens = checkpoint.vocabulary.write(np.array([[4, 1, 3]]), np.ones((1, 3), np.float32))
    sentence = np.empty(tokens.ids.shape[1], dtype=np.int64)
    sentence[tokens.positions[0]] = tokens.ids[0]
    text = " ".join(SYMBOLS[gene] for gene in (4, 1, 3))
    assert sentence.tolist() == checkpoint.vocabulary.tokenizer.encode(text).ids


def test_embedding_is_the_mean_of_a_genes_tokens_within_a_sentence(folder, checkpoint):
    weights = load_file(folder / "model.safetensors")
    table = weights["gpt_neox.embed_in.weight" if "neox" in folder.name else "transformer.wte.weight"]
    found = checkpoint.embedding()
    assert tuple(found.shape) == (len(SYMBOLS), D_MODEL)
    for gene, symbol in enumerate(SYMBOLS):
        # the word that opens a sentence is spelled otherwise
        ids, owners = tokenised(folder, f"X {symbol}")
        torch.testing.assert_close(found[gene], table[[ids[token] for token in owners[1]]].mean(dim=0))
    assert tuple(read_cell2sentence(folder).embedding().shape) == (0, D_MODEL)


def test_a_space_that_is_a_token_of_its_own_belongs_to_no_gene(tmp_path):
    folder = write_tiny_cell2sentence(tmp_path, n_merges=0)
    checkpoint = read_cell2sentence(folder).with_genes(SYMBOLS[:5])
    text = " ".join(SYMBOLS[:5])
    ids, owners = tokenised(folder, text)
    assert len(ids) == len(text)
    assert sum(map(len, owners)) == len(text) - 4
    genes, values = np.arange(5)[None], np.arange(5, 0, -1, dtype=np.float32)[None]
    maps = library(folder)(torch.tensor([ids]), output_attentions=True).attentions
    for layer, truth in zip(checkpoint.attention(genes, values), maps, strict=True):
        torch.testing.assert_close(layer[0], by_gene(truth[0].detach(), owners, list(range(5))), rtol=0, atol=1e-5)
        assert (layer.sum(dim=3) < 1).any()
    # the most tokens that these genes can need, spaces included
    assert checkpoint.max_genes == 5


def test_what_a_checkpoint_says_of_itself(folder):
    checkpoint = read_cell2sentence(folder)
    assert checkpoint.family == "cell2sentence"
    assert checkpoint.name == folder.name
    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.d_model) == (3, 2, 16)
    assert checkpoint.genes == ()
    assert checkpoint.scale == "log1p"
    assert checkpoint.max_genes == 256 // TOKENS_PER_GENE
    assert {file.name for file in checkpoint.files} == {"config.json", "tokenizer.json", "model.safetensors"}
    assert any(key.endswith("masked_bias") for key in checkpoint.ignored_keys)
    assert not checkpoint.network.model.training


def test_as_many_genes_are_promised_as_fit_whichever_they_are(tmp_path):
    for context in (12, 30, 64):
        folder = write_tiny_cell2sentence(tmp_path / str(context), context=context)
        checkpoint = read_cell2sentence(folder).with_genes(SYMBOLS)
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        needed = sorted((len(tokenizer.encode(f" {symbol}").ids) for symbol in SYMBOLS), reverse=True)
        n = checkpoint.max_genes
        assert sum(needed[:n]) <= context < sum(needed[: n + 1])
        assert 0 < n < len(SYMBOLS)
    long = np.arange(n + 1)[None]
    with pytest.raises(BadInputError, match=f"at most {n} genes"):
        checkpoint.pooled(long, np.ones(long.shape, np.float32))


def test_any_word_is_known_and_nothing_else(checkpoint):
    names = [
        "CD34",
        "cd34",
        "RP11-34P13.7",
        "NEVER_SEEN",
        "ENSG00000174059",
        "",
        " ",
        "CD 34",
        "CD34\n",
        "<|endoftext|>",
    ]
    assert checkpoint.knows(names).tolist() == [True] * 5 + [False] * 4 + [True]
    assert checkpoint.vocabulary.refused == {"<|endoftext|>", ""}
    with pytest.raises(GeneError, match="cannot spell gene 'CD 34'"):
        checkpoint.with_genes(["CD34", "CD 34"])
    with pytest.raises(GeneError, match="'CD34' and 'cd34' are the same word, CD34"):
        checkpoint.with_genes(["CD34", "cd34"])
    assert checkpoint.with_genes(["cd34", "Gata1"]).genes == ("cd34", "Gata1")
    assert torch.equal(checkpoint.with_genes(["cd34"]).embedding(), checkpoint.with_genes(["CD34"]).embedding())


def test_symbols_that_a_tokenizer_cannot_spell_are_not_known(tmp_path):
    from tokenizers import models, pre_tokenizers

    folder = write_tiny_cell2sentence(tmp_path)
    vocabulary = {"[UNK]": 0, "CD34": 1, "GATA1": 2}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    checkpoint = read_cell2sentence(folder)
    assert checkpoint.knows(["CD34", "GATA1", "MPO"]).tolist() == [True, True, False]
    # one that leaves out what it does not know
    letters = Tokenizer(models.BPE(vocab={"C": 0, "D": 1, "3": 2, "4": 3}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters.save(str(folder / "tokenizer.json"))
    assert read_cell2sentence(folder).knows(["CD34", "D4", "CD35", "X"]).tolist() == [True, True, False, False]


def test_a_tokenizer_that_joins_neighbouring_genes_is_refused(tmp_path):
    from tokenizers import models

    folder = write_tiny_cell2sentence(tmp_path)
    vocabulary = {character: index for index, character in enumerate("ABC 12")}
    vocabulary |= {"1 ": 6, "1 B": 7}
    joins = Tokenizer(models.BPE(vocab=vocabulary, merges=[("1", " "), ("1 ", "B")]))
    joins.save(str(folder / "tokenizer.json"))
    checkpoint = read_cell2sentence(folder)
    assert checkpoint.with_genes(["A2", "C2"]).genes == ("A2", "C2")
    with pytest.raises(CheckpointError, match="joins neighbouring genes"):
        checkpoint.with_genes(["A1", "B2"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_vocabulary_and_merges_of_gpt2_read_as_its_tokenizer_json(tmp_path, layout):
    genes, values = cells(np.random.default_rng(4), (7,))
    pooled = []
    for name in ("tokenizer.json", "vocab.json"):
        folder = write_tiny_cell2sentence(tmp_path / name, layout=layout, tokenizer=name)
        pooled.append(read_cell2sentence(folder).with_genes(SYMBOLS).pooled(genes, values))
    assert torch.equal(*pooled)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "sharded"])
@pytest.mark.parametrize("prefix", [True, False])
def test_weights_read_alike_whatever_holds_them(tmp_path, layout, file, prefix):
    genes, values = cells(np.random.default_rng(5), (6,))
    whole = read_cell2sentence(write_tiny_cell2sentence(tmp_path / "a", layout=layout)).with_genes(SYMBOLS)
    other = write_tiny_cell2sentence(tmp_path / "b", layout=layout, file=file, prefix=prefix, head=False)
    found = read_cell2sentence(other).with_genes(SYMBOLS)
    assert torch.equal(found.pooled(genes, values), whole.pooled(genes, values))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_brought_to_float32(tmp_path, layout, dtype):
    whole = read_cell2sentence(write_tiny_cell2sentence(tmp_path / "a", layout=layout)).with_genes(SYMBOLS)
    half = read_cell2sentence(write_tiny_cell2sentence(tmp_path / "b", layout=layout, dtype=dtype)).with_genes(SYMBOLS)
    assert {parameter.dtype for parameter in half.network.model.parameters()} == {torch.float32}
    assert torch.equal(half.heads(1).query, whole.heads(1).query.to(dtype).float())


@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("gpt_neox", {"use_parallel_residual": False}),
        ("gpt_neox", {"rotary_pct": 1.0, "rotary_emb_base": 500}),
        ("gpt_neox", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-2}),
        ("gpt2", {"scale_attn_weights": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("gpt2", {"reorder_and_upcast_attn": True}),
        ("gpt2", {"n_inner": 64, "activation_function": "relu", "layer_norm_epsilon": 1e-2}),
    ],
)
def test_settings_that_change_the_numbers_are_followed(tmp_path, layout, config):
    folder = write_tiny_cell2sentence(tmp_path / "a", layout=layout, config=config)
    checkpoint = read_cell2sentence(folder).with_genes(SYMBOLS)
    ids, owners = tokenised(folder, " ".join(SYMBOLS[:7]))
    run = library(folder)(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    genes, values = np.arange(7)[None], np.arange(7, 0, -1, dtype=np.float32)[None]
    for layer, truth in zip(checkpoint.attention(genes, values), run.attentions, strict=True):
        torch.testing.assert_close(layer[0], by_gene(truth[0].detach(), owners, list(range(7))), rtol=0, atol=1e-5)
    wanted = run.hidden_states[-1][0, [token for tokens in owners for token in tokens]].mean(dim=0).detach()
    torch.testing.assert_close(checkpoint.pooled(genes, values)[0], wanted, rtol=0, atol=1e-5)
    if "reorder_and_upcast_attn" not in config and config.get("n_inner") != 64:
        plain = read_cell2sentence(write_tiny_cell2sentence(tmp_path / "b", layout=layout)).with_genes(SYMBOLS)
        assert (plain.pooled(genes, values)[0] - wanted).abs().max() > 1e-3


@pytest.mark.parametrize("nested", [True, False])
def test_rotary_positions_are_found_under_every_name_the_library_had(tmp_path, nested):
    older = write_tiny_cell2sentence(tmp_path / "a", config={"rotary_pct": 0.5, "rotary_emb_base": 777})
    newer = {"rope_theta": 777.0, "partial_rotary_factor": 0.5}
    config = {"rope_parameters": {"rope_type": "default", **newer}} if nested else newer
    folder = write_tiny_cell2sentence(tmp_path / "b", config=config)
    if not nested:
        import json

        stated = json.loads((folder / "config.json").read_text())
        del stated["rotary_pct"], stated["rotary_emb_base"]
        (folder / "config.json").write_text(json.dumps(stated))
    genes, values = cells(np.random.default_rng(6), (8,))
    one, two = (read_cell2sentence(path).with_genes(SYMBOLS).pooled(genes, values) for path in (older, folder))
    assert torch.equal(one, two)


def test_a_model_without_biases_in_its_attention(tmp_path):
    from safetensors.torch import save_file

    folder = write_tiny_cell2sentence(tmp_path, config={"attention_bias": False})
    weights = load_file(folder / "model.safetensors")
    for key in [key for key in weights if key.endswith(("query_key_value.bias", "attention.dense.bias"))]:
        del weights[key]
    save_file(weights, folder / "model.safetensors")
    checkpoint = read_cell2sentence(folder).with_genes(SYMBOLS)
    genes, values = np.arange(5)[None], np.arange(5, 0, -1, dtype=np.float32)[None]
    assert torch.isfinite(next(checkpoint.attention(genes, values, weighted=True))).all()


def test_random_initialisation_is_the_librarys_own_and_leaves_the_global_state(folder, checkpoint):
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (checkpoint.random_initialisation(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fresh = AutoModel.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    for found, wanted in zip(first.network.model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(first.embedding(), again.embedding())
    assert len({checkpoint.digest, first.digest, other.digest}) == 3
    assert first.genes == SYMBOLS
    genes, values = cells(np.random.default_rng(7), (6, 4))
    assert torch.isfinite(first.pooled(genes, values)).all()


def test_shuffled_weights_permute_matrices_and_leave_vectors(checkpoint):
    before = {key: value.clone() for key, value in checkpoint.network.model.named_parameters()}
    shuffled = checkpoint.shuffled_weights(1)
    for key, value in shuffled.network.model.named_parameters():
        assert torch.equal(dict(checkpoint.network.model.named_parameters())[key], before[key])
        assert torch.equal(value, before[key]) == (value.ndim == 1), key
        assert torch.equal(value.flatten().sort().values, before[key].flatten().sort().values)
    genes, values = cells(np.random.default_rng(8), (6, 4))
    assert torch.equal(shuffled.pooled(genes, values), checkpoint.shuffled_weights(1).pooled(genes, values))
    assert shuffled.genes == SYMBOLS
    assert shuffled.digest != checkpoint.digest


def test_a_cell_without_genes_is_harmless(checkpoint):
    genes, values = np.array([[2, 5], [PADDING, PADDING]]), np.array([[1.0, 2.0], [0, 0]], dtype=np.float32)
    assert all(torch.isfinite(layer).all() for layer in checkpoint.attention(genes, values))
    assert torch.equal(checkpoint.pooled(genes, values)[1], torch.zeros(D_MODEL))
    assert torch.equal(checkpoint.pooled(genes[1:], values[1:])[0], torch.zeros(D_MODEL))


def test_nothing_is_printed_and_no_network_is_asked(folder, capfd):
    checkpoint = read_cell2sentence(folder).with_genes(SYMBOLS)
    genes, values = cells(np.random.default_rng(0), (5,))
    list(checkpoint.attention(genes, values))
    checkpoint.random_initialisation(0)
    assert capfd.readouterr() == ("", "")

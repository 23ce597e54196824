"""Geneformer: ranks against a computation by hand, numbers against the library's own forward pass."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_transformers import SYMBOLS, tiny_ensembl, write_tiny_geneformer

from manifoldzoo.cards._errors import BadInputError, GeneError
from manifoldzoo.extractors.checkpoints._geneformer import read_geneformer
from manifoldzoo.extractors.checkpoints._interface import PADDING

VERSIONS = (1, 2)


def tokens_by_hand(folder: Path, counts: dict[str, float], total: float) -> list[int]:
    """Geneformer's own rule from raw counts: count / total * 10,000 / median, highest first."""
    (tokens,) = folder.glob("token_dictionary*.pkl")
    (medians,) = folder.glob("gene_median_dictionary*.pkl")
    (names,) = folder.glob("gene_name_id_dict*.pkl")
    tokens, medians, names = (pickle.loads(path.read_bytes()) for path in (tokens, medians, names))
    expressed = [(names[symbol], count) for symbol, count in counts.items() if count]
    relative = np.array([count / total * 10_000 / medians[gene] for gene, count in expressed])
    ranked = [tokens[expressed[place][0]] for place in np.argsort(-relative, kind="stable")]
    return [tokens["<cls>"], *ranked, tokens["<eos>"]] if "<cls>" in tokens else ranked


def cells(rng: np.random.Generator, lengths: tuple[int, ...], n_genes: int = len(SYMBOLS)):
    """Counts of some cells, and how they are handed over: unsorted, padded, log1p of counts per 10,000."""
    genes = np.full((len(lengths), max(lengths)), PADDING, dtype=np.int64)
    values = np.zeros(genes.shape, dtype=np.float32)
    counts = []
    for row, length in enumerate(lengths):
        chosen = rng.choice(n_genes, length, replace=False)
        drawn = rng.integers(1, 40, length)
        total = float(drawn.sum() + rng.integers(0, 500))
        genes[row, :length] = chosen
        values[row, :length] = np.log1p(drawn / total * 10_000)
        counts.append(({SYMBOLS[gene]: float(count) for gene, count in zip(chosen, drawn, strict=True)}, total))
    return genes, values, counts


def library(folder: Path):
    from transformers import BertModel

    return BertModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="eager").eval()


@pytest.fixture(params=VERSIONS, scope="module")
def folder(request, tmp_path_factory) -> Path:
    return write_tiny_geneformer(tmp_path_factory.mktemp("geneformer"), version=request.param, seed=3)


@pytest.fixture
def checkpoint(folder):
    return read_geneformer(folder)


def places_in(folder, sequence: list[int], genes: list[str]) -> list[int]:
    (path,) = folder.glob("token_dictionary*.pkl")
    tokens = pickle.loads(path.read_bytes())
    return [sequence.index(tokens[tiny_ensembl(SYMBOLS.index(gene))]) for gene in genes]


def test_attention_is_the_librarys_on_the_ranked_cell_in_the_order_given(folder, checkpoint):
    genes, values, counts = cells(np.random.default_rng(0), (9, 14, 5, 1))
    found = list(checkpoint.attention(genes, values))
    assert [tuple(layer.shape) for layer in found] == [(4, 2, 14, 14)] * 3
    assert all(layer.dtype == torch.float32 and layer.stride(-1) == 1 for layer in found)
    model = library(folder)
    for row, (counted, total) in enumerate(counts):
        sequence = tokens_by_hand(folder, counted, total)
        places = places_in(folder, sequence, list(counted))
        expected = model(torch.tensor([sequence]), output_attentions=True).attentions
        assert len(expected) == checkpoint.n_layers == 3
        for layer, truth in zip(found, expected, strict=True):
            wanted = truth[0][:, places][:, :, places].detach()
            torch.testing.assert_close(layer[row, :, : len(places), : len(places)], wanted, rtol=0, atol=1e-5)
            assert len(places) == 1 or wanted.std() > 1e-3


def test_pooled_is_the_librarys_last_hidden_state_over_genes_alone(folder, checkpoint):
    genes, values, counts = cells(np.random.default_rng(1), (9, 14, 5))
    found = checkpoint.pooled(genes, values)
    assert found.dtype == torch.float32
    model = library(folder)
    for row, (counted, total) in enumerate(counts):
        sequence = tokens_by_hand(folder, counted, total)
        hidden = model(torch.tensor([sequence])).last_hidden_state[0]
        wanted = hidden[places_in(folder, sequence, list(counted))].mean(dim=0).detach()
        torch.testing.assert_close(found[row], wanted, rtol=0, atol=1e-5)


def test_weighted_attention_is_what_heads_would_add_by_brute_force(folder, checkpoint):
    genes, values, counts = cells(np.random.default_rng(2), (8, 11))
    found = list(checkpoint.attention(genes, values, weighted=True))
    weights = load_file(folder / "model.safetensors")
    model = library(folder)
    for row, (counted, total) in enumerate(counts):
        sequence = tokens_by_hand(folder, counted, total)
        places = places_in(folder, sequence, list(counted))
        run = model(torch.tensor([sequence]), output_attentions=True, output_hidden_states=True)
        for index, layer in enumerate(found):
            key = f"bert.encoder.layer.{index}.attention"
            received = run.hidden_states[index][0].detach().double()
            for head in range(2):
                part = slice(8 * head, 8 * head + 8)
                value = weights[f"{key}.self.value.weight"][part].double()
                bias = weights[f"{key}.self.value.bias"][part].double()
                output = weights[f"{key}.output.dense.weight"][:, part].double()
                lengths = torch.stack([torch.linalg.norm(output @ (value @ x + bias)) for x in received])
                wanted = run.attentions[index][0, head].detach() * lengths
                wanted = wanted[places][:, places].float()
                torch.testing.assert_close(layer[row, head, : len(places), : len(places)], wanted, rtol=1e-5, atol=1e-5)


def test_a_batch_of_one_equals_a_batch_of_many_and_order_does_not_matter(checkpoint):
    genes, values, _ = cells(np.random.default_rng(3), (6, 12, 9))
    together = list(checkpoint.attention(genes, values))
    for row, length in enumerate((6, 12, 9)):
        turned = np.random.default_rng(row).permutation(length)
        alone = checkpoint.attention(genes[row : row + 1, turned], values[row : row + 1, turned])
        for all_cells, one in zip(together, alone, strict=True):
            wanted = all_cells[row][:, turned][:, :, turned]
            torch.testing.assert_close(one[0], wanted, rtol=0, atol=1e-5)
        pooled = checkpoint.pooled(genes[row : row + 1, :length], values[row : row + 1, :length])
        torch.testing.assert_close(pooled[0], checkpoint.pooled(genes, values)[row], rtol=0, atol=1e-5)


def test_genes_of_equal_rank_stand_in_the_order_given(tmp_path):
    folder = write_tiny_geneformer(tmp_path, genes=SYMBOLS[:6])
    (path,) = folder.glob("gene_median_dictionary*.pkl")
    path.write_bytes(pickle.dumps(dict.fromkeys(pickle.loads(path.read_bytes()), 2.0)))
    vocabulary = read_geneformer(folder).vocabulary
    genes = np.array([[4, 1, 3, 0, PADDING]])
    tokens = vocabulary.write(genes, np.array([[1.5, 2.5, 1.5, 2.5, 0.0]], dtype=np.float32))
    assert tokens.positions[0, :4].tolist() == [3, 1, 4, 2]
    assert tokens.positions[0, 5:].tolist() == [0, 5]
    assert tokens.padded[0].tolist() == [False, False, False, False, True, False, False]


def test_embedding_and_heads_are_the_weights_of_the_file(folder, checkpoint):
    weights = load_file(folder / "model.safetensors")
    chosen = checkpoint.with_genes(["LYZ", "CD34"])
    (path,) = folder.glob("token_dictionary*.pkl")
    tokens = pickle.loads(path.read_bytes())
    rows = [tokens[tiny_ensembl(SYMBOLS.index(gene))] for gene in ("LYZ", "CD34")]
    assert torch.equal(chosen.embedding(), weights["bert.embeddings.word_embeddings.weight"][rows])
    heads = checkpoint.heads(2)
    assert tuple(heads.query.shape) == (2, 8, 16)
    assert tuple(heads.output.shape) == (2, 16, 8)
    x = torch.randn(16, generator=torch.Generator().manual_seed(0))
    key = "bert.encoder.layer.2.attention"
    for name, part in (("query", heads.query), ("key", heads.key), ("value", heads.value)):
        torch.testing.assert_close((part @ x).flatten(), weights[f"{key}.self.{name}.weight"] @ x)
    mixed = torch.stack([heads.output[h] @ x[8 * h : 8 * h + 8] for h in range(2)]).sum(dim=0)
    torch.testing.assert_close(mixed, weights[f"{key}.output.dense.weight"] @ x)
    with pytest.raises(BadInputError, match="no layer 3"):
        checkpoint.heads(3)


def test_what_a_checkpoint_says_of_itself(folder, checkpoint):
    second = "gc104M" in str(list(folder.glob("*.pkl")))
    assert checkpoint.family == "geneformer"
    assert checkpoint.name == folder.name
    assert checkpoint.licence == "not stated"
    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.d_model) == (3, 2, 16)
    assert checkpoint.max_genes == len(SYMBOLS) + 2
    assert (
        len(pickle.loads(next(folder.glob("token_dictionary*.pkl")).read_bytes())) == checkpoint.max_genes + 2 * second
    )
    assert checkpoint.genes == SYMBOLS
    assert checkpoint.scale == "log1p"
    assert len(checkpoint.digest) == 64
    assert "cls.predictions.bias" in checkpoint.ignored_keys
    assert not checkpoint.network.model.training
    assert {file.name for file in checkpoint.files} >= {"config.json", "model.safetensors"}
    assert len(checkpoint.files) == 5


def test_the_digest_depends_on_every_file(tmp_path):
    before = read_geneformer(write_tiny_geneformer(tmp_path)).digest
    assert read_geneformer(write_tiny_geneformer(tmp_path)).digest == before
    for path in sorted(tmp_path.iterdir()):
        kept = path.read_bytes()
        if path.suffix == ".json":
            path.write_bytes(kept + b"\n")
        elif path.suffix == ".pkl":
            path.write_bytes(pickle.dumps(pickle.loads(kept), protocol=3))
        else:
            save_file(load_file(path), path, metadata={"format": "pt", "note": "same weights"})
        assert read_geneformer(tmp_path).digest != before, path.name
        path.write_bytes(kept)
    assert read_geneformer(tmp_path).digest == before


def test_genes_are_known_by_symbol_or_ensembl_id_with_any_version(checkpoint):
    first = tiny_ensembl(0)
    names = ["CD34", first, f"{first}.12", "cd34", "ENSG99999999999", "<pad>", "", f"{first}.x", "NO_SUCH_GENE"]
    assert checkpoint.knows(names).tolist() == [True, True, True] + [False] * 6
    chosen = checkpoint.with_genes([f"{tiny_ensembl(3)}.2", "GATA1"])
    assert chosen.genes == (f"{tiny_ensembl(3)}.2", "GATA1")
    assert torch.equal(chosen.embedding(), checkpoint.with_genes(["MPO", "GATA1"]).embedding())
    assert chosen.max_genes == checkpoint.max_genes
    assert chosen.digest == checkpoint.digest
    with pytest.raises(GeneError, match="NO_SUCH_GENE"):
        checkpoint.with_genes(["CD34", "NO_SUCH_GENE"])
    with pytest.raises(GeneError, match=rf"'CD34' and '{first}\.3' are the same token, {first}"):
        checkpoint.with_genes(["CD34", f"{first}.3"])
    with pytest.raises(GeneError, match="'CD34' and 'CD34' are the same"):
        checkpoint.with_genes(["CD34", "CD34"])


def test_chosen_genes_are_read_as_all_genes_are(checkpoint):
    genes, values, _ = cells(np.random.default_rng(4), (7,))
    chosen = checkpoint.with_genes([SYMBOLS[gene] for gene in genes[0]])
    here = list(chosen.attention(np.arange(7)[None], values))
    for layer, wanted in zip(here, checkpoint.attention(genes, values), strict=True):
        torch.testing.assert_close(layer, wanted)


@pytest.mark.parametrize("median", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_a_gene_without_a_usable_median_is_not_known(tmp_path, median):
    folder = write_tiny_geneformer(tmp_path)
    (path,) = folder.glob("gene_median_dictionary*.pkl")
    medians = pickle.loads(path.read_bytes())
    if median is None:
        del medians[tiny_ensembl(2)]
    else:
        medians[tiny_ensembl(2)] = np.float64(median)
    path.write_bytes(pickle.dumps(medians))
    checkpoint = read_geneformer(folder)
    assert checkpoint.genes == SYMBOLS[:2] + SYMBOLS[3:]
    assert checkpoint.knows(["GATA2", tiny_ensembl(2), "MPO"]).tolist() == [False, False, True]


def test_a_gene_without_a_symbol_goes_by_its_id(tmp_path):
    folder = write_tiny_geneformer(tmp_path)
    (path,) = folder.glob("gene_name_id_dict*.pkl")
    names = pickle.loads(path.read_bytes())
    del names["GATA1"]
    first = tiny_ensembl(0)
    path.write_bytes(pickle.dumps({first: first, **names, "CD34-ALIAS": first, tiny_ensembl(1): tiny_ensembl(1)}))
    checkpoint = read_geneformer(folder)
    assert checkpoint.genes == ("CD34", tiny_ensembl(1), *SYMBOLS[2:])
    assert checkpoint.knows(["GATA1", tiny_ensembl(1), "CD34-ALIAS"]).tolist() == [False, True, True]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "sharded"])
@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize("head", [True, False])
def test_weights_read_alike_whatever_holds_them(tmp_path, file, prefix, head):
    genes, values, _ = cells(np.random.default_rng(5), (6,))
    wanted = read_geneformer(write_tiny_geneformer(tmp_path / "a", head=False)).pooled(genes, values)
    checkpoint = read_geneformer(write_tiny_geneformer(tmp_path / "b", file=file, prefix=prefix, head=head))
    assert torch.equal(checkpoint.pooled(genes, values), wanted)
    assert bool(checkpoint.ignored_keys) == head


def test_buffers_pooler_and_classifier_are_known_and_left_out(tmp_path):
    folder = write_tiny_geneformer(tmp_path)
    weights = load_file(folder / "model.safetensors")
    extra = {
        "bert.embeddings.position_ids": torch.arange(34)[None],
        "bert.pooler.dense.weight": torch.zeros(16, 16),
        "classifier.weight": torch.zeros(3, 16),
        "cls.seq_relationship.bias": torch.zeros(2),
    }
    save_file(weights | extra, folder / "model.safetensors")
    assert set(read_geneformer(folder).ignored_keys) >= set(extra)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_other_precisions_are_brought_to_float32(tmp_path, dtype, file):
    whole = read_geneformer(write_tiny_geneformer(tmp_path / "a"))
    other = read_geneformer(write_tiny_geneformer(tmp_path / "b", dtype=dtype, file=file))
    assert {parameter.dtype for parameter in other.network.model.parameters()} == {torch.float32}
    torch.testing.assert_close(other.embedding(), whole.embedding().to(dtype).float(), rtol=0, atol=0)


def test_random_initialisation_is_the_librarys_own_and_leaves_the_global_state(folder, checkpoint):
    from transformers import BertConfig, BertModel

    torch.manual_seed(7)
    state = torch.get_rng_state()
    first, again, other = (checkpoint.random_initialisation(seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        fresh = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    for found, wanted in zip(first.network.model.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(found, wanted)
    assert torch.equal(first.embedding(), again.embedding())
    assert first.digest == again.digest
    assert len({checkpoint.digest, first.digest, other.digest}) == 3
    assert not torch.equal(first.embedding(), other.embedding())
    assert abs(float(first.heads(0).query.std()) - 0.02) < 0.004
    assert first.genes == checkpoint.genes
    assert first.name == f"{checkpoint.name}-random-1"
    assert (first.files, first.ignored_keys) == ((), ())
    genes, values, _ = cells(np.random.default_rng(6), (6,))
    assert torch.isfinite(first.pooled(genes, values)).all()


def test_random_initialisation_follows_the_initializer_range(tmp_path):
    folder = write_tiny_geneformer(tmp_path, config={"initializer_range": 0.5})
    assert abs(float(read_geneformer(folder).random_initialisation(0).heads(0).query.std()) - 0.5) < 0.1


def test_shuffled_weights_permute_matrices_and_leave_vectors(checkpoint):
    before = {key: value.clone() for key, value in checkpoint.network.model.named_parameters()}
    shuffled, again, other = (checkpoint.shuffled_weights(seed) for seed in (1, 1, 2))
    moved = dict(shuffled.network.model.named_parameters())
    for key, value in checkpoint.network.model.named_parameters():
        assert torch.equal(value, before[key]), key
        if value.ndim == 1:
            assert torch.equal(moved[key], value)
        else:
            assert not torch.equal(moved[key], value)
            assert torch.equal(moved[key].flatten().sort().values, value.flatten().sort().values)
            assert not any(torch.equal(a, b) for a, b in zip(moved[key], value, strict=True) if value.shape[1] > 4)
    assert torch.equal(shuffled.embedding(), again.embedding())
    assert not torch.equal(shuffled.embedding(), other.embedding())
    assert len({checkpoint.digest, shuffled.digest, other.digest, checkpoint.random_initialisation(1).digest}) == 4
    assert shuffled.name == f"{checkpoint.name}-shuffled-1"


def test_attention_holds_one_layer_at_a_time(tmp_path):
    import weakref

    checkpoint = read_geneformer(write_tiny_geneformer(tmp_path))
    genes, values, _ = cells(np.random.default_rng(7), (9,))
    layers = checkpoint.attention(genes, values)
    kept = weakref.ref(next(layers).untyped_storage())
    next(layers)
    assert kept() is None or kept().size() == 0


def test_two_walks_through_a_model_do_not_disturb_each_other(checkpoint):
    genes, values, _ = cells(np.random.default_rng(8), (9, 6))
    wanted = list(checkpoint.attention(genes, values))
    one, two = checkpoint.attention(genes, values), checkpoint.attention(genes[:1], values[:1])
    next(one)
    next(two)
    checkpoint.pooled(genes, values)
    assert torch.equal(next(one), wanted[1])
    # what looks at a layer is gone once it was seen
    assert not any(module._forward_hooks for module in checkpoint.network.model.modules())


def test_cells_that_do_not_fit_are_refused(checkpoint):
    genes, values, _ = cells(np.random.default_rng(9), (5,))
    with pytest.raises(BadInputError, match=r"\(1, 5\) and values \(1, 4\)"):
        checkpoint.attention(genes, values[:, :4])
    with pytest.raises(BadInputError, match="same two dimensions"):
        checkpoint.pooled(genes[0], values[0])
    long = np.full((1, checkpoint.max_genes + 1), PADDING)
    with pytest.raises(BadInputError, match=f"at most {checkpoint.max_genes} genes"):
        checkpoint.attention(long, np.zeros(long.shape, np.float32))
    with pytest.raises(BadInputError, match="Gene 30 is none of the 30 genes"):
        checkpoint.attention(np.array([[30]]), np.ones((1, 1), np.float32))
    with pytest.raises(BadInputError, match="NaN or infinite"):
        checkpoint.pooled(genes, np.where(values > 0, np.nan, values))


def test_a_cell_as_long_as_the_model_is_read_and_one_without_genes_is_harmless(checkpoint):
    n_genes = min(len(SYMBOLS), checkpoint.max_genes)
    genes = np.stack([np.arange(n_genes), np.full(n_genes, PADDING)])
    values = np.where(genes < 0, 0, 1 + np.random.default_rng(0).random(genes.shape)).astype(np.float32)
    assert all(torch.isfinite(layer).all() for layer in checkpoint.attention(genes, values))
    assert torch.equal(checkpoint.pooled(genes, values)[1], torch.zeros(16))


def test_nothing_is_printed_and_no_network_is_asked(folder, capfd):
    checkpoint = read_geneformer(folder)
    genes, values, _ = cells(np.random.default_rng(0), (5,))
    list(checkpoint.attention(genes, values))
    checkpoint.random_initialisation(0)
    assert capfd.readouterr() == ("", "")


# Real dictionaries, real cells


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory) -> Path:
    """A folder with the real dictionaries and sizes of V2, and as little of a model as there can be."""
    folder = tmp_path_factory.mktemp("Geneformer-V2")
    source = shared / "checkpoints" / "geneformer_v2_meta"
    settings = json.loads((source / "Geneformer-V2-104M.json").read_text())
    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    weights = write_tiny_geneformer(
        folder / "tiny", genes=[f"G{i}" for i in range(20_271)], n_layers=1, d_model=8, d_hid=8, max_size=4096
    )
    (folder / "config.json").write_text(json.dumps(settings | small))
    (weights / "model.safetensors").rename(folder / "model.safetensors")
    for path in source.glob("*.pkl"):
        (folder / path.name).symlink_to(path)
    return folder


@pytest.mark.shared
def test_the_real_dictionaries(real):
    checkpoint = read_geneformer(real)
    assert len(checkpoint.genes) == 20_271
    assert checkpoint.max_genes == 4094
    known = checkpoint.knows(["CD34", "GATA1", "PTPRC", "ENSG00000174059", "ENSG00000174059.17", "NOT_A_GENE"])
    assert known.tolist() == [True] * 5 + [False]
    vocabulary = checkpoint.with_genes(["CD34", "GATA1", "MPO"]).vocabulary
    assert vocabulary.token_ids.tolist() == [13349, 2618, 97]
    np.testing.assert_allclose(vocabulary.medians, [3.1755356, 2.2606256, 2.7198730], rtol=1e-6)
    assert (vocabulary.pad, vocabulary.begin, vocabulary.end) == (0, 2, 3)
    assert len({*checkpoint.genes}) == 20_271


@pytest.mark.shared
def test_a_real_cell_gets_the_ranks_of_a_computation_from_raw_counts(real, shared):
    import anndata as ad

    table = ad.read_h5ad(shared / "data" / "marrow_setty2019.h5ad")
    names = list(table.var_names)
    checkpoint = read_geneformer(real)
    known = np.flatnonzero(checkpoint.knows(names))
    assert len(known) > 12_000
    source = checkpoint.with_genes([names[column] for column in known])
    for row in (0, 1000, 4141):
        counts = table.X[row].toarray().ravel().astype(np.float64)
        log_values = np.log1p(counts / counts.sum() * 10_000).astype(np.float32)
        here = np.flatnonzero(counts[known] > 0)
        here = np.random.default_rng(row).permutation(here)
        tokens = source.vocabulary.write(here[None], log_values[known][here][None])
        sequence = np.empty(tokens.ids.shape[1], dtype=np.int64)
        sequence[tokens.positions[0]] = tokens.ids[0]
        counted = {names[known[gene]]: counts[known[gene]] for gene in here}
        by_hand = tokens_by_hand(real, counted, counts.sum())
        assert len(by_hand) > 500
        assert sequence.tolist() == by_hand


MEASURE = """
import resource, sys, torch
import transformers.models.bert.modeling_bert
from manifoldzoo.extractors.checkpoints._geneformer import read_geneformer
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
checkpoint = read_geneformer(sys.argv[1])
n = sum(parameter.numel() * 4 for parameter in checkpoint.network.model.parameters())
print(n, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_model_of_real_size_takes_little_more_memory_than_its_weights(tmp_path, shared, dtype):
    source = shared / "checkpoints" / "geneformer_v2_meta"
    settings = json.loads((source / "Geneformer-V2-104M.json").read_text())
    write_tiny_geneformer(
        tmp_path,
        genes=[f"G{i}" for i in range(20_271)],
        n_layers=12,
        n_heads=12,
        d_model=768,
        d_hid=3072,
        max_size=4096,
        dtype=dtype,
    )
    (tmp_path / "config.json").write_text(json.dumps(settings))
    for path in source.glob("*.pkl"):
        (tmp_path / path.name).unlink(missing_ok=True)
        (tmp_path / path.name).symlink_to(path)
    run = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    weights, taken = map(int, run.stdout.split())
    assert weights > 400e6
    assert taken < 1.5 * weights

"""The conformance kit for checkpoints: built-in families pass, broken ones are caught by the checks meant for them."""

from __future__ import annotations

import gc
import pickle
import warnings
from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_scgpt import GENES, write_tiny_scgpt
from tiny_transformers import SYMBOLS, write_tiny_cell2sentence, write_tiny_geneformer

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.extractors.checkpoints._families import Cell2SentenceReader, GeneformerReader, ScGPTReader
from manifoldzoo.extractors.checkpoints._interface import HeadWeights
from manifoldzoo.extractors.testing import (
    ConformanceError,
    check_checkpoint,
    check_reader,
    checkpoint_checks,
    reader_checks,
)

WORDS = {"genes": SYMBOLS, "several_tokens": True}
FAMILIES = {
    "scgpt log1p": (ScGPTReader, write_tiny_scgpt, {}, {}),
    "scgpt binned": (ScGPTReader, write_tiny_scgpt, {"input_style": "binned"}, {}),
    "scformer": (ScGPTReader, write_tiny_scgpt, {"input_style": "counts", "file": "best_model.pt"}, {}),
    "scgpt flash": (ScGPTReader, write_tiny_scgpt, {"naming": "Wqkv", "pre_norm": True}, {}),
    "geneformer 1": (GeneformerReader, write_tiny_geneformer, {"version": 1}, {}),
    "geneformer 2": (GeneformerReader, write_tiny_geneformer, {"file": "pytorch_model.bin"}, {}),
    "pythia": (Cell2SentenceReader, write_tiny_cell2sentence, {"file": "sharded"}, WORDS),
    "gpt2": (Cell2SentenceReader, write_tiny_cell2sentence, {"layout": "gpt2"}, WORDS),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_that_are_built_in_conform(family, tmp_path):
    reader, write, how, settings = FAMILIES[family]
    check_reader(reader(), write(tmp_path / "model", **how), **settings)


@pytest.mark.shared
def test_a_real_model_of_another_lab_conforms(shared):
    check_reader(ScGPTReader(), shared / "checkpoints" / "scformer_pbmc")


@pytest.fixture(scope="module")
def scgpt(tmp_path_factory):
    return ScGPTReader().read(write_tiny_scgpt(tmp_path_factory.mktemp("models") / "tiny", n_layers=2))


class Altered:
    """A checkpoint like another but for some parts: functions of the other one and the arguments, or values."""

    def __init__(self, inner: Any, **parts: Any) -> None:
        self._inner, self._parts = inner, parts

    def __getattr__(self, name: str) -> Any:
        if name not in self._parts:
            return getattr(self._inner, name)
        part = self._parts[name]
        return partial(part, self._inner) if callable(part) else part

    def with_genes(self, names):
        made = self._parts.get("with_genes", lambda inner, names: inner.with_genes(names))(self._inner, names)
        return Altered(made, **self._parts)


def failing(checkpoint, **settings) -> dict[str, ConformanceError]:
    """The checks that fail, by name."""
    found = {}
    for name, check in checkpoint_checks(**settings):
        try:
            check(checkpoint)
        except ConformanceError as error:
            found[name] = error
    assert [error.check for error in found.values()] == list(found)
    return found


def both(change):
    """Attention, weighted or not, with each map changed by a function of the map and the genes."""

    def attention(inner, genes, values, *, weighted=False):
        return (change(layer, genes) for layer in inner.attention(genes, values, weighted=weighted))

    return {"attention": attention}


def plain(change):
    """Attention that is changed unless it is weighted."""

    def attention(inner, genes, values, *, weighted=False):
        maps = inner.attention(genes, values, weighted=weighted)
        return maps if weighted else (change(layer, genes) for layer in maps)

    return {"attention": attention}


def weighted(change):
    """Attention that is changed where it is weighted."""

    def attention(inner, genes, values, *, weighted=False):
        maps = inner.attention(genes, values, weighted=weighted)
        return (change(layer, genes) for layer in maps) if weighted else maps

    return {"attention": attention}


def put(layer, place, value):
    changed = layer.clone()
    changed[place] = value
    return changed


def where_padded(factor):
    return lambda layer, genes: layer * (factor if (genes < 0).any() else 1)


def where_together(factor):
    return lambda layer, genes: layer * (factor if len(genes) > 1 and (genes >= 0).all() else 1)


def by_position(layer, _genes):
    return layer * (1 - 0.02 * torch.arange(layer.shape[-1]))


def by_index(layer, genes):
    return layer * torch.from_numpy(np.where(genes % 2 == 0, 0.9, 1.0)).to(torch.float32)[:, None, None, :]


def by_query(layer, _genes):
    return layer * (1 + 0.1 * torch.arange(layer.shape[-2]))[:, None]


def without_mask(inner, genes, values, *, weighted=False):
    return inner.attention(np.where(genes < 0, 0, genes), values, weighted=weighted)


def short_of_longest(inner, genes, values, *, weighted=False):
    if genes.shape[1] >= inner.max_genes:
        raise IndexError("no place for <cls>")
    return inner.attention(genes, values, weighted=weighted)


def overflowing(inner, genes, values):
    return inner.pooled(genes, values) * (torch.inf if genes.shape[1] >= inner.max_genes else 1)


def never_the_same(part):
    """Noise, far below the tolerance, that grows from run to run."""
    runs = Counter()

    def attention(inner, genes, values, *, weighted=False):
        runs["n"] += not weighted
        noise = 1e-7 * runs["n"] if part == "attention" else 0.0
        return (layer + noise for layer in inner.attention(genes, values, weighted=weighted))

    def pooled(inner, genes, values):
        runs["n"] += 1
        return inner.pooled(genes, values) * (1 + (1e-6 * runs["n"] if part == "pooled" else 0.0))

    def embedding(inner):
        return inner.embedding() + (1e-6 * runs["n"] if part == "embedding" else 0.0)

    return {"attention": attention, "pooled": pooled, "embedding": embedding}


def with_memory():
    """A model that keeps the cells it reads on itself."""
    memory = {}

    def attention(inner, genes, values, *, weighted=False):
        memory["cells"] = genes, values
        for layer in range(inner.n_layers):
            yield list(inner.attention(*memory["cells"], weighted=weighted))[layer]

    return {"attention": attention}


def drawing(draw):
    def pooled(inner, genes, values):
        draw()
        return inner.pooled(genes, values)

    return {"pooled": pooled}


def writing(inner, genes, values):
    pooled = inner.pooled(genes, values)
    values[genes < 0] = -2
    return pooled


def inside(mode):
    """A mode of the process that is left on between the layers."""

    def attention(inner, genes, values, *, weighted=False):
        with mode():
            yield from inner.attention(genes, values, weighted=weighted)

    return attention


def heads_with(**changes):
    def heads(inner, layer):
        found = inner.heads(layer)
        parts = {part: getattr(found, part) for part in ("query", "key", "value", "output")}
        return HeadWeights(**parts | {part: change(parts[part]) for part, change in changes.items()})

    return {"heads": heads}


def control(name, change):
    """A control changed by a function of the model, the control and the seed."""
    return {name: lambda inner, seed: change(inner, getattr(inner, name)(seed), seed)}


def with_matrix(part, pick):
    """A control whose embedding, or whose query of a layer, is taken from somewhere else."""

    def change(inner, made, seed):
        source = pick(inner, seed)
        if part == "embedding":
            return Altered(made, embedding=lambda _: source.embedding())
        return Altered(made, **{"heads": lambda _, layer: source.heads(layer)})

    return change


def seeding(inner, seed):
    torch.manual_seed(seed)
    return inner.random_initialisation(seed)


def drawn_anew():
    calls = Counter()

    def random_initialisation(inner, seed):
        calls["n"] += 1
        made = inner.random_initialisation(calls["n"])
        return Altered(made, digest=inner.random_initialisation(seed).digest)

    return {"random_initialisation": random_initialisation}


def leaking(inner, made, _seed):
    """A control that shares memory with the model and changes it."""
    inner.heads(0).query.mul_(1.01)
    return made


def knows_all(inner, names):
    return np.ones(len(names), dtype=bool)


def knows_as_list(inner, names):
    return [int(known) for known in inner.knows(names)]


def takes_all(inner, names):
    known = [name for name, is_known in zip(names, inner.knows(names), strict=True) if is_known]
    return inner.with_genes(list(dict.fromkeys(known)))


def takes_repeats(inner, names):
    return inner.with_genes(list(dict.fromkeys(names)))


def renames_only(inner, names):
    """Keeps the rows of the embedding where they were."""
    made = inner.with_genes(names)
    return Altered(made, embedding=lambda _: inner.embedding()[: len(names)])


BROKEN: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no name": ({"name": ""}, {"attributes"}),
    "no licence": ({"licence": None}, {"attributes"}),
    "capitals in the digest": ({"digest": "A" * 64}, {"attributes"}),
    "a short digest": ({"digest": "a" * 63}, {"attributes"}),
    "a size that is no int": ({"d_model": 16.0}, {"attributes"}),
    "a size of numpy's": ({"n_heads": np.int64(2)}, {"attributes"}),
    "another scale": ({"scale": "raw"}, {"attributes", "random_initialisation", "shuffled_weights"}),
    "genes in a list": (
        {"genes": list(GENES)},
        {"attributes", "vocabulary", "random_initialisation", "shuffled_weights"},
    ),
    "knows all": ({"knows": knows_all}, {"vocabulary"}),
    "knows in another order": ({"knows": lambda inner, names: np.sort(inner.knows(names))}, {"vocabulary"}),
    "knows in a list": ({"knows": knows_as_list}, {"vocabulary"}),
    "takes unknown genes": ({"with_genes": takes_all}, {"vocabulary"}),
    "takes repeated genes": ({"with_genes": takes_repeats}, {"vocabulary"}),
    "a digest of the genes": (
        {"with_genes": lambda inner, names: Altered(inner.with_genes(names), digest="b" * 64)},
        {"vocabulary"},
    ),
    "genes renamed only": ({"with_genes": renames_only}, {"gene_order"}),
    "attention by index": (both(by_index), {"gene_order"}),
    "rows above one": (both(lambda layer, _: 1.5 * layer), {"attention"}),
    "negative attention": (plain(lambda layer, _: put(layer, (slice(None), 0), -layer[:, 0])), {"attention"}),
    "double precision": (plain(lambda layer, _: layer.double()), {"attention"}),
    "a head of zeros": (both(lambda layer, _: put(layer, (slice(None), 1), 0.0)), {"attention"}),
    "a list of layers": (
        {"attention": lambda inner, *given, **how: list(inner.attention(*given, **how))},
        {"attention", "interleaved", "no_traces"},
    ),
    "transposed attention": (
        {"attention": lambda inner, *given, **how: (a.transpose(2, 3) for a in inner.attention(*given, **how))},
        {"attention", "weighted_attention"},
    ),
    "never weighted": (
        {"attention": lambda inner, genes, values, weighted=False: inner.attention(genes, values)},
        {"weighted_attention"},
    ),
    "weighted by query": (weighted(by_query), {"weighted_attention"}),
    "negative lengths": (weighted(lambda layer, _: -layer), {"weighted_attention"}),
    "weighted without attention": (weighted(lambda layer, _: torch.ones_like(layer)), {"weighted_attention"}),
    "lengths of half precision": (weighted(lambda layer, _: layer.half().double()), {"weighted_attention"}),
    "a pooled state of doubles": ({"pooled": lambda inner, *given: inner.pooled(*given).double()}, {"pooled"}),
    "a constant pooled state": ({"pooled": lambda inner, *given: torch.zeros_like(inner.pooled(*given))}, {"pooled"}),
    "states not pooled": (
        {"pooled": lambda inner, *given: inner.pooled(*given)[:, None, :].expand(-1, 3, -1)},
        {"pooled"},
    ),
    "a constant embedding": ({"embedding": lambda inner: torch.ones_like(inner.embedding())}, {"embedding"}),
    "an embedding of doubles": ({"embedding": lambda inner: inner.embedding().double()}, {"embedding"}),
    "query transposed": (heads_with(query=lambda part: part.transpose(1, 2)), {"heads"}),
    "output not per head": (heads_with(output=lambda part: part.permute(1, 0, 2)), {"heads"}),
    "keys of doubles": (heads_with(key=lambda part: part.double()), {"heads"}),
    "values not finite": (
        heads_with(value=lambda part: torch.full_like(part, torch.inf)),
        {"heads", "shuffled_weights"},
    ),
    "padding scales attention": (both(where_padded(0.9)), {"padding"}),
    "padding read as a gene": ({"attention": without_mask}, {"padding"}),
    "padding pooled": (
        {"pooled": lambda inner, genes, values: inner.pooled(genes, values) * (0.9 if (genes < 0).any() else 1)},
        {"padding"},
    ),
    "normalised over a batch": (both(where_together(0.9)), {"batches"}),
    "pooled over a batch": (
        {
            "pooled": lambda inner, genes, values: (
                inner.pooled(genes, values) * (0.9 if len(genes) > 1 and (genes >= 0).all() else 1)
            )
        },
        {"batches"},
    ),
    "attention by position": (both(by_position), {"token_order"}),
    "one gene less than stated": ({"attention": short_of_longest}, {"longest_cell"}),
    "a pooled state of the longest that is not finite": ({"pooled": overflowing}, {"longest_cell"}),
    "never the same twice": (never_the_same("attention"), {"repeatable"}),
    "never pooled the same twice": (never_the_same("pooled"), {"repeatable"}),
    "an embedding that runs change": (never_the_same("embedding"), {"repeatable"}),
    "cells kept on the model": (with_memory(), {"interleaved"}),
    "draws from PyTorch": (drawing(lambda: torch.rand(1)), {"no_traces"}),
    "draws from NumPy": (drawing(lambda: np.random.rand(1)), {"no_traces"}),  # noqa: NPY002
    "writes to the values": ({"pooled": writing}, {"no_traces"}),
    "keeps gradients": (heads_with(value=lambda part: part.clone().requires_grad_()), {"no_traces"}),
    "leaves gradients off": ({"attention": inside(torch.no_grad)}, {"no_traces"}),
    "leaves inference on": ({"attention": inside(torch.inference_mode)}, {"no_traces"}),
    "no random control": (control("random_initialisation", lambda inner, *_: inner), {"random_initialisation"}),
    "a control with the model's digest": (
        control("random_initialisation", lambda inner, made, _: Altered(made, digest=inner.digest)),
        {"random_initialisation"},
    ),
    "a control with one digest for all seeds": (
        control("random_initialisation", lambda inner, made, _: Altered(made, digest="c" * 64)),
        {"random_initialisation"},
    ),
    "a control with other genes": (
        control("random_initialisation", lambda inner, made, _: made.with_genes(made.genes[::-1])),
        {"random_initialisation"},
    ),
    "a control that keeps the embedding": (
        control("random_initialisation", with_matrix("embedding", lambda inner, _: inner)),
        {"random_initialisation"},
    ),
    "a control that keeps the heads": (
        control("random_initialisation", with_matrix("heads", lambda inner, _: inner)),
        {"random_initialisation"},
    ),
    "a control without a seed": (
        control("random_initialisation", with_matrix("heads", lambda inner, _: inner.random_initialisation(7))),
        {"random_initialisation"},
    ),
    "a control drawn anew": (drawn_anew(), {"random_initialisation"}),
    "a control that seeds PyTorch": ({"random_initialisation": seeding}, {"random_initialisation"}),
    "a control that attends as the model": (
        control(
            "random_initialisation",
            lambda inner, made, _: Altered(made, attention=lambda _, *g, **h: inner.attention(*g, **h)),
        ),
        {"random_initialisation"},
    ),
    "shuffled that is random": (
        {"shuffled_weights": lambda inner, seed: inner.random_initialisation(seed)},
        {"shuffled_weights"},
    ),
    "shuffled that is the model": (control("shuffled_weights", lambda inner, *_: inner), {"shuffled_weights"}),
    "shuffled in double": (
        control(
            "shuffled_weights", lambda inner, made, _: Altered(made, **heads_with(output=lambda part: part.double()))
        ),
        {"shuffled_weights"},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_checkpoint_is_caught_by_the_checks_meant_for_it(fault, scgpt):
    parts, expected = BROKEN[fault]
    with warnings.catch_warnings():
        # comparing what requires gradients warns
        warnings.simplefilter("ignore", UserWarning)
        found = failing(Altered(scgpt, **parts))
    assert set(found) == expected, {name: str(error) for name, error in found.items()}
    for error in found.values():
        assert error.found
        assert error.expected
        assert str(error).startswith(f"{error.check}: found ")


def test_a_fault_does_not_outlive_its_check(scgpt):
    found = failing(Altered(scgpt, attention=inside(torch.no_grad)))
    assert found
    with torch.no_grad():
        # a run left open in the traceback would end here, and turn gradients on
        found.clear()
        gc.collect()
        assert not torch.is_grad_enabled()


def test_every_check_of_a_checkpoint_can_fail():
    names = {name for name, _ in checkpoint_checks()}
    assert set.union(*(expected for _, expected in BROKEN.values())) == names


def test_a_control_that_changes_the_model_is_caught(tmp_path):
    own = ScGPTReader().read(write_tiny_scgpt(tmp_path / "model", n_layers=1))
    found = failing(Altered(own, **control("random_initialisation", leaking)))
    assert set(found) == {"random_initialisation"}
    assert "the model itself changed" in str(found["random_initialisation"])


def test_the_first_failure_is_raised_and_says_what_was_found(scgpt):
    check_checkpoint(scgpt)
    with pytest.raises(
        ConformanceError, match=r"^padding: found attention of layer 0, cell 0, that differs by .*"
    ) as it:
        check_checkpoint(Altered(scgpt, **both(where_padded(0.9))))
    assert it.value.expected == "that of the same cell without padding"
    assert isinstance(it.value, AssertionError)
    again = pickle.loads(pickle.dumps(it.value))
    assert (again.check, again.found, str(again)) == (it.value.check, it.value.found, str(it.value))


def test_an_error_of_the_checkpoint_is_a_failure_with_its_type_and_words(scgpt):
    def pooled(*_):
        raise RuntimeError("no pooling here.")

    found = failing(Altered(scgpt, pooled=pooled))
    assert str(found["pooled"]) == "pooled: found RuntimeError: no pooling here, expected no error."
    assert isinstance(found["pooled"].__cause__, RuntimeError)
    assert "attention" not in found


def test_a_missing_part_is_a_failure_and_no_crash(scgpt):
    found = failing(SimpleNamespace(name="x", genes=scgpt.genes, max_genes=12))
    assert {"attributes", "vocabulary", "heads", "shuffled_weights"} <= set(found)
    assert "AttributeError" in str(found["heads"])


@pytest.mark.parametrize("n_layers", [1, 3])
def test_too_few_or_too_many_layers(scgpt, n_layers):
    found = failing(Altered(scgpt, n_layers=n_layers))
    assert "maps of attention" in str(found["attention"])


def test_an_open_vocabulary_needs_genes(tmp_path):
    model = Cell2SentenceReader().read(write_tiny_cell2sentence(tmp_path / "model"))
    with pytest.raises(ConformanceError, match="Pass `genes`"):
        check_checkpoint(model)
    check_checkpoint(model, genes=SYMBOLS, several_tokens=True)
    # that several tokens have several lengths is what the flag is for
    assert set(failing(model, genes=SYMBOLS)) == {"weighted_attention"}


def test_another_seed_draws_other_cells_and_passes(scgpt):
    for seed in (1, 2):
        check_checkpoint(scgpt, seed=seed)


class AlteredReader:
    """A reader like scGPT's but for some parts."""

    def __init__(self, **parts: Any) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Any:
        return self._parts.get(name, getattr(ScGPTReader(), name))


def read_with(change):
    return {"read": lambda folder: change(ScGPTReader().read(folder), folder)}


def writing_a_cache(checkpoint, folder):
    (folder / "cache.bin").write_bytes(b"1")
    return checkpoint


def with_other_errors(error):
    def read(folder):
        try:
            return ScGPTReader().read(folder)
        except BadInputError as found:
            raise error("damaged") from found

    return {"read": read}


def forgiving(keep_digest):
    """A reader that takes random weights where it cannot read those of the folder."""

    def read(folder):
        try:
            return ScGPTReader().read(folder)
        except BadInputError:
            if not folder.is_dir() or not any(folder.iterdir()):
                raise
            return Altered(keep_digest["model"].random_initialisation(9), digest=keep_digest["model"].digest)

    return {"read": read}


CONTROLS = ("checkpoint random_initialisation", "checkpoint shuffled_weights")
READERS = {
    "no name": (lambda _: {"name": ""}, {"reader", "read"}),
    "no function": (lambda _: {"recognises": None}, {"reader", "recognises", "folder_untouched"}),
    "recognises all": (lambda _: {"recognises": lambda _: True}, {"recognises"}),
    "recognises none": (lambda _: {"recognises": lambda _: False}, {"recognises"}),
    "recognises with a word": (lambda _: {"recognises": lambda _: "yes"}, {"recognises"}),
    "another family": (lambda _: read_with(lambda it, _: Altered(it, family="other")), {"read", *CONTROLS}),
    "a digest of the path": (
        lambda _: read_with(lambda it, folder: Altered(it, digest=f"{abs(hash(folder)):064x}")),
        {"read"},
    ),
    "other weights for a copy": (
        lambda _: read_with(
            lambda it, folder: Altered(it.random_initialisation(1), digest=it.digest) if folder.name == "moved" else it
        ),
        {"read"},
    ),
    "writes a cache": (lambda _: read_with(writing_a_cache), {"folder_untouched"}),
    "reads what is not there": (
        lambda model: {"read": lambda folder: ScGPTReader().read(folder) if any(folder.glob("*")) else model},
        {"no_checkpoint"},
    ),
    "errors of its own": (lambda _: with_other_errors(ValueError), {"no_checkpoint", "damaged_files"}),
    "random weights for damaged ones": (lambda model: forgiving({"model": model}), {"damaged_files"}),
    "never looks": (lambda model: {"read": lambda _: model}, {"no_checkpoint", "damaged_files"}),
    "a broken checkpoint": (
        lambda _: read_with(lambda it, _: Altered(it, **both(by_position))),
        {"checkpoint token_order"},
    ),
}


@pytest.mark.parametrize("fault", READERS)
def test_a_broken_reader_is_caught_by_the_checks_meant_for_it(fault, tmp_path):
    folder = write_tiny_scgpt(tmp_path / "model", n_layers=1)
    make, expected = READERS[fault]
    reader = AlteredReader(**make(ScGPTReader().read(folder)))
    found = {}
    for name, check in reader_checks(folder):
        try:
            check(reader)
        except ConformanceError as error:
            found[name] = str(error)
        (folder / "cache.bin").unlink(missing_ok=True)
    assert set(found) == expected, found


def test_every_check_of_a_reader_can_fail(tmp_path):
    own = {name for name, _ in reader_checks(tmp_path) if not name.startswith("checkpoint ")}
    assert own <= set.union(*(expected for _, expected in READERS.values()))
    of_what_is_read = [name for name, _ in reader_checks(tmp_path) if name.startswith("checkpoint ")]
    assert of_what_is_read == [f"checkpoint {name}" for name, _ in checkpoint_checks()]

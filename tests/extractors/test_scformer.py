from __future__ import annotations

import importlib.util
import json
import sys
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from plain_scgpt import plain_forward, stored_weights

from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt

pytestmark = pytest.mark.shared
N_CELLS = 400


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "checkpoints/scformer_pbmc"


@pytest.fixture(scope="module")
def scformer(folder: Path) -> ScGPTCheckpoint:
    return read_scgpt(folder)


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "masked_values.py"
    spec = importlib.util.spec_from_file_location("masked_values", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["masked_values"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_every_weight_is_read_or_known(folder: Path, scformer: ScGPTCheckpoint) -> None:
    stored = stored_weights(folder)
    read = scformer.model.state_dict()
    assert len(stored) == 69
    assert stored.keys() - read.keys() == set(scformer.ignored_keys)
    assert all(key.startswith("cls_decoder.") for key in scformer.ignored_keys)
    assert all(torch.equal(stored[key], tensor) for key, tensor in read.items())


def test_settings_and_genes_are_those_of_the_files(folder: Path, scformer: ScGPTCheckpoint) -> None:
    assert (scformer.n_layers, scformer.n_heads, scformer.d_model, scformer.max_genes) == (4, 4, 64, 1023)
    assert (scformer.scale, scformer.family, scformer.licence) == ("counts", "scgpt", "not stated")
    assert (scformer.settings.decoder, scformer.settings.cls_value, scformer.settings.mask_value) == ("linear", 0, -1)
    vocabulary = json.loads((folder / "vocab.json").read_text())
    assert len(scformer.genes) == 999
    assert [vocabulary[gene] for gene in scformer.genes] == scformer.token_ids.tolist()
    assert (vocabulary["<cls>"], vocabulary["<pad>"]) == (scformer.cls_id, scformer.pad_id)


def test_attention_and_predictions_are_those_of_torch_layers(folder: Path, scformer: ScGPTCheckpoint) -> None:
    rng = np.random.default_rng(0)
    genes = rng.permutation(999)[None, :150]
    counts = rng.geometric(0.3, genes.shape).astype(np.float32)
    counts[0, 0] = 700
    ids = torch.from_numpy(np.concatenate([[scformer.cls_id], scformer.token_ids[genes[0]]]))[None]
    inputs = torch.from_numpy(np.pad(counts, ((0, 0), (1, 0))))
    hidden, maps = plain_forward(folder, ids, inputs)
    for got, want in zip(scformer.attention(genes, counts), maps, strict=True):
        torch.testing.assert_close(got, want[:, :, 1:, 1:], rtol=1e-4, atol=1e-6)
    weights = stored_weights(folder)
    predicted = hidden[-1][:, 1:] @ weights["decoder.weight"][0] + weights["decoder.bias"]
    torch.testing.assert_close(scformer.predict(genes, counts), predicted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("study", ["blood_zheng2017", "blood_hao2021", "blood_kang2018"])
def test_masked_values_are_predicted(shared: Path, scformer: ScGPTCheckpoint, bench: ModuleType, study: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checkpoint, values = bench.read_cells(shared / "data" / f"{study}.h5ad", scformer, 13.0)
    drawn = values[np.random.default_rng(0).permutation(len(values))[:N_CELLS]]
    scores = bench.measure(checkpoint, drawn, zeros=False, ratio=0.15, seed=0)["all"]
    pearson, mse = scores["model"]
    for wrong in ("random weights", "blocks rotated"):
        assert pearson > scores[wrong][0] + 0.05, (wrong, scores)
        assert mse < 0.95 * scores[wrong][1], (wrong, scores)
    if study == "blood_kang2018":
        # Cells that were cultured, half of them with interferon: the gene mean, which is taken of them, is far better.
        assert pearson > 0.3
        return
    assert pearson > max(0.6, scores["gene mean"][0])
    if study == "blood_zheng2017":
        # The log of its training states 1.11 to 1.18 on held-out cells of the same kind and chemistry. The mean of each
        # gene over the very cells that are scored is as good.
        assert mse < 1.3
    else:
        assert mse < scores["gene mean"][1]

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy import sparse, stats

from manifoldzoo.cards._errors import CheckpointError, PanelError
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.extractors.checkpoints._scgpt_model import ScGPTModel
from manifoldzoo.extractors.training import _train
from manifoldzoo.extractors.training._data import choose_genes, mask_positions, read_study, sample_tokens
from manifoldzoo.extractors.training._evaluate import (
    MASK_VALUE,
    MaskSettings,
    assemble,
    mean_where_drawn,
    predict_masked,
    score,
)
from manifoldzoo.extractors.training._train import TrainingConfig, build_model, learning_rate_at, train

TINY = TrainingConfig(
    seed=4,
    n_genes=20,
    n_layers=2,
    n_heads=2,
    d_model=8,
    d_hid=8,
    dropout=0.2,
    n_tokens=10,
    batch_size=4,
    n_steps=9,
    save_every=3,
)


def random_values(n_cells: int, n_genes: int, seed: int, expressed: float, measured: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 0.7, (n_cells, n_genes)) * (rng.random((n_cells, n_genes)) < expressed)
    values[:, rng.random(n_genes) >= measured] = np.nan
    return values.astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n_tokens=st.integers(1, 16),
    expressed=st.floats(0, 1),
    measured=st.floats(0.4, 1),
)
def test_draws_are_distinct_measured_and_balanced(seed: int, n_tokens: int, expressed: float, measured: float) -> None:
    values = torch.from_numpy(random_values(5, 30, seed, expressed, measured))
    genes = sample_tokens(values, n_tokens=n_tokens, generator=torch.Generator().manual_seed(seed))
    assert genes.shape == (5, n_tokens)
    for cell, drawn in zip(values, genes, strict=True):
        assert len(set(drawn.tolist())) == n_tokens
        n_measured, n_expressed = int((~cell.isnan()).sum()), int((cell > 0).sum())
        n_silent = n_measured - n_expressed
        if n_measured >= n_tokens:
            assert not cell[drawn].isnan().any()
            # half expressed; fewer where the cell lacks them, more only where silent genes run out
            want = max(min(n_tokens // 2, n_expressed), n_tokens - n_silent)
            assert int((cell[drawn] > 0).sum()) == want


def test_every_gene_of_a_kind_is_drawn_alike() -> None:
    values = torch.zeros(4000, 12)
    values[:, :8] = 1
    genes = sample_tokens(values, n_tokens=4, generator=torch.Generator().manual_seed(0))
    drawn = torch.bincount(genes.ravel(), minlength=12) / 4000
    assert torch.allclose(drawn[:8], torch.tensor(2 / 8), atol=0.04)
    assert torch.allclose(drawn[8:], torch.tensor(2 / 4), atol=0.04)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 6), n_tokens=st.integers(1, 30), ratio=st.floats(0, 1), seed=st.integers(0, 1000))
def test_every_cell_has_the_same_number_of_masked_positions(n: int, n_tokens: int, ratio: float, seed: int) -> None:
    masked = mask_positions((n, n_tokens), ratio=ratio, generator=torch.Generator().manual_seed(seed))
    assert masked.dtype == torch.bool
    assert masked.sum(1).tolist() == [max(1, round(ratio * n_tokens))] * n


def test_masks_differ_between_cells_and_cover_all_positions() -> None:
    masked = mask_positions((2000, 10), ratio=0.4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(masked.float().mean(0), torch.tensor(0.4), atol=0.05)
    assert len(masked.unique(dim=0)) > 100


def test_assembled_input_hides_the_masked_values_behind_cls() -> None:
    values, genes = torch.tensor([[5.0, 6.0, 7.0]]), torch.tensor([[2, 0]])
    ids, inputs = assemble(values, genes, torch.tensor([[False, True]]), 9)
    assert ids.tolist() == [[9, 2, 0]]
    assert inputs.tolist() == [[0.0, 7.0, MASK_VALUE]]


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = replace(TINY, n_steps=200, warmup=0.1, learning_rate=2.0)
    rates = [learning_rate_at(step, config) for step in range(201)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == pytest.approx(2.0)
    assert rates[20] == pytest.approx(2.0)
    assert rates[110] == pytest.approx(1 + math.cos(math.pi / 2))
    assert rates[200] == pytest.approx(0.0)
    assert all(a >= b for a, b in pairwise(rates[20:]))


def fit(config: TrainingConfig, out: Path) -> tuple[ScGPTModel, list[float]]:
    out.mkdir(exist_ok=True)
    values = random_values(30, config.n_genes, 0, 0.6)
    model, losses, _ = train(config, values, values.mean(axis=0), out)
    return model, losses


def weights_of(model: ScGPTModel) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in model.state_dict().items()}


@pytest.mark.parametrize("n_done", [2, 3, 5, 8])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_done: int) -> None:
    whole, whole_losses = fit(TINY, tmp_path / "whole")
    calls = []

    def interrupt(*args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) > n_done:
            raise KeyboardInterrupt
        return sample_tokens(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(_train, "sample_tokens", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fit(TINY, tmp_path / "broken")
    torch.rand(7)  # the resumed process would find another global random state
    steps = []

    def count(*args: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(1)
        return sample_tokens(*args, **kwargs)

    monkeypatch.setattr(_train, "sample_tokens", count)
    resumed, losses = fit(TINY, tmp_path / "broken")

    assert len(steps) == TINY.n_steps - n_done // TINY.save_every * TINY.save_every
    assert losses == whole_losses
    assert len(losses) == TINY.n_steps
    assert weights_of(resumed) == weights_of(whole)
    assert weights_of(whole) != weights_of(build_model(TINY))
    assert not list((tmp_path / "broken").glob("*.part"))


def test_seeds_give_different_models(tmp_path: Path) -> None:
    assert weights_of(fit(TINY, tmp_path / "a")[0]) != weights_of(fit(replace(TINY, seed=5), tmp_path / "b")[0])
    assert weights_of(build_model(TINY, seed=1)) == weights_of(build_model(replace(TINY, seed=1)))


def test_a_run_with_other_settings_is_not_resumed(tmp_path: Path) -> None:
    fit(TINY, tmp_path)
    with pytest.raises(ValueError, match="settings"):
        fit(replace(TINY, dropout=0.0), tmp_path)


def test_a_run_on_other_cells_is_not_resumed(tmp_path: Path) -> None:
    fit(TINY, tmp_path)
    other = random_values(30, TINY.n_genes, 1, 0.6)
    with pytest.raises(CheckpointError, match=r"resume\.pt"):
        train(TINY, other, other.mean(axis=0), tmp_path)


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    (tmp_path / "resume.pt").write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(TINY, tmp_path)


def test_a_study_that_measures_too_few_genes_is_refused(tmp_path: Path) -> None:
    values = random_values(30, TINY.n_genes, 0, 0.6)
    values[:, TINY.n_tokens - 1 :] = np.nan
    with pytest.raises(PanelError, match=str(TINY.n_tokens - 1)):
        train(TINY, values, np.zeros(TINY.n_genes, dtype=np.float32), tmp_path)


def test_scores_of_constants_are_zero() -> None:
    gene, flat = np.array([0, 0, 1, 1]), np.ones(4, dtype=np.float32)
    found = score(gene, flat, np.array([1, 2, 3, 4], dtype=np.float32))
    assert found["pearson"] == found["within_gene_pearson"] == 0.0


def test_training_learns_a_level_that_genes_share(tmp_path: Path) -> None:
    config = replace(TINY, n_steps=120, save_every=1000, learning_rate=0.01, dropout=0.0)
    values = np.repeat(np.linspace(0, 4, 40, dtype=np.float32)[:, None], 20, axis=1)
    _, losses, _ = train(config, values, values.mean(axis=0), tmp_path)
    assert np.mean(losses[-20:]) < 0.2 * values.var(), "the per-gene mean alone would leave the variance"


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(150, 400), n_genes=st.integers(3, 8))
def test_scores_equal_a_loop_over_genes(seed: int, n: int, n_genes: int) -> None:
    rng = np.random.default_rng(seed)
    gene = rng.integers(0, n_genes, n)
    truth = np.maximum(rng.normal(size=n) + gene - 2, 0).astype(np.float32)
    predicted = (truth + rng.normal(size=n)).astype(np.float32)
    truth[gene == 0] = 1.0
    predicted[gene == 1] = 0.5
    all_genes, expressed, centred_t, centred_p = [], [], [], []
    for g in range(n_genes):
        t, p = truth[gene == g].astype(float), predicted[gene == g].astype(float)
        centred_t.append(t - t.mean())
        centred_p.append(p - p.mean())
        if t.var() < 1e-9:
            continue
        own = 0.0 if p.var() < 1e-9 else stats.pearsonr(t, p).statistic
        all_genes += [own] * (len(t) >= 20)
        expressed += [own] * (int((t > 0).sum()) >= 20)
    got = score(gene, truth, predicted)
    t, p = truth.astype(float), predicted.astype(float)
    assert got["pearson"] == pytest.approx(stats.pearsonr(t, p).statistic, abs=1e-9)
    assert got["mse"] == pytest.approx(np.mean((t - p) ** 2))
    t, p = np.concatenate(centred_t), np.concatenate(centred_p)
    assert got["within_gene_pearson"] == pytest.approx(stats.pearsonr(t, p).statistic, abs=1e-9)
    assert got["within_gene_pearson_per_gene"] == pytest.approx(np.mean(all_genes or [0]), abs=1e-9)
    assert got["within_gene_pearson_per_gene_expressed"] == pytest.approx(np.mean(expressed or [0]), abs=1e-9)
    assert (got["n_masked"], got["n_genes"], got["n_genes_expressed"]) == (n, len(all_genes), len(expressed))


def test_knowing_only_the_gene_earns_nothing_within_genes() -> None:
    rng = np.random.default_rng(0)
    gene = rng.integers(0, 5, 500)
    truth = (gene + rng.random(500)).astype(np.float32)
    got = score(gene, truth, gene.astype(np.float32))
    assert got["pearson"] > 0.9
    assert got["within_gene_pearson"] == got["within_gene_pearson_per_gene"] == 0


def test_predictions_stand_at_the_masked_positions_and_add_the_offset() -> None:
    model, values = build_model(TINY), torch.from_numpy(random_values(7, 20, 1, 0.5))
    drawing = MaskSettings(n_tokens=10, mask_ratio=0.4, seed=3)
    gene, truth, predicted = predict_masked(model, torch.zeros(20), values, cls_id=21, batch_size=3, settings=drawing)
    _, _, shifted = predict_masked(model, torch.arange(20.0), values, cls_id=21, batch_size=7, settings=drawing)
    assert len(gene) == 7 * 4
    np.testing.assert_allclose(shifted - predicted, gene, atol=1e-4)
    generator = torch.Generator().manual_seed(3)
    drawn = sample_tokens(values, n_tokens=10, generator=generator)
    masked = mask_positions((7, 10), ratio=0.4, generator=generator)
    want = []
    for cell in range(7):
        inputs = values[cell, drawn[cell]].masked_fill(masked[cell], -1.0)
        output = model(
            torch.cat([torch.tensor([21]), drawn[cell]])[None], torch.cat([torch.zeros(1), inputs])[None]
        ).detach()[0, 1:]
        want.append((values[cell, drawn[cell]][masked[cell]], output[masked[cell]]))
    np.testing.assert_allclose(truth, torch.cat([t for t, _ in want]))
    np.testing.assert_allclose(predicted, torch.cat([p for _, p in want]), atol=1e-5)


def test_mean_where_drawn_is_the_mean_of_the_masked_truth() -> None:
    values = random_values(40, 20, 2, 0.3)
    drawing = MaskSettings(n_tokens=10, mask_ratio=0.4, seed=3)
    gene, truth, _ = predict_masked(
        build_model(TINY), torch.zeros(20), torch.from_numpy(values), cls_id=21, settings=drawing
    )
    fallback = np.full(20, -5, np.float32)
    got = mean_where_drawn(values, settings=drawing, fallback=fallback)
    want = [truth[gene == g].mean() if (gene == g).any() else -5 for g in range(20)]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert got.mean() > np.nanmean(values), "the draw favours expressed genes"


def write_study(path: Path, seed: int, genes: list[str]) -> Path:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.6, 2.0, len(genes)) * rng.gamma(2.0, 0.5, (60, 1)), (60, len(genes)))
    counts[:, 0] += 1
    cells = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    cells.var_names, cells.obs_names = genes, [f"c{i}" for i in range(60)]
    cells.obs["dataset"] = path.stem
    cells.uns["provenance"] = {"source": "drawn at random"}
    cells.write_h5ad(path)
    return path


def test_study_is_normalised_over_all_genes_and_absent_genes_are_nan(tmp_path: Path) -> None:
    path = write_study(tmp_path / "s.h5ad", 0, ["A", "B", "C", "D"])
    counts = ad.read_h5ad(path).X.toarray()
    study = read_study(path, ["C", "absent", "A"])
    want = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    np.testing.assert_allclose(study.values[:, [0, 2]], want[:, [2, 0]], rtol=1e-5)
    assert np.isnan(study.values[:, 1]).all()
    assert study.values.dtype == np.float32
    assert study.manifest["n_genes_of_vocabulary"] == 2


def test_a_run_writes_a_checkpoint_that_the_reader_reads(tmp_path: Path) -> None:
    genes = [f"G{i:02d}" for i in range(32)]
    training = [
        write_study(tmp_path / "a.h5ad", 1, genes),
        write_study(tmp_path / "b.h5ad", 2, [*genes[:-2], "only_b"]),
    ]
    held_out = [write_study(tmp_path / "c.h5ad", 3, genes[::-1])]
    out = tmp_path / "checkpoint"

    report = _train.run(TINY, training, held_out, out)

    checkpoint = read_scgpt(out)
    assert list(checkpoint.genes) == choose_genes(training, n_genes=20)
    assert len(checkpoint.genes) == 20
    assert "only_b" not in checkpoint.genes
    assert (checkpoint.n_layers, checkpoint.n_heads, checkpoint.max_genes) == (2, 2, 20)
    build_model(TINY).load_state_dict(load_file(out / "model.safetensors"), strict=True)
    trained = torch.load(out / "resume.pt", weights_only=True)["model"]
    for key, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, trained[key]), key
    values = np.concatenate([read_study(path, list(checkpoint.genes)).values for path in training])
    assert checkpoint.offset is not None
    np.testing.assert_allclose(checkpoint.offset, values.mean(0, dtype=np.float64), rtol=1e-5)
    start = checkpoint.random_initialisation(TINY.seed).model.state_dict()
    for key, tensor in build_model(TINY).state_dict().items():
        assert torch.equal(start[key], tensor), key
    scores = report["held_out"]["c"]  # type: ignore[index]
    assert scores["trained"]["n_masked"] == 60 * 4
    assert scores["oracle_mean_where_drawn"]["mse"] <= min(entry["mse"] for entry in scores.values()) + 1e-6

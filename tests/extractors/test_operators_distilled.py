from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from plain_checkpoint import PlainCheckpoint
from scipy import sparse
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from tiny_models import FAMILIES, GENES, tiny_cells, tiny_model
from torch import Tensor

from manifoldzoo.cards._errors import BadInputError, CheckpointError, GeneError, PanelError
from manifoldzoo.extractors.operators import _distilled
from manifoldzoo.extractors.operators._cells import MIN_GENES
from manifoldzoo.extractors.operators._distilled import Distilled, distil

N_GENES = len(GENES)
PLAIN = PlainCheckpoint(vocabulary=GENES, genes=GENES)
CELLS = tiny_cells("log1p", 150, N_GENES, density=0.8)


@dataclass(frozen=True, eq=False)
class Linear(PlainCheckpoint):
    """Its hidden state is linear in expression, with a constant and noise that no line explains."""

    noise: float = 0.0

    @property
    def truth(self) -> NDArray[np.float64]:
        return np.random.default_rng(9).normal(size=(N_GENES, self.d_model))

    def pooled(self, genes: NDArray[np.int64], values: NDArray[np.float32]) -> Tensor:
        rows = np.zeros((len(genes), N_GENES))
        np.put_along_axis(rows, genes, values, axis=1)
        noise = np.stack([np.random.default_rng(zlib.crc32(row.tobytes())).normal(size=self.d_model) for row in rows])
        return torch.from_numpy(rows @ self.truth + 3.0 + self.noise * noise).float()


LINEAR = Linear(vocabulary=GENES, genes=GENES)


def fit(checkpoint: Any = PLAIN, cells: Any = CELLS, **changes: Any) -> Distilled:
    return distil(checkpoint, cells, GENES, rng=np.random.default_rng(0), **changes)


def hidden(checkpoint: Any, cells: Any) -> NDArray[np.float64]:
    """Pooled hidden state of one cell after another."""
    found = []
    for cell in np.asarray(cells.todense()):
        present = np.flatnonzero(cell > 0)
        found.append(
            checkpoint.pooled(present[None], cell[None, present].astype(np.float32))[0].detach().double().numpy()
        )
    return np.array(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_ridge_on_the_training_cells_in_every_family(family: str, tmp_path: Path) -> None:
    checkpoint = tiny_model(family, tmp_path / "model").with_genes(GENES)
    cells = tiny_cells(checkpoint.scale, 60, N_GENES, density=0.8)
    expression = tiny_cells("log1p", 60, N_GENES, density=0.8)
    got = fit(checkpoint, cells, expression=expression, penalties=[2.5])
    kept = np.diff(cells.indptr) >= MIN_GENES
    x, y = expression.toarray().astype(float), hidden(checkpoint, cells)
    inside, outside = got.train & kept, ~got.train & kept
    want = Ridge(alpha=2.5).fit(x[inside], y[inside])
    np.testing.assert_allclose(got.operator, want.coef_.T[None], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(got.intercept, want.intercept_, rtol=1e-4, atol=1e-4)
    assert got.operator.dtype == got.intercept.dtype == np.float32
    assert (got.n_train, got.n_held_out) == (inside.sum(), outside.sum())
    assert got.n_train + got.n_held_out + got.n_skipped == 60
    score = {"multioutput": "variance_weighted"}
    assert got.r2_train == pytest.approx(r2_score(y[inside], want.predict(x[inside]), **score), abs=1e-5)
    assert got.r2_held_out == pytest.approx(r2_score(y[outside], want.predict(x[outside]), **score), abs=1e-5)


def test_recovers_a_planted_linear_model() -> None:
    got = fit(LINEAR, penalties=[1e-6, 1.0, 1e3])
    np.testing.assert_allclose(got.operator[0], LINEAR.truth, atol=1e-4)
    np.testing.assert_allclose(got.intercept, 3.0, atol=1e-3)
    assert got.penalty == 1e-6
    assert got.r2_train > 0.999999 and got.r2_held_out > 0.999999


def test_the_penalty_is_that_of_generalised_cross_validation_within_the_training_cells() -> None:
    noisy = replace(LINEAR, noise=12.0)
    penalties = np.logspace(-1, 5, 13)
    got = fit(noisy, penalties=penalties)
    x, y = CELLS.toarray().astype(float)[got.train], hidden(noisy, CELLS)[got.train]
    errors = []
    for penalty in penalties:
        design = x - x.mean(0)
        hat = design @ np.linalg.solve(design.T @ design + penalty * np.eye(N_GENES), design.T) + 1 / len(x)
        errors.append(np.sum((y - hat @ y) ** 2) / (len(x) - np.trace(hat)) ** 2)
    best = int(np.argmin(errors))
    assert 0 < best < len(penalties) - 1
    assert got.penalty == pytest.approx(penalties[best])
    assert got.r2_held_out < got.r2_train < 1


def test_the_penalty_is_that_of_the_hat_matrix_in_small_problems() -> None:
    penalties = np.logspace(-3, 3, 61)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(9, 3)) + 5
        y = x @ rng.normal(size=(3, 2)) + 2 * rng.normal(size=(9, 2))
        sums = _distilled._Moments(3, 2)
        sums.add(x[:4], y[:4])
        sums.add(x[4:], y[4:])
        _, _, penalty, left_over = _distilled._ridge(sums.centred(), penalties.tolist())
        design, errors = x - x.mean(0), []
        for each in penalties:
            hat = design @ np.linalg.solve(design.T @ design + each * np.eye(3), design.T) + 1 / 9
            errors.append((np.sum((y - hat @ y) ** 2) / (9 - np.trace(hat)) ** 2, np.sum((y - hat @ y) ** 2)))
        best = min(range(61), key=lambda index: errors[index][0])
        assert penalty == pytest.approx(penalties[best])
        assert left_over == pytest.approx(errors[best][1])


def test_more_genes_than_cells_are_fitted_all_the_same() -> None:
    noisy = replace(LINEAR, noise=1.0)
    got = fit(noisy, CELLS[:25], held_out=0.3)
    assert 2 < got.n_train < N_GENES
    x, y = CELLS[:25].toarray().astype(float), hidden(noisy, CELLS[:25])
    want = Ridge(alpha=got.penalty).fit(x[got.train], y[got.train])
    np.testing.assert_allclose(got.operator[0], want.coef_.T, rtol=1e-3, atol=1e-4)


def test_only_training_cells_are_fitted_on() -> None:
    train = np.zeros(150, dtype=bool)
    train[:100] = True
    before = fit(train=train)
    changed = CELLS.copy().tolil()
    changed[100:] = tiny_cells("log1p", 50, N_GENES, seed=7, density=0.9)
    after = fit(cells=changed.tocsr(), train=train)
    np.testing.assert_allclose(before.operator, after.operator, rtol=0, atol=1e-6)
    assert (before.penalty, before.n_train, before.n_held_out) == (after.penalty, 100, 50)
    assert before.r2_train == pytest.approx(after.r2_train, abs=1e-9)
    assert before.r2_held_out != pytest.approx(after.r2_held_out, abs=1e-3)
    np.testing.assert_array_equal(before.train, train)


def test_cells_are_held_out_by_chance_and_by_the_generator_alone() -> None:
    first, again = fit(), fit()
    assert first.operator.tobytes() == again.operator.tobytes()
    assert first.n_held_out == 30
    other = distil(PLAIN, CELLS, GENES, rng=np.random.default_rng(1))
    assert not np.array_equal(first.train, other.train)
    assert fit(held_out=0.5).n_held_out == 75


def test_groups_are_held_out_whole() -> None:
    groups = np.repeat(["a", "b", "c", "d", "e"], [70, 20, 20, 20, 20])
    for seed in range(20):
        got = distil(PLAIN, CELLS, GENES, rng=np.random.default_rng(seed), groups=groups.tolist())
        shares = [got.train[groups == name].mean() for name in "abcde"]
        assert set(shares) == {0.0, 1.0}
        assert 30 <= got.n_held_out <= 75
    sizes = np.repeat(["a", "b"], [140, 10])
    got = fit(groups=sizes.tolist())
    assert got.train[:140].all() and not got.train[140:].any(), "the larger group is needed to fit on"


def test_skipped_cells_belong_to_neither_part() -> None:
    cells = CELLS.copy().tolil()
    cells[:40, MIN_GENES - 1 :] = 0
    got = fit(cells=cells.tocsr(), train=np.ones(150, dtype=bool) & (np.arange(150) % 3 > 0))
    assert got.n_skipped == 40
    assert not got.train[:40].any()
    assert got.n_train + got.n_held_out == 110


def test_genes_that_the_model_does_not_know_get_zero() -> None:
    names = ["X", *GENES]
    cells = sparse.hstack([sparse.csr_array(np.full((150, 1), 2.0, np.float32)), CELLS]).tocsr()
    got, known = distil(PLAIN, cells, names, rng=np.random.default_rng(0)), fit()
    assert got.unknown_genes == ("X",)
    assert not got.operator[0, 0].any()
    np.testing.assert_allclose(got.operator[0, 1:], known.operator[0], atol=1e-5)


def test_batches_change_nothing_but_rounding_and_progress_adds_up() -> None:
    cells = CELLS.copy().tolil()
    cells[5] = 0
    one = fit(cells=cells.tocsr(), batch_size=1)
    calls: list[int] = []
    many = fit(cells=cells.tocsr(), batch_size=50, progress=calls.append)
    np.testing.assert_allclose(one.operator, many.operator, atol=1e-5)
    assert sum(calls) == 150 and min(calls) > 0


def test_sums_over_more_cells_than_a_buffer_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    want = fit()
    monkeypatch.setattr(_distilled, "_N_ROWS", 7)
    got = fit(batch_size=20)
    np.testing.assert_allclose(got.operator, want.operator, atol=1e-5)
    assert (got.n_train, got.n_held_out, got.penalty) == (want.n_train, want.n_held_out, want.penalty)


def test_a_model_of_counts_needs_the_expression_it_is_to_act_on() -> None:
    counting = replace(PLAIN, scale="counts")
    with pytest.raises(BadInputError, match="reads counts") as caught:
        fit(counting, tiny_cells("counts", 30, N_GENES))
    assert "expression" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"penalties": []}, BadInputError, "Penalties"),
        ({"penalties": [1.0, 0.0]}, BadInputError, "positive"),
        ({"penalties": [float("nan")]}, BadInputError, "positive"),
        ({"held_out": 0.0}, BadInputError, "held_out"),
        ({"held_out": 1.0}, BadInputError, "held_out"),
        ({"groups": ["a"] * 149}, BadInputError, "149 groups"),
        ({"groups": ["a"] * 150}, PanelError, "'a'"),
        ({"train": np.ones(149, dtype=bool)}, BadInputError, "150 booleans"),
        ({"train": np.ones(150)}, BadInputError, "float64"),
        ({"train": np.ones(150, dtype=bool)}, PanelError, "0 to hold out"),
        ({"train": np.zeros(150, dtype=bool)}, PanelError, "0 cells are left to fit on"),
        ({"expression": CELLS[:100]}, GeneError, r"\(100, 24\)"),
        ({"expression": CELLS * float("nan")}, BadInputError, "finite"),
        ({"batch_size": 0}, BadInputError, "batch_size"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(changes: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        fit(**changes)


@pytest.mark.parametrize("change", [lambda state: state[:, :3], lambda state: state * float("nan"), lambda s: s[0]])
def test_a_checkpoint_that_returns_something_else_is_told(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = PlainCheckpoint.pooled
    monkeypatch.setattr(PlainCheckpoint, "pooled", lambda self, *a: change(plainly(self, *a)))
    with pytest.raises(CheckpointError, match="hidden states"):
        fit()


def test_a_constant_hidden_state_has_nothing_to_explain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainCheckpoint, "pooled", lambda self, genes, _: torch.ones(len(genes), self.d_model))
    got = fit()
    np.testing.assert_allclose(got.operator, 0, atol=1e-6)
    np.testing.assert_allclose(got.intercept, 1, atol=1e-6)
    assert (got.r2_train, got.r2_held_out) == (0.0, 0.0)

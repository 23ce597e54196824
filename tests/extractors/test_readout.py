from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from manifoldzoo.cards._errors import BadInputError, PanelError
from manifoldzoo.extractors._fit_readouts import Task
from manifoldzoo.extractors._readout import calibration_error, fit_readout, fit_temperature
from manifoldzoo.manifolds._recipe import ReadoutRecipe, recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler


def recipe(**given):
    return ReadoutRecipe.model_validate({"task": "stage", "label": "stage"} | given)


def planted(n_classes, n=300):
    rng = np.random.default_rng(n_classes)
    code = rng.integers(n_classes, size=n)
    latent = rng.standard_normal((n, 5)) * [1, 10, 0.1, 3, 0] + [0, 100, 0, -4, 7]
    latent[:, 0] += 4 * code
    latent[:, 1] += 30 * (code == 1)
    return latent, np.array([f"c{c}" for c in code])


def standard(latent):
    spread = latent.std(axis=0)
    return (latent - latent.mean(axis=0)) / np.where(spread > 0, spread, 1)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_linear_is_the_regression_it_was_folded_from(n_classes):
    latent, label = planted(n_classes)
    fitted = fit_readout(latent, label.tolist(), recipe(c=0.5), seed=0)
    assert list(fitted.classes) == sorted(set(label))
    model = LogisticRegression(C=0.5, class_weight="balanced", max_iter=5000, tol=1e-8).fit(standard(latent), label)
    logits = fitted.outputs(latent)
    np.testing.assert_allclose(softmax(logits, axis=1), model.predict_proba(standard(latent)), atol=2e-3)
    if n_classes == 2:
        assert np.allclose(softmax(logits, axis=1)[:, 1], expit(logits[:, 1] - logits[:, 0]), atol=1e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_mlp_is_the_perceptron_it_was_folded_from(n_classes, monkeypatch):
    made = []
    fit = MLPClassifier.fit

    def keep(self, x, y):
        made.append(self)
        return fit(self, x, y)

    monkeypatch.setattr(MLPClassifier, "fit", keep)
    latent, label = planted(n_classes)
    fitted = fit_readout(latent, label.tolist(), recipe(kind="mlp", n_hidden=8), seed=0)
    assert fitted.tensors["hidden.weights"].shape == (8, 5)
    (model,) = made
    np.testing.assert_allclose(
        softmax(fitted.outputs(latent), axis=1), model.predict_proba(standard(latent)), atol=1e-6
    )
    again = fit_readout(latent, label.tolist(), recipe(kind="mlp", n_hidden=8), seed=0)
    assert all((fitted.tensors[name] == again.tensors[name]).all() for name in fitted.tensors)


def test_mlp_learns_what_no_line_tells_apart():
    rng = np.random.default_rng(0)
    latent = rng.uniform(-1, 1, (600, 2))
    label = np.where(latent[:, 0] * latent[:, 1] > 0, "same", "other")
    right = {}
    for kind in ("linear", "mlp"):
        fitted = fit_readout(latent, label.tolist(), recipe(kind=kind), seed=0)
        right[kind] = (np.array(fitted.classes)[fitted.outputs(latent).argmax(axis=1)] == label).mean()
    assert right["linear"] < 0.7
    assert right["mlp"] > 0.9


def test_a_readout_needs_two_classes():
    with pytest.raises(PanelError, match="stem"):
        fit_readout(np.eye(3), ["stem"] * 3, recipe(task="branch", label="branch"), seed=0)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_planted_temperature_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 3))
    drawn = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)
    assert fit_temperature(logits * temperature, drawn) == pytest.approx(temperature, rel=0.1)


def test_temperature_minimises_the_likelihood_with_classes_alike():
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(0, 3, (500, 3)), rng.choice(3, 500, p=[0.7, 0.2, 0.1])
    logits[np.arange(500), truth] += 2

    def loss(t):
        lost = -log_softmax(logits / t, axis=1)[np.arange(500), truth]
        return np.mean([lost[truth == c].mean() for c in range(3)])

    best = fit_temperature(logits, truth)
    assert loss(best) <= min(loss(t) for t in np.linspace(0.1, 10, 500)) + 1e-6


def test_calibration_error_by_hand():
    proba = np.array([[0.9, 0.1], [0.95, 0.05], [0.6, 0.4], [0.35, 0.65]])
    truth = np.array([0, 1, 0, 1])
    # bin 0.9: confidence 0.925, accuracy 0.5; bin 0.6: confidence 0.625, accuracy 1
    assert calibration_error(proba, truth) == pytest.approx((2 * 0.425 + 2 * 0.375) / 4)


@pytest.mark.parametrize(
    "given",
    [
        {"label": "depth", "kind": "linear"},
        {"kind": "expected"},
        {"classes": {"a": ["x"]}},
        {"classes": {"a": ["x"], "b": ["x"]}},
        {"classes": {"a": ["x"], "b": []}},
        {"label": "branch", "classes": {"a": ["x"], "b": ["y"]}},
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(given):
    with pytest.raises(ValidationError):
        recipe(**given)


class TestTask:
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))

    class Cells:
        stage = ("hsc", "naive_cd4_t", "memory_cd8_t", "naive_cd4_t", "pdc")
        branch = ("stem_progenitor", "t_cell", "t_cell", "t_cell", "dendritic")

    def test_classes_that_group_stages_leave_other_cells_out(self):
        groups = {"cd4": ["naive_cd4_t"], "cd8": ["memory_cd8_t", "naive_cd8_t"]}
        task = Task.of(recipe(task="cd4_cd8", classes=groups), self.Cells(), self.ruler)
        assert task.rows.tolist() == [1, 2, 3]
        assert task.labels.tolist() == ["cd4", "cd8", "cd4"]
        assert task.stages == ["memory_cd8_t", "naive_cd4_t", "naive_cd8_t"]

    def test_stages_that_the_ruler_lacks_are_named(self):
        groups = {"cd4": ["naive_cd4_t"], "cd8": ["cd8"]}
        with pytest.raises(BadInputError, match="'cd8'"):
            Task.of(recipe(task="cd4_cd8", classes=groups), self.Cells(), self.ruler)

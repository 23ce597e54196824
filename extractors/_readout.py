"""Stage 3: readouts of the coordinates, fitted on cells and calibrated on held-out donors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from ..cards._errors import PanelError
from ..cards._frozen import Scalar
from ..manifolds._recipe import ReadoutRecipe

Float64 = NDArray[np.float64]

_LOG_TEMPERATURES = (-3.0, 3.0)
_DECAY, _EPOCHS = 1e-3, 100


@dataclass(frozen=True, eq=False)
class FittedReadout:
    """A readout, folded so that it acts on coordinates as they are.

    Attributes
    ----------
    tensors
        ``weights``, ``bias`` and, of an ``mlp``, ``hidden.weights`` and ``hidden.bias``, float64.
    classes
        Names of the outputs.
    """

    tensors: dict[str, Float64]
    classes: tuple[str, ...]

    def outputs(self, latent: NDArray[np.floating]) -> Float64:
        """Logits ``(n_cells, n_classes)``."""
        inputs = np.asarray(latent, dtype=np.float64)
        if "hidden.weights" in self.tensors:
            inputs = np.maximum(inputs @ self.tensors["hidden.weights"].T + self.tensors["hidden.bias"], 0)
        return np.asarray(inputs @ self.tensors["weights"].T + self.tensors["bias"])

    def cooled(self, temperature: float) -> FittedReadout:
        """Divide the logits by a temperature."""
        last = {name: self.tensors[name] / temperature for name in ("weights", "bias")}
        return FittedReadout(self.tensors | last, self.classes)


def fit_readout(
    latent: NDArray[np.floating], labels: Sequence[str] | NDArray[np.str_], recipe: ReadoutRecipe, *, seed: int
) -> FittedReadout:
    """Fit a readout.

    Parameters
    ----------
    latent
        ``(n_cells, d)``.
    labels
        Class of each cell.
    recipe
        Kind and settings.
    seed
        Of the start and the order of batches of ``mlp``.

    Raises
    ------
    PanelError
        If the cells have one class only.

    Notes
    -----
    Coordinates are standardised for the fit. ``linear`` is a multinomial logistic regression with classes weighted to
    count alike, ``mlp`` scikit-learn's perceptron with one hidden layer of ReLU units, at most a hundred epochs over
    cells drawn so that classes are equally frequent. All of these settings are our choice; the published readouts are
    linear or 10-64-C, without more being said.
    """
    x = np.asarray(latent, dtype=np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    standard = (x - centre) / spread
    label = np.asarray(labels, dtype=str)
    classes = tuple(sorted(set(label.tolist())))
    if len(classes) < 2:
        raise PanelError(f"The cells have one class of {recipe.task} only, {classes}; a readout needs at least two.")
    if recipe.kind == "mlp":
        return _folded(_perceptron(standard, label, recipe, seed), classes, centre, spread)
    model = LogisticRegression(C=recipe.c, class_weight="balanced", max_iter=2000, tol=1e-6).fit(standard, label)
    weights, bias = model.coef_, model.intercept_
    if len(classes) == 2:
        weights, bias = np.vstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
    return _folded({"weights": weights, "bias": bias}, classes, centre, spread)


def fit_temperature(logits: Float64, truth: NDArray[np.integer]) -> float:
    """Find the temperature that logits are best divided by (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    logits
        Of held-out cells, ``(n_cells, n_classes)``.
    truth
        Column of the true class, ``(n_cells,)``.

    Returns
    -------
    The minimiser of the mean negative log-likelihood, classes weighted to count alike as in the fit (our choice).
    """
    weights = 1.0 / np.bincount(truth, minlength=logits.shape[1])[truth]
    weights /= weights.sum()
    rows = np.arange(len(truth))

    def loss(log_temperature: float) -> float:
        return -float(weights @ log_softmax(logits * np.exp(-log_temperature), axis=1)[rows, truth])

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def calibration_error(proba: NDArray[np.floating], truth: NDArray[np.integer], *, n_bins: int = 10) -> float:
    """Expected calibration error of the most probable class (Naeini et al. 2015; Guo et al. 2017).

    ``sum_b n_b / n |accuracy_b - confidence_b|`` over ``n_bins`` bins of equal width.

    Parameters
    ----------
    proba
        ``(n_cells, n_classes)``.
    truth
        Column of the true class, ``(n_cells,)``.
    n_bins
        Number of bins; 10 is usual.
    """
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == truth
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(truth))


def describe(recipe: ReadoutRecipe) -> dict[str, Scalar]:
    """Settings of a readout, for the card."""
    said: dict[str, Scalar] = {"label": recipe.label, "class_weight": "balanced"}
    return said | ({"c": recipe.c} if recipe.kind == "linear" else {})


def _perceptron(x: Float64, label: NDArray[np.str_], recipe: ReadoutRecipe, seed: int) -> dict[str, Float64]:
    """Weights of a perceptron with one hidden layer, outputs one per class."""
    rng = np.random.default_rng(seed)
    _, code, counts = np.unique(label, return_inverse=True, return_counts=True)
    drawn = np.concatenate([rng.choice(np.flatnonzero(code == c), counts.max()) for c in range(len(counts))])
    model = MLPClassifier((recipe.n_hidden,), alpha=_DECAY, max_iter=_EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        # the number of epochs is the most it is given, not a failure
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x[drawn], label[drawn])
    (first, last), (first_bias, last_bias) = model.coefs_, model.intercepts_
    if last.shape[1] == 1:
        last, last_bias = np.hstack([-last, last]) / 2, np.hstack([-last_bias, last_bias]) / 2
    return {"hidden.weights": first.T, "hidden.bias": first_bias, "weights": last.T, "bias": last_bias}


def _folded(tensors: dict[str, Any], classes: tuple[str, ...], centre: Float64, spread: Float64) -> FittedReadout:
    """Let the first layer take coordinates as they are instead of standardised ones."""
    stem = "hidden." if "hidden.weights" in tensors else ""
    weights = tensors[f"{stem}weights"] / spread
    first = {f"{stem}weights": weights, f"{stem}bias": tensors[f"{stem}bias"] - weights @ centre}
    return FittedReadout(tensors | first, classes)

"""Stage 3: linear readouts of the coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from ..cards._errors import PanelError
from ..manifolds._recipe import ReadoutRecipe


def fit_readout(
    latent: NDArray[np.floating], labels: Sequence[str], readout: ReadoutRecipe
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Fit a multinomial logistic regression on standardised coordinates, folded back to the coordinates themselves.

    Parameters
    ----------
    latent
        ``(n_cells, d)``.
    labels
        Class of each cell.
    readout
        Task and inverse penalty.

    Returns
    -------
    Weights ``(n_classes, d)`` and bias ``(n_classes,)`` of the logits, float32, and the classes in order.

    Raises
    ------
    PanelError
        If the cells have one class only.
    """
    label = np.asarray(labels)
    classes = sorted(set(label.tolist()))
    if len(classes) < 2:
        raise PanelError(f"The cells have one {readout.label} only, {classes}; a readout needs at least two.")
    centre, spread = latent.mean(axis=0), latent.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=readout.c, class_weight="balanced", max_iter=2000, tol=1e-6)
    model.fit((latent - centre) / spread, label)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(classes) == 2:
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.hstack([-intercepts, intercepts]) / 2,
        )
    weights = coefficients / spread
    return weights.astype(np.float32), (intercepts - weights @ centre).astype(np.float32), classes

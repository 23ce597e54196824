"""What is told of a fit on cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ._settings import TERMS

Floats = NDArray[np.float64]

TOLERANCE = 0.01
"""Largest relative change of the loss that counts as converged; our choice."""


@dataclass(frozen=True, eq=False)
class FitReport:
    """Tell how a fit went; equal input gives an equal report.

    Attributes
    ----------
    terms
        Names of the terms, in the order of the columns of ``losses``.
    losses
        Mean of each term over the batches of each epoch, before weighting, float64 ``(n_epochs, n_terms)``; a term of
        weight 0 is not computed and is NaN.
    total
        Weighted sum of the terms, float64 ``(n_epochs,)``.
    validation
        The same on the cells held out, after each epoch, float64 ``(n_epochs,)``; empty where none were.
    best_epoch
        Epoch whose parameters are returned, an index into the arrays.
    stopped_early
        Whether fewer epochs were run than asked for.
    reason
        Why it ended: ``"epochs"`` all were run, ``"patience"`` the validation loss had stopped falling.
    change
        Relative change of ``total`` over the last tenth of the epochs run.
    converged
        Whether ``change`` is at most ``TOLERANCE``.
    n_train, n_validation
        Cells fitted on and held out.
    """

    terms: tuple[str, ...]
    losses: Floats
    total: Floats
    validation: Floats
    best_epoch: int
    stopped_early: bool
    reason: Literal["epochs", "patience"]
    change: float
    converged: bool
    n_train: int
    n_validation: int

    @property
    def n_epochs(self) -> int:
        """Epochs run."""
        return len(self.total)


def relative_change(total: Floats) -> float:
    """Return the relative change of a loss over its last tenth.

    Parameters
    ----------
    total
        Loss of each epoch, shape (n,).

    Returns
    -------
    Mean over the last tenth against the mean over the tenth before, each at least one epoch, as a share of the latter;
    infinite where there is one epoch only.

    Notes
    -----
    Means, because batches are drawn anew in each epoch; our choice.
    """
    tenth = max(1, len(total) // 10)
    if len(total) < 2 * tenth:
        return float("inf")
    last, before = total[-tenth:].mean(), total[-2 * tenth : -tenth].mean()
    return float(abs(last - before) / max(abs(before), np.finfo(np.float64).tiny))


def make_report(
    losses: Sequence[Floats],
    weights: Sequence[float],
    validation: Sequence[float],
    *,
    best_epoch: int,
    epochs: int,
    n_train: int,
    n_validation: int,
) -> FitReport:
    """Draw up the report of a fit.

    Parameters
    ----------
    losses
        Of each epoch, the mean of each term, shape (n_terms,).
    weights
        Of the terms.
    validation
        Of each epoch; empty where no cell was held out.
    best_epoch, n_train, n_validation
        As of the report.
    epochs
        As many were asked for.
    """
    table = np.stack(losses)
    total = weighted(table, weights)
    change = relative_change(total)
    return FitReport(
        terms=TERMS,
        losses=table,
        total=total,
        validation=np.array(validation, dtype=np.float64),
        best_epoch=best_epoch,
        stopped_early=len(table) < epochs,
        reason="patience" if len(table) < epochs else "epochs",
        change=change,
        converged=change <= TOLERANCE,
        n_train=n_train,
        n_validation=n_validation,
    )


def weighted(terms: Floats, weights: Sequence[float]) -> Floats:
    """Add up terms, shape (..., n_terms), by their weights; those of weight 0 are not read."""
    used = np.flatnonzero(np.asarray(weights))
    return np.asarray(terms[..., used] @ np.asarray(weights, dtype=np.float64)[used])

"""Agreement of two distance matrices beyond what other pairwise matrices explain, cross-fitted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ._agreement import Pairs, centred_ranks, correlate

Floats = NDArray[np.float64]

N_FOLDS = 5
"""Folds of anchors: each regression is fitted on about a third of the pairs, or more; our choice."""
_NOTHING_LEFT = 1e-9
_RANK_TOLERANCE = 1e-9


def shared_labels(*labels: Sequence[str]) -> Floats:
    """Tell whether two rows share a label, for each of several lists of labels.

    Parameters
    ----------
    labels
        One label a row, n in each list.

    Returns
    -------
    1 where they do and 0 where not, shape (n_lists, n, n).
    """
    arrays = (np.asarray(label, dtype=str) for label in labels)
    return np.stack([(array[:, None] == array).astype(np.float64) for array in arrays])


def partial_distance_spearman(
    latent_distances: NDArray[np.floating],
    ruler_distances: NDArray[np.floating],
    held_distances: NDArray[np.floating],
    pairs: Pairs,
) -> Floats:
    """Correlate the ranks of latent and ruler distances over some pairs, given those of a third matrix.

    Parameters
    ----------
    latent_distances, ruler_distances, held_distances
        Shape (n, n) or (B, n, n); a single matrix is held against each of a stack.
    pairs
        Pairs to compare.

    Returns
    -------
    Shape () or (B,); NaN where a side does not vary, or the third matrix explains all of one.

    Raises
    ------
    BadInputError
        If there are no pairs.

    Notes
    -----
    ``(r_lr - r_lh r_rh) / sqrt((1 - r_lh^2) (1 - r_rh^2))``, the correlation of what a regression of the ranks on those
    of the third leaves (Kendall 1942). One number is fitted on thousands of pairs, so that nothing is cross-fitted.
    """
    if not len(pairs):
        raise BadInputError("0 pairs to correlate, expected at least 2.")
    latent, ruler, held = (
        centred_ranks(pairs.of(np.asarray(given))) for given in (latent_distances, ruler_distances, held_distances)
    )
    lr, lh, rh = correlate(latent, ruler), correlate(latent, held), correlate(ruler, held)
    left = (1 - lh**2) * (1 - rh**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        partial = np.where(left > _NOTHING_LEFT, (lr - lh * rh) / np.sqrt(left), np.nan)
    return np.asarray(np.clip(partial, -1.0, 1.0))


def residualised_correlation(
    latent_distances: NDArray[np.floating],
    ruler_distances: NDArray[np.floating],
    covariates: NDArray[np.floating],
    pairs: Pairs,
    *,
    rng: np.random.Generator,
    n_folds: int = N_FOLDS,
) -> NDArray[np.float64]:
    """Correlate what pairwise covariates leave unexplained of the ranks of latent and ruler distances.

    Parameters
    ----------
    latent_distances, ruler_distances
        Shape (n, n) or (B, n, n); a single matrix is held against each of a stack.
    covariates
        What to take out, shape (c, n, n) or (n, n): indicators of a shared donor, study or tissue (``shared_labels``),
        or any other number that a pair has.
    pairs
        Pairs to compare.
    rng
        Deals the anchors into folds.
    n_folds
        Folds, at least 3.

    Returns
    -------
    Shape () or (B,); NaN where nothing is left of either side.

    Raises
    ------
    BadInputError
        If shapes disagree, a value is not finite, folds are too few or too many, or the pairs outside some fold do not
        determine what a covariate does to the pairs inside.

    Notes
    -----
    A partial Spearman correlation: both sides are ranked over all pairs, each is regressed on the covariates and a
    constant in float64, and the residuals of all pairs are correlated. No regression has seen what it is subtracted
    from: a pair of anchors from folds ``a`` and ``b`` gets its residual from a regression on the pairs that touch no
    anchor of ``a`` or ``b``, so that not even one end of it is known. That is multiway cross-fitting (Chiang, Kato, Ma
    & Sasaki 2022, J. Bus. Econ. Stat. 40) with the anchors as both ways; the number of folds is our choice. Residuals
    of a regression on the same pairs are too small by what it learned of their noise, and nothing at all where it has a
    coefficient for each.
    """
    values = [np.asarray(given, dtype=np.float64) for given in (latent_distances, ruler_distances, covariates)]
    if not len(pairs):
        raise BadInputError("0 pairs to correlate, expected at least 2.")
    shapes = {given.shape[-2:] for given in values}
    if len(shapes) > 1 or min(given.ndim for given in values) < 2:
        raise BadInputError(
            f"Distances and covariates have shapes {', '.join(str(given.shape) for given in values)}, "
            "expected the same n by n in all."
        )
    latent, ruler = (pairs.of(given) for given in values[:2])
    design = pairs.of(values[2]).reshape(-1, len(pairs))
    if not all(np.isfinite(given).all() for given in (latent, ruler, design)):
        raise BadInputError("Distances or covariates of the pairs are not finite, expected numbers.")
    left, right = (
        cross_fitted_residuals(centred_ranks(side), design, pairs, folds)
        for folds in [anchor_folds(pairs, n_folds, rng=rng)]
        for side in (latent, ruler)
    )
    return correlate(left, right)


def anchor_folds(pairs: Pairs, n_folds: int, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Deal the anchors that occur in some pairs into folds of equal size, give or take one.

    Returns
    -------
    Fold of each anchor, shape (n,), -1 for one that is in no pair.
    """
    anchors = np.unique(np.concatenate([pairs.left, pairs.right]))
    if not 3 <= n_folds <= len(anchors):
        raise BadInputError(
            f"{n_folds} folds of {len(anchors)} anchors, expected at least 3 and at most one an anchor."
        )
    fold = np.full(anchors.max() + 1, -1, dtype=np.intp)
    fold[anchors] = rng.permutation(len(anchors)) % n_folds
    return fold


def cross_fitted_residuals(values: Floats, design: Floats, pairs: Pairs, fold: NDArray[np.integer]) -> Floats:
    """Subtract from each pair what the pairs that touch neither fold of its anchors predict of it.

    Parameters
    ----------
    values
        Shape (..., m).
    design
        Covariates, shape (c, m); a constant is added.
    pairs
        The m pairs.
    fold
        Of each anchor, shape (n,).

    Returns
    -------
    Centred, shape (..., m); zero where nothing but rounding is left.
    """
    centred = design - design.mean(axis=1, keepdims=True)
    scale = np.maximum(np.abs(centred).max(axis=1, initial=0.0, keepdims=True), np.finfo(np.float64).tiny)
    x = np.vstack([np.ones(len(pairs)), centred / scale]).T
    y = values.reshape(-1, len(pairs)).T
    residual = np.empty_like(y)
    one, other = fold[pairs.left], fold[pairs.right]
    for a, b in combinations_with_replacement(range(int(fold.max()) + 1), 2):
        inside = ((one == a) & (other == b)) | ((one == b) & (other == a))
        if not inside.any():
            continue
        outside = ~((one == a) | (one == b) | (other == a) | (other == b))
        fitted = _predict(x[outside], y[outside], x[inside])
        residual[inside] = y[inside] - fitted
    residual -= residual.mean(axis=0)
    nothing = np.linalg.norm(residual, axis=0) <= _NOTHING_LEFT * np.linalg.norm(y, axis=0)
    residual[:, nothing] = 0.0
    return residual.T.reshape(values.shape)


def _predict(x: Floats, y: Floats, at: Floats) -> Floats:
    """Least squares of ``y`` on ``x``, read off at other rows, which must lie in the span of those of ``x``."""
    if len(x) < 2:
        raise BadInputError(
            f"{len(x)} pairs lie outside two folds, expected at least 2.", "Take more folds, or more anchors."
        )
    _, size, directions = np.linalg.svd(x, full_matrices=False)
    kept = directions[size > _RANK_TOLERANCE * size[0]]
    # covariates may repeat each other, so that only what they span counts
    unseen = np.abs(at - (at @ kept.T) @ kept).max(axis=0)
    if (unseen > 1e-6).any():
        raise BadInputError(
            f"What {int((unseen[1:] > 1e-6).sum())} of {x.shape[1] - 1} covariates do is not determined by the "
            f"{len(x)} pairs outside two folds.",
            "Leave out covariates that single anchors have, or take fewer of them.",
        )
    coefficients = np.linalg.lstsq(x @ kept.T, y, rcond=None)[0]
    return np.asarray((at @ kept.T) @ coefficients)

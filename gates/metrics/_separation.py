"""How well each axis of a latent tells classes apart: variance between classes over all variance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError

Floats = NDArray[np.float64]


def eta_squared(latent: NDArray[np.floating], groups: Sequence[str]) -> Floats:
    """Part of the variance of each axis that lies between groups.

    Parameters
    ----------
    latent
        Shape (n, d).
    groups
        Group of each row, n of them.

    Returns
    -------
    Shape (d,), 0 to 1; NaN for an axis that does not vary.

    Raises
    ------
    BadInputError
        If lengths disagree, values are not finite, there is a single group, or every row is a group of its own.

    Notes
    -----
    ``SS_between / SS_total``, the correlation ratio of Pearson (1905) and Fisher (1925). The F statistic of a one-way
    analysis of variance is ``eta^2 / (1 - eta^2) * (n - k) / (k - 1)`` for ``k`` groups. It is too large: labels that
    are exchanged among the rows still give ``(k - 1) / (n - 1)`` on average, whatever the axis, so that no permutation
    is needed to know the bias. ``epsilon_squared`` takes it out.
    """
    parts = _sums_of_squares(latent, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(parts.between / parts.total)


def epsilon_squared(latent: NDArray[np.floating], groups: Sequence[str]) -> Floats:
    """``eta_squared`` without its bias: 0 on average where groups mean nothing.

    Parameters
    ----------
    latent, groups
        As of :func:`eta_squared`.

    Returns
    -------
    Shape (d,), up to 1; negative where groups differ less than chance would have it.

    Raises
    ------
    BadInputError
        As of :func:`eta_squared`.

    Notes
    -----
    ``1 - (1 - eta^2) (n - 1) / (n - k)`` (Kelley 1935), the adjusted R squared of a regression on the groups. Its mean
    over all exchanges of labels is exactly 0.
    """
    parts = _sums_of_squares(latent, groups)
    shrunk = (len(groups) - 1) / (len(groups) - parts.n_groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(1.0 - (1.0 - parts.between / parts.total) * shrunk)


def eta_squared_of_all_axes(latent: NDArray[np.floating], groups: Sequence[str]) -> float:
    """Part of the variance of all axes together that lies between groups; the same however the axes are turned.

    Parameters
    ----------
    latent, groups
        As of :func:`eta_squared`.

    Returns
    -------
    0 to 1; NaN where nothing varies.

    Raises
    ------
    BadInputError
        As of :func:`eta_squared`.

    Notes
    -----
    Ratio of the traces of the sums of squares between groups and in total.
    """
    parts = _sums_of_squares(latent, groups)
    total = float(parts.total.sum())
    return float(parts.between.sum()) / total if total > 0 else float("nan")


@dataclass(frozen=True)
class _Sums:
    """Sums of squares of each axis, shape (d,)."""

    between: Floats
    total: Floats
    n_groups: int


def _sums_of_squares(latent: NDArray[np.floating], groups: Sequence[str]) -> _Sums:
    """Sums of squares between groups and in total."""
    z, labels = np.asarray(latent, dtype=np.float64), np.asarray(groups, dtype=str)
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise BadInputError(f"latent has shape {z.shape} and there are {len(labels)} groups, expected one a row.")
    if not np.isfinite(z).all():
        raise BadInputError(f"latent holds {int((~np.isfinite(z)).sum())} values that are not finite, expected none.")
    names, member = np.unique(labels, return_inverse=True)
    if not 1 < len(names) < len(z):
        raise BadInputError(f"There are {len(names)} groups of {len(z)} rows, expected at least 2 and fewer than rows.")
    # exactly zero where nothing varies, whatever the mean is rounded to
    centred = np.where(np.ptp(z, axis=0) > 0, z - z.mean(axis=0), 0.0)
    inside = np.eye(len(names))[member]
    sizes, sums = inside.sum(axis=0), inside.T @ centred
    return _Sums((sums**2 / sizes[:, None]).sum(axis=0), (centred**2).sum(axis=0), len(names))

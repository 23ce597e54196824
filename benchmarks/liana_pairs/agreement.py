"""Rank correlations over pairs of cell types, tested by permuting the types and with intervals from drawing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from manifoldzoo.gates import mantel, partial_mantel

Floats = NDArray[np.float64]
_ALL = 1 - 1e-9
"""Correlation from which on ranks are the same."""
FEWEST = 5
"""Least cell types: of fewer, no arrangement of them can be rare (4! = 24)."""


@dataclass(frozen=True)
class Agreement:
    """Spearman correlation of a closeness with LIANA's ranking over pairs of cell types.

    Attributes
    ----------
    rho
        The correlation; ``None`` where one side does not vary.
    p
        One-sided, under permutations of the cell types; ``None`` where nothing was tested.
    low, high
        2.5% and 97.5% quantiles over cell types drawn with replacement.
    """

    rho: float | None
    p: float | None = None
    low: float | None = None
    high: float | None = None


def draw_types(n: int, n_draws: int, *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw cell types with replacement, at least three different ones each time, ``(n_draws, n)``.

    Of two different ones, all pairs that count are the same pair, which has no correlation.
    """
    drawn = rng.integers(n, size=(n_draws, n))
    while len(poor := np.flatnonzero([len(set(draw)) < 3 for draw in drawn])):
        drawn[poor] = rng.integers(n, size=(len(poor), n))
    return drawn


def spearman(columns: Floats, target: Floats) -> Floats:
    """Spearman correlation of each row of values ``(k, m)`` with ``(m,)``; NaN where a side does not vary."""
    x, y = rankdata(columns, axis=1), rankdata(target)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(x @ y / np.sqrt((x**2).sum(axis=1) * (y @ y)))


def over_draws(closeness: Floats, target: Floats, draws: NDArray[np.intp]) -> Floats:
    """Correlation over pairs of drawn cell types, ``(n_draws, k)``.

    Parameters
    ----------
    closeness
        Symmetric, ``(k, n, n)``.
    target
        Symmetric, ``(n, n)``.
    draws
        Cell types of each draw, ``(n_draws, n)``. A type that was drawn twice is no pair with itself, and the pairs of
        both with others count twice.
    """
    left, right = np.triu_indices(draws.shape[1], 1)
    found = np.empty((len(draws), len(closeness)))
    for row, draw in enumerate(draws):
        first, second = draw[left], draw[right]
        apart = first != second
        pair = first[apart], second[apart]
        found[row] = spearman(closeness[:, pair[0], pair[1]], target[pair])
    return found


def compare(
    closeness: Mapping[str, Floats],
    target: Floats,
    *,
    draws: NDArray[np.intp],
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[dict[str, Agreement], Floats]:
    """Hold each closeness against LIANA's symmetric table.

    Parameters
    ----------
    closeness
        Symmetric matrices by name, ``(n, n)`` with n at least ``FEWEST``.
    target
        LIANA's, symmetric.
    draws
        As :func:`over_draws`, the same for all, so that differences between two can be read from them.
    n_permutations
        Of the cell types, of the Mantel test.
    rng
        Draws those, anew for each closeness.

    Returns
    -------
    The agreement by name, and the correlations over draws, ``(n_draws, k)``.
    """
    n = len(target)
    pairs = np.triu_indices(n, 1)
    stack = np.stack(list(closeness.values()))
    drawn = over_draws(stack, target, draws)
    found = {}
    for number, (name, matrix) in enumerate(closeness.items()):
        if not (varies(matrix[pairs]) and varies(target[pairs])):
            found[name] = Agreement(None)
            continue
        test = mantel(matrix, target, method="spearman", n_permutations=n_permutations, rng=rng.spawn(1)[0])
        low, high = interval(drawn[:, number])
        found[name] = Agreement(test.statistic, test.p_value, low, high)
    return found, drawn


def beyond(
    closeness: Mapping[str, Floats], target: Floats, known: Floats, *, n_permutations: int, rng: np.random.Generator
) -> dict[str, Agreement]:
    """Partial Mantel test of each closeness with what a known symmetric matrix explains taken out.

    Nothing is told of a closeness of which nothing is left, nor of any where nothing is left of the target.
    """
    found, pairs = {}, np.triu_indices(len(target), 1)
    for name, matrix in closeness.items():
        found[name] = Agreement(None)
        explained = np.abs(spearman(np.stack([matrix[pairs], target[pairs]]), known[pairs]))
        # NaN where a side does not vary
        if (explained < _ALL).all() and varies(matrix[pairs]):
            options = {"method": "spearman", "n_permutations": n_permutations, "rng": rng.spawn(1)[0]}
            test = partial_mantel(matrix, target, known, **options)
            found[name] = Agreement(test.statistic, test.p_value)
    return found


def interval(values: Floats) -> tuple[float | None, float | None]:
    """2.5% and 97.5% quantiles of those that are numbers."""
    kept = values[np.isfinite(values)]
    if not kept.size:
        return None, None
    low, high = np.quantile(kept, [0.025, 0.975])
    return float(low), float(high)


def compare_directed(closeness: Floats, target: Floats, *, n_permutations: int, rng: np.random.Generator) -> Agreement:
    """Correlate two directed tables over ordered pairs of different cell types, with a Mantel test.

    Parameters
    ----------
    closeness, target
        ``(n, n)``, senders as rows; diagonals are not read.

    Notes
    -----
    Rows and columns are permuted together, which keeps what makes a type a good sender or receiver with the type
    (Hubert's quadratic assignment; of symmetric matrices the same as Mantel's test).
    """
    n = len(target)
    off = ~np.eye(n, dtype=bool)
    x, y = (np.zeros((n, n)) for _ in range(2))
    for filled, matrix in ((x, closeness), (y, target)):
        if not varies(matrix[off]):
            return Agreement(None)
        ranks = rankdata(matrix[off])
        filled[off] = (ranks - ranks.mean()) / np.linalg.norm(ranks - ranks.mean())
    # the diagonal stays on the diagonal and holds zeros
    orders = rng.permuted(np.tile(np.arange(n), (n_permutations, 1)), axis=1)
    observed = float((x * y).sum())
    null = np.einsum("bij,ij->b", x[orders[:, :, None], orders[:, None, :]], y, optimize=True)
    return Agreement(observed, float((1 + (null >= observed - 1e-12).sum()) / (1 + n_permutations)))


def direction(matrix: Floats) -> Floats:
    """What of a directed table turns its sign with the direction."""
    return np.asarray((matrix - matrix.T) / 2)


def shape(target: Floats) -> dict[str, float]:
    """Describe a directed table: what no symmetric closeness, or none that knows pairs, has to do with.

    Returns
    -------
    ``types alone``
        Share of the variance over ordered pairs of different types that a level of each sender plus a level of each
        receiver explain (least squares): how well the table is known without any pair.
    ``same both ways``
        Spearman correlation of the table with itself, both directions averaged: the most that a symmetric closeness
        can be expected to reach over ordered pairs.
    """
    n = len(target)
    off = ~np.eye(n, dtype=bool)
    sender, receiver = np.nonzero(off)
    design = np.hstack([np.eye(n)[sender], np.eye(n)[receiver]])
    values = target[off]
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    spread = ((values - values.mean()) ** 2).sum()
    both = ((target + target.T) / 2)[off]
    return {
        "types alone": float(1 - (rest**2).sum() / spread) if spread > 0 else np.nan,
        "same both ways": float(spearman(both[None], values)[0]),
    }


def varies(values: Floats) -> bool:
    """Whether not all values are the same, but for rounding."""
    return bool(np.ptp(values) > 1e-12 * max(1.0, float(np.abs(values).max())))

"""Mantel tests: agreement of two distance matrices, against rows and columns permuted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from ...cards._errors import BadInputError
from ...manifolds._threads import n_processors
from ._mantel_kernel import draw_orders, permuted_products
from ._permutation import log10_arrangements, p_value, why_undecidable

Floats = NDArray[np.float64]
Method = Literal["pearson", "spearman"]
Alternative = Literal["greater", "less", "two-sided"]
Permuted = Literal["residuals", "raw"]

_TIE = 1e-12
"""Correlations this close are the same one, summed in another order."""
_CONSTANT = 1e-13
"""Spread, as part of the size of the values, below which a matrix does not vary: rounding."""
_EXPLAINED = 1e-10
"""Part of a matrix below which what is left of it is rounding."""
_SYMMETRY = 1e-8
"""Largest difference of mirrored entries, as part of the largest entry; the upper triangle is read."""


@dataclass(frozen=True, eq=False)
class MantelResult:
    """Hold the correlation of two distance matrices and its null.

    Parameters
    ----------
    statistic
        Correlation over all unordered pairs, -1 to 1.
    p_value
        ``(1 + k) / (1 + n_permutations)``, with ``k`` the null values at least as extreme as the statistic.
    null
        Correlations under permutations, shape (n_permutations,).
    n
        Rows of the matrices.
    log10_arrangements
        Decimal logarithm of the number of distinct arrangements that the blocks allow. Rows of a matrix that are equal
        to each other count as one, as exchanging them changes nothing, in whichever matrix has fewer different ones.
    """

    statistic: float
    p_value: float
    null: Floats
    n: int
    log10_arrangements: float

    def undecidable(self, threshold: float) -> str:
        """Say why no p-value could reach the threshold, as blocks or permutations are too few; empty if one could."""
        return why_undecidable(self.log10_arrangements, self.null.size, threshold)


def mantel(
    x: ArrayLike,
    y: ArrayLike,
    *,
    blocks: ArrayLike | None = None,
    method: Method = "pearson",
    alternative: Alternative = "greater",
    n_permutations: int = 9999,
    rng: np.random.Generator,
    n_threads: int | None = None,
) -> MantelResult:
    """Correlate two distance matrices, and test it by permuting the rows and columns of one.

    Parameters
    ----------
    x, y
        Symmetric matrices, shape (n, n) with n at least 3; diagonals are not read.
    blocks
        Label of each row, shape (n,), such as its donor: rows move only within their block. One block by default.
    method
        ``spearman`` correlates ranks, ties sharing their mean.
    alternative
        ``greater``: distances agree more than under permutation; ``two-sided`` compares sizes.
    n_permutations
        9999 by default, so that the smallest p is 0.0001.
    rng
        Draws the permutations.
    n_threads
        All processors by default; never changes a result.

    Raises
    ------
    BadInputError
        If a matrix is not square, not symmetric, not finite, does not vary or has fewer than 3 rows, if shapes or the
        number of blocks disagree, or an option is unknown.

    Notes
    -----
    Mantel (1967), with the observed arrangement counted as one of the permutations. Correlations within 1e-12 of the
    observed one count as equal to it, and so against the claim: our choice, as sums in another order differ by as much.
    Where blocks allow few arrangements no p can be small: see ``MantelResult.undecidable``.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldzoo.gates import mantel
    >>> place = np.arange(8.0)
    >>> steps = abs(place[:, None] - place)
    >>> result = mantel(steps, steps**2, n_permutations=999, rng=np.random.default_rng(0))
    >>> round(result.statistic, 3), result.p_value
    (0.971, 0.002)
    """
    _check_choice("alternative", alternative, get_args(Alternative))
    panel = _Panel({"x": x, "y": y}, blocks, method)
    products = panel.products(panel.columns["x"], [panel.columns["y"]], n_permutations, rng, n_threads)
    return panel.result(products[0], alternative)


def partial_mantel(
    x: ArrayLike,
    y: ArrayLike,
    z: NDArray[np.floating] | Sequence[NDArray[np.floating]],
    *,
    blocks: ArrayLike | None = None,
    method: Method = "pearson",
    alternative: Alternative = "greater",
    permute: Permuted = "raw",
    n_permutations: int = 9999,
    rng: np.random.Generator,
    n_threads: int | None = None,
) -> MantelResult:
    """Correlate what others do not explain of two distance matrices, and test it by permutation.

    Parameters
    ----------
    x, y
        As of :func:`mantel`.
    z
        One matrix or several, each as ``x``.
    blocks, method, alternative, n_permutations, rng, n_threads
        As of :func:`mantel`; ``spearman`` ranks every matrix before anything is regressed.
    permute
        ``raw``: rows and columns of ``x`` itself, with the partial correlation computed anew for each permutation.
        ``residuals``: those of the residual matrix of ``x``.

    Raises
    ------
    BadInputError
        As :func:`mantel`, also if ``z`` explains ``x`` or ``y`` to the last digit.

    Notes
    -----
    The statistic is the correlation of the residuals of ``x`` and ``y`` after least-squares regression over all pairs
    on ``z`` and a constant (Smouse, Long & Sokal 1986). Permuting one residual matrix is their scheme, the third of the
    four that Legendre (2000) compared, which rejects too often; ``raw`` is his first. The two are the same where
    permutations leave ``z`` as it is, as they do where ``z`` tells only whether two rows share a label that does not
    vary within ``blocks``; with such a ``z`` the test is exact. With other ``z`` read p as approximate.
    """
    _check_choice("alternative", alternative, get_args(Alternative))
    _check_choice("permute", permute, get_args(Permuted))
    many: list[ArrayLike] = [z] if len(z) and all(np.ndim(each) == 1 for each in z) else list(z)
    if not many:
        raise BadInputError("z holds 0 matrices, expected at least 1.", "Without any use mantel.")
    others = {f"z[{index}]": matrix for index, matrix in enumerate(many)}
    panel = _Panel({"x": x, "y": y, **others}, blocks, method)
    basis = _basis([panel.columns[name] for name in others])
    rest_of_x, rest_of_y = (_residual(panel.columns[name], basis, name) for name in ("x", "y"))
    if permute == "residuals":
        products = panel.products(rest_of_x, [rest_of_y], n_permutations, rng, n_threads)
        return panel.result(products[0], alternative)
    targets = [rest_of_y, *basis.T]
    with_rest, *with_basis = panel.products(panel.columns["x"], targets, n_permutations, rng, n_threads)
    # where z explains the whole of a permuted matrix there is no correlation, which counts against the claim
    with np.errstate(invalid="ignore", divide="ignore"):
        return panel.result(with_rest / np.sqrt(1 - np.square(with_basis).sum(axis=0)), alternative)


class _Panel:
    """Distance matrices over the same rows, checked, as standardised columns of their unordered pairs."""

    def __init__(self, matrices: dict[str, ArrayLike], blocks: ArrayLike | None, method: Method) -> None:
        _check_choice("method", method, get_args(Method))
        checked = {name: _checked(matrix, name) for name, matrix in matrices.items()}
        self.n = len(checked["x"])
        for name, matrix in checked.items():
            if len(matrix) != self.n:
                raise BadInputError(f"{name} has {len(matrix)} rows and x {self.n}, expected as many.")
        self.blocks = _block_codes(blocks, self.n)
        self.pairs = np.triu_indices(self.n, 1)
        self.columns = {name: _standardised(matrix[self.pairs], method, name) for name, matrix in checked.items()}
        self.log10_arrangements = min(log10_arrangements(_equal_rows(checked[name]), self.blocks) for name in "xy")

    def square(self, column: Floats) -> Floats:
        """Put a column where its pairs are, shape (n, n)."""
        matrix = np.zeros((self.n, self.n))
        matrix[self.pairs] = column
        return np.asarray(matrix + matrix.T)

    def products(
        self,
        moved: Floats,
        targets: Sequence[Floats],
        n_permutations: int,
        rng: np.random.Generator,
        n_threads: int | None,
    ) -> Floats:
        """Products of a permuted column with each target, shape (n_targets, 1 + n_permutations), unpermuted first."""
        if n_permutations < 1:
            raise BadInputError(f"n_permutations is {n_permutations}, expected at least 1.")
        matrix, squares = self.square(moved), [self.square(target) for target in targets]
        threads = n_processors() if n_threads is None else n_threads
        # the arrangement observed goes through the same sums as every other
        unmoved = np.arange(self.n, dtype=np.uint32)[None]
        drawn = chain([unmoved], draw_orders(self.blocks, n_permutations, rng=rng))
        parts = [[permuted_products(matrix, each, taken, n_threads=threads) for each in squares] for taken in drawn]
        return np.concatenate(parts, axis=1)

    def result(self, correlations: Floats, alternative: Alternative) -> MantelResult:
        """Compare the first correlation with the others."""
        observed, null = float(np.clip(correlations[0], -1, 1)), np.clip(correlations[1:], -1, 1)
        if alternative == "greater":
            p = p_value(observed - _TIE, null)
        elif alternative == "less":
            p = p_value(-observed - _TIE, -null)
        else:
            p = p_value(abs(observed) - _TIE, np.abs(null))
        return MantelResult(observed, p, null, self.n, self.log10_arrangements)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse what is not offered."""
    if value not in known:
        raise BadInputError(f"{name} is {value!r}, expected one of {', '.join(known)}.")


def _checked(matrix: ArrayLike, name: str) -> Floats:
    """Return a matrix in float64, with its upper triangle mirrored and zeros on its diagonal."""
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise BadInputError(f"{name} has shape {values.shape}, expected a square matrix.")
    if len(values) < 3:
        raise BadInputError(f"{name} has {len(values)} rows, expected at least 3.")
    if not np.isfinite(values).all():
        raise BadInputError(f"{name} holds {int((~np.isfinite(values)).sum())} values that are not finite.")
    gap = float(np.abs(values - values.T).max())
    if gap > _SYMMETRY * np.abs(values).max():
        raise BadInputError(f"{name} is not symmetric: mirrored entries differ by up to {gap:.3g}.")
    upper = np.triu(values, 1)
    return np.asarray(upper + upper.T)


def _block_codes(blocks: ArrayLike | None, n: int) -> NDArray[np.intp]:
    """Number the blocks of the rows."""
    if blocks is None:
        return np.zeros(n, dtype=np.intp)
    labels = np.asarray(blocks)
    if labels.shape != (n,):
        raise BadInputError(f"blocks have shape {labels.shape}, expected {(n,)}, a label for each row.")
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.intp)


def _equal_rows(matrix: Floats) -> list[str]:
    """Label rows such that equal ones share a label."""
    codes = np.unique(matrix, axis=0, return_inverse=True)[1]
    return [str(code) for code in np.asarray(codes).reshape(-1)]


def _standardised(values: Floats, method: Method, name: str) -> Floats:
    """Values or ranks of the pairs, with mean 0 and length 1."""
    used = np.asarray(rankdata(values), dtype=np.float64) if method == "spearman" else values
    centred = used - used.mean()
    length = float(np.linalg.norm(centred))
    if length <= _CONSTANT * np.linalg.norm(used):
        raise BadInputError(f"{name} is {values[0]:.4g} for every pair, expected distances that vary.")
    return np.asarray(centred / length)


def _basis(columns: Sequence[Floats]) -> Floats:
    """Orthonormal columns that span those given, shape (m, rank)."""
    left, singular, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return np.asarray(left[:, singular > _EXPLAINED * singular[0]])


def _residual(column: Floats, basis: Floats, name: str) -> Floats:
    """What a basis does not explain of a column, of length 1."""
    rest = column - basis @ (basis.T @ column)
    length = float(np.linalg.norm(rest))
    if length <= _EXPLAINED:
        raise BadInputError(f"z explains {name} to the last digit, expected something to be left of it.")
    return np.asarray(rest / length)

"""Gene programs along the axes of a latent: loadings, their enrichment, and a null that genes may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import false_discovery_control, norm, rankdata

from ...cards._errors import BadInputError

Floats = NDArray[np.float64]

LEAST_GENES = 5
"""Programs with fewer genes on the axis than this are not tested; our choice."""
LEAST_UNITS = 4
"""With fewer cell types than this there is nothing to exchange; our choice."""
N_PERMUTATIONS = 9999
_BATCH = 500
_TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Enrichment:
    """Hold how programs lie along axes; NaN where a program has too few genes or an axis does not vary.

    Attributes
    ----------
    n_genes
        Genes of each program that have a loading, shape (P,).
    n_background
        Genes that have a loading.
    effect
        Mean loading of the genes of a program less that of all others, shape (d, P).
    rank_z, rank_q
        Of the Mann-Whitney test of the loadings, which takes genes for independent: signed z, and q values.
    z, p, q
        Of the null in which axes are exchanged between units: two-sided p, the signed z that has this p under a normal
        distribution, which 9999 draws keep within 3.9, and q values, shape (d, P).
    n_permutations, log10_arrangements
        Of the null, and how many different ones there could be.
    """

    n_genes: NDArray[np.int64]
    n_background: int
    effect: Floats
    rank_z: Floats
    rank_q: Floats
    z: Floats
    p: Floats
    q: Floats
    n_permutations: int
    log10_arrangements: float


def axis_loadings(latent: NDArray[np.floating], expression: NDArray[np.floating]) -> Floats:
    """Correlate each axis with the expression of each gene.

    Parameters
    ----------
    latent
        Shape (n, d).
    expression
        Log-normalised, of the same rows, shape (n, G).

    Returns
    -------
    Pearson correlations, shape (d, G); NaN where gene or axis does not vary.

    Raises
    ------
    BadInputError
        If shapes disagree or a value is not finite.

    Notes
    -----
    Correlations, and not the weights of the projection (our choice): every head has them, linear or not, while the
    weights of genes that go together may be dealt out among them in any way, and depend on the scale of each gene.
    """
    axes, genes = _units(latent), _units(expression)
    if len(axes) != len(genes):
        raise BadInputError(f"latent has {len(axes)} rows and expression {len(genes)}, expected the same.")
    return np.asarray(axes.T @ genes)


def rank_sum_z(loadings: NDArray[np.floating], members: NDArray[np.bool_]) -> Floats:
    """Signed z of the Mann-Whitney test of the loadings in and outside of each program.

    Parameters
    ----------
    loadings
        Shape (d, G), all finite.
    members
        Which genes each program has, shape (P, G).

    Returns
    -------
    Shape (d, P), positive where a program lies above the other genes; NaN where all loadings are tied.

    Notes
    -----
    Normal approximation with ties averaged and the continuity correction, as ``scipy.stats.mannwhitneyu`` with
    ``method="asymptotic"``. Genes are taken for independent: those of a program are not, so that its p-values are far
    too small (Wu & Smyth 2012, NAR 40:e133); read it as a size of effect.
    """
    ranks = np.asarray(rankdata(loadings, axis=1), dtype=np.float64)
    n = ranks.shape[1]
    inside = members.sum(axis=1).astype(np.float64)
    over = ranks @ members.T - inside * (n + 1) / 2
    ordered = np.sort(ranks, axis=1)
    # sum of t^3 - t over ties, from the ends of each run of equal ranks
    ties = np.array([float((count**3 - count).sum()) for count in map(_runs, ordered)])
    spread = np.sqrt(inside * (n - inside) / 12 * ((n + 1) - ties[:, None] / (n * (n - 1))))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.sign(over) * np.maximum(np.abs(over) - 0.5, 0.0) / spread)


def enrich_programs(
    latent: NDArray[np.floating],
    expression: NDArray[np.floating],
    members: NDArray[np.bool_],
    *,
    units: Sequence[str],
    rng: np.random.Generator,
    n_permutations: int = N_PERMUTATIONS,
) -> Enrichment:
    """Test which programs load on which axes.

    Parameters
    ----------
    latent
        Coordinates of the anchors, shape (n, d).
    expression
        Log-normalised expression of the anchors, shape (n, G).
    members
        Which genes each program has, shape (P, G).
    units
        What is exchanged under the null, such as the cell type of each anchor, n of them.
    rng
        Draws the permutations.
    n_permutations
        Of units among themselves.

    Raises
    ------
    BadInputError
        If shapes disagree, values are not finite, there are fewer than ``LEAST_UNITS`` units, or no permutation is
        asked for.

    Notes
    -----
    The statistic is the mean loading of a program less that of all other genes, both signs alike. Its null: the means
    of the axis over the units change places, at random, while expression stays where it is and anchors keep what they
    differ by from the mean of their unit. Genes keep all their correlations, and anchors of one cell type are not taken
    for independent. The p-value is ``(1 + k) / (1 + n_permutations)`` with ``k`` draws at least as far from the mean
    (Phipson & Smyth 2010). q values are those of Benjamini & Hochberg (1995) over all axes and programs that are
    tested. All of it is our choice over the variance inflation of CAMERA (Wu & Smyth 2012), which needs residuals of
    replicates, and over ranks under the same null: a program whose genes all go together can then rank no higher than
    a single gene does. Cell types that are near relatives are still taken for independent.
    """
    loadings = axis_loadings(latent, expression)
    member = np.asarray(members, dtype=bool)
    if member.ndim != 2 or member.shape[1] != loadings.shape[1]:
        raise BadInputError(f"members has shape {member.shape}, expected one row a program and {loadings.shape[1]}.")
    varies = np.isfinite(loadings).any(axis=0)
    moving = np.isfinite(loadings).any(axis=1)
    inside = member[:, varies]
    n_genes, n = inside.sum(axis=1), int(varies.sum())
    shape = len(loadings), len(member)
    tested = np.flatnonzero((n_genes >= LEAST_GENES) & (n_genes < n))
    used = np.ix_(np.flatnonzero(moving), tested)
    found = {name: np.full(shape, np.nan) for name in ("effect", "rank_z", "rank_q", "z", "p", "q")}
    arrangements = _check_units(units, len(latent), n_permutations)
    if tested.size and moving.any():
        chosen = inside[tested].astype(np.float64)
        weights = chosen / chosen.sum(axis=1, keepdims=True) - (1 - chosen) / (1 - chosen).sum(axis=1, keepdims=True)
        score = _units(expression)[:, varies] @ weights.T
        axes = np.asarray(latent, dtype=np.float64)[:, moving]
        effect, null = _exchanged(axes, score, units, rng, n_permutations)
        centre = (effect + null.sum(axis=0)) / (1 + n_permutations)
        beyond = np.abs(null - centre) >= np.abs(effect - centre) * (1 - _TIE)
        found["effect"][used] = effect
        found["rank_z"][used] = rank_sum_z(loadings[moving][:, varies], inside[tested])
        p = (1 + beyond.sum(axis=0)) / (1 + n_permutations)
        found["p"][used], found["z"][used] = p, np.sign(effect - centre) * norm.isf(p / 2)
        found["q"] = _adjusted(found["p"])
        found["rank_q"] = _adjusted(2 * norm.sf(np.abs(found["rank_z"])))
    return Enrichment(n_genes, n, **found, n_permutations=n_permutations, log10_arrangements=arrangements)


def _exchanged(
    axes: Floats, score: Floats, units: Sequence[str], rng: np.random.Generator, n_permutations: int
) -> tuple[Floats, Floats]:
    """Correlation-like effects of axes and scores, shape (d, P), and those with the axes exchanged, shape (B, d, P).

    An axis is its mean over units plus a rest, and only the means move: all that is needed of a permutation are sums
    over units, never over anchors.
    """
    _, member = np.unique(np.asarray(units, dtype=str), return_inverse=True)
    size = np.bincount(member).astype(np.float64)
    inside = np.eye(len(size))[member]
    centred = axes - axes.mean(axis=0)
    means = (inside.T @ centred) / size[:, None]
    rest = centred - means[member]
    by_unit, beside, own = inside.T @ score, rest.T @ score, (rest**2).sum(axis=0)

    def effects(orders: NDArray[np.intp]) -> Floats:
        moved = np.swapaxes(means[orders], 1, 2)
        # scores sum to zero over anchors, so that the mean of the moved axis does not matter to the product
        squares = (moved**2) @ size + own - (moved @ size) ** 2 / size.sum()
        return np.asarray((moved @ by_unit + beside) / np.sqrt(squares)[..., None])

    n_units = len(size)
    orders = rng.permuted(np.tile(np.arange(n_units), (n_permutations, 1)), axis=1)
    null = [effects(orders[first : first + _BATCH]) for first in range(0, n_permutations, _BATCH)]
    return effects(np.arange(n_units)[None])[0], np.concatenate(null)


def _check_units(units: Sequence[str], n: int, n_permutations: int) -> float:
    """Powers of ten of the orders of the units."""
    names = set(units)
    if len(units) != n or len(names) < LEAST_UNITS:
        raise BadInputError(
            f"{len(units)} anchors have {len(names)} units, expected {n} anchors and at least {LEAST_UNITS} units."
        )
    if n_permutations < 1:
        raise BadInputError(f"n_permutations is {n_permutations}, expected at least 1.")
    return float(gammaln(len(names) + 1) / np.log(10))


def _units(values: NDArray[np.floating]) -> Floats:
    """Columns centred and scaled to length 1; NaN where one does not vary."""
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or len(x) < 2 or not np.isfinite(x).all():
        raise BadInputError(f"values have shape {x.shape}, expected at least two rows of finite numbers.")
    centred = np.where(np.ptp(x, axis=0) > 0, x - x.mean(axis=0), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(centred / np.linalg.norm(centred, axis=0))


def _runs(ordered: Floats) -> Floats:
    """Lengths of the runs of equal values."""
    ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return np.diff(ends, prepend=-1).astype(np.float64)


def _adjusted(ps: Floats) -> Floats:
    """Q values over all that are numbers."""
    known = np.isfinite(ps)
    qs = np.full(ps.shape, np.nan)
    if known.any():
        qs[known] = false_discovery_control(ps[known])
    return qs

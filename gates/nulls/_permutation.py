"""Blocked permutation: stage labels exchanged within blocks, the head refitted under every exchange."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ...cards._errors import BadInputError
from ...cards._evidence import NullSummary, Record, judge
from ...manifolds._heads import HeadSettings, latent_distances
from ...manifolds._let import checked_distances
from ..metrics import all_pairs, distance_spearman
from ..refits._refits import reads_ruler, refits_on, refitted_or_not
from ..refits._refitted import TARGETS_AT_ONCE, RefittedStatistic

FIXED_WARNING = "a head that is not refitted reaches the smallest p even for noise; shown for comparison only"
FIXED_WITHOUT_RULER = (
    "this head does not read the labels, so that neither test fits anything to them; here it places anchors that it "
    "was laid out from, there anchors held out; shown for comparison only"
)
_FLOAT_DIGITS = 300
_LOG_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class PermutationResult:
    """Hold an observed statistic and its null.

    Parameters
    ----------
    observed, null
        Held-out Spearman of refitted heads, mean over splits; null has shape (n_permutations,).
    p_value
        ``(1 + number of null >= observed) / (1 + n_permutations)``; a null value that is not a number counts as larger.
    fixed_observed, fixed_null, fixed_p_value
        The same with one head fitted on all anchors, to the observed labels where it reads any, and never refitted,
        over all pairs: a warning only.
    log10_arrangements
        Decimal logarithm of the number of distinct arrangements of the labels within blocks.
    n_splits
        Splits averaged, the same ones for observed and null.
    reads_ruler
        Whether the head is fitted to the ruler, and so had to be refitted under every exchange.
    """

    observed: float
    null: NDArray[np.float64]
    p_value: float
    fixed_observed: float
    fixed_null: NDArray[np.float64]
    fixed_p_value: float
    log10_arrangements: float
    n_splits: int
    reads_ruler: bool = True


def block_labels(*labels: Sequence[str]) -> NDArray[np.intp]:
    """Number the distinct combinations of labels, such as study, donor and tissue: shape (n,)."""
    columns = [np.unique(np.asarray(column, dtype=str), return_inverse=True)[1] for column in labels]
    _, codes = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    return np.asarray(codes, dtype=np.intp).reshape(-1)


def log10_arrangements(stage: Sequence[str], blocks: NDArray[np.integer]) -> float:
    """Count the distinct arrangements of labels within blocks, as a decimal logarithm.

    Notes
    -----
    The product over blocks of the multinomial ``n! / prod_s n_s!``.
    """
    _, code = np.unique(np.asarray(stage, dtype=str), return_inverse=True)
    total = 0.0
    for block in np.unique(blocks):
        counts = np.bincount(code[blocks == block])
        total += float(gammaln(counts.sum() + 1) - gammaln(counts + 1).sum())
    return max(0.0, total / math.log(10))


def permute_within(blocks: NDArray[np.integer], *, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw a permutation of the rows that moves each only within its block, shape (n,)."""
    order = np.argsort(blocks, kind="stable")
    shuffled = np.lexsort((rng.random(len(blocks)), blocks))
    permutation = np.empty(len(blocks), dtype=np.intp)
    permutation[order] = shuffled
    return permutation


def permutation_test(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    stage: Sequence[str],
    blocks: NDArray[np.integer],
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    n_permutations: int = 1000,
    n_splits: int = 3,
    fraction: float = 0.2,
    batch_size: int = TARGETS_AT_ONCE,
    progress: Callable[[int], None] | None = None,
) -> PermutationResult:
    """Compare the held-out Spearman of refitted heads with that under labels exchanged within blocks.

    Parameters
    ----------
    features
        Shape (n, p).
    distances
        Ruler distances of the observed labels, shape (n, n).
    stage, blocks
        Label and block of each anchor; stages of a block are exchanged.
    settings
        Parameters of the head.
    rng
        Spawns the splits, then one child per permutation.
    n_permutations
        1000 by default, so that the smallest p is 0.000999.
    n_splits, fraction
        Random splits and the part each holds out. The splits are drawn before any label is seen and shared by
        observed and null (our choice: the test is exact given the splits, and features are reduced once). Three
        splits narrow the null by a third against one; more gain little.
    batch_size
        Permutations held in memory together; never changes a result.
    progress
        Called with the number of permutations done so far.

    Raises
    ------
    BadInputError
        If lengths disagree, fewer than one permutation or split is asked for, or the panel is too small to split.

    Notes
    -----
    A head that does not read the ruler is its own refit under every exchange: its places of the held-out anchors are
    fitted once and held against all of them, a Mantel test within blocks, to which the labels that were observed are
    one arrangement among all.
    """
    x = np.asarray(features, dtype=np.float64)
    n = len(x)
    target = checked_distances(distances, n)
    if len(stage) != n or len(blocks) != n:
        raise BadInputError(f"{len(stage)} stages and {len(blocks)} blocks, expected {n} of each.")
    if n_permutations < 1:
        raise BadInputError(f"n_permutations is {n_permutations}, expected at least 1.")
    split_rng, fixed_rng, observed_rng = rng.spawn(3)
    statistic = RefittedStatistic(x, settings, rng=split_rng, n_splits=n_splits, fraction=fraction)
    observed = float(statistic.of(target[None], [observed_rng])[0])
    fixed_latents = refits_on(x, settings, rng=fixed_rng.spawn(1)[0]).latents(target[None], fixed_rng.spawn(1))
    fixed, pairs = latent_distances(fixed_latents[0], settings), all_pairs(n)
    null, fixed_null = np.empty(n_permutations), np.empty(n_permutations)
    for first in range(0, n_permutations, batch_size):
        children = rng.spawn(min(batch_size, n_permutations - first))
        orders = np.stack([permute_within(blocks, rng=child) for child in children])
        permuted = target[orders[:, :, None], orders[:, None, :]]
        part = slice(first, first + len(children))
        null[part] = statistic.of(permuted, children)
        fixed_null[part] = distance_spearman(fixed, permuted, pairs)
        if progress is not None:
            progress(first + len(children))
    fixed_observed = float(distance_spearman(fixed, target, pairs))
    return PermutationResult(
        observed,
        null,
        p_value(observed, null),
        fixed_observed,
        fixed_null,
        p_value(fixed_observed, fixed_null),
        log10_arrangements(stage, np.asarray(blocks)),
        n_splits,
        reads_ruler(settings),
    )


def p_value(observed: float, null: NDArray[np.floating]) -> float:
    """Return ``(1 + number of null >= observed) / (1 + n)``, counting what is not a number against the claim."""
    values = np.asarray(null, dtype=np.float64)
    at_least = values.size if not np.isfinite(observed) else int((~(values < observed)).sum())
    return (1 + at_least) / (1 + values.size)


def why_undecidable(log10_count: float, n_permutations: int, threshold: float) -> str:
    """Say why no p-value could reach the threshold; empty when one could.

    The smallest p is one over the number of distinct arrangements, and one over the permutations plus one.
    """
    if log10_count < -math.log10(threshold) - _LOG_ROUNDING:
        return f"{10**log10_count:.0f} distinct arrangements within blocks cannot give p <= {threshold:g}"
    if 1 / (1 + n_permutations) > threshold:
        return f"{n_permutations} permutations cannot give p <= {threshold:g}"
    return ""


def permutation_records(
    gate: str, result: PermutationResult, threshold: float, *, n: int, seed: int, kind: str
) -> list[Record]:
    """Make the deciding record of the refitted test and the non-deciding one of the fixed head.

    Parameters
    ----------
    gate
        Name of the deciding record; the other adds ``_fixed_head``.
    result
        From :func:`permutation_test`.
    threshold
        Largest p that passes.
    n
        Anchors.
    seed
        Recorded.
    kind
        What the null exchanges, in words.
    """
    details: dict[str, float | int | str | bool | None] = {
        "observed": result.observed if np.isfinite(result.observed) else None,
        "n_splits": result.n_splits,
        "log10_arrangements": result.log10_arrangements,
    }
    exchanged = f"{kind}, {refitted_or_not(reads=result.reads_ruler)}"
    summary = null_summary(exchanged, result.null, result.log10_arrangements)
    reason = why_undecidable(result.log10_arrangements, result.null.size, threshold)
    if reason:
        main = Record(gate=gate, status="cannot decide", reason=reason, n=n, seed=seed, null=summary, details=details)
    else:
        main = judge(gate, result.p_value, "<=", threshold, n=n, seed=seed, null=summary, details=details)
    fixed = judge(
        f"{gate}_fixed_head",
        result.fixed_p_value,
        "<=",
        threshold,
        n=n,
        seed=seed,
        null=null_summary(f"{kind}, head not refitted", result.fixed_null, result.log10_arrangements),
        decides=False,
        details={
            "observed": result.fixed_observed if np.isfinite(result.fixed_observed) else None,
            "warning": FIXED_WARNING if result.reads_ruler else FIXED_WITHOUT_RULER,
        },
    )
    return [main, fixed]


def null_summary(kind: str, null: NDArray[np.floating], log10_count: float | None = None) -> NullSummary | None:
    """Summarise the finite draws of a null; ``None`` when there are none."""
    values = np.asarray(null, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return None
    levels = (0.01, 0.05, 0.5, 0.95, 0.99, 0.999)
    return NullSummary(
        kind=kind,
        n=int(values.size),
        mean=float(values.mean()),
        sd=float(values.std(ddof=1)) if values.size > 1 else 0.0,
        minimum=float(values.min()),
        maximum=float(values.max()),
        quantiles={str(level): float(value) for level, value in zip(levels, np.quantile(values, levels), strict=True)},
        n_arrangements=None if log10_count is None else 10 ** min(log10_count, float(_FLOAT_DIGITS)),
    )

"""Rung 6: whether the foundation model adds anything to what expression alone gives the same head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, wilcoxon

from ...cards._evidence import Record, RungResult, conclude, judge, not_run, undecided
from ...manifolds._let import LetSettings
from ...manifolds._let_many import feature_coordinates, fit_let_many
from .._gate_data import GateData
from ..controls._comparators import SCALE_FLOOR, Comparator
from ..metrics import angular_distances, distance_spearman
from ..refits._holdouts import Fold, group_folds, random_folds, touching_pairs

Q_THRESHOLD = 0.05
MIN_UNTRAINED = 5
"""Least number of seeds of untrained models."""
MIN_FOLDS = 8
"""Fewer donors than this are replaced by random splits; our choice."""
N_RANDOM_FOLDS = 20
N_BOOTSTRAP = 2000
_LEAST_TRAINED_ON = 10


def model_derived(
    data: GateData,
    others: Sequence[Comparator],
    settings: LetSettings,
    *,
    seed: int,
    n_starts: int = 3,
    progress: Callable[[int], None] | None = None,
) -> RungResult:
    """Run rung 6: better than every comparator on the same held-out parts, paired.

    Parameters
    ----------
    data
        The extraction panel.
    others
        What it is compared with, among them ``untrained`` models of the same architecture with at least five seeds.
    settings
        Of the heads, the same for all.
    seed
        Of starts and bootstrap.
    n_starts
        Starts averaged for each fit.
    progress
        Called with 1 after every comparator.

    Notes
    -----
    Held out are donors, one at a time, where at least eight can be scored, else random fifths. For each part the
    held-out Spearman correlation of the manifold's features less that of a comparator, averaged over its seeds, is one
    pair: one-sided Wilcoxon signed-rank test. For comparators with several seeds a bootstrap that draws parts and seeds
    with replacement must agree: the larger p counts. Benjamini-Hochberg over all comparators. Random fifths overlap, so
    their p is too small. Two verdicts: over untrained weights, and over expression; the rung needs all comparators.
    """
    families = {other.family for other in others}
    if not {"untrained", "expression"} <= families:
        return not_run(6, "the artifact carries no untrained models to compare with")
    fit_rng, fold_rng, boot_rng = np.random.default_rng(seed).spawn(3)
    folds, kind = _folds(data, fold_rng)
    if len(folds) < MIN_FOLDS:
        return conclude(6, [undecided("comparisons", f"{len(folds)} parts can be held out, expected {MIN_FOLDS}")])
    own = feature_coordinates(data.features, scale_floor=SCALE_FLOOR)[None]
    seeds = fit_rng.integers(2**31, size=(len(folds), n_starts))
    mine = _held_out(own, data, folds, settings, seeds)[0]
    theirs = []
    for other in others:
        theirs.append(_held_out(other.coordinates, data, folds, settings, seeds))
        if progress is not None:
            progress(1)
    ps = [_p_value(mine, scores, child) for scores, child in zip(theirs, boot_rng.spawn(len(others)), strict=True)]
    qs = false_discovery_control(ps)
    records = [
        _record(other, mine, scores, float(p), float(q), kind, seed)
        for other, scores, p, q in zip(others, theirs, ps, qs, strict=True)
    ]
    return conclude(6, [*records, *_verdicts(others, records)])


def _folds(data: GateData, rng: np.random.Generator) -> tuple[list[Fold], str]:
    """Parts to hold out that have varying distances to the rest, and what they are."""
    donors = [fold for fold in group_folds(data.donor_ids) if _scores(data, fold)]
    if len(donors) >= MIN_FOLDS:
        return donors, "donor"
    drawn = random_folds(len(data.features), rng=rng, n_repeats=N_RANDOM_FOLDS)
    return [fold for fold in drawn if _scores(data, fold)], "random fifth"


def _scores(data: GateData, fold: Fold) -> bool:
    """Whether enough is left to fit, and distances of the held-out anchors vary."""
    n = len(data.features)
    pairs = touching_pairs(n, fold.held_out)
    varies = bool(np.ptp(pairs.of(np.asarray(data.distances))) > 0)
    return varies and n - fold.held_out.size >= _LEAST_TRAINED_ON


def _held_out(
    coordinates: NDArray[np.float32],
    data: GateData,
    folds: Sequence[Fold],
    settings: LetSettings,
    seeds: NDArray[np.integer],
) -> NDArray[np.float64]:
    """Held-out Spearman of every set of coordinates and part, mean over starts, shape (n_sets, n_folds)."""
    n, target = len(data.features), np.asarray(data.distances, dtype=np.float64)
    scores = np.empty((len(coordinates), len(folds), seeds.shape[1]))
    for f, fold in enumerate(folds):
        train, pairs = np.setdiff1d(np.arange(n), fold.held_out), touching_pairs(n, fold.held_out)
        for s, start in enumerate(seeds[f]):
            # the same start for all that is compared
            latents = fit_let_many(coordinates, target, settings, rng=np.random.default_rng(start), train=train)
            scores[:, f, s] = distance_spearman(angular_distances(latents), target, pairs)
    return np.asarray(scores.mean(axis=2))


def _p_value(mine: NDArray[np.float64], theirs: NDArray[np.float64], rng: np.random.Generator) -> float:
    """One-sided p that the mean over seeds is not beaten."""
    difference = mine - theirs.mean(axis=0)
    if not difference.any():
        return 1.0
    p = float(wilcoxon(difference, alternative="greater").pvalue)
    if len(theirs) < 2:
        return p
    folds = rng.integers(mine.size, size=(N_BOOTSTRAP, mine.size))
    seeds = rng.integers(len(theirs), size=(N_BOOTSTRAP, len(theirs)))
    gap = mine[folds].mean(axis=1) - np.array([theirs[s][:, f].mean() for s, f in zip(seeds, folds, strict=True)])
    return max(p, float((1 + (gap <= 0).sum()) / (1 + N_BOOTSTRAP)))


def _record(
    other: Comparator, mine: NDArray[np.float64], theirs: NDArray[np.float64], p: float, q: float, kind: str, seed: int
) -> Record:
    """One comparison."""
    gate = f"beats_{other.name.replace('-', '_')}"
    if other.family == "untrained" and len(theirs) < MIN_UNTRAINED:
        return undecided(gate, f"{len(theirs)} seeds, expected at least {MIN_UNTRAINED}")
    by_seed = theirs.mean(axis=1)
    return judge(
        gate, q, "<", Q_THRESHOLD, n=mine.size, seed=seed,
        details={
            "p": p,
            "own": float(mine.mean()),
            "other": float(by_seed.mean()),
            "difference": float(mine.mean() - by_seed.mean()),
            "n_seeds": len(theirs),
            "seed_sd": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
            "parts_won": float((mine > theirs.mean(axis=0)).mean()),
            "held_out": kind,
        },
    )  # fmt: skip


def _verdicts(others: Sequence[Comparator], records: Sequence[Record]) -> list[Record]:
    """The two answers that readers look for; they decide nothing that the comparisons do not."""
    verdicts = []
    for family, gate in (("untrained", "verdict_beats_untrained_weights"), ("expression", "verdict_beats_expression")):
        own = [record for other, record in zip(others, records, strict=True) if other.family == family]
        worst = next((record for record in own if record.status != "pass"), None)
        status = "pass" if worst is None else worst.status
        reason = "all comparisons passed" if worst is None else f"{worst.gate}: {worst.reason}"
        verdicts.append(Record(gate=gate, status=status, reason=reason, decides=False))
    return verdicts

"""Rung 6: whether the foundation model adds anything to what expression alone gives the same head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._card import Card
from ...cards._errors import BadInputError
from ...cards._evidence import Record, RungResult, conclude, judge, not_run, undecided
from ...cards._evidence_plan import EvidencePlan
from ...manifolds._heads import HeadSettings, latent_distances, refit_starts
from ...manifolds._let_many import feature_coordinates
from .._gate_data import GateData
from .._inference import PairedComparison, benjamini_hochberg, compare_paired
from .._named_child import named_child
from ..controls._comparators import SCALE_FLOOR, Comparator, label_lookup
from ..metrics import Pairs, distance_spearman
from ..refits._holdouts import Fold, group_folds, holdout_pairs, random_folds, touching_pairs
from ..refits._refits import least_training, n_distinct_starts, reads_ruler

Q_THRESHOLD = 0.05
N_STARTS = 20
"""Starts of the head that are averaged for each fit; one alone moves a score by 0.01 to 0.04."""
MIN_UNTRAINED = 5
"""Least number of seeds of untrained models."""
MIN_FOLDS = 8
"""Fewer donors than this are replaced by random splits; our choice."""
N_RANDOM_FOLDS = 20
_BATCH = 20


def gates_of(card: Card) -> list[tuple[str, str, float]]:
    """Gate, direction and threshold of every comparison that rung 6 will decide by.

    Parameters
    ----------
    card
        Of the manifold. Where it has no untrained models, or its head cannot be refitted, there are none.
    """
    if not card.extraction.adaptor.fitted_on_anchors or not card.untrained:
        return []
    names = [*(card.evidence or EvidencePlan()).comparisons, *(other.control for other in card.untrained)]
    return [(gate, "<", Q_THRESHOLD) for gate in dict.fromkeys(map(_gate, names))]


def model_derived(
    data: GateData,
    others: Sequence[Comparator],
    settings: HeadSettings,
    *,
    seed: int,
    n_starts: int = N_STARTS,
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
        Starts averaged for each fit; of a head that draws nothing all are one.
    progress
        Called with 1 after every comparator.

    Notes
    -----
    Held out are donors, one at a time, where at least eight can be scored, else random fifths. For each part the
    held-out Spearman correlation of the manifold's features less that of a comparator, averaged over its seeds, is one
    pair; see ``compare_paired`` for test and interval. Benjamini-Hochberg over all comparisons, those that could not be
    made included. Random fifths overlap, so their p is too small. Two verdicts: over untrained weights, and over
    expression; the rung needs all comparators. Beside them stands what the labels alone reach, see ``label_lookup``.
    A comparator whose features a geodesic head cannot lay out, for want of dimensions, leaves its comparison open.
    """
    families = {other.family for other in others}
    if not {"untrained", "expression"} <= families:
        return not_run(6, "the artifact carries no untrained models to compare with")
    # the last child draws the starts where branches are held out
    fit_rng, fold_rng, boot_rng, branch_rng = np.random.default_rng(seed).spawn(4)
    least, n_starts = least_training(settings), n_distinct_starts(settings, n_starts)
    folds, kind = _folds(data, fold_rng, least)
    if len(folds) < MIN_FOLDS:
        reason = f"{len(folds)} parts can be held out, expected {MIN_FOLDS}"
        return conclude(6, [undecided(_gate(other.name), reason) for other in others])
    own = feature_coordinates(data.features, scale_floor=SCALE_FLOOR)[None]
    seeds = fit_rng.integers(2**31, size=(len(folds), n_starts))
    mine = _held_out(own, data, folds, settings, seeds)[0, 0]
    found: list[PairedComparison | str] = []
    for other in others:
        why = _too_few(other)
        try:
            theirs = _held_out(other.coordinates, data, folds, settings, seeds)[0]
            found.append(why or compare_paired(mine, theirs, rng=named_child(boot_rng, other.name)))
        except BadInputError as error:
            found.append(why or error.message)
        if progress is not None:
            progress(1)
    qs = benjamini_hochberg([1.0 if isinstance(one, str) else one.p for one in found])
    names = [fold.name for fold in folds]
    records = [
        undecided(_gate(other.name), one)
        if isinstance(one, str)
        else _record(other, one, q, names, kind, n_starts, seed)
        for other, one, q in zip(others, found, qs, strict=True)
    ]
    try:
        lookup = _label_lookup(data, own, mine, folds, kind, settings, seeds, branch_rng)
    except BadInputError as error:
        lookup = undecided("label_lookup", error.message).model_copy(update={"decides": False})
    return conclude(6, [*records, *_verdicts(others, records), lookup])


def _folds(data: GateData, rng: np.random.Generator, least: int) -> tuple[list[Fold], str]:
    """Parts to hold out that have varying distances to the rest, and what they are."""
    donors = [fold for fold in group_folds(data.donor_ids) if _scores(data, fold, least)]
    if len(donors) >= MIN_FOLDS:
        return donors, "donor"
    drawn = random_folds(len(data.features), rng=rng, n_repeats=N_RANDOM_FOLDS)
    return [fold for fold in drawn if _scores(data, fold, least)], "random fifth"


def _scores(data: GateData, fold: Fold, least: int) -> bool:
    """Whether enough is left to fit, and distances of the held-out anchors vary."""
    n = len(data.features)
    pairs = touching_pairs(n, fold.held_out)
    varies = bool(np.ptp(pairs.of(np.asarray(data.distances))) > 0)
    return varies and n - fold.held_out.size >= least


def _held_out(
    coordinates: NDArray[np.float32],
    data: GateData,
    folds: Sequence[Fold],
    settings: HeadSettings,
    seeds: NDArray[np.integer],
    kinds: Sequence[Callable[[int, NDArray[np.intp]], Pairs]] = (touching_pairs,),
) -> NDArray[np.float64]:
    """Held-out Spearman by kind of pairs, set of coordinates and part, mean over starts, (n_kinds, n_sets, n_folds)."""
    n, target = len(data.features), np.asarray(data.distances, dtype=np.float64)
    scores = np.empty((len(kinds), len(coordinates), len(folds)))
    for f, fold in enumerate(folds):
        train, pairs = np.setdiff1d(np.arange(n), fold.held_out), [kind(n, fold.held_out) for kind in kinds]
        # the same starts for all that is compared
        rngs = [np.random.default_rng(start) for start in seeds[f]]
        latents = refit_starts(coordinates, target, settings, rngs=rngs, train=train, batch_size=_BATCH)
        for number, placed in enumerate(latents):
            apart = latent_distances(placed, settings)
            scores[:, number, f] = [distance_spearman(apart, target, chosen).mean() for chosen in pairs]
    return scores


def _gate(name: str) -> str:
    """Name of the record of a comparison."""
    return f"beats_{name.replace('-', '_')}"


def _too_few(other: Comparator) -> str:
    """Why a comparison cannot be made; empty where it can."""
    if other.family == "untrained" and len(other.coordinates) < MIN_UNTRAINED:
        return f"{len(other.coordinates)} seeds, expected at least {MIN_UNTRAINED}"
    return ""


def _record(
    other: Comparator, found: PairedComparison, q: float, names: Sequence[str], kind: str, n_starts: int, seed: int
) -> Record:
    """One comparison."""
    details: dict[str, float | int | str | bool | None] = {
        "own": found.own,
        "other": found.other,
        "difference": found.difference,
        "interval_low": found.low,
        "interval_high": found.high,
        "rank_biserial": found.rank_biserial,
        "d_z": found.d_z,
        "p": found.p,
        "q": q,
        "family": other.family,
        "n_seeds": found.n_seeds,
        "seed_sd": found.seed_sd,
        "n_starts": n_starts,
        "parts_won": found.parts_won,
        "held_out": kind,
    }
    if kind != "donor":
        details["warning"] = "random fifths overlap: p is too small, and the interval too narrow"
    parts = dict(zip(names, found.by_part, strict=True))
    return judge(_gate(other.name), q, "<", Q_THRESHOLD, n=found.n_parts, seed=seed, details=details, parts=parts)


def _label_lookup(
    data: GateData,
    own: NDArray[np.float32],
    mine: NDArray[np.float64],
    folds: Sequence[Fold],
    kind: str,
    settings: HeadSettings,
    seeds: NDArray[np.integer],
    rng: np.random.Generator,
) -> Record:
    """What knowing the labels reaches, where donors are held out and where branches are; it decides nothing.

    Stages that no head has seen fall on one place, which is right of pairs within a held-out branch; what is shown of
    pairs across says what is known of where the branch lies. A head that does not read the ruler has no places to look
    up: of labels it would know which are the same, and nothing else.
    """
    branches = [fold for fold in group_folds(data.branch) if _scores(data, fold, least_training(settings))]
    starts = rng.integers(2**31, size=(len(branches), seeds.shape[1]))
    kinds = (touching_pairs, _across)
    if reads_ruler(settings):
        looked_up = label_lookup(data.stage)[None]
        by_part = _held_out(looked_up, data, folds, settings, seeds)[0, 0]
        both = np.concatenate([own, looked_up])
        (own_branch, by_branch), across = _held_out(both, data, branches, settings, starts, kinds)
    else:
        own_branch, own_across = _held_out(own, data, branches, settings, starts, kinds)[:, 0]
        by_part, by_branch = _same_label(data, folds), _same_label(data, branches)
        across = np.stack([own_across, np.full(len(branches), np.nan)])
    details: dict[str, float | int | str | bool | None] = {
        "own": float(mine.mean()),
        "other": _mean(by_part),
        "held_out": kind,
        "own_branch": _mean(own_branch),
        "other_branch": _mean(by_branch),
        "own_branch_across": _mean(across[0]),
        "other_branch_across": _mean(across[1]),
        "n_branches": len(branches),
        "n_starts": seeds.shape[1],
    }
    reason = f"shown beside: the labels alone score {by_part.mean():.3g} with each {kind} held out"
    if branches:
        reason += f", {by_branch.mean():.3g} with each branch held out, where this manifold has {own_branch.mean():.3g}"
    parts = {f"{kind} {fold.name}": value for fold, value in zip(folds, mine - by_part, strict=True)}
    parts |= {f"branch {fold.name}": value for fold, value in zip(branches, own_branch - by_branch, strict=True)}
    return Record(
        gate="label_lookup",
        status="cannot decide",
        reason=reason,
        decides=False,
        n=len(folds),
        details=details,
        parts={name: float(value) for name, value in parts.items() if np.isfinite(value)},
    )


def _same_label(data: GateData, folds: Sequence[Fold]) -> NDArray[np.float64]:
    """Held-out Spearman of whether two anchors are of different stages, for each part."""
    stage, target = np.asarray(data.stage, dtype=str), np.asarray(data.distances, dtype=np.float64)
    differ = (stage[:, None] != stage[None, :]).astype(np.float64)
    pairs = [touching_pairs(len(stage), fold.held_out) for fold in folds]
    return np.array([distance_spearman(differ, target, chosen) for chosen in pairs], dtype=np.float64)


def _across(n: int, held_out: NDArray[np.intp]) -> Pairs:
    """Pairs of a held-out and another row."""
    return holdout_pairs(n, held_out)[1]


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean, or ``None`` where there is no number to give."""
    return float(values.mean()) if values.size and np.isfinite(values).all() else None


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

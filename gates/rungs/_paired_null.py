"""A ruler beside its own null rulers, on the same holdouts from the same starts: shown, never deciding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import Record
from ...manifolds._heads import HeadSettings
from ...manifolds._ruler_interface import Ruler
from .._gate_data import GateData
from .._informing import PAIRED_NULL
from ..metrics import all_pairs, distance_spearman, partial_distance_spearman
from ..refits._holdouts import Fold, touching_pairs, unusable_fold
from ..refits._refits import distances_under, least_training, n_distinct_starts, refits_on
from ._floors import floor_folds

N_NULLS, N_REPEATS, N_STARTS = 20, 5, 3
BESIDE = "the ruler beside its null rulers on equal terms; null_ruler decides"
_MEASURES = ("", "_partial")

Floats = NDArray[np.float64]
Detail = float | int | str | bool | None


def paired_null_record(
    data: GateData,
    ruler: Ruler,
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    seed: int,
    n_nulls: int = N_NULLS,
    n_repeats: int = N_REPEATS,
    n_starts: int = N_STARTS,
) -> Record:
    """Refit to a ruler and to each of its null rulers, and compare what is held out.

    Parameters
    ----------
    data
        The extraction panel.
    ruler
        One that brings null rulers of its own, such as an ``InteractionRuler``.
    settings
        Parameters of the head, the same in every refit.
    rng
        Draws folds and starts; a generator of its own, so that no other record moves.
    seed
        Of the record.
    n_nulls
        Null rulers to ask for.
    n_repeats, n_starts
        Random parts, and starts per part, which all rulers share.

    Returns
    -------
    One record that never decides. For each holdout of the floors (``random``, ``study``, ``branch``): the mean over
    folds of the held-out Spearman correlation of the ruler, mean and highest of its nulls, the rank of the ruler among
    them (1 is the highest), and ``p = (1 + k) / (1 + n)`` with ``k`` nulls that reach it. The same with ``_partial``
    for the Spearman correlation given the mean null ruler. Parts are the scores of every ruler. Beside them
    ``ruler_with_mean_null`` says how much the ruler shares with its nulls before any head is fitted.

    Notes
    -----
    A null ruler keeps what is not biology: of ligands and receptors, how many a cell type expresses. What the ruler
    shares with its nulls is taken out by holding their mean fixed: for the ruler the mean of all nulls, for a null that
    of the others, so that both are held against about the same. Nulls are more alike among themselves than the ruler is
    like them, so that less is left of a null than of the ruler. Folds that any of the rulers cannot be scored on are
    left out for all. The measures are our choice.
    """
    nulls = ruler.nulls(rng.spawn(n_nulls))
    if len(nulls) < 2:
        return _open(f"the ruler {ruler.name!r} has {len(nulls)} null rulers, expected at least 2", data, seed, {})
    targets = np.stack([ruler.distances(data.stage), *(null.distances(data.stage) for null in nulls)])
    held = _mean_of_others(targets)
    pairs = all_pairs(len(data.features))
    shared = distance_spearman(targets, held, pairs)
    details: dict[str, Detail] = {
        "n_nulls": len(nulls),
        "n_starts": n_distinct_starts(settings, n_starts),
        "ruler_with_mean_null": _told(shared[0]),
        "nulls_with_mean_of_others": _told(shared[1:].mean()),
    }
    parts: dict[str, float] = {}
    split_rng, start_rng, fold_rng = rng.spawn(3)
    starts = start_rng.integers(2**31, size=n_distinct_starts(settings, n_starts))
    least = least_training(settings)
    problem = _Problem(data, settings, targets, held, [int(start) for start in starts])
    for name, folds in floor_folds(data, rng=split_rng, n_repeats=n_repeats).items():
        scores = [
            problem.scores(fold, child)
            for fold, child in zip(folds, fold_rng.spawn(len(folds)), strict=True)
            if not any(unusable_fold(target, fold.held_out, least) for target in targets)
        ]
        details |= {f"n_folds_{name}": len(scores), f"n_folds_left_out_{name}": len(folds) - len(scores)}
        if not scores:
            continue
        for measure, values in zip(_MEASURES, np.mean(scores, axis=0), strict=True):
            details |= _compared(f"{name}{measure}", values)
            parts |= _scores(f"{name}{measure}", values)
    return _open(BESIDE, data, seed, details, parts)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The rulers of one panel and what is held fixed of each, shape (n_rulers, n, n), with the seeds of the starts."""

    data: GateData
    settings: HeadSettings
    targets: Floats
    held: Floats
    starts: list[int]

    def scores(self, fold: Fold, rng: np.random.Generator) -> Floats:
        """Plain and partial correlation of every ruler on one fold, mean over starts, shape (2, n_rulers)."""
        n, n_rulers = len(self.data.features), len(self.targets)
        train = np.setdiff1d(np.arange(n), fold.held_out)
        refits = refits_on(self.data.features, self.settings, rng=rng, train=train)
        pairs, found = touching_pairs(n, fold.held_out), []
        for start in self.starts:
            # the same start for every ruler
            rngs = [np.random.default_rng(start) for _ in range(n_rulers)]
            apart = distances_under(refits.latents(self.targets, rngs), self.settings)
            partial = partial_distance_spearman(apart, self.targets, self.held, pairs)
            found.append([distance_spearman(apart, self.targets, pairs), partial])
        return np.asarray(np.mean(found, axis=0))


def _mean_of_others(targets: Floats) -> Floats:
    """Mean null ruler for the ruler, which is the first, and for each null that of the others."""
    nulls = targets[1:]
    total = nulls.sum(axis=0)
    return np.concatenate([total[None] / len(nulls), (total - nulls) / (len(nulls) - 1)])


def _compared(name: str, values: Floats) -> dict[str, Detail]:
    """The ruler, which is the first, beside its nulls."""
    own, nulls = values[0], values[1:][np.isfinite(values[1:])]
    if not np.isfinite(own) or not nulls.size:
        return {name: None}
    return {
        name: _told(own),
        f"{name}_null_mean": _told(nulls.mean()),
        f"{name}_null_highest": _told(nulls.max()),
        f"{name}_rank": 1 + int((nulls > own).sum()),
        f"{name}_p": (1 + int((nulls >= own).sum())) / (1 + nulls.size),
    }


def _scores(name: str, values: Sequence[float] | Floats) -> dict[str, float]:
    """Score of every ruler by name."""
    named = zip(["ruler", *(f"null_{number}" for number in range(1, len(values)))], values, strict=True)
    return {f"{name} {which}": float(value) for which, value in named if np.isfinite(value)}


def _told(value: float | np.floating) -> float | None:
    """A number for a record, if it is one."""
    return float(value) if np.isfinite(value) else None


def _open(
    reason: str, data: GateData, seed: int, details: dict[str, Detail], parts: dict[str, float] | None = None
) -> Record:
    """The record, without a verdict."""
    return Record(
        gate=PAIRED_NULL,
        status="cannot decide",
        reason=reason,
        decides=False,
        n=len(data.features),
        seed=seed,
        details=details,
        parts=parts or {},
    )

"""Rung 4: what passes must be this biology, so the same procedure must fail where the biology is taken out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...cards._card import Card
from ...cards._evidence import Direction, Record, RungResult, conclude, judge, undecided
from ...manifolds._heads import HeadSettings
from ...manifolds._null_rulers import BranchSurrogate, log10_placements
from ...manifolds._ruler import StageRuler
from ...manifolds._ruler_interface import Ruler
from .._gate_data import GateData
from .._informing import PAIRED_NULL
from .._named_child import named_child
from ..nulls._permutation import null_summary, p_value, why_undecidable
from ..refits._holdouts import holdout_record
from ..refits._refits import reads_ruler, refitted_or_not
from ..refits._refitted import TARGETS_AT_ONCE, RefittedStatistic
from ._floors import FLOORS, Floors, held_out_floors
from ._paired_null import paired_null_record

STRUCTURE_P = 0.01
NULL_RULERS_PASSING = 0.05


def gates_of(_card: Card) -> list[tuple[str, Direction, float]]:
    """Gate, direction and threshold of every test that rung 4 decides by."""
    return [
        *((f"{name}_floor", ">=", FLOORS[name]) for name in FLOORS),
        ("null_ruler", "<=", NULL_RULERS_PASSING),
        ("negative_control", "<=", 0.0),
        ("branch_permutation", "<=", STRUCTURE_P),
    ]


def specific(
    data: GateData,
    ruler: Ruler,
    settings: HeadSettings,
    *,
    seed: int,
    negative: GateData | None = None,
    n_rulers: int = 20,
    n_permutations: int = 999,
    n_starts: int = 20,
    progress: Callable[[int], None] | None = None,
) -> RungResult:
    """Run rung 4: higher floors, the paired null ruler, the negative-control panel and the branch-permuted null.

    Parameters
    ----------
    data
        The extraction panel.
    ruler
        Its ruler.
    settings
        Parameters of the head, the same in every refit.
    seed
        Each check gets its own child of this seed.
    negative
        A panel on which the floors must not all be reached; without one the rung is not run to its end.
    n_rulers
        Paired null rulers, see ``Ruler.nulls``; of 20 at most one may reach the floors. With fewer the gate cannot
        decide: a ruler whose nulls travel with it has as many as travel.
    n_permutations
        Of branches among themselves.
    n_starts
        Starts of the head that each holdout is averaged over.
    progress
        Called with the number of permutations done so far.

    Notes
    -----
    Floors: held-out Spearman of random parts at least 0.5, of studies (donors where there is one study) and of branches
    at least 0.4. A ruler whose stages were shuffled passes the published thresholds of 0.2, and reaches 0.5 on random
    parts, but not all floors together. The branch-permuted null keeps all distances within branches; it is compared
    with the surrogate in which every branch keeps its place, see ``BranchSurrogate``. A ruler that brings its own nulls
    is shown beside them on equal terms, see ``paired_null_record``. A head that does not read the
    ruler is its own refit to any other ruler, see ``RefittedStatistic``.
    """
    floor_rng, ruler_rng, negative_rng, branch_rng = np.random.default_rng(seed).spawn(4)
    own = held_out_floors(data, settings, rng=floor_rng, n_repeats=10, n_starts=n_starts)
    records = [holdout_record(f"{name}_floor", own.scores[name], FLOORS[name], seed=seed) for name in FLOORS]
    records.append(_null_ruler_record(data, ruler, settings, n_rulers, ruler_rng, seed))
    records.append(_negative_record(negative, settings, negative_rng, seed))
    records.append(_branch_record(data, ruler, settings, n_permutations, branch_rng, seed, progress))
    if not isinstance(ruler, StageRuler):
        # a graph has no nulls of its own: its stages are relabelled above
        rng = named_child(np.random.default_rng(seed), PAIRED_NULL)
        records.append(paired_null_record(data, ruler, settings, rng=rng, seed=seed))
    return conclude(4, records)


def _null_ruler_record(
    data: GateData, ruler: Ruler, settings: HeadSettings, n: int, rng: np.random.Generator, seed: int
) -> Record:
    """How many null rulers reach the floors."""
    gate, children = "null_ruler", [child.spawn(2) for child in rng.spawn(n)]
    nulls = ruler.nulls([draw_rng for draw_rng, _ in children])
    if len(nulls) < n:
        # fewer would be a laxer gate
        return undecided(gate, f"the ruler {ruler.name!r} has {len(nulls)} null rulers, expected {n}")
    found: list[Floors] = []
    for null, (_, fit_rng) in zip(nulls, children, strict=True):
        distances = null.distances(data.stage)
        found.append(held_out_floors(data, settings, rng=fit_rng, distances=distances, n_repeats=3, n_starts=1))
    scores = {name: np.array([floors.scores[name].touching for floors in found]) for name in FLOORS}
    means = {
        f"mean_{name}": float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else None
        for name, values in scores.items()
    }
    passing = float(np.mean([floors.reached for floors in found]))
    return judge(
        gate, passing, "<=", NULL_RULERS_PASSING, n=n, seed=seed,
        details={"what": _what(ruler), **means},
    )  # fmt: skip


def _what(ruler: Ruler) -> str:
    """What the statistic of the null rulers counts."""
    of = "rulers with shuffled stages" if isinstance(ruler, StageRuler) else "null rulers that travel with the ruler"
    return f"part of the {of} that reach every floor"


def _negative_record(negative: GateData | None, settings: HeadSettings, rng: np.random.Generator, seed: int) -> Record:
    """Whether the negative-control panel misses a floor."""
    if negative is None:
        return undecided("negative_control", "the artifact carries no negative-control panel", status="not run")
    floors = held_out_floors(negative, settings, rng=rng)
    scored = {name: score.touching for name, score in floors.scores.items() if not score.undecided_because}
    if not scored:
        return undecided("negative_control", f"nothing of it can be held out ({'; '.join(floors.undecided)})")
    return judge(
        "negative_control",
        float(floors.reached),
        "<=",
        0.0,
        n=len(negative.features),
        seed=seed,
        details={"what": "1 if the panel reaches every floor that it can be held to", **scored},
    )


def _branch_record(
    data: GateData,
    ruler: Ruler,
    settings: HeadSettings,
    n_permutations: int,
    rng: np.random.Generator,
    seed: int,
    progress: Callable[[int], None] | None,
) -> Record:
    """Test the places of the branches, with heads refitted to every permutation of them."""
    gate, count = "branch_permutation", log10_placements(data.branch)
    reason = why_undecidable(count, n_permutations, STRUCTURE_P)
    if reason:
        return undecided(gate, reason)
    split_rng, observed_rng, null_rng = rng.spawn(3)
    statistic = RefittedStatistic(data.features, settings, rng=split_rng)
    own = BranchSurrogate(ruler).distances(data.stage)
    observed = float(statistic.of(own[None], [observed_rng])[0])
    null = np.empty(n_permutations)
    for first in range(0, n_permutations, TARGETS_AT_ONCE):
        children = null_rng.spawn(min(TARGETS_AT_ONCE, n_permutations - first))
        targets = np.stack(
            [ruler.branch_permuted(rng=child, branches=data.branch).distances(data.stage) for child in children]
        )
        null[first : first + len(children)] = statistic.of(targets, children)
        if progress is not None:
            progress(first + len(children))
    permuted = f"branches permuted among themselves, {refitted_or_not(reads=reads_ruler(settings))}"
    return judge(
        gate,
        p_value(observed, null),
        "<=",
        STRUCTURE_P,
        n=len(data.features),
        seed=seed,
        null=null_summary(permuted, null, count),
        details={"observed": observed if np.isfinite(observed) else None},
    )

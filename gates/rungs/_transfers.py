"""Rung 5: the head as it is, on a panel that shares no cell and no donor with the one it was fitted on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import Record, RungResult, conclude, judge, not_run, undecided
from ...manifolds._let import LetSettings, fit_let
from .._gate_data import GateData
from ..metrics import (
    Pairs,
    all_pairs,
    angular_distances,
    distance_spearman,
    euclidean_distances,
    trustworthiness,
)
from ..nulls._permutation import log10_arrangements, null_summary, p_value, permute_within, why_undecidable
from ..refits._refitted import CANNOT_REFIT
from ._published import HOLDOUT, NEIGHBOURS, PERMUTATION_P, TRUSTWORTHINESS

MIN_ANCHORS = 10
"""Fewer external anchors than this cannot decide anything; our choice."""
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Outside:
    """An external panel under the frozen head.

    Parameters
    ----------
    data
        The panel; its features are those of the same operator.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    n_shared_cells, n_shared_donors
        With the extraction panel, by id.
    """

    data: GateData
    latent: NDArray[np.floating]
    n_shared_cells: int
    n_shared_donors: int


def transfers(
    inside: GateData, outside: Outside | None, settings: LetSettings | None, *, seed: int, n_permutations: int = 1000
) -> RungResult:
    """Run rung 5.

    Parameters
    ----------
    inside
        The extraction panel, for heads refitted without a branch.
    outside
        The external panel.
    settings
        Parameters of the head; ``None`` for one that cannot be refitted, which leaves the branch gate ``not run``.
    seed
        Of permutations and refits.
    n_permutations
        Of labels within study, donor and tissue of the external panel.

    Notes
    -----
    The gates of rung 3 on cells that the head has not seen: trustworthiness of the features in the latent space; the
    Spearman correlation of latent angle and ruler distance over all pairs, and over pairs of different donors; for the
    branch gate the head is refitted on the extraction panel without each branch in turn, and scored on external pairs
    that touch it. A head that never saw the labels may stay fixed while they are permuted.
    """
    if outside is None:
        return not_run(5, "the artifact carries no external panel")
    data, n = outside.data, len(outside.data.features)
    shared = [
        judge("no_shared_cells", float(outside.n_shared_cells), "<=", 0.0, n=n),
        judge("no_shared_donors", float(outside.n_shared_donors), "<=", 0.0, n=n),
    ]
    if n < MIN_ANCHORS or not np.ptp(np.asarray(data.distances)):
        return conclude(
            5, [*shared, undecided("external", f"{n} anchors, expected at least {MIN_ANCHORS} that differ")]
        )
    branch_rng, permutation_rng = np.random.default_rng(seed).spawn(2)
    target = np.asarray(data.distances, dtype=np.float64)
    angles = angular_distances(np.asarray(outside.latent, dtype=np.float64))
    pairs = all_pairs(n)
    donor = np.array(data.donor_ids)
    apart = donor[pairs.left] != donor[pairs.right]
    records = [
        *shared,
        _trust(data, angles),
        _spearman("external_all", angles, target, pairs, seed),
        _spearman("external_between_donors", angles, target, Pairs(pairs.left[apart], pairs.right[apart]), seed),
        _branches(inside, data, settings, branch_rng, seed),
        _permutation(data, angles, target, pairs, n_permutations, permutation_rng, seed),
    ]
    return conclude(5, records)


def _trust(data: GateData, angles: NDArray[np.float64]) -> Record:
    """Trustworthiness of the features in the latent space."""
    n = len(data.features)
    if n < 2 * NEIGHBOURS + 1:
        reason = f"{n} anchors are too few for k = {NEIGHBOURS}, expected at least {2 * NEIGHBOURS + 1}"
        return undecided("external_trustworthiness", reason)
    value = float(trustworthiness(euclidean_distances(data.features), angles, k=NEIGHBOURS))
    return judge(
        "external_trustworthiness", value, ">=", TRUSTWORTHINESS, n=n, details={"k": NEIGHBOURS, "space": "features"}
    )


def _spearman(gate: str, angles: NDArray[np.float64], target: NDArray[np.float64], pairs: Pairs, seed: int) -> Record:
    """Correlation over some pairs."""
    if len(pairs) < 3 or not np.ptp(pairs.of(target)):
        return undecided(gate, f"{len(pairs)} pairs, whose ruler distances do not vary")
    return judge(gate, float(distance_spearman(angles, target, pairs)), ">=", HOLDOUT, n=len(pairs), seed=seed)


def _branches(
    inside: GateData, data: GateData, settings: LetSettings | None, rng: np.random.Generator, seed: int
) -> Record:
    """Mean over branches of the external panel of heads fitted without the branch."""
    gate, branch, own = "external_branch_holdout", np.array(data.branch), np.array(inside.branch)
    if settings is None:
        return undecided(gate, CANNOT_REFIT, status="not run")
    names = sorted(set(branch.tolist()))
    found: dict[str, float] = {}
    for name, child in zip(names, rng.spawn(len(names)), strict=True):
        kept = own != name
        distances = np.asarray(inside.distances)[np.ix_(kept, kept)]
        pairs = all_pairs(len(branch))
        touching = (branch[pairs.left] == name) | (branch[pairs.right] == name)
        chosen = Pairs(pairs.left[touching], pairs.right[touching])
        varies = len(chosen) >= 3 and np.ptp(chosen.of(np.asarray(data.distances))) > 0
        if kept.sum() < MIN_ANCHORS or not np.ptp(distances) or not varies:
            continue
        head = fit_let(np.asarray(inside.features)[kept], distances, settings, rng=child)
        angles = angular_distances(head.latent(data.features))
        found[name] = float(distance_spearman(angles, np.asarray(data.distances, dtype=np.float64), chosen))
    if len(found) < 2:
        return undecided(gate, f"{len(found)} branches of the external panel can be held out, expected at least 2")
    return judge(gate, float(np.mean(list(found.values()))), ">=", HOLDOUT, n=len(branch), seed=seed, details={**found})


def _permutation(
    data: GateData,
    angles: NDArray[np.float64],
    target: NDArray[np.float64],
    pairs: Pairs,
    n_permutations: int,
    rng: np.random.Generator,
    seed: int,
) -> Record:
    """Exchange external labels within blocks."""
    gate, blocks = "external_permutation", data.blocks
    count = log10_arrangements(data.stage, blocks)
    reason = why_undecidable(count, n_permutations, PERMUTATION_P)
    if reason:
        return undecided(gate, reason)
    observed = float(distance_spearman(angles, target, pairs))
    null = np.empty(n_permutations)
    for first in range(0, n_permutations, _BATCH):
        children = rng.spawn(min(_BATCH, n_permutations - first))
        orders = np.stack([permute_within(blocks, rng=child) for child in children])
        permuted = target[orders[:, :, None], orders[:, None, :]]
        null[first : first + len(children)] = distance_spearman(angles, permuted, pairs)
    return judge(
        gate,
        p_value(observed, null),
        "<=",
        PERMUTATION_P,
        n=len(data.features),
        seed=seed,
        null=null_summary("external labels exchanged within study x donor x tissue, head frozen", null, count),
        details={"observed": observed},
    )

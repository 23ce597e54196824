"""Rung 5: the head as it is, on panels that share no cell and no donor with the one it was fitted on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ...cards._card import Card
from ...cards._errors import BadInputError
from ...cards._evidence import Direction, Record, RungResult, conclude, judge, not_run, undecided
from ...manifolds._heads import HeadSettings, latent_distances
from .._gate_data import GateData
from .._informing import TRANSFER_GEOMETRY
from .._named_child import named_child
from ..metrics import (
    Pairs,
    all_pairs,
    distance_spearman,
    euclidean_distances,
    trustworthiness,
)
from ..metrics._residualised import residualised_correlation, shared_labels
from ..nulls._permutation import log10_arrangements, null_summary, p_value, permute_within, why_undecidable
from ..refits._refits import distances_under, least_training, refits_from_starts
from ..refits._refitted import CANNOT_REFIT
from ._copied import copied_record
from ._published import HOLDOUT, NEIGHBOURS, PERMUTATION_P, TRUSTWORTHINESS
from ._transfer_geometry import MIN_ANCHORS as MIN_ANCHORS
from ._transfer_geometry import transfer_geometry_record

N_STARTS = 20
"""Starts of the head that the score of a branch is averaged over."""
Role = Literal["external", "zero-shot"]
EXTERNAL_GATES: dict[str, tuple[Direction, float]] = {
    "external_trustworthiness": (">=", TRUSTWORTHINESS),
    "external_all": (">=", HOLDOUT),
    "external_between_donors": (">=", HOLDOUT),
    "external_branch_holdout": (">=", HOLDOUT),
    "external_permutation": ("<=", PERMUTATION_P),
}
"""Gates of the first external panel that need anchors enough, with direction and threshold."""
ZERO_SHOT_GATES: dict[str, tuple[Direction, float]] = {
    "zero_shot_spearman": (">=", HOLDOUT),
    "zero_shot_residualised": (">=", HOLDOUT),
    "zero_shot_permutation": ("<=", PERMUTATION_P),
}
"""The same of a zero-shot panel. What is measured is published, the thresholds are not: we take those of the external
panel, our choice."""
NO_PANEL = "the artifact carries no external panel"
NO_IDS = "ids of the two panels cannot be compared"
SHARED_GATES = ("no_shared_cells", "no_shared_donors", "no_copied_anchors")
"""Gates of the first external panel that say whether it is one of strangers."""
_BATCH = 64


@dataclass(frozen=True, eq=False)
class Outside:
    """A panel that nothing was fitted to, under the frozen head.

    Parameters
    ----------
    data
        The panel; its features are those of the same operator.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    n_shared_cells, n_shared_donors
        With the extraction panel, by id; ``None`` where ids cannot be compared, which leaves the gate open.
    name
        Of the panel.
    role
        ``external`` or ``zero-shot``; they differ in their gates.
    """

    data: GateData
    latent: NDArray[np.floating]
    n_shared_cells: int | None
    n_shared_donors: int | None
    name: str = "external"
    role: Role = "external"


def gates_of(card: Card) -> list[tuple[str, Direction, float]]:
    """Gate, direction and threshold of every test that rung 5 decides by.

    Parameters
    ----------
    card
        Its external and zero-shot panels each have theirs. Those of one external panel are there in any case: without
        one the rung is open.
    """
    panels = [(panel.name, panel.role) for panel in card.panels if panel.role != "negative"]
    if not any(role == "external" for _, role in panels):
        panels = [("external", "external"), *panels]
    gates: list[tuple[str, Direction, float]] = []
    for (_, role), prefix in zip(panels, _prefixes(panels), strict=True):
        gates += [(gate, "<=", 0.0) for gate in _shared_gates(prefix)]
        gates += [(gate, *judged) for gate, judged in _own_gates(role, prefix).items()]
    return gates


def transfers(
    inside: GateData,
    outside: Sequence[Outside],
    settings: HeadSettings | None,
    *,
    seed: int,
    n_permutations: int = 1000,
) -> RungResult:
    """Run rung 5.

    Parameters
    ----------
    inside
        The extraction panel, for heads refitted without a branch.
    outside
        The panels; without an external one among them the rung is open.
    settings
        Parameters of the head; ``None`` for one that cannot be refitted, which leaves the branch gate ``not run``.
    seed
        Of permutations and refits; each further panel draws from a child of its name.
    n_permutations
        Of labels within study, donor and tissue of a panel.

    Notes
    -----
    Of an external panel, the gates of rung 3 on cells that the head has not seen: trustworthiness of the features in
    the latent space; the Spearman correlation of latent and ruler distance over all pairs, and over pairs of
    different donors; for the branch gate the head is refitted on the extraction panel without each branch in turn, and
    scored on external pairs that touch it. A head that never saw the labels may stay fixed while they are permuted.
    Of a zero-shot panel, what was published of one: the correlation over all pairs, the same with what shared donors,
    tissues and studies explain taken out, and the permutation.
    The first external panel's gates start with ``external``, those of a further one with ``external_`` and its name,
    those of a zero-shot panel with ``zero_shot_`` and its name, which is left out where it is ``zero-shot``.
    Beside them the geometry of each panel is shown, see ``transfer_geometry_record``.
    """
    if not outside:
        return not_run(5, NO_PANEL)
    root = np.random.default_rng(seed)
    panels = [(panel.name, panel.role) for panel in outside]
    records: list[Record] = []
    if not any(role == "external" for _, role in panels):
        missing = (*_shared_gates("external"), *EXTERNAL_GATES)
        records += [undecided(gate, NO_PANEL, status="not run") for gate in missing]
    for panel, prefix in zip(outside, _prefixes(panels), strict=True):
        rng = root if prefix == "external" else named_child(root, panel.name)
        records += _of_panel(inside, panel, prefix, settings, rng, seed, n_permutations)
        geometry = f"{prefix}_{TRANSFER_GEOMETRY}"
        records.append(transfer_geometry_record(geometry, inside, panel.data, panel.latent, settings, seed=seed))
    return conclude(5, records)


def _of_panel(
    inside: GateData,
    outside: Outside,
    prefix: str,
    settings: HeadSettings | None,
    rng: np.random.Generator,
    seed: int,
    n_permutations: int,
) -> list[Record]:
    """Records of one panel."""
    data, n = outside.data, len(outside.data.features)
    *by_id, copied = _shared_gates(prefix)
    records = [
        undecided(gate, NO_IDS) if count is None else judge(gate, float(count), "<=", 0.0, n=n)
        for gate, count in zip(by_id, (outside.n_shared_cells, outside.n_shared_donors), strict=True)
    ]
    records.append(copied_record(copied, inside.expression, data.expression))
    if n < MIN_ANCHORS or not np.ptp(np.asarray(data.distances)):
        reason = f"{n} anchors, expected at least {MIN_ANCHORS} that differ"
        return [*records, *(undecided(gate, reason) for gate in _own_gates(outside.role, prefix))]
    branch_rng, permutation_rng = rng.spawn(2)
    target = np.asarray(data.distances, dtype=np.float64)
    apart = distances_under(np.asarray(outside.latent, dtype=np.float64), settings)
    pairs = all_pairs(n)
    permutation = _permutation(f"{prefix}_permutation", data, apart, target, n_permutations, permutation_rng, seed)
    if outside.role == "zero-shot":
        residualised = _residualised(f"{prefix}_residualised", data, apart, target, named_child(rng, "folds"), seed)
        return [*records, _spearman(f"{prefix}_spearman", apart, target, pairs, seed), residualised, permutation]
    donor = np.array(data.donor_ids)
    others = donor[pairs.left] != donor[pairs.right]
    between = Pairs(pairs.left[others], pairs.right[others])
    return [
        *records,
        _trust(f"{prefix}_trustworthiness", data, apart),
        _spearman(f"{prefix}_all", apart, target, pairs, seed),
        _spearman(f"{prefix}_between_donors", apart, target, between, seed),
        _branches(f"{prefix}_branch_holdout", inside, data, settings, branch_rng, seed),
        permutation,
    ]


def _prefixes(panels: Iterable[tuple[str, str]]) -> list[str]:
    """With what the gates of each panel, given by name and role, start."""
    prefixes: list[str] = []
    for name, role in panels:
        plain, own = role.replace("-", "_"), name.replace("-", "_")
        bare = "external" not in prefixes if role == "external" else own == plain
        prefixes.append(plain if bare else f"{plain}_{own}")
    return prefixes


def _shared_gates(prefix: str) -> list[str]:
    """Names of the gates of shared cells and donors."""
    return [gate if prefix == "external" else f"{prefix}_{gate}" for gate in SHARED_GATES]


def _own_gates(role: str, prefix: str) -> dict[str, tuple[Direction, float]]:
    """Gates of a panel that need anchors enough."""
    gates = EXTERNAL_GATES if role == "external" else ZERO_SHOT_GATES
    return {f"{prefix}{gate.removeprefix(role.replace('-', '_'))}": judged for gate, judged in gates.items()}


def _trust(gate: str, data: GateData, apart: NDArray[np.float64]) -> Record:
    """Trustworthiness of the features in the latent space."""
    n = len(data.features)
    if n < 2 * NEIGHBOURS + 1:
        reason = f"{n} anchors are too few for k = {NEIGHBOURS}, expected at least {2 * NEIGHBOURS + 1}"
        return undecided(gate, reason)
    value = float(trustworthiness(euclidean_distances(data.features), apart, k=NEIGHBOURS))
    return judge(gate, value, ">=", TRUSTWORTHINESS, n=n, details={"k": NEIGHBOURS, "space": "features"})


def _spearman(gate: str, apart: NDArray[np.float64], target: NDArray[np.float64], pairs: Pairs, seed: int) -> Record:
    """Correlation over some pairs."""
    if len(pairs) < 3 or not np.ptp(pairs.of(target)):
        return undecided(gate, f"{len(pairs)} pairs, whose ruler distances do not vary")
    return judge(gate, float(distance_spearman(apart, target, pairs)), ">=", HOLDOUT, n=len(pairs), seed=seed)


def _residualised(
    gate: str,
    data: GateData,
    apart: NDArray[np.float64],
    target: NDArray[np.float64],
    rng: np.random.Generator,
    seed: int,
) -> Record:
    """Correlation over all pairs with what shared donors, tissues and studies explain taken out."""
    pairs, covariates = all_pairs(len(target)), shared_labels(data.donor_ids, data.tissue, data.study)
    try:
        value = float(residualised_correlation(apart, target, covariates, pairs, rng=rng))
    except BadInputError as error:
        return undecided(gate, str(error))
    if not np.isfinite(value):
        return undecided(gate, "shared donors, tissues and studies leave nothing of one side to correlate")
    return judge(
        gate, value, ">=", HOLDOUT, n=len(pairs), seed=seed, details={"residualised by": "donor, tissue, study"}
    )


def _branches(
    gate: str,
    inside: GateData,
    data: GateData,
    settings: HeadSettings | None,
    rng: np.random.Generator,
    seed: int,
) -> Record:
    """Mean over branches of the external panel of heads fitted without the branch."""
    branch, own = np.array(data.branch), np.array(inside.branch)
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
        if kept.sum() < least_training(settings) or not np.ptp(distances) or not varies:
            continue
        latents = _elsewhere(np.asarray(inside.features)[kept], distances, data, settings, child)
        apart = latent_distances(latents, settings)
        found[name] = float(distance_spearman(apart, np.asarray(data.distances, dtype=np.float64), chosen).mean())
    if len(found) < 2:
        return undecided(gate, f"{len(found)} branches of the panel can be held out, expected at least 2")
    return judge(gate, float(np.mean(list(found.values()))), ">=", HOLDOUT, n=len(branch), seed=seed, parts=found)


def _elsewhere(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    data: GateData,
    settings: HeadSettings,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Latents of another panel's anchors under heads from several starts, shape (n_starts, n, d)."""
    m, n = len(features), len(features) + len(data.features)
    targets = np.zeros((n, n))
    targets[:m, :m] = distances
    both, train = np.vstack([features, data.features]), np.arange(m, dtype=np.intp)
    return refits_from_starts(both, targets, settings, rng=rng, n_starts=N_STARTS, train=train)[:, m:]


def _permutation(
    gate: str,
    data: GateData,
    apart: NDArray[np.float64],
    target: NDArray[np.float64],
    n_permutations: int,
    rng: np.random.Generator,
    seed: int,
) -> Record:
    """Exchange the labels of a panel within blocks."""
    blocks, pairs = data.blocks, all_pairs(len(target))
    count = log10_arrangements(data.stage, blocks)
    reason = why_undecidable(count, n_permutations, PERMUTATION_P)
    if reason:
        return undecided(gate, reason)
    observed = float(distance_spearman(apart, target, pairs))
    null = np.empty(n_permutations)
    for first in range(0, n_permutations, _BATCH):
        children = rng.spawn(min(_BATCH, n_permutations - first))
        orders = np.stack([permute_within(blocks, rng=child) for child in children])
        permuted = target[orders[:, :, None], orders[:, None, :]]
        null[first : first + len(children)] = distance_spearman(apart, permuted, pairs)
    return judge(
        gate,
        p_value(observed, null),
        "<=",
        PERMUTATION_P,
        n=len(data.features),
        seed=seed,
        null=null_summary("labels of the panel exchanged within study x donor x tissue, head frozen", null, count),
        details={"observed": observed},
    )

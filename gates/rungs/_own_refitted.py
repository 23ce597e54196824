"""The gates of rung 3 on a user's own cells: heads fitted on them, and tried on those that they did not see."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...cards._evidence import Record, undecided
from ...manifolds._let import LetSettings
from .._gate_data import GateData
from ..refits._holdouts import MIN_TRAINING
from ..refits._refitted import CANNOT_REFIT
from ._published import published_gates

PREFIX = "own_refitted_"
REFITTED = ("random_holdout", "donor_holdout", "branch_holdout", "study_holdout", "blocked_permutation")
HELD_OUT = 0.2
"""Part of the anchors that a random holdout takes away."""


def can_refit(n: int) -> bool:
    """Whether a random holdout of a fifth leaves enough of ``n`` anchors to fit a head on."""
    return n - max(1, round(HELD_OUT * n)) >= MIN_TRAINING


def own_refitted(
    data: GateData | None,
    settings: LetSettings | None,
    *,
    n_anchors: int,
    seed: int,
    n_permutations: int,
    n_starts: int,
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Run the gates of rung 3 on a panel that the head was not fitted on.

    Parameters
    ----------
    data
        The user's panel under the operator; ``None`` where there are too few anchors for one.
    settings
        Of the head, the same procedure as the artifact's; ``None`` for a head that cannot be refitted.
    n_anchors
        Of the user's panel.
    seed, n_permutations, n_starts, progress
        As of ``published_gates``.

    Returns
    -------
    Its records under the prefix ``own_refitted_``. They say whether the operator carries the ruler in these cells,
    which needs no head that was shipped; so they inform, and decide nothing about the artifact.
    """
    if settings is None:
        return _informing([undecided(gate, CANNOT_REFIT, status="not run") for gate in REFITTED])
    if data is None or not can_refit(n_anchors) or not np.ptp(np.asarray(data.distances)):
        said = f"{n_anchors} anchors of your panel, expected at least {fewest()} of two stages or more"
        return _informing([undecided(gate, said) for gate in REFITTED])
    result = published_gates(
        data, settings, seed=seed, n_permutations=n_permutations, n_starts=n_starts, progress=progress
    )
    # there is no shipped head to judge here, and copies are looked for on rung 5
    kept = [record for record in result.records if record.gate not in ("shipped_head", "no_copied_anchors")]
    return _informing(kept)


def fewest() -> int:
    """Fewest anchors that heads can be refitted on without a fifth of them."""
    return next(n for n in range(1, 1000) if can_refit(n))


def _informing(records: list[Record]) -> list[Record]:
    """The same records, which never decide."""
    return [record.model_copy(update={"gate": PREFIX + record.gate, "decides": False}) for record in records]

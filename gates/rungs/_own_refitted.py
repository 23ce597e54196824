"""The gates of rung 3 on a user's own cells: heads fitted on them, and tried on those that they did not see."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np

from ...cards._errors import BadInputError
from ...cards._evidence import Record, undecided
from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..refits._refits import MIN_TRAINING, least_training
from ..refits._refitted import CANNOT_REFIT
from ._published import published_gates

PREFIX = "own_refitted_"
REFITTED = ("random_holdout", "donor_holdout", "branch_holdout", "study_holdout", "blocked_permutation")
HELD_OUT = 0.2
"""Part of the anchors that a random holdout takes away."""


def fewest(settings: HeadSettings | None = None) -> int:
    """Fewest anchors of which a random holdout of a fifth leaves enough to fit a head on."""
    least = MIN_TRAINING if settings is None else least_training(settings)
    return next(n for n in count(1) if n - max(1, round(HELD_OUT * n)) >= least)


def own_refitted(
    data: GateData | None,
    settings: HeadSettings | None,
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
    least = fewest(settings)
    if data is None or n_anchors < least or not np.ptp(np.asarray(data.distances)):
        said = f"{n_anchors} anchors of your panel, expected at least {least} of two stages or more"
        return _informing([undecided(gate, said) for gate in REFITTED])
    try:
        result = published_gates(
            data, settings, seed=seed, n_permutations=n_permutations, n_starts=n_starts, progress=progress
        )
    except BadInputError as error:
        # such as anchors whose paths have too few dimensions
        return _informing([undecided(gate, error.message) for gate in REFITTED])
    # there is no shipped head to judge here, and copies are looked for on rung 5
    kept = [record for record in result.records if record.gate not in ("shipped_head", "no_copied_anchors")]
    return _informing(kept)


def _informing(records: list[Record]) -> list[Record]:
    """The same records, which never decide."""
    return [record.model_copy(update={"gate": PREFIX + record.gate, "decides": False}) for record in records]

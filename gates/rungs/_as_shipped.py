"""Rungs 3 to 6 of a head that cannot be refitted: what can be asked of it as it is, and what cannot be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import RungResult, conclude, not_run, undecided
from ...cards._programs import GeneProgram
from .._gate_data import GateData
from ..metrics import angular_distances
from ..refits._refitted import CANNOT_REFIT
from ._axes import axis_records
from ._copied import copied_record
from ._published import NEIGHBOURS, neighbourhood_records
from ._transfers import Outside, transfers

REFITTED = ("shipped_head", "random_holdout", "donor_holdout", "branch_holdout", "blocked_permutation")
"""Gates of rung 3 that need other heads than the one shipped."""


def as_shipped(
    rung: int,
    data: GateData,
    latent: NDArray[np.floating],
    outside: Sequence[Outside],
    *,
    seed: int,
    n_permutations: int = 1000,
    genes: Sequence[str] | None = None,
    programs: Sequence[GeneProgram] = (),
) -> RungResult:
    """Run what needs no other head than the one shipped; the rest is ``not run``, with the reason.

    Parameters
    ----------
    rung
        3 to 6.
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    outside
        The external and zero-shot panels under the same head.
    seed, n_permutations
        As of ``transfers``.
    genes, programs
        As of ``published_gates``.

    Notes
    -----
    Heads of another kind could be refitted on the anchors, but would say nothing of the one shipped: our choice is to
    leave their gates open. What remains are trustworthiness and what describes the axes on rung 3 and, but for the
    branch gate, rung 5. All of rungs 4 and 6 is about refitted heads.
    """
    if rung == 5:
        return transfers(data, outside, None, seed=seed, n_permutations=n_permutations)
    if rung != 3:
        return not_run(rung, CANNOT_REFIT)
    angles = angular_distances(np.asarray(latent, dtype=np.float64)[None])
    records = [
        copied_record("no_copied_anchors", data.expression),
        *neighbourhood_records(data, angles, NEIGHBOURS, seed),
    ]
    if genes is not None:
        records += axis_records(data, latent, genes=genes, programs=programs, seed=seed)
    return conclude(3, [*records, *(undecided(gate, CANNOT_REFIT, status="not run") for gate in REFITTED)])

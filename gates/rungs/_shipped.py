"""Whether the head that is shipped is one that its procedure gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import Record, judge
from .._gate_data import GateData
from ..metrics import all_pairs, angular_distances, distance_spearman

SHORTFALL = 0.05
"""How far the shipped head may follow the ruler worse than heads refitted to the same anchors; our choice."""


def shipped_record(
    data: GateData, latent: NDArray[np.floating], refitted_angles: NDArray[np.float64], *, seed: int
) -> Record:
    """Compare the shipped head with heads refitted by the card's settings to the same anchors.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    refitted_angles
        Latent angles of refitted heads, shape (n_starts, n, n).
    seed
        Of the refits.

    Notes
    -----
    All other gates of the rung judge refitted heads, so that without this one any head could be shipped with them. The
    statistic is the mean Spearman correlation of latent angle and ruler distance of the refitted heads, less that of
    the shipped one, over all pairs that both were fitted to. It proves nothing about biology: shuffled labels are
    fitted as well as true ones.
    """
    gate, n = "shipped_head", len(data.features)
    target, pairs = np.asarray(data.distances, dtype=np.float64), all_pairs(len(data.features))
    refitted = distance_spearman(refitted_angles, target, pairs)
    z = np.asarray(latent, dtype=np.float64)
    nowhere = ~(np.linalg.norm(z, axis=1) > 0)
    own = float("nan")
    if not nowhere.any():
        own = float(distance_spearman(angular_distances(z), target, pairs))
    details: dict[str, float | int | str | bool | None] = {
        "own": own if np.isfinite(own) else None,
        "refitted": float(refitted.mean()),
        "start_sd": float(refitted.std()),
        "anchors_without_direction": int(nowhere.sum()),
    }
    return judge(gate, float(refitted.mean()) - own, "<=", SHORTFALL, n=n, seed=seed, details=details)

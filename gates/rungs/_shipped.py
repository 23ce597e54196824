"""Whether the head that is shipped is one that its procedure gives."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record, judge
from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..metrics import Pairs, all_pairs, distance_spearman
from ..refits._refits import distances_under, reads_ruler

SHORTFALL = 0.05
"""How far the shipped head may fall behind heads refitted to the same anchors, in Spearman correlation; our choice."""
REPEATED = 0.01
"""The same of a head that draws nothing, which differs from its refit by rounding alone; our choice."""
Details = dict[str, float | int | str | bool | None]


def shipped_record(
    data: GateData,
    latent: NDArray[np.floating],
    refitted: NDArray[np.float64],
    *,
    seed: int,
    settings: HeadSettings | None = None,
) -> Record:
    """Compare the shipped head with heads refitted by the card's settings to the same anchors.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    refitted
        Latent distances of refitted heads, shape (n_starts, n, n).
    seed
        Of the refits.
    settings
        Parameters of the head; without them it is a LET head.

    Notes
    -----
    All other gates of the rung judge refitted heads, so that without this one any head could be shipped with them. The
    statistic is how much better refitted heads agree with what they were made to follow than the shipped one does, as
    mean Spearman correlations over all pairs of anchors. A LET head was made to follow the ruler. That proves nothing
    about biology: shuffled labels are fitted as well as true ones. A head that does not read the ruler is held against
    the refitted heads themselves, which agree with each other by 1 where the procedure draws nothing: following the
    ruler better than they do would be as wrong as following it worse (our choice). As there is one such head for each
    panel, less is allowed of the difference: ``REPEATED``, not ``SHORTFALL``.
    """
    gate, n = "shipped_head", len(data.features)
    pairs = all_pairs(n)
    own = _own_distances(np.asarray(latent, dtype=np.float64), settings)
    reads = reads_ruler(settings)
    if reads:
        expected, found, details = _with_ruler(data, own, refitted, pairs)
        details["anchors_without_direction"] = int((~(np.linalg.norm(latent, axis=1) > 0)).sum())
    else:
        expected, found, details = _with_each_other(own, refitted, pairs)
    return judge(gate, expected - found, "<=", SHORTFALL if reads else REPEATED, n=n, seed=seed, details=details)


def _own_distances(latent: NDArray[np.float64], settings: HeadSettings | None) -> NDArray[np.float64] | None:
    """Latent distances of the shipped head; ``None`` where it puts an anchor nowhere."""
    try:
        return distances_under(latent, settings)
    except BadInputError:
        return None


def _with_ruler(
    data: GateData, own: NDArray[np.float64] | None, refitted: NDArray[np.float64], pairs: Pairs
) -> tuple[float, float, Details]:
    """Correlation with the ruler of refitted heads and of the shipped one."""
    target = np.asarray(data.distances, dtype=np.float64)
    by_start = distance_spearman(refitted, target, pairs)
    found = float("nan") if own is None else float(distance_spearman(own, target, pairs))
    mean = float(by_start.mean())
    return mean, found, {"own": _told(found), "refitted": mean, "start_sd": float(by_start.std())}


def _with_each_other(
    own: NDArray[np.float64] | None, refitted: NDArray[np.float64], pairs: Pairs
) -> tuple[float, float, Details]:
    """Correlation of refitted heads with each other, and of the shipped one with them."""
    starts = all_pairs(len(refitted))
    among = np.ones(1)
    if len(starts):
        among = distance_spearman(refitted[starts.left], refitted[starts.right], pairs)
    found = float("nan") if own is None else float(distance_spearman(own, refitted, pairs).mean())
    mean = float(among.mean())
    compared = "latent distances with those of refitted heads, as the head does not read the ruler"
    details: Details = {"own": _told(found), "refitted": _told(mean), "start_sd": _told(float(among.std()))}
    return mean, found, details | {"compared": compared}


def _told(value: float) -> float | None:
    """A number for a record, if it is one."""
    return value if np.isfinite(value) else None

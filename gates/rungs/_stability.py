"""How far the picture hangs on which anchors were there: heads refitted on subsamples of the panel, held together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import procrustes

from ...cards._errors import BadInputError
from ...cards._evidence import Record
from ...manifolds._heads import HeadSettings, latent_distances
from .._gate_data import GateData
from ..metrics import all_pairs
from ..metrics._agreement import centred_ranks
from ..refits._refits import least_training, reads_ruler, refits_on

GATE = "subsample_stability"
N_SUBSAMPLES = 20
KEPT = 0.8
"""Part of the anchors that each subsample keeps; both numbers are our choice."""
_SHOWN = "informs: heads on other anchors may agree about a picture that is wrong"

Detail = float | int | str | bool | None


def stability_record(
    data: GateData,
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    seed: int,
    n_subsamples: int = N_SUBSAMPLES,
    kept: float = KEPT,
) -> Record:
    """Refit the head on random subsamples of the anchors and compare where the refits place all of them.

    Parameters
    ----------
    data
        The panel.
    settings
        Parameters of the head, the same in every refit.
    rng
        One child for each subsample; a generator of its own, so that no other record moves.
    seed
        Of the record.
    n_subsamples
        At least 2.
    kept
        Part of the anchors that each keeps.

    Returns
    -------
    One record that never decides: no threshold is published, and heads that agree may agree about something wrong. Its
    statistic is the mean over pairs of refits of the Spearman correlation of their latent distances over all pairs of
    anchors, those that a refit has not seen placed by it; beside it the spread over pairs of refits, the lowest, and
    the mean Procrustes disparity.

    Raises
    ------
    BadInputError
        If there are fewer than two subsamples, or the part is no fraction.

    Notes
    -----
    The disparity is that of ``scipy.spatial.procrustes``: the sum of squares that is left of two sets of places of unit
    size, centred, when one is turned, mirrored and scaled onto the other; 0 for the same picture, to 1. Of a head whose
    distances are angles the places are the directions of the latents, as their lengths mean nothing. Two subsamples of
    80% share 64% of the anchors on average, so that these figures say how much the choice of anchors within the panel
    matters, not how much other donors would.
    """
    if n_subsamples < 2 or not 0 < kept < 1:
        raise BadInputError(f"{n_subsamples} subsamples of {kept}, expected at least 2 of a part between 0 and 1.")
    n = len(data.features)
    size, least = round(kept * n), least_training(settings)
    details: dict[str, Detail] = {"n_subsamples": n_subsamples, "anchors_kept": size}
    if size < least:
        return _open(f"{size} anchors left to train on, expected at least {least}", n, seed, details)
    try:
        latents = _refitted(data, settings, size, rng.spawn(n_subsamples))
        correlations = _between(latent_distances(latents, settings))
    except BadInputError as error:
        return _open(error.message, n, seed, details)
    if not np.isfinite(correlations).all():
        return _open("latent distances of a refit do not vary", n, seed, details)
    disparities = _disparities(latents, directions=reads_ruler(settings))
    details |= {
        "sd": float(correlations.std(ddof=1)) if correlations.size > 1 else 0.0,
        "lowest": float(correlations.min()),
        "disparity": float(disparities.mean()),
        "highest_disparity": float(disparities.max()),
    }
    return _open(_SHOWN, n, seed, details).model_copy(update={"statistic": float(correlations.mean())})


def _refitted(
    data: GateData, settings: HeadSettings, size: int, rngs: list[np.random.Generator]
) -> NDArray[np.float64]:
    """Latents of all anchors under heads fitted on some of them, shape (n_subsamples, n, d)."""
    n, target = len(data.features), np.asarray(data.distances, dtype=np.float64)
    found = []
    for rng in rngs:
        row_rng, space_rng, start_rng = rng.spawn(3)
        train = np.sort(row_rng.permutation(n)[:size])
        if not target[np.ix_(train, train)].any():
            raise BadInputError("the anchors of a subsample have no distance between them.")
        refits = refits_on(data.features, settings, rng=space_rng, train=train)
        found.append(refits.latents(target[None], [start_rng])[0])
    return np.stack(found)


def _between(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation of each two of some distance matrices over all pairs, NaN where one does not vary."""
    ranks = centred_ranks(all_pairs(distances.shape[-1]).of(distances))
    with np.errstate(invalid="ignore", divide="ignore"):
        units = ranks / np.linalg.norm(ranks, axis=1, keepdims=True)
    pairs = all_pairs(len(distances))
    return np.asarray((units @ units.T)[pairs.left, pairs.right])


def _disparities(latents: NDArray[np.float64], *, directions: bool) -> NDArray[np.float64]:
    """Procrustes disparity of each two sets of places."""
    places = latents / np.linalg.norm(latents, axis=-1, keepdims=True) if directions else latents
    pairs = all_pairs(len(places))
    return np.array(
        [procrustes(places[one], places[other])[2] for one, other in zip(pairs.left, pairs.right, strict=True)]
    )


def _open(reason: str, n: int, seed: int, details: dict[str, Detail]) -> Record:
    """The record, without a verdict."""
    return Record(
        gate=GATE, status="cannot decide", reason=reason, n=n, seed=seed, decides=False, details=dict(details)
    )

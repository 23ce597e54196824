"""Held-out floors: what a panel must reach when heads are refitted without a part of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...manifolds._heads import HeadSettings
from .._gate_data import GateData
from ..refits._holdouts import Fold, HoldoutResult, group_folds, random_folds, refit_holdouts

FLOORS = {"random": 0.5, "study": 0.4, "branch": 0.4}
"""Least held-out Spearman correlation of each holdout; donors stand in for studies where there is one study."""


@dataclass(frozen=True)
class Floors:
    """Held-out scores of a panel against one ruler.

    Attributes
    ----------
    scores
        Of each holdout, by name.
    """

    scores: dict[str, HoldoutResult]

    @property
    def undecided(self) -> list[str]:
        """Holdouts that the panel cannot decide, each with the reason."""
        return [f"{name}: {score.undecided_because}" for name, score in self.scores.items() if score.undecided_because]

    @property
    def reached(self) -> bool:
        """Whether every holdout that can be scored reaches its floor, and at least one can."""
        scored = [name for name, score in self.scores.items() if not score.undecided_because]
        return bool(scored) and all(self.scores[name].touching >= FLOORS[name] for name in scored)


def floor_folds(data: GateData, *, rng: np.random.Generator, n_repeats: int) -> dict[str, list[Fold]]:
    """Parts that the floors hold out: random ones, each study (donor where there is one study), and each branch."""
    groups = data.study if len(set(data.study)) > 1 else data.donor_ids
    return {
        "random": random_folds(len(data.features), rng=rng, n_repeats=n_repeats),
        "study": group_folds(groups),
        "branch": group_folds(data.branch),
    }


def held_out_floors(
    data: GateData,
    settings: HeadSettings,
    *,
    rng: np.random.Generator,
    distances: NDArray[np.floating] | None = None,
    n_repeats: int = 5,
    n_starts: int = 3,
) -> Floors:
    """Refit without random parts, without each study and without each branch.

    Parameters
    ----------
    data
        The panel.
    settings
        Parameters of the head.
    rng
        Draws parts and starts.
    distances
        Of another ruler between the same anchors.
    n_repeats, n_starts
        Random parts, and starts per part.
    """
    target = data.distances if distances is None else distances
    split_rng, *rngs = rng.spawn(4)
    folds = floor_folds(data, rng=split_rng, n_repeats=n_repeats)
    return Floors(
        {
            name: refit_holdouts(data.features, target, parts, settings, rng=child, n_starts=n_starts)
            for (name, parts), child in zip(folds.items(), rngs, strict=True)
        }
    )

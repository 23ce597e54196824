"""Thresholds below which a cell counts as unlike the panel, set on groups that were left out."""

from __future__ import annotations

import numpy as np

from ..cards._card import Familiarity
from ..manifolds._familiarity import familiarity
from ..manifolds._panel import Panel, PanelCells

QUANTILE = 0.1
"""Part of the cells of a left-out group that is flagged; our choice."""
MIN_CELLS = 20
"""Groups of fewer cells do not count; our choice."""


def fit_familiarity(panel: Panel, cells: PanelCells) -> Familiarity | None:
    """Leave out one study at a time and see how familiar its cells look to the others.

    Parameters
    ----------
    panel
        Anchors.
    cells
        Labelled cells of the same files.

    Returns
    -------
    Thresholds, the means over left-out studies of the score that a tenth of their cells stay below; over donors where
    there is one study; ``None`` where there is one donor, or no group of ``MIN_CELLS`` cells can be left out.

    Notes
    -----
    Studies weigh alike: those of one platform are familiar to each other and would otherwise set a threshold that no
    other platform passes. Our choice.
    """
    by_study = len(set(cells.study)) > 1
    of_cell = np.array(cells.study if by_study else cells.donor, dtype=str)
    of_anchor = np.array(panel.study if by_study else panel.donor, dtype=str)
    stage = np.array(panel.stage, dtype=str)
    quantiles: dict[str, tuple[float, float]] = {}
    for group in sorted(set(of_cell.tolist())):
        rest, left_out = of_anchor != group, np.flatnonzero(of_cell == group)
        if len(set(stage[rest].tolist())) < 2 or len(left_out) < MIN_CELLS or rest.all():
            continue
        scores = familiarity(panel.anchors[rest], stage[rest].tolist())
        found = scores.scores(scores.products(cells.values[left_out]))
        plain, scaled = np.quantile(found, QUANTILE, axis=0)
        quantiles[group] = float(plain), float(scaled)
    if not quantiles:
        return None
    plain_mean, scaled_mean = np.mean(list(quantiles.values()), axis=0)
    return Familiarity(
        threshold=float(plain_mean),
        scaled_threshold=float(scaled_mean),
        quantile=QUANTILE,
        held_out_by="study" if by_study else "donor",
        groups={group: plain for group, (plain, _) in quantiles.items()},
    )

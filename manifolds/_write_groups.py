"""Storing the predicted distances between groups of cells in an AnnData object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

from ._group_distances import checked_column, read_groups
from ._keys import keys_for
from ._readouts import stage_readout

if TYPE_CHECKING:
    from ._manifold import Manifold


def column_to_group_by(manifold: Manifold, obs: pd.DataFrame, stem: str, groupby: str | None) -> str | None:
    """Return the column of ``obs`` whose groups are compared, or ``None`` where none are.

    Parameters
    ----------
    manifold
        The manifold. One with a ruler of interactions compares by default the groups of its stage readout.
    obs
        Of the cells, before the transform.
    stem
        Stem of the keys that are written.
    groupby
        Column asked for, of the user or one that the transform writes.

    Raises
    ------
    BadInputError
        If there is no such column, with the nearest names, or it has no groups, see ``read_groups``: all of it before
        anything is computed.
    """
    written = {told.task: keys_for(stem, told.task).obs for told in manifold.card.extraction.readouts if told.classes}
    if groupby is not None:
        columns = [*map(str, obs.columns), *written.values()]
        column = checked_column(groupby, list(dict.fromkeys(columns)))
        if column not in written.values():
            read_groups(obs[column])
        return column
    if manifold.card.ruler.kind != "interaction":
        return None
    told = stage_readout(manifold.card)
    return None if told is None else written[told.task]


def write_groups(manifold: Manifold, target: ad.AnnData, stem: str, column: str) -> None:
    """Add groups, their numbers of cells and their predicted distances to what a transform stored in ``uns``."""
    base = keys_for(stem)
    told = manifold.predicted_distances(target.obsm[base.obsm], target.obs[column])
    target.uns[base.uns] |= {
        "groupby": column,
        "groups": np.asarray(told.groups, dtype=str),
        "group_sizes": told.sizes,
        "group_distances": told.distances,
    }

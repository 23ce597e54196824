"""Predicted ruler distances between groups of cells, from the mean coordinates of each."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cards._adaptor import GEODESIC_KINDS, AdaptorKind
from ..cards._errors import BadInputError
from ._latent_distances import angular_distances, straight_distances

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MOST_GROUPS = 2_000
"""Groups whose distances are told; a table of more than this is 32 MB, and a column of it is hardly one of groups (our
choice)."""


@dataclass(frozen=True, eq=False)
class GroupDistances:
    """Predicted ruler distances between groups of cells.

    Attributes
    ----------
    groups
        Name of each group that has cells, ``n`` of them.
    sizes
        Cells of each, int64 ``(n,)``.
    distances
        Float64 ``(n, n)``, symmetric, 0 on the diagonal, in the unit of the ruler.
    """

    groups: list[str]
    sizes: NDArray[np.int64]
    distances: Floats

    def to_frame(self) -> pd.DataFrame:
        """The distances as a table with the groups as rows and columns."""
        import pandas as pd

        return pd.DataFrame(self.distances, index=self.groups, columns=self.groups)


def group_distances(
    latent: NDArray[np.floating],
    groups: Any,
    distances_between: Callable[[Floats], NDArray[np.floating]],
    beta: float,
) -> GroupDistances:
    """Predict the ruler distances between groups of cells.

    Parameters
    ----------
    latent
        Coordinates of the cells, ``(n_cells, d)``.
    groups
        Group of each cell, ``(n_cells,)``: a categorical, whose order of categories is kept, or a list, an array or a
        column of anything else, whose values are sorted. Cells without one (NaN, ``None``, ``pandas.NA``, an empty
        text) are left out, and so are categories without cells.
    distances_between
        Distances between latents ``(n, d)`` as the head means them, ``(n, n)``: see ``head_distance``.
    beta
        Ruler distance for each unit of those.

    Raises
    ------
    BadInputError
        If there are not as many groups as cells, the mean of one is not finite, or as ``read_groups``.

    Notes
    -----
    ``d(A, B) = beta D(mean z_A, mean z_B)``. Where the head is linear the mean of coordinates is the place of the mean
    expression profile, which is what an anchor is, so that groups are compared as anchors were.
    """
    names, codes = read_groups(groups)
    if len(codes) != len(latent):
        raise BadInputError(f"Got {len(codes)} groups for {len(latent)} cells, expected one for each.")
    codes += 1
    sizes = np.bincount(codes, minlength=len(names) + 1)[1:]
    # one coordinate at a time, so that nothing of the size of the cells is made but one column
    sums = [np.bincount(codes, weights=column, minlength=len(names) + 1)[1:] for column in np.asarray(latent).T]
    there = np.flatnonzero(sizes)
    means = np.stack(sums, axis=1)[there] / sizes[there, None]
    if not np.isfinite(means).all():
        raise BadInputError("Coordinates are not finite, expected the latents of a transform.")
    distances = beta * np.asarray(distances_between(means), dtype=np.float64)
    np.fill_diagonal(distances, 0.0)
    return GroupDistances([names[i] for i in there], sizes[there].astype(np.int64), distances)


def head_distance(kind: AdaptorKind) -> Callable[[NDArray[np.floating]], Floats]:
    """Distances between latents as a kind of head means them: Euclidean under geodesic heads, else angles."""
    return straight_distances if kind in GEODESIC_KINDS else angular_distances


def read_groups(groups: Any) -> tuple[list[str], NDArray[np.int64]]:
    """Names of groups and the code of each cell, -1 where it has none.

    Raises
    ------
    BadInputError
        If no cell has one, there are more than ``MOST_GROUPS``, or two of one name.
    """
    import pandas as pd

    held = pd.Categorical(groups)
    found = np.bincount(held.codes.astype(np.int64) + 1, minlength=len(held.categories) + 1)[1:] > 0
    if found.sum() > MOST_GROUPS:
        raise BadInputError(
            f"The cells lie in {found.sum()} groups, expected at most {MOST_GROUPS}.",
            "Group by cell types or clusters, not by a number or an id of cells.",
        )
    names = [str(category) for category in held.categories]
    used = [name for name, has_cells in zip(names, found, strict=True) if has_cells]
    if len(set(used)) < len(used):
        twice = max(used, key=used.count)
        raise BadInputError(f"Two groups are called {twice!r}.", "Give the column one type.")
    codes = held.codes.astype(np.int64)
    if "" in names:
        codes[codes == names.index("")] = -1
    if not (codes >= 0).any():
        raise BadInputError("No cell has a group, expected at least one that has.")
    return names, codes


def checked_column(groupby: str, columns: Sequence[str]) -> str:
    """Return the name of a column of ``obs`` to group by.

    Raises
    ------
    BadInputError
        If there is no such column, with the nearest names.
    """
    if groupby in columns:
        return groupby
    # a short name asked for hides in a long one, as 'type' in 'cell_type'
    within = [name for name in columns if groupby.lower() in name.lower()]
    near = list(dict.fromkeys([*difflib.get_close_matches(groupby, columns, n=3), *within]))[:3]
    hint = f"Did you mean {', '.join(near)}?" if near else f"Its columns are {', '.join(columns) or 'none'}."
    raise BadInputError(f"`obs` has no column {groupby!r} to group by.", hint)

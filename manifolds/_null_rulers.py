"""Rulers that keep the structure of another and lose its biology."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ._ruler import StageRuler


def branch_entries(ruler: StageRuler, branches: Sequence[str]) -> dict[str, str]:
    """Stage at which each branch begins: its stage nearest to the root, the first in the ruler's order among equals."""
    ids = [stage.id for stage in ruler.stages]
    depth = dict(zip(ids, ruler.depth(ids).tolist(), strict=True))
    return {
        branch: min((stage.id for stage in ruler.stages if stage.branch == branch), key=depth.__getitem__)
        for branch in branches
    }


def branch_surrogate(
    ruler: StageRuler, stages: Sequence[str], places: Mapping[str, str] | None = None
) -> NDArray[np.float64]:
    """Distances between stages when each branch, kept whole, grows where another one does.

    Parameters
    ----------
    ruler
        The graph.
    stages
        Stage ids, ``n`` of them, repeats allowed.
    places
        For each branch the one whose place it takes; by default each its own, the surrogate that permuted ones are
        to be compared with.

    Returns
    -------
    Float64 ``(n, n)``. Within a branch the ruler's own distances; between branches
    ``d(s, e_b) + d(e_p(b), e_p(c)) + d(e_c, t)`` with ``e`` the entry of a branch: our choice of what it means to
    permute branches among themselves.
    """
    branch = np.array(ruler.branch(stages))
    names = sorted(set(branch.tolist()))
    entries = branch_entries(ruler, names)
    moved = {name: (places or {}).get(name, name) for name in names}
    entries |= branch_entries(ruler, [name for name in moved.values() if name not in entries])
    code = np.searchsorted(names, branch)
    to_entry = np.array(
        [ruler.distances([stage, entries[own]])[0, 1] for stage, own in zip(stages, branch.tolist(), strict=True)]
    )
    between = ruler.distances([entries[moved[name]] for name in names])
    across = to_entry[:, None] + between[np.ix_(code, code)] + to_entry[None, :]
    return np.where(code[:, None] == code[None, :], ruler.distances(stages), across)


def permuted_places(branches: Sequence[str], *, rng: np.random.Generator) -> dict[str, str]:
    """Draw for each branch the one whose place it takes."""
    names = sorted(set(branches))
    return dict(zip(names, (names[index] for index in rng.permutation(len(names))), strict=True))


def log10_placements(branches: Sequence[str]) -> float:
    """Count the ways to permute the branches, as a decimal logarithm."""
    return math.lgamma(len(set(branches)) + 1) / math.log(10)

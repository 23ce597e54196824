"""Rulers that keep the structure of another and lose its biology."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError

if TYPE_CHECKING:
    from ._ruler_interface import Ruler


@dataclass(frozen=True)
class BranchSurrogate:
    """A ruler in which each branch, kept whole, lies at its own place or where another branch does.

    ``branch_permuted`` of a ruler draws one; ``BranchSurrogate(ruler)``, in which every branch keeps its place, is what
    drawn ones are to be compared with.

    Attributes
    ----------
    ruler
        Of any kind.
    places
        For each branch that moves the one whose place it takes; a branch that is not named keeps its own.

    Raises
    ------
    BadInputError
        If a branch is unknown, or the places are not those of the branches that move, each taken once.

    Examples
    --------
    >>> from manifoldzoo.manifolds import BranchSurrogate, Edge, Stage, StageRuler
    >>> stages = [Stage(name, name, "", name[0]) for name in ("a1", "b1", "b2", "c1")]
    >>> edges = [Edge("b1", "a1", "made"), Edge("b2", "b1", "made"), Edge("c1", "b2", "made")]
    >>> ruler = StageRuler("line", "1", tuple(stages), tuple(edges), "a1")
    >>> BranchSurrogate(ruler).distances(["a1", "b2", "c1"]).astype(int).tolist()
    [[0, 2, 3], [2, 0, 3], [3, 3, 0]]
    >>> BranchSurrogate(ruler, {"b": "c", "c": "b"}).distances(["a1", "b2", "c1"]).astype(int).tolist()
    [[0, 4, 1], [4, 0, 3], [1, 3, 0]]
    """

    ruler: Ruler
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_branches(self.ruler, self.places)
        if sorted(self.places) != sorted(self.places.values()):
            raise BadInputError(
                f"The places {sorted(self.places.values())} are not those of the branches {sorted(self.places)}.",
                "Let every branch take the place of one of them, each once.",
            )

    def distances(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Count the steps between stages, float64 ``(n, n)``; see ``branch_surrogate`` for the formula.

        Raises
        ------
        BadInputError
            If a stage is unknown, with the nearest names.
        """
        return branch_surrogate(self.ruler, stages, self.places)


def branch_entries(ruler: Ruler, branches: Sequence[str]) -> dict[str, str]:
    """Stage through which each branch is tied to the others, by the ruler's own rule; see ``Ruler.entry``."""
    return {branch: ruler.entry(branch) for branch in branches}


def branch_surrogate(
    ruler: Ruler, stages: Sequence[str], places: Mapping[str, str] | None = None
) -> NDArray[np.float64]:
    """Distances between stages when each branch, kept whole, lies where another one does.

    Parameters
    ----------
    ruler
        Of any kind: distances, branches and the entries of branches are read.
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


def check_branches(ruler: Ruler, branches: Mapping[str, str] | Sequence[str]) -> None:
    """Refuse branches that a ruler does not have."""
    known = {stage.branch for stage in ruler.stages}
    for name in branches:
        if name not in known:
            raise BadInputError(
                f"The ruler {ruler.name!r} has no branch {name!r}.", f"Its branches are {', '.join(sorted(known))}."
            )

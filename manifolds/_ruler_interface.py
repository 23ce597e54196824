"""What every ruler offers: target distances between stages, and the rulers that must fail where it passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ._null_rulers import BranchSurrogate
    from ._ruler import Stage


class Ruler(Protocol):
    """Target distances between stages, never derived from a model.

    A stage is whatever a ruler measures between: a stage of development, a cell type, a phase of a cycle; its branch is
    the class that it belongs to.

    Attributes
    ----------
    name, version
        Of the ruler.
    stages
        In the order of the ruler.
    root
        Stage that depth is counted from; ``None`` for a ruler that has none.
    """

    @property
    def name(self) -> str:
        """Name of the ruler."""

    @property
    def version(self) -> str:
        """Version of the ruler."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stages in the order of the ruler."""

    @property
    def root(self) -> str | None:
        """Stage that depth is counted from, if there is one."""

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the ruler."""

    def distances(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Distances between stages, repeats allowed, float64 ``(n, n)``; 0 between equal stages.

        Raises
        ------
        BadInputError
            If a stage is unknown, with the nearest names.
        """

    def branch(self, stages: Sequence[str]) -> list[str]:
        """Branch of each stage."""

    def depth(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Distance of each stage from the root, float64 ``(n,)``.

        Raises
        ------
        BadInputError
            If the ruler has no root.
        """

    def entry(self, branch: str) -> str:
        """Stage through which a branch is tied to the others: see ``BranchSurrogate``."""

    def nulls(self, rngs: Sequence[np.random.Generator]) -> list[Ruler]:
        """Paired rulers that must fail: the same structure, without the biology; one for each generator.

        A ruler whose nulls travel with it returns those, at most as many as there are.
        """

    def branch_permuted(self, *, rng: np.random.Generator, branches: Sequence[str] | None = None) -> BranchSurrogate:
        """The structure-preserving null: each branch is kept whole and takes the place of another one."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form that JSON can hold."""

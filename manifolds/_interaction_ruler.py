"""Interaction rulers: distances between cell types over ligands and receptors, as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError, FormatError
from ..cards._names import canonical_json, sha256_bytes
from ._null_rulers import BranchSurrogate, permuted_places
from ._ruler import Stage, index_of_stages
from ._ruler_interface import Ruler


@dataclass(frozen=True, eq=False)
class InteractionRuler:
    """A table of directed distances between cell types, which are the ``stages`` of this ruler.

    Attributes
    ----------
    name, version
        Of the ruler.
    stages
        Cell types in the order of the tables; the branch of one is its broad class.
    directed
        Distance from a sender (row) to a receiver (column), float32 ``(n, n)``, in steps on the network of ligands and
        receptors. The diagonal is how far a cell type lies from itself as its own receiver.
    null_tables
        Directed tables of the paired null rulers, float32 ``(n_nulls, n, n)``.

    Raises
    ------
    FormatError
        If there are fewer than two stages, one is named twice, or a table has another shape, negative values or values
        that are not finite, or puts two different stages at the same place.

    Notes
    -----
    The ruler's distance of two cell types is the mean of both directions, and 0 from a cell type to itself: our choice.
    It need not keep the triangle inequality. A table is rounded to float32, as it travels, so that a ruler has the same
    digest before and after.

    Examples
    --------
    >>> from manifoldzoo.manifolds import InteractionRuler, Stage
    >>> stages = tuple(Stage(name, name, "", name[0]) for name in ("a1", "b1", "b2"))
    >>> ruler = InteractionRuler("made", "1", stages, [[1, 2, 3], [4, 1, 5], [3, 3, 1]], [[[1] * 3] * 3])
    >>> ruler.distances(["a1", "b1", "b2"]).tolist()
    [[0.0, 3.0, 3.0], [3.0, 0.0, 4.0], [3.0, 4.0, 0.0]]
    >>> ruler.directed_distances(["a1"], ["b1", "b2"]).tolist()
    [[2.0, 3.0]]
    """

    name: str
    version: str
    stages: tuple[Stage, ...]
    directed: NDArray[np.float32]
    null_tables: NDArray[np.float32]

    def __post_init__(self) -> None:
        repeated = [name for name, n in Counter(stage.id for stage in self.stages).items() if n > 1]
        if repeated:
            raise FormatError(f"The ruler {self.name!r} names the stage {repeated[0]!r} more than once.")
        n = len(self.stages)
        if n < 2:
            raise FormatError(f"The ruler {self.name!r} has {n} stages, expected two or more.")
        for what in ("directed", "null_tables"):
            # contiguous and of one type, so that equal tables have equal digests
            object.__setattr__(self, what, np.ascontiguousarray(getattr(self, what), dtype=np.float32))
        if self.directed.shape != (n, n):
            raise FormatError(f"The ruler {self.name!r} has a table of shape {self.directed.shape}, expected {(n, n)}.")
        if self.null_tables.ndim != 3 or self.null_tables.shape[1:] != (n, n):
            shape = self.null_tables.shape
            raise FormatError(
                f"The ruler {self.name!r} has null tables of shape {shape}, expected (n_nulls, {n}, {n})."
            )
        for table in (self.directed, self.null_tables):
            if not np.isfinite(table).all() or (table < 0).any():
                raise FormatError(f"The ruler {self.name!r} has distances that are negative or not finite.")
        apart = symmetric_distances(self.directed)
        same = np.argwhere((apart == 0) & ~np.eye(n, dtype=bool))
        if len(same):
            first, second = (self.stages[index].id for index in same[0])
            raise FormatError(f"The ruler {self.name!r} puts the stages {first!r} and {second!r} at the same place.")

    @property
    def root(self) -> None:
        """There is none: nothing develops."""
        return None

    @cached_property
    def table(self) -> NDArray[np.float32]:
        """Distances between all stages, both directions averaged, float32 ``(n, n)``."""
        return symmetric_distances(self.directed)

    def distances(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Look up the distances between stages.

        Parameters
        ----------
        stages
            Stage ids, ``n`` of them, repeats allowed.

        Returns
        -------
        Mean of both directions, float64 ``(n, n)``; 0 between equal stages.

        Raises
        ------
        BadInputError
            If a stage is unknown, with the nearest names.
        """
        index = self._index(stages)
        return np.asarray(self.table[np.ix_(index, index)], dtype=np.float64)

    def directed_distances(self, senders: Sequence[str], receivers: Sequence[str]) -> NDArray[np.float64]:
        """Look up the distances from senders to receivers, float64 ``(n_senders, n_receivers)``.

        Raises
        ------
        BadInputError
            If a stage is unknown, with the nearest names.
        """
        rows, columns = self._index(senders), self._index(receivers)
        return np.asarray(self.directed[np.ix_(rows, columns)], dtype=np.float64)

    def depth(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Refuse: a table has no root that depth could be counted from.

        Raises
        ------
        BadInputError
            Always; of an unknown stage first.
        """
        self._index(stages)
        raise BadInputError(
            f"The ruler {self.name!r} is a table of interactions, which has no root to count depth from.",
            "Leave out readouts and figures of the depth.",
        )

    def branch(self, stages: Sequence[str]) -> list[str]:
        """Branch of each stage."""
        return [self.stages[index].branch for index in self._index(stages)]

    def entry(self, branch: str) -> str:
        """Medoid of a branch: the stage with the least sum of distances to the others, the first among equals.

        Raises
        ------
        BadInputError
            If there is no such branch.
        """
        within = [stage.id for stage in self.stages if stage.branch == branch]
        if not within:
            known = sorted({stage.branch for stage in self.stages})
            raise BadInputError(
                f"The ruler {self.name!r} has no branch {branch!r}.", f"Its branches are {', '.join(known)}."
            )
        return within[int(np.argmin(self.distances(within).sum(axis=1)))]

    def nulls(self, rngs: Sequence[np.random.Generator]) -> list[Ruler]:
        """Return paired null rulers that travel with this one: as many as generators, and at most all there are.

        Their interaction partners were exchanged when the ruler was computed, see ``permuted_receivers`` of the
        extractors; nothing is drawn here.
        """
        return [
            InteractionRuler(f"{self.name}-null-{number}", self.version, self.stages, table, self.null_tables[:0])
            for number, table in enumerate(self.null_tables[: len(rngs)])
        ]

    def branch_permuted(self, *, rng: np.random.Generator, branches: Sequence[str] | None = None) -> BranchSurrogate:
        """Return the structure-preserving null: each branch is kept whole and takes the place of another one.

        As ``StageRuler.branch_permuted``, with the medoid of a branch as its entry.

        Raises
        ------
        BadInputError
            If a branch is unknown.
        """
        moved = [stage.branch for stage in self.stages] if branches is None else branches
        return BranchSurrogate(self, permuted_places(moved, rng=rng))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the ruler."""
        return sha256_bytes(canonical_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain form that JSON can hold."""
        return {
            "kind": "interaction",
            "name": self.name,
            "version": self.version,
            "stages": [[s.id, s.label, s.ontology_id, s.branch] for s in self.stages],
            "directed": self.directed.tolist(),
            "nulls": self.null_tables.tolist(),
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> InteractionRuler:
        """Read what ``to_dict`` wrote."""
        stages = tuple(Stage(*fields) for fields in document["stages"])
        n = len(stages)
        nulls = np.asarray(document["nulls"], dtype=np.float32).reshape(-1, n, n)
        return cls(document["name"], document["version"], stages, np.asarray(document["directed"], np.float32), nulls)

    @cached_property
    def _position(self) -> dict[str, int]:
        """Index of each stage."""
        return {stage.id: index for index, stage in enumerate(self.stages)}

    def _index(self, stages: Sequence[str]) -> NDArray[np.int64]:
        """Index of stages, or an error with the nearest names."""
        return index_of_stages(self.name, self._position, stages)


def symmetric_distances(directed: NDArray[np.floating]) -> NDArray[np.float32]:
    """Average both directions of directed distances ``(..., n, n)``, float32; 0 on the diagonal."""
    both = np.asarray(directed, dtype=np.float64)
    mean = ((both + np.swapaxes(both, -1, -2)) / 2).astype(np.float32)
    mean[..., np.arange(both.shape[-1]), np.arange(both.shape[-1])] = 0
    return mean

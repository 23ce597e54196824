"""Stage rulers: target distances counted in developmental steps, never derived from a model."""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError, FormatError
from ..cards._names import canonical_json, sha256_bytes
from ._null_rulers import BranchSurrogate, permuted_places
from ._ruler_interface import Ruler

STAGES, EDGES = "stages.tsv", "edges.tsv"


@dataclass(frozen=True)
class Stage:
    """One stage of development.

    Attributes
    ----------
    id
        Short name, ``[a-z0-9_]+``.
    label
        Name for people.
    ontology_id
        Cell Ontology id, empty where there is none.
    branch
        Arm of the tree.
    """

    id: str
    label: str
    ontology_id: str
    branch: str


@dataclass(frozen=True)
class Edge:
    """One developmental step from ``parent`` to ``child``, and where it is taken from."""

    child: str
    parent: str
    source: str


@dataclass(frozen=True)
class StageRuler:
    """A connected graph of stages; the distance of two stages is the number of steps between them.

    Attributes
    ----------
    name, version
        Of the ruler.
    stages, edges
        The graph.
    root
        Stage that depth is counted from.

    Raises
    ------
    FormatError
        If a stage or a step is named twice, an edge names an unknown stage or joins one to itself, or a stage cannot
        be reached from the root.
    """

    name: str
    version: str
    stages: tuple[Stage, ...]
    edges: tuple[Edge, ...]
    root: str

    def __post_init__(self) -> None:
        repeated = [name for name, n in Counter(stage.id for stage in self.stages).items() if n > 1]
        if repeated:
            raise FormatError(f"The ruler {self.name!r} names the stage {repeated[0]!r} more than once.")
        known = {stage.id for stage in self.stages}
        for name in (self.root, *(end for edge in self.edges for end in (edge.child, edge.parent))):
            if name not in known:
                raise FormatError(f"The ruler {self.name!r} has an edge or root at the unknown stage {name!r}.")
        joined: set[frozenset[str]] = set()
        for edge in self.edges:
            ends = frozenset((edge.child, edge.parent))
            if len(ends) < 2 or ends in joined:
                fault = "more than once" if ends in joined else "from a stage to itself"
                raise FormatError(f"The ruler {self.name!r} has the edge {edge.parent!r} to {edge.child!r} {fault}.")
            joined.add(ends)
        steps = self._steps[self._position[self.root]]
        unreached = [stage.id for stage in self.stages if steps[self._position[stage.id]] < 0]
        if unreached:
            raise FormatError(f"The ruler {self.name!r} cannot reach {unreached[0]!r} from {self.root!r}.")

    @cached_property
    def _position(self) -> dict[str, int]:
        """Index of each stage."""
        return {stage.id: index for index, stage in enumerate(self.stages)}

    @cached_property
    def _steps(self) -> NDArray[np.int64]:
        """Steps between all stages, -1 where there is no path, ``(n_stages, n_stages)``."""
        near: list[list[int]] = [[] for _ in self.stages]
        for edge in self.edges:
            child, parent = self._position[edge.child], self._position[edge.parent]
            near[child].append(parent)
            near[parent].append(child)
        # a breadth-first walk over some dozens of stages; scipy's csgraph would double the time of a load
        steps = np.full((len(near), len(near)), -1, dtype=np.int64)
        for start in range(len(near)):
            steps[start, start] = 0
            queue = deque([start])
            while queue:
                here = queue.popleft()
                for there in near[here]:
                    if steps[start, there] < 0:
                        steps[start, there] = steps[start, here] + 1
                        queue.append(there)
        return steps

    def distances(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Count the developmental steps between stages.

        Parameters
        ----------
        stages
            Stage ids, ``n`` of them, repeats allowed.

        Returns
        -------
        Edges on the shortest undirected path, float64 ``(n, n)``; 0 between equal stages.

        Raises
        ------
        BadInputError
            If a stage is unknown, with the nearest names.
        """
        index = self._index(stages)
        return np.asarray(self._steps[np.ix_(index, index)], dtype=np.float64)

    def depth(self, stages: Sequence[str]) -> NDArray[np.float64]:
        """Count the steps of each stage from the root, float64 ``(n,)``."""
        return np.asarray(self._steps[self._position[self.root], self._index(stages)], dtype=np.float64)

    def branch(self, stages: Sequence[str]) -> list[str]:
        """Branch of each stage."""
        return [self.stages[index].branch for index in self._index(stages)]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the ruler."""
        return sha256_bytes(canonical_json(self.to_dict()))

    def to_dict(self) -> dict[str, Any]:
        """Plain form that JSON can hold."""
        return {
            "name": self.name,
            "version": self.version,
            "root": self.root,
            "stages": [[s.id, s.label, s.ontology_id, s.branch] for s in self.stages],
            "edges": [[e.child, e.parent, e.source] for e in self.edges],
        }

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> StageRuler:
        """Read what ``to_dict`` wrote."""
        return cls(
            document["name"],
            document["version"],
            tuple(Stage(*fields) for fields in document["stages"]),
            tuple(Edge(*fields) for fields in document["edges"]),
            document["root"],
        )

    def relabelled(self, *, rng: np.random.Generator) -> StageRuler:
        """Return the paired null ruler: the same graph with stages shuffled over its nodes.

        Distances and depths have the same distribution, but between the wrong stages; a gate that accepts it proves
        nothing. Branches stay where they are in the graph, so that the stages they are made of are others.

        Parameters
        ----------
        rng
            Draws the shuffle.
        """
        order = rng.permutation(len(self.stages))
        new = {stage.id: self.stages[order[i]].id for i, stage in enumerate(self.stages)}
        entries = {stage.id: stage for stage in self.stages}
        stages = tuple(replace(entries[new[stage.id]], branch=stage.branch) for stage in self.stages)
        edges = tuple(Edge(new[edge.child], new[edge.parent], edge.source) for edge in self.edges)
        return StageRuler(f"{self.name}-relabelled", self.version, stages, edges, new[self.root])

    def nulls(self, rngs: Sequence[np.random.Generator]) -> list[Ruler]:
        """Draw one relabelled ruler with each generator; see ``relabelled``."""
        return [self.relabelled(rng=rng) for rng in rngs]

    def entry(self, branch: str) -> str:
        """Stage at which a branch begins: its stage nearest to the root, the first in the ruler's order among equals.

        Raises
        ------
        BadInputError
            If there is no such branch.
        """
        within = [stage.id for stage in self.stages if stage.branch == branch]
        if not within:
            raise BadInputError(f"The ruler {self.name!r} has no branch {branch!r}.")
        return within[int(np.argmin(self.depth(within)))]

    def branch_permuted(self, *, rng: np.random.Generator, branches: Sequence[str] | None = None) -> BranchSurrogate:
        """Return the structure-preserving null: each branch is kept whole and grows where another one does.

        Distances within a branch stay as they are, so that a gate that prefers the ruler to this knows how branches
        lie to each other. It is to be compared with ``BranchSurrogate(ruler)``, not with the ruler itself: between
        branches both count the way through the entries of the branches.

        Parameters
        ----------
        rng
            Draws which branch takes the place of which; some may keep their own.
        branches
            Branches that are permuted, repeats allowed, such as those of a panel; by default all.

        Raises
        ------
        BadInputError
            If a branch is unknown.
        """
        moved = [stage.branch for stage in self.stages] if branches is None else branches
        return BranchSurrogate(self, permuted_places(moved, rng=rng))

    def _index(self, stages: Sequence[str]) -> NDArray[np.int64]:
        """Index of stages, or an error with the nearest names."""
        return index_of_stages(self.name, self._position, stages)


def index_of_stages(ruler: str, position: Mapping[str, int], stages: Sequence[str]) -> NDArray[np.int64]:
    """Index of stages of a ruler, int64 ``(n,)``.

    Raises
    ------
    BadInputError
        If a stage is unknown, with the nearest names.
    """
    for name in stages:
        if name not in position:
            near = difflib.get_close_matches(name, position, n=3)
            hint = f"Did you mean {', '.join(near)}?" if near else f"Its stages are {', '.join(position)}."
            raise BadInputError(f"The ruler {ruler!r} has no stage {name!r}.", hint)
    return np.fromiter((position[name] for name in stages), dtype=np.int64, count=len(stages))


def read_stage_ruler(folder: Path) -> StageRuler:
    """Read a ruler from ``stages.tsv`` and ``edges.tsv``.

    ``stages.tsv`` has the columns ``id, label, ontology_id, branch``, ``edges.tsv`` ``child, parent, source``;
    ``stages.tsv`` starts with the lines ``# name: NAME`` and ``# version: VERSION``. The root is the first stage.

    Raises
    ------
    FormatError
        If a file or column is missing, or the graph is not one.
    """
    name, version, stages = read_stages(folder)
    edges = [Edge(r["child"], r["parent"], r["source"]) for r in _read_tsv(folder / EDGES)]
    return StageRuler(name, version, stages, tuple(edges), stages[0].id)


def read_stages(folder: Path) -> tuple[str, str, tuple[Stage, ...]]:
    """Read name and version of a ruler, and its stages, from ``stages.tsv``; see ``read_stage_ruler``.

    Raises
    ------
    FormatError
        If the file, a column, name or version is missing, there are no stages, or an id is not one.
    """
    stages = [Stage(r["id"], r["label"], r["ontology_id"], r["branch"]) for r in _read_tsv(folder / STAGES)]
    if not stages:
        raise FormatError(f"{folder / STAGES} has no stages.")
    for stage in stages:
        if not re.fullmatch(r"[a-z0-9_]+", stage.id) or not re.fullmatch(r"(CL:\d{7})?", stage.ontology_id):
            raise FormatError(
                f"{folder / STAGES} has the stage {stage.id!r} with ontology id {stage.ontology_id!r}, expected an id "
                "of a-z, 0-9 and _, and a Cell Ontology id such as CL:0000037 or nothing."
            )
    said = _read_comments(folder / STAGES)
    if not {"name", "version"} <= said.keys():
        raise FormatError(
            f"{folder / STAGES} starts with {said}, expected the lines '# name: ...' and '# version: ...'."
        )
    return said["name"], said["version"], tuple(stages)


def _read_comments(path: Path) -> dict[str, str]:
    """Fields in the comment lines of a table."""
    lines = (line[1:].partition(":") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in lines}


def _read_tsv(path: Path) -> list[dict[str, str]]:
    """Rows of a tab-separated table with a header."""
    columns = {STAGES: {"id", "label", "ontology_id", "branch"}, EDGES: {"child", "parent", "source"}}[path.name]
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = (line for line in stream if not line.startswith("#"))
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise FormatError(f"There is no {path}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}.") from error
    if rows and not columns <= set(rows[0]):
        raise FormatError(f"{path} has the columns {sorted(map(str, rows[0]))}, expected {sorted(columns)}.")
    for number, row in enumerate(rows, start=1):
        if any(row[column] is None for column in columns):
            raise FormatError(f"Row {number} of {path} has too few fields: {list(row.values())}.")
        empty = sorted(column for column in columns - {"ontology_id"} if not row[column].strip())
        if empty:
            raise FormatError(f"Row {number} of {path} has nothing in {', '.join(empty)}: {list(row.values())}.")
    return rows

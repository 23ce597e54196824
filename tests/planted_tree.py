"""A tree with six arms, and panels in whose features its distances are planted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from manifoldzoo.cards._evidence import Record, RungResult
from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler

BRANCHES = [f"b{i}" for i in range(6)]
SETTINGS = LetSettings(n_components=6, n_steps=80)


def caterpillar(sites: Sequence[int] = (0, 2, 4, 6, 8, 9)) -> StageRuler:
    """A trunk with arms of three stages, which begin at these places of it."""
    trunk = [f"t{i}" for i in range(max(sites) + 1)]
    stages = [Stage(name, name, "", "trunk") for name in trunk]
    edges = [Edge(child, parent, "made") for parent, child in pairwise(trunk)]
    for branch, site in zip(BRANCHES, sites, strict=True):
        above = trunk[site]
        for depth in range(3):
            name = f"{branch}_{depth}"
            stages.append(Stage(name, name, "", branch))
            edges.append(Edge(name, above, "made"))
            above = name
    return StageRuler("caterpillar", "1", tuple(stages), tuple(edges), "t0")


RULER = caterpillar()
EVERY = [stage.id for stage in RULER.stages]
STAGES = [stage.id for stage in RULER.stages if stage.branch != "trunk"]


def steps_from_the_root(ruler: StageRuler, stages: Sequence[str]) -> np.ndarray:
    """Coordinates whose distances grow with those of the ruler: every step of the tree is an axis."""
    parent = {edge.child: edge.parent for edge in ruler.edges}
    every = [stage.id for stage in ruler.stages]
    axes = np.zeros((len(stages), len(every)))
    for row, name in enumerate(stages):
        here = name
        while here in parent:
            axes[row, every.index(here)] = 1
            here = parent[here]
    return axes


def embedded(stages: list[str], rng: np.random.Generator, noise: float = 0.3) -> np.ndarray:
    """Places on the tree, with noise."""
    return steps_from_the_root(RULER, stages) + noise * rng.standard_normal((len(stages), len(EVERY)))


def planted_panel(
    rng: np.random.Generator,
    *,
    n_donors: int = 4,
    features: np.ndarray | None = None,
    prefix: str = "d",
    width: int = 120,
) -> GateData:
    """Every stage but the trunk's in every donor, with features in which the tree is planted unless they are given."""
    stage = STAGES * n_donors
    mixing = np.random.default_rng(99).standard_normal((len(EVERY), width))
    values = embedded(stage, rng) @ mixing + 0.5 * rng.standard_normal((len(stage), width))
    donor = [f"{prefix}{d}" for d in range(n_donors) for _ in STAGES]
    given = values if features is None else features
    return GateData(
        features=given,
        expression=values,
        stage=stage,
        distances=RULER.distances(stage),
        branch=RULER.branch(stage),
        donor=donor,
        tissue=["t"] * len(stage),
        study=[f"s{prefix}{int(name[len(prefix) :]) % 2}" for name in donor],
    )


def by_gate(result: RungResult) -> dict[str, Record]:
    """Records of a rung by their names."""
    return {record.gate: record for record in result.records}

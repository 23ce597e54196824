"""What the gates read of an artifact: panels, settings of the head, and what travels to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..cards._card import AnchorEntry, BesidePanel
from ..cards._errors import BadInputError, FormatError
from ..manifolds._cell_ids import CellIds
from ..manifolds._features import apply_operator
from ..manifolds._geodesic_settings import GeodesicSettings
from ..manifolds._heads import HeadSettings
from ..manifolds._let import LetSettings, Schedule
from ..manifolds._manifold import Manifold
from ._gate_data import GateData
from .controls._comparators import Comparator, comparators
from .refits._refitted import CANNOT_REFIT
from .rungs._transfers import Outside


def gate_data(manifold: Manifold) -> GateData:
    """The extraction panel of a manifold as the gates read it."""
    return _described(manifold, manifold.tensors["panel.anchors"], manifold.card.panel.anchors)


def head_settings(manifold: Manifold) -> HeadSettings:
    """The settings that the head was fitted with, so that every refit is the same procedure.

    Raises
    ------
    FormatError
        If the card does not give them all, or one that there is not.
    BadInputError
        If the head was not fitted on anchors.
    """
    adaptor = manifold.card.extraction.adaptor
    if not adaptor.fitted_on_anchors:
        raise BadInputError(f"The head of {manifold.name!r} is {adaptor.kind}: {CANNOT_REFIT}.")
    return _let_settings(manifold) if adaptor.kind == "let-anchor" else GeodesicSettings.of(adaptor)


def _let_settings(manifold: Manifold) -> LetSettings:
    """Settings of a LET head on the card."""
    adaptor = manifold.card.extraction.adaptor
    given: dict[str, float] = {}
    for key in ("alpha", "n_steps", "learning_rate", "scale_floor"):
        value = adaptor.parameters.get(key)
        if not isinstance(value, int | float):
            raise FormatError(f"The card of {manifold.name!r} gives the head the {key} {value!r}, expected a number.")
        given[key] = value
    # cards of format 1 know no other
    told = adaptor.parameters.get("schedule", "constant")
    schedules: dict[Any, Schedule] = {each: each for each in get_args(Schedule)}
    if told not in schedules:
        raise FormatError(f"The card of {manifold.name!r} gives the head the schedule {told!r}.")
    return LetSettings(
        n_components=adaptor.n_components,
        alpha=float(given["alpha"]),
        n_steps=int(given["n_steps"]),
        learning_rate=float(given["learning_rate"]),
        scale_floor=float(given["scale_floor"]),
        schedule=schedules[told],
    )


def panel_data(manifold: Manifold, role: str) -> tuple[BesidePanel, GateData] | None:
    """The first panel of a role that travels in the artifact, as the gates read it; ``None`` where there is none."""
    panel = next((panel for panel in manifold.card.panels if panel.role == role), None)
    if panel is None:
        return None
    return panel, _described(manifold, manifold.tensors[f"panel.{panel.name}.anchors"], panel.manifest.anchors)


def as_gates_read(
    manifold: Manifold,
    expression: NDArray[np.floating],
    *,
    stage: Sequence[str],
    branch: Sequence[str],
    donor: Sequence[str],
    tissue: Sequence[str],
    study: Sequence[str],
) -> GateData:
    """Anchors under the operator of a manifold, held against its ruler."""
    return GateData(
        features=apply_operator(expression, manifold.operator),
        expression=expression,
        stage=stage,
        distances=manifold.ruler.distances(stage),
        branch=branch,
        donor=donor,
        tissue=tissue,
        study=study,
    )


def _described(manifold: Manifold, expression: NDArray[np.floating], anchors: Sequence[AnchorEntry]) -> GateData:
    """Anchors that a card describes."""
    labels = ("stage", "branch", "donor", "tissue", "study")
    return as_gates_read(
        manifold, expression, **{label: [getattr(anchor, label) for anchor in anchors] for label in labels}
    )


def outside_panels(manifold: Manifold) -> list[Outside]:
    """The external and the zero-shot panels that travel in the artifact, under the head as it is, in its order."""
    found = []
    for panel in manifold.card.panels:
        if panel.role == "negative":
            continue
        data = _described(manifold, manifold.tensors[f"panel.{panel.name}.anchors"], panel.manifest.anchors)
        latent = manifold.project(np.asarray(data.expression))
        n_cells = max(panel.n_shared_cells, _recounted(manifold, panel.name))
        found.append(Outside(data, latent, n_cells, panel.n_shared_donors, panel.name, panel.role))
    return found


def _recounted(manifold: Manifold, name: str) -> int:
    """Cells that a panel shares with the extraction panel by the ids that travel; 0 where none do."""
    own, other = (CellIds.read(manifold.tensors, panel) for panel in ("panel", f"panel.{name}"))
    return 0 if own is None or other is None else own.n_shared(other)


def shipped_comparators(manifold: Manifold, data: GateData, seed: int) -> list[Comparator]:
    """What rung 6 compares with; nothing where no untrained model travels in the artifact."""
    untrained: dict[str, list[NDArray[np.float32]]] = {}
    for other in manifold.card.untrained:
        stored = manifold.tensors[f"comparator.{other.control}.{other.seed}"]
        untrained.setdefault(other.control, []).append(np.asarray(stored, dtype=np.float32))
    if not untrained:
        return []
    rng = np.random.default_rng(seed).spawn(2)[1]
    return comparators(data, manifold.operator, untrained, rng=rng)

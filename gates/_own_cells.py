"""A user's own cells on the ladder: what they add to the rungs of an artifact that travelled without its cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..cards._card import Card
from ..cards._errors import ZooError
from ..cards._evidence import RUNG_NAMES, Record, RegisteredTest, RungResult, conclude, undecided
from ..cards._evidence_plan import RunPlan
from ..cards._own_panel import OwnPanelReport
from ..manifolds._heads import HeadSettings
from ..manifolds._manifold import Manifold
from ._artifact_data import as_gates_read, gate_data, head_settings
from ._gate_data import GateData
from ._informing import TRANSFER_GEOMETRY
from ._registered import registered_tests
from .rungs._own_needs import own_needs
from .rungs._own_overlap import overlap_gates, own_overlap
from .rungs._own_refitted import own_refitted
from .rungs._transfers import EXTERNAL_GATES, MIN_ANCHORS, SHARED_GATES, Outside, transfers

if TYPE_CHECKING:
    from ..manifolds._own_panel import OwnPanel

Progress = Callable[[str, int, int], None]
PREFIX = "own_"
TRANSFER = 5
MIN_STAGES = 2
"""Anchors of fewer stages have no distance between them."""
REFITTED = 3


@dataclass(frozen=True, eq=False)
class OwnCells:
    """A user's own panel beside an artifact.

    Attributes
    ----------
    manifold
        The artifact.
    own
        The panel.
    data
        The panel under the operator, ``None`` where it has too few anchors or stages.
    report
        On the panel, with what every rung needs of it.
    """

    manifold: Manifold
    own: OwnPanel
    data: GateData | None
    report: OwnPanelReport

    @classmethod
    def of(cls, manifold: Manifold, panel: OwnPanel | str | Path, *, through: int) -> OwnCells:
        """Read a file of cells, unless it was read already, and see what the rungs would need of it."""
        # here, so that those without cells of their own need not wait for anndata
        from ..manifolds._own_panel import read_own_panel

        own = read_own_panel(manifold, panel) if isinstance(panel, str | Path) else panel
        data = _own_data(manifold, own)
        needs = own_needs(manifold, own.report, data, through=through)
        return cls(manifold, own, data, own.report.model_copy(update={"needs": needs}))

    def added_to(self, result: RungResult, plan: RunPlan, *, progress: Progress | None = None) -> RungResult:
        """Add what the user's panel says to the result of a rung.

        Parameters
        ----------
        result
            Of the artifact alone, whose rung 1 passed.
        plan
            Of the run.
        progress
            Called as ``progress(gate, done, total)``.

        Returns
        -------
        On rung 3, the result with gates refitted on the user's panel, which inform. On rung 5, the result with the
        gates of the user's panel, which decide: beside those of the external panel, or in their place where
        the artifact carries none. Any other rung as it is, and any where the card does not say how heads were fitted.
        """
        if result.rung not in (REFITTED, TRANSFER):
            return result
        settings = None
        if self.manifold.card.extraction.adaptor.fitted_on_anchors:
            try:
                settings = head_settings(self.manifold)
            except ZooError:
                # the one record of the result says so
                return result
        made = _spelt_out(result, self.manifold.card)
        if result.rung == TRANSFER:
            places = _open_places(self.manifold.card)
            kept = [record for record in made if record.gate not in places]
            return conclude(result.rung, [*kept, *self._transferred(settings, plan)])

        def advance(done: int) -> None:
            if progress is not None:
                progress("permutations, head refitted on your cells", done, plan.n_permutations)

        more = own_refitted(
            self.data,
            settings,
            n_anchors=self.report.n_anchors,
            seed=plan.seed,
            n_permutations=plan.n_permutations,
            n_starts=plan.n_starts,
            progress=advance,
        )
        return conclude(result.rung, [*made, *more])

    def _transferred(self, settings: HeadSettings | None, plan: RunPlan) -> list[Record]:
        """The gates of rung 5 on the user's panel."""
        overlap = own_overlap(self.manifold, self.own)
        gates = [own_name(gate) for gate in EXTERNAL_GATES]
        if self.data is None:
            stages = f"{self.report.n_anchors} anchors of {self.report.n_stages} stages"
            said = f"your panel has {stages}, expected at least {MIN_ANCHORS} of {MIN_STAGES}"
            return [*overlap, *(undecided(gate, said) for gate in gates)]
        # what is shared is told by the records of the overlap
        outside = Outside(self.data, self.manifold.project(np.asarray(self.data.expression)), None, None)
        inside = gate_data(self.manifold)
        found = transfers(inside, [outside], settings, seed=plan.seed, n_permutations=plan.n_permutations)
        records = [record.model_copy(update={"gate": own_name(record.gate)}) for record in found.records]
        beside = own_name(f"external_{TRANSFER_GEOMETRY}")
        return [*overlap, *(record for record in records if record.gate in (*gates, beside))]


def own_name(gate: str) -> str:
    """Name of an external panel's gate for the user's panel."""
    return PREFIX + gate.removeprefix("external_")


def with_own_tests(card: Card, registered: list[RegisteredTest], *, through: int) -> list[RegisteredTest]:
    """Register the tests of a user's own panel, before any of it is looked at.

    Parameters
    ----------
    card
        Of the artifact.
    registered
        Tests of the artifact alone.
    through
        Highest rung.

    Returns
    -------
    With those of the user's panel on rung 5; without those of an external panel that the artifact does not carry, whose
    place they take.
    """
    if through < TRANSFER:
        return registered
    places = _open_places(card)
    kept = [test for test in registered if test.rung != TRANSFER or test.gate not in places]
    shared = [
        RegisteredTest(rung=TRANSFER, gate=gate, direction="<=", threshold=0.0, decides=decides)
        for gate, decides in overlap_gates().items()
    ]
    gates = [
        RegisteredTest.model_validate(
            {"rung": TRANSFER, "gate": own_name(gate), "direction": direction, "threshold": threshold}
        )
        for gate, (direction, threshold) in EXTERNAL_GATES.items()
    ]
    return sorted([*kept, *shared, *gates], key=lambda test: test.rung)


def _open_places(card: Card) -> frozenset[str]:
    """Gates of an external panel that are there although the artifact carries none."""
    if any(panel.role == "external" for panel in card.panels):
        return frozenset()
    return frozenset([*SHARED_GATES, *EXTERNAL_GATES])


def _spelt_out(result: RungResult, card: Card) -> list[Record]:
    """Records of a rung; one that says that the whole rung is open becomes one for each test."""
    alone = result.records[0] if len(result.records) == 1 else None
    if alone is None or alone.gate != RUNG_NAMES[result.rung]:
        return result.records
    tests = [test for test in registered_tests(card, through=result.rung) if test.rung == result.rung and test.decides]
    status: Literal["not run", "cannot decide"] = "not run" if alone.status == "not run" else "cannot decide"
    return [undecided(test.gate, alone.reason, status=status) for test in tests]


def _own_data(manifold: Manifold, own: OwnPanel) -> GateData | None:
    """The user's panel under the operator; ``None`` where there is no distance between its anchors to compare with."""
    panel = own.panel
    if panel is None or len(set(panel.stage)) < MIN_STAGES:
        return None
    return as_gates_read(
        manifold,
        panel.anchors,
        stage=panel.stage,
        branch=panel.branch,
        donor=panel.donor,
        tissue=panel.tissue,
        study=panel.study,
    )

"""Panels that travel beside a manifold, so that anybody can run the upper rungs of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cards._card import BesidePanel
from ..manifolds._cell_ids import CellIds
from ..manifolds._panel_file import panel_manifest
from ..manifolds._panel_overlap import PanelMembers, Role, check_overlap
from ..manifolds._panel_spec import BuiltPanel, build_panels
from ._interface import Job

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Own:
    """Who is in the extraction panel."""

    name: str
    role: Role
    members: PanelMembers


@dataclass(frozen=True, eq=False)
class PanelBeside:
    """A panel that nothing is fitted to.

    Attributes
    ----------
    entry
        Of the card.
    anchors
        ``(n_anchors, n_genes)``.
    cells
        Who is in it.
    """

    entry: BesidePanel
    anchors: Float32
    cells: CellIds


def read_panels_beside(job: Job, members: PanelMembers, genes: Sequence[str]) -> list[PanelBeside]:
    """Build the panels of a job that nothing is fitted to.

    Parameters
    ----------
    job
        With a panel specification, or without one.
    members
        Of the extraction panel.
    genes
        Of the manifold.

    Returns
    -------
    One of each, in the order of the specification.

    Raises
    ------
    PanelError
        If a panel shares cells, or an external one donors, with the cells that are fitted to.
    """
    if job.panels is None:
        return []
    names = [spec.name for spec in job.panels.panels if spec.role != "extraction"]
    built = build_panels(job.panels, data=job.data, genes=genes, ruler=job.ruler, names=names)
    own = _Own("cells", "extraction", members)
    found = []
    for panel in built.values():
        (shared,) = check_overlap([own, panel]).require().pairs
        entry = _entry(panel, shared.n_cells, shared.n_donors)
        found.append(PanelBeside(entry, panel.panel.anchors, CellIds.of(panel.members)))
    return found


def _entry(panel: BuiltPanel, n_cells: int, n_donors: int) -> BesidePanel:
    """What the card says of a panel."""
    role = panel.role
    assert role != "extraction"  # left out by name
    return BesidePanel(
        name=panel.name,
        role=role,
        n_shared_cells=n_cells,
        n_shared_donors=n_donors,
        specification=panel.spec.digest,
        manifest=panel_manifest(panel.panel, panel.spec.min_cells),
    )

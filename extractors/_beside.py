"""Panels that travel beside a manifold, so that anybody can run the upper rungs of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cards._card import BesidePanel
from ..manifolds._labels import read_label_table
from ..manifolds._panel_file import panel_manifest
from ..manifolds._panel_overlap import PanelMembers, Role, check_overlap, read_panel_members
from ..manifolds._panel_spec import BuiltPanel, build_panels
from ._interface import Job

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class _Own:
    """Who is in the extraction panel."""

    name: str
    role: Role
    members: PanelMembers


def read_panels_beside(job: Job, genes: Sequence[str]) -> list[tuple[BesidePanel, Float32]]:
    """Build the panels of a job that nothing is fitted to.

    Parameters
    ----------
    job
        With a panel specification, or without one.
    genes
        Of the manifold.

    Returns
    -------
    Entry of the card and anchors of each, ``(n_anchors, n_genes)``.

    Raises
    ------
    PanelError
        If a panel shares cells, or an external one donors, with the cells that are fitted to.
    """
    if job.panels is None:
        return []
    names = [spec.name for spec in job.panels.panels if spec.role != "extraction"]
    built = build_panels(job.panels, data=job.data, genes=genes, ruler=job.ruler, names=names)
    own = _Own("cells", "extraction", read_panel_members(job.cells, labels=read_label_table(job.labels)))
    found = []
    for panel in built.values():
        (shared,) = check_overlap([own, panel]).require().pairs
        found.append((_entry(panel, shared.n_cells, shared.n_donors), panel.panel.anchors))
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

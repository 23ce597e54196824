"""What travels beside a manifold so that its evidence can be recomputed: other panels, and untrained models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..cards._card import BesidePanel, Control, Untrained
from ..gates._comparators import SCALE_FLOOR
from ..manifolds._features import apply_operator
from ..manifolds._labels import read_label_table
from ..manifolds._let_many import feature_coordinates
from ..manifolds._panel_file import panel_manifest
from ..manifolds._panel_overlap import PanelMembers, Role, check_overlap, read_panel_members
from ..manifolds._panel_spec import BuiltPanel, build_panels
from ._interface import Job
from ._operator import read_operator
from ._prepare import Prepared

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


def read_untrained(job: Job, prepared: Prepared, *, rng: np.random.Generator) -> list[tuple[Untrained, Float32]]:
    """Read the anchors by models of the same architecture with fresh weights.

    Parameters
    ----------
    job
        How many, ``n_untrained``.
    prepared
        Model, panel and cells.
    rng
        As the operator itself is read with, one child each.

    Returns
    -------
    Entry of the card and coordinates of the anchors, ``(n_anchors, n_anchors)``: all that heads and comparisons need of
    features, at a hundredth of the size of an operator.
    """
    found = []
    for seed, child in enumerate(rng.spawn(job.n_untrained)):
        source = job.checkpoint.random_initialisation(seed)
        # the state of an interrupted pass belongs to the model itself
        fresh = replace(job, checkpoint=source, control=Control(kind="random-init", seed=seed), work=None)
        ready = replace(prepared, checkpoint=source.with_genes(prepared.panel.genes))
        operator, _ = read_operator(fresh, ready, child)
        features = apply_operator(prepared.panel.anchors, operator)
        told = Untrained(control="random-init", seed=seed, digest=source.digest)
        found.append((told, feature_coordinates(features, scale_floor=SCALE_FLOOR)))
    return found

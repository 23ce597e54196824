"""Whether a user's own cells are strangers to a manifold: files, donors, cells and copies of anchors that both have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import Record, judge, undecided
from ...manifolds._cell_ids import CellIds, shared_with
from ...manifolds._manifold import Manifold
from ..nulls._permutation import block_labels
from ._copied import copied_anchors, copied_record

if TYPE_CHECKING:
    from ...manifolds._own_panel import OwnPanel

NO_IDS = "the artifact holds no cell ids"
_EXAMPLES = 5
_GATES = {
    "own_no_shared_files": True,
    "own_no_shared_donors": True,
    "own_no_shared_cells": True,
    "own_no_copied_anchors": True,
    "own_no_repeated_anchors": True,
    "own_new_panel": False,
}


def overlap_gates() -> dict[str, bool]:
    """Gates of ``own_overlap``, and whether each decides."""
    return dict(_GATES)


def own_overlap(manifold: Manifold, own: OwnPanel) -> list[Record]:
    """Ask what a user's own panel shares with the extraction panel.

    Parameters
    ----------
    manifold
        Its card names the files and donors of the extraction panel, its tensors hold the anchors and, if it is of
        format 3, hashes of the cell ids.
    own
        The user's panel.

    Returns
    -------
    ``own_no_shared_files`` by SHA-256; ``own_no_shared_donors`` by ``study:donor``; ``own_no_shared_cells`` by id, and
    by barcode where a study looks copied; ``own_no_copied_anchors``, which finds cells under other names as long as
    all cells of a type are there, shared out among donors alike or otherwise; and ``own_no_repeated_anchors`` for
    copies within the user's panel. ``own_new_panel`` informs whether the cells are those of a panel that the artifact
    carries beside. Some of the cells, under other names, are not found by anything.

    Notes
    -----
    A file without a column of studies cannot be compared by ``study:donor``: where its donors are named like some of
    the extraction panel, nothing is decided. The same file or a copied anchor decides that cells are shared whatever
    their ids; without ids in the artifact nothing decides that none is. Our choice.
    """
    copied, n_measured = _copied(manifold, own)
    return [
        _files(manifold, own),
        _donors(manifold, own),
        _cells(manifold, own, copied),
        *_copies(own, copied, n_measured),
        _known_panel(manifold, own),
    ]


def _files(manifold: Manifold, own: OwnPanel) -> Record:
    """Whether the file is one of the extraction panel's."""
    same = [file.name for file in manifold.card.panel.files if file.sha256 == own.report.sha256]
    return judge("own_no_shared_files", float(len(same)), "<=", 0.0, n=1, details={"files": ", ".join(same)})


def _donors(manifold: Manifold, own: OwnPanel) -> Record:
    """Donors that both have."""
    gate, theirs = "own_no_shared_donors", manifold.card.panel.anchors
    mine = own.members.donors
    shared = sorted({f"{anchor.study}:{anchor.donor}" for anchor in theirs} & mine)
    if not shared and own.report.columns.get("study", "").startswith("= "):
        alike = sorted({anchor.donor for anchor in theirs} & set(own.members.donor))
        if alike:
            reason = f"your file has no column of studies, and its donors {_listed(alike)} are named like the panel's"
            return undecided(gate, reason)
    return judge(gate, float(len(shared)), "<=", 0.0, n=len(mine), details={"donors": _listed(shared)})


def _cells(manifold: Manifold, own: OwnPanel, copied: list[int]) -> Record:
    """Cells that both have, by whatever tells."""
    gate, n = "own_no_shared_cells", len(own.members.ids)
    if any(file.sha256 == own.report.sha256 for file in manifold.card.panel.files):
        return judge(gate, float(n), "<=", 0.0, n=n, details={"by": "the same file"})
    stored = CellIds.read(manifold.tensors)
    if stored is not None:
        found = shared_with(stored, own.members)
        alike = {f"barcodes of {one.study}": f"{one.n_shared} of {one.n_smaller}" for one in found.copied}
        n_shared = found.n_cells + sum(one.n_shared for one in found.copied)
        if n_shared or not copied:
            return judge(
                gate, float(n_shared), "<=", 0.0, n=n, details={"by": "ids", "same id": found.n_cells, **alike}
            )
    if copied and own.panel is not None:
        n_copied = int(own.panel.n_cells[copied].sum())
        return judge(gate, float(n_copied), "<=", 0.0, n=n, details={"by": "copied anchors"})
    return undecided(gate, NO_IDS)


def _copied(manifold: Manifold, own: OwnPanel) -> tuple[list[int], int]:
    """Rows of the user's anchors that are copies of the extraction panel's, and genes they were compared on."""
    if own.panel is None:
        return [], 0
    panel, described = own.panel, manifold.card.panel.anchors
    measured = _measured(own)
    mine, theirs = panel.anchors[:, measured], np.asarray(manifold.tensors["panel.anchors"])[:, measured]
    alone = copied_anchors(mine, theirs)[:, 0]
    type_of, pooled = pooled_types(mine, panel.n_cells, panel.study, panel.cell_type)
    _, others = pooled_types(
        theirs,
        np.array([anchor.n_cells for anchor in described]),
        [anchor.study for anchor in described],
        [anchor.cell_type for anchor in described],
    )
    together = np.flatnonzero(np.isin(type_of, copied_anchors(pooled, others)[:, 0]))
    return np.union1d(alone, together).tolist(), int(measured.sum())


def pooled_types(
    anchors: NDArray[np.floating], n_cells: NDArray[np.integer], study: Sequence[str], cell_type: Sequence[str]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Average anchors over the donors and tissues of a study.

    Parameters
    ----------
    anchors
        Shape (n, G).
    n_cells
        Cells behind each, (n,).
    study, cell_type
        Of each.

    Returns
    -------
    Number of each anchor's type (n,), and the mean over the cells of each type, (n_types, G), float64. It is the same
    whatever the cells are called and however they are shared out among donors, if no group was too small.
    """
    number = block_labels(study, cell_type)
    weight = np.zeros((int(number.max()) + 1, len(number)))
    weight[number, np.arange(len(number))] = n_cells
    return number, (weight / weight.sum(axis=1, keepdims=True)) @ np.asarray(anchors, dtype=np.float64)


def _copies(own: OwnPanel, copied: list[int], n_measured: int) -> list[Record]:
    """Anchors that are copies, of the extraction panel's or of each other."""
    gates = ("own_no_copied_anchors", "own_no_repeated_anchors")
    if own.panel is None:
        said = f"your panel has {own.report.n_anchors} anchors, expected at least 3"
        return [undecided(gate, said) for gate in gates]
    anchors, details = own.panel.anchors, {"n_genes": n_measured}
    return [
        judge(gates[0], float(len(copied)), "<=", 0.0, n=len(anchors), details=details),
        copied_record(gates[1], anchors),
    ]


def _known_panel(manifold: Manifold, own: OwnPanel) -> Record:
    """Whether the cells are those of a panel that travels beside the extraction panel."""
    same = []
    for panel in manifold.card.panels:
        by_file = any(file.sha256 == own.report.sha256 for file in panel.manifest.files)
        theirs = np.asarray(manifold.tensors[f"panel.{panel.name}.anchors"])
        if by_file or (own.panel is not None and len(copied_anchors(own.panel.anchors, theirs))):
            same.append(f"{panel.name} ({panel.role})")
    said: dict[str, float | int | str | bool | None] = {"panels of the artifact": ", ".join(same)}
    n = len(manifold.card.panels)
    return judge("own_new_panel", float(len(same)), "<=", 0.0, n=n, decides=False, details=said)


def _measured(own: OwnPanel) -> NDArray[np.bool_]:
    """Genes of the manifold that the user's file has."""
    assert own.panel is not None
    missing = set(own.panel.files[0].missing_genes)
    return np.array([gene not in missing for gene in own.panel.genes])


def _listed(names: Sequence[str]) -> str:
    """Some names in a line."""
    return ", ".join(names[:_EXAMPLES]) + (", ..." if len(names) > _EXAMPLES else "")

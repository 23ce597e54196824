"""Figures of a validation run as files beside an artifact."""

from __future__ import annotations

from pathlib import Path

from ...cards._evidence import EvidenceRun
from ...manifolds.plots._save import save_axes
from ._figure import gates, null


def draw_run(run: EvidenceRun, folder: Path) -> list[Path]:
    """Draw gates and nulls of a run to ``gates.png`` and ``null.png``, in place of those of an earlier run.

    Parameters
    ----------
    run
        As ``validate`` returns it. What it has no record or no null for is not drawn.
    folder
        ``figures/`` of an artifact, made if it is not there.

    Returns
    -------
    The files written.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    StoreError
        If a file cannot be written.
    """
    records = [record for result in run.rungs for record in result.records]
    written = []
    if records:
        written.append(save_axes(gates(run)[0], folder / "gates.png"))
    if any(record.null is not None for record in records):
        written.append(save_axes(null(run), folder / "null.png"))
    return written

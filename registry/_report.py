"""The report of evidence that is stored beside an artifact."""

from __future__ import annotations

from pathlib import Path

from ..cards._errors import BadInputError, NotFoundError
from ..cards._evidence import EvidenceRun, best_run
from ..gates.report._html import checked_target, write_report
from ..manifolds._format import read_card
from ._evidence_files import read_evidence
from ._resolve import Location, locate


def report(reference: str | Path, output: Path, *, offline: bool | None = None) -> EvidenceRun:
    """Write the stored evidence of a manifold as one HTML page; nothing is recomputed, and the page says so.

    Parameters
    ----------
    reference
        See ``load``.
    output
        The file, see ``write_report``.
    offline
        Use what is on this machine only.

    Returns
    -------
    The run that is told: of those that reached the highest rung the newest.

    Raises
    ------
    NotFoundError
        If no validation run travels with the artifact, or the folder of the file does not exist.
    BadInputError
        If the file cannot be a report, see ``report_target``.
    StoreError, FormatError, IntegrityError
        As ``load``.
    """
    location = locate(reference, offline=offline, everything=True)
    target = report_target(output, location)
    card, manifest = read_card(location.folder, links_into=location.links_into)
    runs = read_evidence(location.folder, manifest.digest)
    if not runs:
        raise NotFoundError(
            f"No validation run travels with {reference}.", f"Run `manifoldzoo validate {reference} --report {output}`."
        )
    run = best_run(runs)
    note = (
        f"As stored with the artifact on {run.started:%Y-%m-%d}, not recomputed; `manifoldzoo validate` recomputes it."
    )
    if len(runs) > 1:
        note += f" {len(runs)} validation runs are stored; of those that reached the highest rung this is the newest."
    write_report(run, target, card=card, note=note)
    return run


def report_target(output: Path, location: Location) -> Path:
    """Return the file that a report of an artifact can be written to.

    Parameters
    ----------
    output
        See ``write_report``.
    location
        Of the artifact. No report is written in its folder: an artifact with a file that does not belong to it is
        refused by whoever loads it.

    Raises
    ------
    BadInputError
        If the path is a folder, does not end in ``.html``, or lies in the folder of the artifact.
    NotFoundError
        If its folder does not exist.
    """
    target = checked_target(output)
    if target.resolve().is_relative_to(location.folder.resolve()):
        raise BadInputError(
            f"{output} lies in the folder of the artifact, which holds nothing but what belongs to it.",
            f"Write to another folder, as in ./{target.name}.",
        )
    return target

"""The command that proves manifolds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _own_cells as own_cells
from ._options import Debug, Json, Offline, Ref
from ._output import emit, message_console, plain, reporting, table
from ._registering import List, list_tests
from ._reporting import Report

if TYPE_CHECKING:
    from rich.console import Console

    from .cards._evidence import EvidenceRun


def validate(
    reference: Ref,
    through: Annotated[
        int | None, typer.Option(min=1, max=6, help="Highest rung to try; 3, or 5 with --panel.", show_default=False)
    ] = None,
    panel: own_cells.Panel = None,
    labels: own_cells.Labels = None,
    cell_type_key: own_cells.CellTypeKey = None,
    donor_key: own_cells.DonorKey = None,
    tissue_key: own_cells.TissueKey = None,
    study_key: own_cells.StudyKey = None,
    layer: own_cells.Layer = None,
    gene_column: own_cells.GeneColumn = None,
    report: Report = None,
    list_: List = False,
    save: Annotated[bool, typer.Option(help="Keep the run as evidence beside an artifact folder.")] = True,
    offline: Offline = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Recompute the evidence of a manifold, rung by rung; status 1 if a rung does not pass or evidence was altered."""
    from .cards._errors import BadInputError, MissingExtraError
    from .cards._evidence import rung_reached
    from .gates._ladder import default_rung
    from .gates._ladder import validate as climb
    from .gates.report._figure_files import draw_run
    from .gates.report._html import write_report
    from .registry._evidence_files import add_evidence, contradicted_evidence, write_readme
    from .registry._report import report_target
    from .registry._resolve import locate, read_location

    through = through or default_rung(own_panel=panel is not None)
    if list_:
        if report is not None:
            raise BadInputError("--list runs no test, so that there is nothing to report.", "Drop --list or --report.")
        list_tests(reference, through=through, own_panel=panel is not None, offline=offline, as_json=json_)
        return
    location = locate(reference, offline=offline or None)
    page = None if report is None else report_target(report, location)
    manifold = read_location(location)
    with reporting(f"validate {manifold.name}") as progress:
        own = own_cells.read_own(
            manifold,
            panel,
            labels=labels,
            keys=(cell_type_key, donor_key, tissue_key, study_key),
            layer=layer,
            gene_column=gene_column,
            progress=progress,
        )
        run = climb(manifold, through=through, panel=own, progress=progress)
    contradicted = contradicted_evidence(location.folder, run)
    altered = [
        f"evidence/{path.name} does not come out again: {'; '.join(map(str, found))}."
        for path, found in contradicted.items()
    ]
    if save and location.store == "folder":
        add_evidence(location.folder, run)
        # evidence is worth keeping without figures
        with suppress(MissingExtraError):
            # figures show what counts for the artifact, and cells of a user's own do not
            if own is None:
                draw_run(run, location.folder / "figures")
        write_readme(location.folder, manifold)
    if page is not None:
        write_report(run, page, card=manifold.card, note=" ".join(altered))
        message_console().print(f"The report is in {page}.", markup=False)
    told: dict[str, Any] = {"reference": run.reference, "rung_reached": rung_reached(run.rungs)}
    told |= {"digest": run.artifact_digest, "seconds": run.seconds}
    told |= {"rungs": [result.model_dump(mode="json") for result in run.rungs]}
    told |= {"report": None if page is None else str(page)}
    told |= {"own_panel": None if run.own_panel is None else run.own_panel.model_dump(mode="json")}
    told |= {"contradicted": {path.name: [asdict(one) for one in found] for path, found in contradicted.items()}}
    emit(told, lambda console: show_run(console, run), as_json=json_)
    for said in altered:
        message_console().print(said, markup=False)
    if contradicted or rung_reached(run.rungs) < through:
        raise typer.Exit(1)


def show_run(console: Console, run: EvidenceRun) -> None:
    """Rungs and records of a validation run, for people."""
    shown = table("rung", "check", ">statistic", "needed", ">n", "status")
    for result in run.rungs:
        shown.add_row(f"[bold]{result.rung} {result.name}[/]", "", "", "", "", f"[bold]{result.status}[/]")
        for record in result.records:
            statistic = "" if record.statistic is None else f"{record.statistic:.4g}"
            needed = "" if record.threshold is None else f"{record.direction} {record.threshold:g}"
            status = record.status if record.decides else "never decides"
            why = "" if record.statistic is not None or record.status == "pass" else f": {record.reason}"
            shown.add_row(*plain("", record.gate, statistic, needed, record.n or "", status + why))
    console.print(shown)
    if run.own_panel is not None:
        own_cells.show_own(console, run.own_panel)

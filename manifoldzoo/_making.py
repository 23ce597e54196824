"""The commands that make and prove manifolds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _own_cells as own_cells
from ._options import (
    Cells,
    ControlSeed,
    Data,
    Debug,
    Destroyed,
    Family,
    Json,
    Model,
    Offline,
    Out,
    RecipeName,
    Ref,
    Seed,
)
from ._output import emit, message_console, plain, reporting, table
from ._registering import List, list_tests
from ._reporting import Report

if TYPE_CHECKING:
    from rich.console import Console

    from .cards._evidence import EvidenceRun
    from .extractors.screen._atlas import HeadAtlas


class KindChoice(StrEnum):
    """Kinds of operator that have heads."""

    attention_mean = "attention_mean"
    attention_value = "attention_value"
    token_ov = "token_ov"
    token_qk = "token_qk"


def extract(
    recipe: RecipeName,
    output: Out,
    cells: Cells,
    checkpoint: Model = None,
    family: Family = None,
    name: Annotated[str | None, typer.Option(help="Name of the manifold; the recipe's by default.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the manifold; the recipe's by default.")] = None,
    seed: Seed = None,
    control: Destroyed = None,
    control_seed: ControlSeed = 0,
    panels: Annotated[
        Path | None,
        typer.Option(help="Panel specification, or a bundled recipe's by name; they travel along for rungs 4 and 5."),
    ] = None,
    data: Data = None,
    untrained: Annotated[
        int, typer.Option(min=0, help="Untrained models to compare with on rung 6, which needs five.")
    ] = 0,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Extract a manifold from a checkpoint: operator, head, readouts, card and test vectors.

    Interrupted, the same command goes on where it stopped, with the same result.
    """
    from .extractors._extract import extract as make
    from .manifolds._figure import draw_anchors
    from .manifolds.plots._save import save_axes
    from .manifolds.plots._stage_graph import stage_graph

    with unfinished_work(output) as work, reporting(f"extract {recipe}") as progress:
        manifold = make(
            recipe,
            checkpoint=checkpoint,
            family=family,
            cells=cells,
            name=name,
            version=version,
            seed=seed,
            control=None if control is None else control.value,
            control_seed=control_seed,
            panels=panels,
            data=data,
            n_untrained=untrained,
            work=work,
            progress=progress,
        )
        manifold.save(output)
    draw_anchors(manifold, output / "figures" / "anchors.png")
    save_axes(stage_graph(manifold), output / "figures" / "stages.png")
    told = {"reference": f"{manifold.name}@{manifold.version}", "digest": manifold.digest, "folder": str(output)}
    # a relative folder without ./ would be taken for a name or a Hub repository
    where = output if output.is_absolute() else f"./{output}"
    said = f"{told['reference']} in {output}; gates: `manifoldzoo validate {where}`"
    emit(told, lambda console: console.print(said, markup=False), as_json=json_)


def screen(
    recipe: RecipeName,
    cells: Cells,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for table, JSON and heat map.")] = None,
    checkpoint: Model = None,
    family: Family = None,
    kind: Annotated[KindChoice | None, typer.Option(help="Kind of operator; the recipe's by default.")] = None,
    splits: Annotated[int, typer.Option(min=2, help="Splits of the panel that each head is scored over.")] = 10,
    top: Annotated[int, typer.Option(min=1, help="Heads to print.")] = 10,
    seed: Seed = None,
    control: Destroyed = None,
    control_seed: ControlSeed = 0,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Score every attention head of a model by how well a head fitted on it alone follows the ruler.

    The score is held out and residualised for donor, study and tissue. It chooses; it proves nothing.
    """
    from .extractors._screen import screen as score

    with unfinished_work(output) as work, reporting(f"screen {recipe}") as progress:
        atlas = score(
            recipe,
            checkpoint=checkpoint,
            family=family,
            cells=cells,
            kind=None if kind is None else kind.value,
            n_splits=splits,
            seed=seed,
            control=None if control is None else control.value,
            control_seed=control_seed,
            work=work,
            progress=progress,
        )
        if output is not None:
            atlas.write(output)
    emit(atlas.to_json(), lambda console: show_atlas(console, atlas, top), as_json=json_)


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
    from .cards._errors import MissingExtraError
    from .cards._evidence import rung_reached
    from .gates._ladder import validate as climb
    from .gates.report._figure_files import draw_run
    from .gates.report._html import write_report
    from .registry._evidence_files import add_evidence, contradicted_evidence, write_readme
    from .registry._report import report_target
    from .registry._resolve import locate, read_location

    if list_:
        list_tests(
            reference,
            through=through or (3 if panel is None else 5),
            own_panel=panel is not None,
            offline=offline,
            as_json=json_,
        )
        return
    location = locate(reference, offline=offline or None)
    page = None if report is None else report_target(report, location)
    manifold = read_location(location)
    through = through or (3 if panel is None else 5)
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


def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Artifact folder.")],
    to: Annotated[str, typer.Option(help="'local', or hf://OWNER/REPO.")],
    allow_below: Annotated[
        str | None, typer.Option(help="Publish below rung 3, with this reason kept for good.")
    ] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Validate an artifact through rung 3 and publish it with that evidence, in one step."""
    from .registry._publish import publish as put

    with reporting("publish") as progress:
        made = put(folder, to, allow_below=allow_below, progress=progress)
    told = {"reference": made.reference, "location": made.location, "commit": made.commit, "digest": made.digest}
    emit(
        told,
        lambda console: console.print(f"published {made.reference} at {made.location}", markup=False),
        as_json=json_,
    )


@contextmanager
def unfinished_work(output: Path | None) -> Iterator[Path | None]:
    """Folder beside the output for the state of unfinished steps; kept where the work is cut short."""
    if output is None:
        yield None
        return
    work = output.with_name(f"{output.name}.unfinished")
    try:
        yield work
    except BaseException:
        if work.is_dir():
            message_console().print(f"What was done so far is in {work}; the same command goes on there.", markup=False)
        raise
    shutil.rmtree(work, ignore_errors=True)


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


def show_atlas(console: Console, atlas: HeadAtlas, top: int) -> None:
    """The best heads of an atlas, for people."""
    rows = atlas.to_table().sort_values("rank").head(top)
    shown = table("head", ">rank", ">residualised", ">sd", ">raw", ">in sample", ">first in splits")
    for row in rows.itertuples():
        numbers = (f"{value:.3f}" for value in (row.residual, row.residual_sd, row.raw, row.in_sample, row.top_1))
        shown.add_row(*plain(row.name, row.rank, *numbers))
    console.print(shown)

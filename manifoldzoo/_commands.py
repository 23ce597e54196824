"""The commands: each parses, calls the library and emits one result."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._making import extract, publish, screen
from ._options import Debug, Json, Offline, Out, Ref, Refs
from ._output import emit, plain, reporting, size, table
from ._panels import panel
from ._reporting import report
from ._reproducing import reproduce
from ._validating import validate

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(
    name="manifoldzoo",
    help="The zoo of algorithms extracted from biological foundation models: load, check and publish them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class ScaleChoice(StrEnum):
    """Scale of the values in a file."""

    auto = "auto"
    log1p = "log1p"
    counts = "counts"


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """The zoo of algorithms extracted from biological foundation models."""
    if version:
        from . import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.command("list")
def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, or part of a name.")] = "*",
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """List the manifolds known on this machine, with the highest rung each has reached."""
    from .registry._catalogue import list_manifolds

    rows = list_manifolds(pattern)

    def render(console: Console) -> None:
        shown = table("name", "version", ">rung", ">size", "store", "ruler", "source model", "title")
        for row in rows:
            values = row["name"], row["version"], f"{row['rung']}/6", size(row["size_bytes"]), row["store"]
            shown.add_row(*plain(*values, row["ruler"] or "", row["source_model"], row["title"]))
        console.print(shown)

    emit({"manifolds": rows}, render, as_json=json_)


@app.command()
def info(reference: Ref, offline: Offline = False, json_: Json = False, debug: Debug = False) -> None:
    """Tell all that is known of a manifold: how it was made, from what, and what was proven."""
    from .registry._catalogue import info as tell

    told = tell(reference, offline=offline or None)

    def render(console: Console) -> None:
        from .cards._card import parse_card
        from .cards._evidence import EvidenceRun
        from .cards._readme import render_readme

        runs = [EvidenceRun.model_validate(run) for run in told["evidence"]]
        text = render_readme(parse_card(told["card"]), told["digest"], runs)
        console.print(text.split("---\n", 2)[2], markup=False)
        console.print(f"{told['store']}: {told['origin']}; index {told['index_age_days']:.0f} days old", markup=False)

    emit(told, render, as_json=json_)


@app.command()
def update(
    owner: Annotated[str | None, typer.Option(help="Account to read; MANIFOLDZOO_INDEX_OWNER or manifoldzoo.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Refresh the index of published manifolds from the Hub."""
    from .registry._hub_index import refresh_index

    index = refresh_index(owner)
    told = {"owner": index.owner, "updated": index.updated.isoformat(), "n_entries": len(index.entries)}
    said = f"{len(index.entries)} published versions of {index.owner}"
    emit(told, lambda console: console.print(said, markup=False), as_json=json_)


@app.command()
def pull(
    reference: Ref,
    to: Annotated[Path | None, typer.Option(help="Also copy the artifact to this new folder.")] = None,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Fetch and verify an artifact, with its evidence and figures."""
    from .registry._pull import pull as fetch

    pulled = fetch(reference, to)
    emit(
        pulled,
        lambda console: console.print(f"{pulled['reference']} in {pulled['folder']}", markup=False),
        as_json=json_,
    )


@app.command()
def transform(
    reference: Ref,
    source: Annotated[Path, typer.Argument(metavar="IN.h5ad", help="Cells by genes.")],
    output: Out,
    key_added: Annotated[str | None, typer.Option(help="Stem of the keys written; the name by default.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer to read instead of X.")] = None,
    gene_column: Annotated[str | None, typer.Option(help="Column of var with symbols or Ensembl ids.")] = None,
    scale: Annotated[ScaleChoice, typer.Option(help="Scale of the values.")] = ScaleChoice.auto,
    groupby: Annotated[
        str | None,
        typer.Option(help="Column of obs whose groups are told how far apart they are; stages where the ruler fits."),
    ] = None,
    offline: Offline = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Place the cells of a file on a manifold and write a copy with the result."""
    from .manifolds._transform_file import transform_file
    from .registry._resolve import load

    manifold = load(reference, offline=offline or None)
    started, done = time.perf_counter(), 0
    with reporting(f"transform {manifold.name}") as progress:

        def count(n_cells: int) -> None:
            nonlocal done
            done += n_cells
            progress("cells", done, done)

        result = transform_file(
            manifold,
            source,
            output,
            key_added=key_added,
            layer=layer,
            gene_column=gene_column,
            scale=scale.value,
            groupby=groupby,
            progress=count,
        )
    told = {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "input": str(source),
        "output": str(output),
        "n_cells": result.n_cells,
        "obsm": result.obsm,
        "obs": result.obs,
        "coverage": result.provenance["coverage"],
        "scale": result.provenance["scale"],
        "groups": _groups(result.provenance),
        "seconds": round(time.perf_counter() - started, 3),
    }
    said = f"{result.n_cells} cells, coverage {told['coverage']:.3f}, {', '.join(result.obsm)} in {output}"
    if told["groups"] is not None:
        said += f"; distances between {len(told['groups']['names'])} groups by {told['groups']['by']}"
    emit(told, lambda console: console.print(said, markup=False), as_json=json_)


def _groups(provenance: dict[str, Any]) -> dict[str, Any] | None:
    """Groups and their distances as a document can hold them; ``None`` where none were told."""
    if "groups" not in provenance:
        return None
    return {
        "by": provenance["groupby"],
        "names": provenance["groups"].tolist(),
        "sizes": provenance["group_sizes"].tolist(),
        "distances": provenance["group_distances"].tolist(),
    }


for command in (panel, extract, screen, validate, report, reproduce, publish):
    app.command()(command)


@app.command()
def verify(reference: Ref, offline: Offline = False, json_: Json = False, debug: Debug = False) -> None:
    """Hold every file of an artifact against its recorded digest; status 1 if one differs."""
    from .registry._verify import verify as check

    checked = check(reference, offline=offline or None)

    def render(console: Console) -> None:
        shown = table("status", "file", ">size", "sha256")
        for file in checked["files"]:
            shown.add_row(*plain(file["status"], file["name"], size(file["size"] or 0), file["sha256"] or ""))
        console.print(shown)

    emit(checked, render, as_json=json_)
    if not checked["ok"]:
        raise typer.Exit(1)


@app.command()
def cite(reference: Ref, offline: Offline = False, json_: Json = False, debug: Debug = False) -> None:
    """Print what to cite for a manifold."""
    from .registry._catalogue import info as tell

    told = tell(reference, offline=offline or None)
    lines = [
        f"{entry['text']}" + (f" https://doi.org/{entry['doi']}" if entry["doi"] else "")
        for entry in told["card"]["citations"]
    ]
    identity = f"{told['reference']} (manifoldzoo, artifact digest {told['digest']})"
    document = {"reference": told["reference"], "digest": told["digest"], "citations": told["card"]["citations"]}
    emit(document, lambda console: console.print("\n".join([*lines, identity]), markup=False), as_json=json_)


@app.command()
def lock(
    references: Refs,
    output: Out = Path("manifoldzoo.lock"),
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Record what references mean today, so that an analysis loads the same bytes for ever."""
    from .registry._lock import lock as record

    written = record(references, output)
    told = {"lockfile": str(output), **written.model_dump(mode="json", exclude={"schema_"})}
    said = f"{len(written.entries)} references locked in {output}"
    emit(told, lambda console: console.print(said, markup=False), as_json=json_)


@app.command()
def bundle(references: Refs, output: Out, json_: Json = False, debug: Debug = False) -> None:
    """Pack artifacts into one tar file for a machine without a network."""
    from .registry._bundle import bundle as pack

    packed = pack(references, output)
    said = f"{', '.join(packed)} in {output}"
    emit({"bundle": str(output), "packed": packed}, lambda console: console.print(said, markup=False), as_json=json_)


@app.command()
def unbundle(
    file: Annotated[Path, typer.Argument(metavar="FILE.tar", help="Written by `bundle`.")],
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Unpack a bundle into the local store, verifying everything first."""
    from .registry._bundle import unbundle as unpack

    stored = unpack(file)
    said = f"{', '.join(stored)} in the local store"
    emit({"stored": stored}, lambda console: console.print(said, markup=False), as_json=json_)


@app.command()
def doctor(json_: Json = False, debug: Debug = False) -> None:
    """Check this installation: versions, folders, settings and bundled artifacts; status 1 if something is wrong."""
    from .registry._doctor import examine

    findings = examine()

    def render(console: Console) -> None:
        shown = table("", "what", "found")
        for finding in findings:
            shown.add_row(*plain("ok" if finding["ok"] else "PROBLEM", finding["what"], finding["found"]))
        console.print(shown)

    healthy = all(finding["ok"] for finding in findings)
    emit({"ok": healthy, "findings": findings}, render, as_json=json_)
    if not healthy:
        raise typer.Exit(1)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the table and the figure.")] = Path(
        "runs/demo"
    ),
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Extract, validate, publish, load and use a manifold on the bundled cells, offline."""
    from ._demo import run_demo

    with reporting("demo") as progress:
        result = run_demo(output, progress=progress)
    emit(result.document, result.render, as_json=json_)

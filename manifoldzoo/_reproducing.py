"""The command that extracts an artifact again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._making import unfinished_work
from ._options import Data, Debug, Family, Json, Model, Offline, Ref
from ._output import emit, plain, reporting, table

if TYPE_CHECKING:
    from rich.console import Console

    from .extractors._reproduce import FieldDifference, Reproduction, TensorDifference

SHOWN = 12
"""Fields of the card and tensors that are listed for people; JSON has all of them."""


def reproduce(
    reference: Ref,
    cells: Annotated[
        list[Path] | None,
        typer.Option(help="Files of its extraction panel, in any order, once per file; those of --panels by default."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Its recipe; by default the bundled one of that name.")
    ] = None,
    checkpoint: Model = None,
    family: Family = None,
    panels: Annotated[
        Path | None, typer.Option(metavar="SPEC", help="Specification of the panels that travel with it.")
    ] = None,
    data: Data = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder to keep the new artifact in.")] = None,
    offline: Offline = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Extract a manifold again from what its card names, and tell how far it is the same; status 1 if it is not.

    With a folder to keep it in, the same command goes on where it was interrupted.
    """
    from .extractors._reproduce import reproduce as again
    from .registry._resolve import load

    manifold = load(reference, offline=offline or None)
    with unfinished_work(output) as work, reporting(f"reproduce {manifold.name}") as progress:
        result = again(
            manifold,
            cells=cells,
            recipe=recipe,
            checkpoint=checkpoint,
            family=family,
            panels=panels,
            data=data,
            work=work,
            progress=progress,
        )
        if output is not None:
            result.manifold.save(output)
    told = result.to_json() | {"folder": None if output is None else str(output)}
    emit(told, lambda console: show_reproduction(console, result), as_json=json_)
    if result.verdict == "differs":
        raise typer.Exit(1)


def show_reproduction(console: Console, result: Reproduction) -> None:
    """The verdict and what it rests on, for people."""
    console.print(f"{result.reference}: {result.verdict}", markup=False)
    console.print(f"digest of the artifact {result.digest}, here {result.manifold.digest}", markup=False)
    for cause in result.causes:
        console.print(f"likely cause: {cause}", markup=False)
    if result.outputs:
        outputs = table("test vectors", ">deviation, of the tolerance", ">n", "status")
        for record in result.outputs:
            deviation = "" if record.statistic is None else f"{record.statistic:.3g}"
            name = record.gate.removeprefix("test_vectors_")
            outputs.add_row(*plain(name, deviation, record.n or "", record.status))
        console.print(outputs)
    if result.angles is not None:
        said = "angles between test vectors: Spearman {:.4f}, largest difference {:.3g} rad".format(*result.angles)
        console.print(said, markup=False)
    _show_tensors(console, result.tensors)
    fields = [*result.card, *result.software]
    if fields:
        _show_fields(console, fields)


def _show_tensors(console: Console, tensors: tuple[TensorDifference, ...]) -> None:
    """Tensors that differ; those that only one of the two has, or in another shape, come first."""
    changed = [one for one in tensors if not one.equal]
    console.print(f"{len(tensors) - len(changed)} of {len(tensors)} tensors are equal to the bit", markup=False)
    if not changed:
        return
    shown = table("tensor", ">absolute", ">relative")
    for one in sorted(changed, key=lambda one: (one.absolute is not None, -(one.relative or 0.0)))[:SHOWN]:
        numbers = ["" if value is None else f"{value:.3g}" for value in (one.absolute, one.relative)]
        shown.add_row(*plain(one.name, *numbers))
    console.print(shown)
    _note_more(console, len(changed), "tensors")


def _show_fields(console: Console, fields: list[FieldDifference]) -> None:
    """Fields of the card that differ."""
    shown = table("field of the card", "artifact", "here")
    for one in fields[:SHOWN]:
        shown.add_row(*plain(one.field, *(_short(value) for value in (one.artifact, one.here))))
    console.print(shown)
    _note_more(console, len(fields), "fields")


def _note_more(console: Console, n: int, what: str) -> None:
    """Say what is not listed."""
    if n > SHOWN:
        console.print(f"... and {n - SHOWN} more {what}; --json lists all.", markup=False)


def _short(value: object) -> str:
    """The beginning of a value."""
    said = str(value)
    return said if len(said) <= 60 else f"{said[:57]}..."

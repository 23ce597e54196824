"""The command that writes stored evidence as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ._options import Debug, Json, Offline, Ref
from ._output import emit

Report = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="Also write the run as one HTML page.", show_default=False)
]


def report(
    reference: Ref,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="Where to write.")],
    offline: Offline = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Write the stored evidence of a manifold as one HTML page, without recomputing anything.

    `validate REF --report FILE.html` recomputes it.
    """
    from .cards._evidence import rung_reached
    from .registry._report import report as write

    run = write(reference, output, offline=offline or None)
    told: dict[str, Any] = {"reference": run.reference, "rung_reached": rung_reached(run.rungs)}
    told |= {"digest": run.artifact_digest, "started": run.started.isoformat(), "report": str(output)}
    said = f"evidence of {run.reference}, as stored, in {output}"
    emit(told, lambda console: console.print(said, markup=False), as_json=json_)

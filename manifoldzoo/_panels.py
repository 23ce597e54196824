"""The command that builds panels."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ._options import Data, Debug, Json, Offline, Out
from ._output import emit, plain, reporting, table

if TYPE_CHECKING:
    from rich.console import Console

    from .manifolds._panel_folder import PanelSummary


def panel(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="Specification, TOML or YAML, or a bundled recipe.")],
    output: Out,
    data: Data = None,
    like: Annotated[
        str | None, typer.Option(metavar="REF", help="Take genes and ruler of this manifold, to compare with it.")
    ] = None,
    offline: Offline = False,
    json_: Json = False,
    debug: Debug = False,
) -> None:
    """Build the panels of a specification: anchors and a manifest of each, once it is clear that they do not overlap.

    Genes are those that all files measure, and the ruler is that beside the specification or of the labels it names.
    """
    from .manifolds._panel_folder import write_panels
    from .manifolds._panel_spec import read_panel_set
    from .registry._resolve import load

    asked = read_panel_set(spec)
    model = None if like is None else load(like, offline=offline or None)
    with reporting("panel") as progress:
        written = write_panels(
            asked,
            output,
            data=data,
            genes=None if model is None else model.genes.symbols,
            ruler=None if model is None else model.ruler,
            progress=progress,
        )
    told = {"specification": spec, "folder": str(output), "like": like, "panels": [asdict(one) for one in written]}
    emit(told, lambda console: show_panels(console, written), as_json=json_)


def show_panels(console: Console, panels: list[PanelSummary]) -> None:
    """What was built, for people; the last two columns are of what the extraction panel has too."""
    columns = ("panel", "role", ">genes", ">anchors", ">stages", ">donors", ">cells", ">shared cells", ">shared donors")
    shown = table(*columns, "files")
    for one in panels:
        shared = ["" if n is None else n for n in (one.n_shared_cells, one.n_shared_donors)]
        numbers = one.n_genes, one.n_anchors, one.n_stages, one.n_donors, one.n_cells
        shown.add_row(*plain(one.name, one.role, *numbers, *shared, ", ".join(one.files)))
    console.print(shown)

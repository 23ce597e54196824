"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Ref = Annotated[str, typer.Argument(metavar="REF", help="NAME, NAME@VERSION, OWNER/REPO@REVISION or ./FOLDER.")]
Refs = Annotated[list[str], typer.Argument(metavar="REF...", help="One or more references.")]
Out = Annotated[Path, typer.Option("--output", "-o", help="Where to write.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
Cells = Annotated[list[Path], typer.Option(help="Labelled cells, raw counts; once per file.")]
RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Bundled recipe, or ./FOLDER with a recipe.toml.")]
Model = Annotated[Path | None, typer.Option(help="Checkpoint folder; the bundled reference by default.")]
Family = Annotated[
    str | None, typer.Option(help="Family of the checkpoint; seen from its files by default.", show_default=False)
]
Data = Annotated[Path | None, typer.Option(help="Folder of the files that specification and ruler name.")]
Seed = Annotated[int | None, typer.Option(help="Seed; the recipe's by default.")]
ControlSeed = Annotated[int, typer.Option(help="Seed of the control.")]


class ControlChoice(StrEnum):
    """What to destroy on purpose."""

    random_init = "random-init"
    shuffled_weights = "shuffled-weights"
    spectrum_matched = "spectrum-matched"
    permuted_genes = "permuted-genes"


Destroyed = Annotated[ControlChoice | None, typer.Option(help="Destroy this on purpose, and do the rest alike.")]

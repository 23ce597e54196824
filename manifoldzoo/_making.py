"""The commands that make and publish manifolds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._options import (
    Cells,
    ControlSeed,
    Data,
    Debug,
    Destroyed,
    Family,
    Json,
    Model,
    Out,
    RecipeName,
    Seed,
)
from ._output import emit, message_console, plain, reporting, table

if TYPE_CHECKING:
    from rich.console import Console

    from .cards._ruler_entry import Interaction
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
    cells: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled cells, raw counts; once per file. Those of --panels by default."),
    ] = None,
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
    from .manifolds.plots._artifact_figures import draw_artifact

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
    draw_artifact(manifold, output / "figures")
    told: dict[str, Any] = {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "folder": str(output),
    }
    interaction = manifold.card.ruler.interaction
    if interaction is not None:
        told["ruler"] = interaction.model_dump(mode="json")
    # a relative folder without ./ would be taken for a name or a Hub repository
    where = output if output.is_absolute() else f"./{output}"
    said = f"{told['reference']} in {output}; gates: `manifoldzoo validate {where}`"

    def render(console: Console) -> None:
        if interaction is not None:
            _print_coverage(console, interaction)
        console.print(said, markup=False)

    emit(told, render, as_json=json_)


def _print_coverage(console: Console, interaction: Interaction) -> None:
    """Tell what the files of a ruler measure of its resource, and how well it knows curated paths."""
    where = f"{interaction.resource} {interaction.resource_version}".strip()
    console.print(f"Ruler from {interaction.n_pairs} ligand-receptor pairs of {where}; genes measured:", markup=False)
    shown = table("file", ">groups", f">ligands of {interaction.n_ligands}", f">receptors of {interaction.n_receptors}")
    for file in interaction.files:
        shown.add_row(*plain(file.name, file.n_groups, file.n_ligands, file.n_receptors))
    console.print(shown)
    known = interaction.curated
    if known is not None and known.null_auroc:
        nulls = f"paired nulls {min(known.null_auroc):.3f} to {max(known.null_auroc):.3f}"
        unknown = f"{known.n_absent} not in the resource, {known.n_silent} not expressed"
        console.print(
            f"Curated paths: AUROC {known.auroc:.3f} ({nulls}); of {known.n_paths} paths {unknown}.", markup=False
        )


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
    data: Data = None,
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
            data=data,
            work=work,
            progress=progress,
        )
        if output is not None:
            atlas.write(output)
    emit(atlas.to_json(), lambda console: show_atlas(console, atlas, top), as_json=json_)


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


def show_atlas(console: Console, atlas: HeadAtlas, top: int) -> None:
    """The best heads of an atlas, for people."""
    rows = atlas.to_table().sort_values("rank").head(top)
    shown = table("head", ">rank", ">residualised", ">sd", ">raw", ">in sample", ">first in splits")
    for row in rows.itertuples():
        numbers = (f"{value:.3f}" for value in (row.residual, row.residual_sd, row.raw, row.in_sample, row.top_1))
        shown.add_row(*plain(row.name, row.rank, *numbers))
    console.print(shown)

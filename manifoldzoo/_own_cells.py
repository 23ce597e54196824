"""Cells of one's own on the command line: the options that read them, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ._output import plain, table

if TYPE_CHECKING:
    from rich.console import Console

    from .cards._own_panel import OwnPanelReport
    from .manifolds._manifold import Manifold
    from .manifolds._own_panel import OwnPanel

Panel = Annotated[
    Path | None,
    typer.Option(metavar="FILE.h5ad", help="Cells of your own, raw counts and labels, to try the manifold on."),
]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE.tsv", help="Stages of your labels: label, tab, stage; '-' leaves one out.")
]
CellTypeKey = Annotated[str | None, typer.Option(help="Column of obs with the labels; the usual names by default.")]
DonorKey = Annotated[str | None, typer.Option(help="Column of obs with the donors; the usual names by default.")]
TissueKey = Annotated[str | None, typer.Option(help="Column of obs with the tissues; one tissue if there is none.")]
StudyKey = Annotated[str | None, typer.Option(help="Column of obs with the studies; one study if there is none.")]
Layer = Annotated[str | None, typer.Option(help="Layer with the counts of your cells, or raw.X; X by default.")]
GeneColumn = Annotated[
    str | None, typer.Option(help="Column of var with symbols or Ensembl ids of your genes; var_names by default.")
]


def read_own(
    manifold: Manifold,
    panel: Path | None,
    *,
    labels: Path | None,
    keys: tuple[str | None, str | None, str | None, str | None],
    layer: str | None,
    gene_column: str | None,
    progress: Callable[[str, int, int], None] | None = None,
) -> OwnPanel | None:
    """Read the cells that the options name; ``None`` where they name none.

    Parameters
    ----------
    manifold
        To align with.
    panel, labels, layer, gene_column, progress
        As ``read_own_panel``.
    keys
        Columns of ``obs`` for cell types, donors, tissues and studies.

    Raises
    ------
    BadInputError
        If options about the cells are given without a file of cells; else as ``read_own_panel``.
    """
    from .cards._errors import BadInputError
    from .manifolds._own_columns import OwnColumns
    from .manifolds._own_panel import read_own_panel

    if panel is None:
        names = ("--labels", "--cell-type-key", "--donor-key", "--tissue-key", "--study-key", "--layer")
        given = [
            name
            for name, value in zip((*names, "--gene-column"), (labels, *keys, layer, gene_column), strict=True)
            if value
        ]
        if given:
            raise BadInputError(f"{given[0]} is about cells of your own.", "Name their file with --panel FILE.h5ad.")
        return None
    cell_type, donor, tissue, study = keys
    return read_own_panel(
        manifold,
        panel,
        labels=labels,
        columns=OwnColumns(cell_type=cell_type, donor=donor, tissue=tissue, study=study),
        layer=layer,
        gene_column=gene_column,
        progress=progress,
    )


def show_own(console: Console, own: OwnPanelReport) -> None:
    """What became of a user's own cells, for people."""
    made = (
        f"{own.n_anchors} anchors of {own.n_used_cells} of {own.n_cells} cells: {own.n_stages} stages, "
        f"{own.n_branches} branches, donors {own.n_donors}, tissues {own.n_tissues}, studies {own.n_studies}"
    )
    read = ", ".join(f"{name} {column}" for name, column in own.columns.items())
    genes = f"genes cover {own.coverage:.2f} of the manifold, {own.n_missing_genes} missing"
    console.print(f"\nYour panel {own.name}: {made}; {genes}; counts in {own.layer}; {read}.", markup=False)
    if own.mapped:
        shown = table("label", "stage", "by", ">cells", ">anchors")
        for one in own.mapped:
            shown.add_row(*plain(one.label, one.stage, one.by, one.n_cells, one.n_anchors))
        console.print(shown)
    if own.n_small_groups:
        small = f"{own.n_small_cells} cells in {own.n_small_groups} groups of fewer than {own.min_cells}: no anchor."
        console.print(small, markup=False)
    scored = any(one.by == "gene scores" for one in own.mapped)
    left_out = "Left out, for no gene program leads" if scored else "Left out by your table"
    for title, labels in ((left_out, own.left_out), ("Labels without a stage", own.unmapped)):
        if labels:
            listed = ", ".join(f"{label} ({n})" for label, n in labels.items())
            console.print(f"{title}: {listed}.", markup=False)
    if own.unmapped:
        console.print("Give them stages of the ruler with --labels FILE.tsv, or '-'.", markup=False)
    if own.unused:
        console.print(f"Labels of your table that no cell has: {', '.join(own.unused)}.", markup=False)
    shown = table("rung", "check", "needs", "got", "")
    for need in own.needs:
        verdict = {True: "enough", False: "too little", None: ""}[need.enough]
        shown.add_row(*plain(need.rung, need.check, need.needed, need.got, verdict))
    console.print("\nWhat each rung needs of your panel:", markup=False)
    console.print(shown)

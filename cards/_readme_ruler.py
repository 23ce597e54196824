"""The ruler in a README: a line for any kind, and a section for one that was computed from interactions."""

from __future__ import annotations

from ._markdown import cell
from ._ruler_entry import CuratedPaths, Interaction, Ruler


def ruler_in_words(ruler: Ruler) -> str:
    """Name, kind and size of a ruler in one sentence."""
    n_branches = len({stage.branch for stage in ruler.stages})
    if ruler.interaction is None:
        return (
            f"Ruler: {ruler.name} {ruler.version}, a graph of {len(ruler.stages)} stages, {n_branches} branches, "
            f"rooted at {ruler.root}."
        )
    return (
        f"Ruler: {ruler.name} {ruler.version}, a table of interactions between {len(ruler.stages)} cell types of "
        f"{n_branches} broad classes, see below."
    )


def interaction_section(ruler: Ruler) -> str:
    """What a ruler of interactions was computed from, and how well it knows what the literature describes.

    Parameters
    ----------
    ruler
        Of the card; with a description of its interactions.

    Returns
    -------
    A Markdown section.
    """
    made = ruler.interaction
    if made is None:
        return ""
    lines = [
        "## The ruler\n",
        f"Distances between cell types over the ligands and receptors of {cell(made.resource)}"
        + (f" {made.resource_version}" if made.resource_version else "")
        + f" ({made.n_pairs:,} pairs of {made.n_ligands:,} ligand and {made.n_receptors:,} receptor genes, digest "
        f"`{made.resource_digest[:16]}`), which is not part of this artifact. {_measure(made)}\n",
        "| file | groups | ligand genes | receptor genes |",
        "| --- | --- | --- | --- |",
        *(
            f"| {cell(file.name)} | {file.n_groups} | {_part(file.n_ligands, made.n_ligands)} | "
            f"{_part(file.n_receptors, made.n_receptors)} |"
            for file in made.files
        ),
        "",
        _curated(made.curated, made),
    ]
    return "\n".join(lines) + "\n"


def _measure(made: Interaction) -> str:
    """How a distance was computed."""
    return (
        "From a sender to a receiver it is the mean over the ligands that the sender expresses, weighted by the root "
        "of expression, of the steps on the network of ligands and receptors to the nearest receptor that the receiver "
        "expresses; the ruler takes the mean of both directions. A gene counts as expressed from "
        f"{made.expressed:.0%} of the cells on; groups of donor, tissue and cell type have at least {made.min_cells} "
        "cells."
    )


def _curated(curated: CuratedPaths | None, made: Interaction) -> str:
    """The area under the ROC curve beside that of the nulls; what was not measured is said too."""
    nulls = f"{made.n_nulls} rulers with receptors exchanged travel along as its nulls (seed {made.null_seed})."
    if curated is None:
        return f"It was not held against pairs of cell types from the literature. {nulls}"
    told = (
        f"Of all ordered pairs of cell types the literature describes {curated.n_pairs} ({curated.n_paths} paths): the "
        f"directed distance tells them from the others with an AUROC of {curated.auroc:.3f}"
    )
    found = sorted(curated.null_auroc)
    if found:
        n_better = sum(value >= curated.auroc for value in found)
        middle = (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2
        told += (
            f"; its nulls with {middle:.3f} ({found[0]:.3f} to {found[-1]:.3f}), {n_better} of {len(found)} at "
            "least as well"
        )
    told += "."
    if curated.n_absent or curated.n_silent:
        told += (
            f" The resource lacks {curated.n_absent} of the paths, and {curated.n_silent} are not expressed where the "
            "literature has them."
        )
    return f"{told} {nulls}"


def _part(n: int, whole: int) -> str:
    """How many of how many."""
    return f"{n:,} of {whole:,}"

"""What the demo shows of each manifold on the same cells: coordinates, classes, distances of groups, figures."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np

from ._output import plain, table
from .cards._errors import FormatError, NotFoundError, PanelError
from .manifolds._figure import draw_manifold
from .manifolds._interaction_ruler import InteractionRuler
from .manifolds._keys import keys_for
from .manifolds._labels import read_label_table
from .manifolds._manifold import Manifold
from .manifolds._readouts import stage_readout
from .manifolds._recipe import recipe_folder
from .manifolds.plots._interaction_map import interaction_map
from .manifolds.plots._save import save_axes
from .manifolds.plots._sender_receiver import sender_receiver
from .registry._evidence_files import highest_rung
from .registry._resolve import candidates

if TYPE_CHECKING:
    from rich.console import Console

NAMES = ("hematopoietic", "communication")
"""Manifolds that the demo shows, in this order, as far as they are on this machine."""
GROUPBY = "cell_type"
"""Column of the demo's cells: their annotation."""
_FEWEST = 10
_MOST_CLASSES = 4


@dataclass
class Shown:
    """A manifold with the cells placed on it.

    Attributes
    ----------
    manifold
        As loaded.
    figures
        Files drawn.
    """

    manifold: Manifold
    figures: list[Path] = field(default_factory=list)


def names_at_hand() -> list[str]:
    """Those of ``NAMES`` that no network is needed for."""
    here = {found.name for found in candidates() if found.folder is not None}
    return [name for name in NAMES if name in here]


def draw(shown: Shown, cells: ad.AnnData, folder: Path) -> None:
    """Draw cells that a manifold placed: by stage on a stage graph, among the cell types of a table of interactions."""
    manifold = shown.manifold
    if isinstance(manifold.ruler, InteractionRuler):
        shown.figures = [
            save_axes(interaction_map(manifold), folder / f"{manifold.name}_interaction_map.png"),
            save_axes(sender_receiver(manifold, cells)[0], folder / f"{manifold.name}_sender_receiver.png"),
        ]
        return
    stages, word = stages_to_draw(manifold, cells)
    path = draw_manifold(
        manifold,
        np.asarray(cells.obsm[keys_for(manifold.name).obsm]),
        stages,
        folder / f"{manifold.name}.png",
        title=f"{manifold.reference}: {cells.n_obs} marrow cells (Setty et al. 2019), coloured by {word} stage",
        subtitle="large dots: stages of the panel, those of other tissues among them; arrows: ruler steps",
    )
    shown.figures = [path]


def stages_to_draw(manifold: Manifold, cells: ad.AnnData) -> tuple[list[str], str]:
    """Stage of each cell and where it is from: annotated by the table of the recipe, or read out where it has none."""
    try:
        labels = read_label_table(recipe_folder(manifold.card.extraction.recipe) / "labels.tsv")
        pairs = zip(cells.obs["dataset"].astype(str), cells.obs["cell_type"].astype(str), strict=True)
        return [labels.stage_of(dataset, cell_type) or "" for dataset, cell_type in pairs], "annotated"
    except (FormatError, NotFoundError, PanelError):
        return stages_read_out(manifold, cells), "most probable"


def stages_read_out(manifold: Manifold, cells: ad.AnnData) -> list[str]:
    """Most probable stage of each cell that a transform wrote; empty where there is none."""
    readout = stage_readout(manifold.card)
    if readout is None:
        return [""] * cells.n_obs
    column = cells.obs[keys_for(manifold.name, readout.task).obs]
    return [str(stage) if known else "" for stage, known in zip(column, column.notna(), strict=True)]


def told(shown: Shown, cells: ad.AnnData) -> dict[str, Any]:
    """What the cells say of one manifold, as a document."""
    manifold = shown.manifold
    base = keys_for(manifold.name)
    held = cells.uns[base.uns]
    stages = Counter(filter(None, stages_read_out(manifold, cells)))
    return {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "ruler": manifold.card.ruler.kind,
        "stored_rung": 0 if manifold.path is None else highest_rung(manifold.path, manifold.digest),
        "coordinates": {"key": base.obsm, "n_components": manifold.n_components},
        "stages": dict(stages.most_common()),
        "groups": {
            "by": held["groupby"],
            "names": held["groups"].tolist(),
            "sizes": held["group_sizes"].tolist(),
            "distances": np.round(held["group_distances"], 4).tolist(),
        },
        "figures": [str(path) for path in shown.figures],
    }


def render(documents: list[dict[str, Any]], console: Console) -> None:
    """Print what the cells say of each manifold: classes first, then groups that lie nearest and farthest."""
    places = table("manifold", "ruler", "stored rung", "coordinates", "most frequent classes (cells)")
    pairs = table("manifold", "", "groups of cells", "", ">predicted distance")
    for document in documents:
        first = list(document["stages"].items())[:_MOST_CLASSES]
        classes = ", ".join(f"{name} {n}" for name, n in first) or "none"
        at = f"{document['coordinates']['key']}, {document['coordinates']['n_components']}"
        reference, rung = document["reference"], f"{document['stored_rung']} of 6"
        places.add_row(*plain(reference, document["ruler"], rung, at, classes))
        for word, one, other, distance in extremes(document["groups"]):
            pairs.add_row(*plain(reference, word, one, other, f"{distance:.2f}"))
    console.print(places)
    console.print()
    console.print(pairs)
    console.print(f"groups by obs[{GROUPBY!r}] of at least {_FEWEST} cells; steps of each ruler", markup=False)


def extremes(groups: dict[str, Any], fewest: int = _FEWEST) -> list[tuple[str, str, str, float]]:
    """The nearest and the farthest two groups of at least so many cells; none where fewer than two have them."""
    distances = np.asarray(groups["distances"], dtype=np.float64)
    large = np.flatnonzero(np.asarray(groups["sizes"]) >= fewest)
    if len(large) < 2:
        return []
    rows, columns = np.triu_indices(len(large), 1)
    apart = distances[large[rows], large[columns]]
    found = (("nearest", int(apart.argmin())), ("farthest", int(apart.argmax())))
    names = groups["names"]
    return [(word, names[large[rows[i]]], names[large[columns[i]]], float(apart[i])) for word, i in found]

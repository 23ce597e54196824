"""What every extraction and screen begins with: genes, anchors and cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import PanelError
from ..cards._programs import ScoredLabels
from ..manifolds._cell_ids import CellIds
from ..manifolds._count_file import PLAIN, PanelReading
from ..manifolds._panel import Panel, PanelCells, build_panel, gene_names, read_panel_cells
from ..manifolds._panel_overlap import read_panel_members
from ..manifolds._recipe import PanelRecipe
from ..manifolds._ruler_interface import Ruler
from ..manifolds._stage_labels import StageLabels
from ._beside import PanelBeside, read_panels_beside
from ._interface import Job
from .checkpoints._interface import Checkpoint

Table = TypeVar("Table", Panel, PanelCells)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A job's model and cells, on one gene axis.

    Attributes
    ----------
    checkpoint
        The model, its genes those of the panel.
    panel
        Anchors of all labelled cells.
    cells
        Labelled cells, balanced over stages.
    distances
        Ruler distances between the anchors, ``(n_anchors, n_anchors)``.
    members
        Who is in the panel, also in groups too small for an anchor.
    beside
        Panels that nothing is fitted to.
    scored
        How cells were given their stages where they were scored, and what became of them.
    """

    checkpoint: Checkpoint
    panel: Panel
    cells: PanelCells
    distances: NDArray[np.float64]
    members: CellIds
    beside: tuple[PanelBeside, ...] = ()
    scored: ScoredLabels | None = None

    @property
    def inputs(self) -> sparse.csr_matrix:
        """The cells on the scale that the model reads, ``(n_cells, n_genes)``."""
        return self.cells.values if self.checkpoint.scale == "log1p" else self.cells.counts()

    def without_group(self, name: str, *, study: bool) -> Prepared:
        """Leave out the anchors and cells of one study, or of one donor by its ``study:donor``.

        Model, genes, files, members and the panels beside stay as they are.
        """
        anchors = np.asarray(self.panel.study if study else self.panel.donor_ids) != name
        cells = np.asarray(self.cells.study if study else self.cells.donor_ids) != name
        kept = np.flatnonzero(anchors)
        return replace(
            self,
            panel=_rows(self.panel, kept, skip=("genes", "files")),
            cells=_rows(self.cells, np.flatnonzero(cells)),
            distances=self.distances[np.ix_(kept, kept)],
        )


def _rows(table: Table, rows: NDArray[np.intp], *, skip: Sequence[str] = ()) -> Table:
    """Keep some rows of everything that a panel or its cells hold of each row."""
    kept: dict[str, Any] = {}
    for field in fields(table):
        if field.name not in skip:
            column = getattr(table, field.name)
            kept[field.name] = tuple(column[row] for row in rows) if isinstance(column, tuple) else column[rows]
    return replace(table, **kept)


def prepare(job: Job, rng: np.random.Generator) -> Prepared:
    """Choose the genes, build the panel and draw the cells.

    Parameters
    ----------
    job
        What is to be made.
    rng
        Draws the cells of large stages.

    Raises
    ------
    PanelError, ScaleError, GeneError
        If the cells do not make a panel, none of their genes is known to the model, or a panel beside shares what it
        must not.
    """
    labels = job.recipe.labels.read(job.labels)
    asked, reading = job.recipe.panel, job.reading
    genes = panel_genes(job.checkpoint, job.cells, labels, job.ruler, asked, rng, reading=reading)
    panel = build_panel(
        job.cells, genes=genes, labels=labels, ruler=job.ruler, min_cells=asked.min_cells, reading=reading
    )
    cells = read_panel_cells(
        job.cells,
        genes=genes,
        labels=labels,
        ruler=job.ruler,
        max_per_stage=asked.max_cells_per_stage,
        rng=rng,
        reading=reading,
    )
    members = read_panel_members(job.cells, labels=labels, reading=reading)
    # here, so that panels that overlap are refused before the model is run
    beside = tuple(read_panels_beside(job, members, panel.genes))
    distances = job.ruler.distances(panel.stage)
    scored = labels.counted(job.cells, reading)
    if scored is not None:
        n_excluded = int(job.checkpoint.knows(sorted(labels.excluded_genes)).sum())
        scored = scored.model_copy(update={"n_excluded_genes": n_excluded})
    return Prepared(job.checkpoint.with_genes(genes), panel, cells, distances, CellIds.of(members), beside, scored)


def panel_genes(
    checkpoint: Checkpoint,
    paths: Sequence[Path],
    labels: StageLabels,
    ruler: Ruler,
    recipe: PanelRecipe,
    rng: np.random.Generator,
    *,
    reading: PanelReading = PLAIN,
) -> tuple[str, ...]:
    """Choose the genes of a panel among those that the model knows.

    Parameters
    ----------
    checkpoint
        A model with no more genes than ``recipe.n_genes`` keeps them all, in its own order.
    paths, labels, ruler, reading
        As ``build_panel``; genes that the labels exclude are not chosen.
    recipe
        Number of genes, and of cells per stage to choose them on.
    rng
        Draws the cells; not used where nothing has to be chosen.

    Returns
    -------
    Names as the files spell them, sorted where they were chosen.

    Raises
    ------
    PanelError
        If the files share fewer than ten genes that the model knows.

    Notes
    -----
    Candidates are the genes that every file measures. They are ranked by the dispersion of ``log1p`` values within each
    study (Satija et al. 2015, as ``scanpy.pp.highly_variable_genes`` has it) on cells balanced over stages, so that
    the commonest cell type does not choose for all. The paper says "variable genes of the model's vocabulary"; how
    they are found is our choice.
    """
    left = tuple(gene for gene in checkpoint.genes if gene not in labels.excluded_genes)
    if checkpoint.genes and len(checkpoint.genes) <= recipe.n_genes:
        return left
    shared = sorted(
        set.intersection(*(set(gene_names(path, reading=reading)) for path in paths)) - labels.excluded_genes
    )
    candidates = [gene for gene, known in zip(shared, checkpoint.knows(shared), strict=True) if known]
    if len(candidates) < 10:
        raise PanelError(
            f"{checkpoint.name} knows {len(candidates)} of the {len(shared)} genes that all files measure.",
            "Are var_names gene symbols or Ensembl ids of the model's species?",
        )
    if len(candidates) <= recipe.n_genes:
        return tuple(candidates)
    cells = read_panel_cells(
        paths,
        genes=candidates,
        labels=labels,
        ruler=ruler,
        max_per_stage=recipe.max_cells_per_stage,
        rng=rng.spawn(1)[0],
        reading=reading,
    )
    table = ad.AnnData(cells.values, obs=pd.DataFrame({"study": pd.Categorical(cells.study)}, index=cells.cell_ids))
    table.var_names = candidates
    expressed = np.asarray((table.X > 0).sum(axis=0)).ravel()
    # a gene that no cell has would have neither mean nor dispersion
    table = table[:, expressed > 0].copy()
    several = len(set(cells.study)) > 1
    sc.pp.highly_variable_genes(table, n_top_genes=recipe.n_genes, batch_key="study" if several else None)
    return tuple(sorted(table.var_names[table.var["highly_variable"]]))

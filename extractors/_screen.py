"""The head atlas of a model: from checkpoint and cells to a score for every head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from ..cards._card import ControlKind, OperatorKind
from ..cards._errors import BadInputError
from ..manifolds._panel_file import panel_manifest
from ..manifolds._recipe import HEADLESS, OperatorRecipe
from ._extract import make_job
from ._interface import Job, Progress
from ._operator import N_SPLITS, read_maps, score_panel
from ._prepare import prepare
from .operators._controls import apply_control
from .screen._atlas import HeadAtlas, head_rows


def screen(
    recipe: str | Path,
    *,
    cells: Sequence[str | Path],
    checkpoint: str | Path | None = None,
    family: str | None = None,
    kind: OperatorKind | None = None,
    n_splits: int = N_SPLITS,
    seed: int | None = None,
    control: ControlKind | None = None,
    control_seed: int = 0,
    data: str | Path | None = None,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> HeadAtlas:
    """Score every attention head of a model alone, in one pass over the cells.

    Parameters
    ----------
    recipe, cells, checkpoint, family, seed, control, control_seed, data, work, progress
        As in ``extract``: the panel, genes and cells are those an extraction would use.
    kind
        Operator of a head; the recipe's by default. ``distilled`` and ``expression`` have no heads.
    n_splits
        Random splits of the anchors, the same for every head.

    Returns
    -------
    HeadAtlas
        Held-out scores, residualised for donor, study and tissue, with their spread over splits. A screen chooses
        heads; that a chosen head is better than chance is for the gates to say, on anchors that the choice has not
        seen.

    Raises
    ------
    BadInputError
        If the kind has no heads; else as ``extract``.
    """
    job = make_job(
        recipe,
        cells=cells,
        checkpoint=checkpoint,
        family=family,
        seed=seed,
        control=control,
        control_seed=control_seed,
        data=data,
        work=work,
        progress=progress,
    )
    asked = job.recipe.operator.kind if kind is None else kind
    if asked in HEADLESS:
        raise BadInputError(
            f"An operator of kind {asked!r} has no heads to screen.", "Screen attention_mean, token_ov or token_qk."
        )
    operator = OperatorRecipe(kind=asked, combination="mean")
    job = replace(job, recipe=job.recipe.model_copy(update={"operator": operator}))
    with threadpool_limits(limits=1, user_api="blas"):
        return _score(job, n_splits)


def _score(job: Job, n_splits: int) -> HeadAtlas:
    """Read every head and score it."""
    cell_rng, _, operator_rng = np.random.default_rng(job.seed).spawn(3)
    prepared = prepare(job, cell_rng)
    read = read_maps(job, prepared, per_head=True, rng=operator_rng)
    maps = read.maps
    if job.control is not None:
        maps = apply_control(maps.reshape(-1, *maps.shape[-2:]), job.control).reshape(maps.shape)
    scores = score_panel(job, prepared, maps, n_splits=n_splits, rng=operator_rng)
    return HeadAtlas(
        model=prepared.checkpoint.name,
        model_digest=prepared.checkpoint.digest,
        panel_digest=panel_manifest(prepared.panel, job.recipe.panel.min_cells).digest,
        ruler=job.ruler.name,
        ruler_version=job.ruler.version,
        kind=job.recipe.operator.kind,
        control=job.control,
        n_layers=maps.shape[0],
        n_heads=maps.shape[1],
        n_anchors=len(prepared.panel.anchors),
        n_genes=len(prepared.panel.genes),
        n_cells=read.record["n_cells"],
        n_splits=n_splits,
        seed=job.seed,
        stability=scores.stability,
        heads=head_rows(scores),
    )

"""All readouts of a job, each with what held-out donors say of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.model_selection import GroupKFold

from ..cards._card import Readout
from ..cards._errors import ZooWarning
from ..cards._frozen import Scalar
from ..manifolds._features import fold_projection
from ..manifolds._geodesic import GeodesicHead
from ..manifolds._panel import PanelCells
from ..manifolds._recipe import ReadoutRecipe, Recipe
from ..manifolds._ruler_interface import Ruler
from ._fit_head import Heads
from ._prepare import Prepared
from ._readout import FittedReadout, calibration_error, describe, fit_readout, fit_temperature

N_FOLDS = 5
"""Parts that donors are held out in; our choice."""
_NEVER = -1e9

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Task:
    """The cells that a readout is about.

    Attributes
    ----------
    recipe
        What is asked for.
    rows
        Index of the cells, ``(n_used,)``.
    labels
        Class of each, ``(n_used,)``.
    """

    recipe: ReadoutRecipe
    rows: NDArray[np.intp]
    labels: NDArray[np.str_]

    @classmethod
    def of(cls, recipe: ReadoutRecipe, cells: PanelCells, ruler: Ruler) -> Task:
        """Label cells for a readout.

        Raises
        ------
        BadInputError
            If the recipe groups stages that the ruler lacks.
        """
        every = np.arange(len(cells.stage))
        if recipe.classes is None:
            return cls(recipe, every, np.asarray(cells.stage if recipe.label == "stage" else cells.branch, dtype=str))
        name_of = {stage: name for name, stages in recipe.classes.items() for stage in stages}
        ruler.branch(list(name_of))
        rows = np.flatnonzero([stage in name_of for stage in cells.stage])
        return cls(recipe, rows, np.array([name_of[cells.stage[row]] for row in rows], dtype=str))

    @property
    def stages(self) -> list[str]:
        """Stages that the task is about; empty for all."""
        groups = self.recipe.classes or {}
        return sorted(stage for stages in groups.values() for stage in stages)


def fit_readouts(
    recipe: Recipe,
    prepared: Prepared,
    ruler: Ruler,
    operator: NDArray[np.float32],
    heads: Heads,
    latent: NDArray[np.floating],
    *,
    rng: np.random.Generator,
) -> list[tuple[Readout, dict[str, Float64]]]:
    """Fit the readouts of a recipe, and try each on donors that neither head nor readout has seen.

    Parameters
    ----------
    recipe
        Tasks.
    prepared
        Panel and cells.
    ruler
        Gives depths, if it has a root.
    operator
        Of stage 1, ``(k, n_genes, n_features)``.
    heads
        Fits heads like the shipped one.
    latent
        Coordinates of the cells under the head that is shipped, ``(n_cells, d)``.
    rng
        Draws folds and starts.

    Returns
    -------
    Entry of the card and tensors of each task, in their order, without those that group stages of which the cells
    have one class only. Probabilities are divided by a temperature fitted to the held-out cells, where the recipe asks
    for it and there are donors to hold out.

    Warns
    -----
    ZooWarning
        If a task is left out.

    Notes
    -----
    Donors, told apart within their study, are dealt to five parts. For each part the head is refitted without its
    anchors, or its cells where the head is fitted on cells, and the readout without its cells, in the coordinates of
    that head; so the figures in the card are of cells new to both. The temperature is that of the refitted readouts,
    used for the shipped one: our choice.
    """
    cells = prepared.cells
    asked = [Task.of(readout, cells, ruler) for readout in recipe.readouts if readout.label != "depth"]
    tasks = [task for task in asked if _can_be_told(task)]
    seed = int(rng.integers(2**31))
    shipped = [fit_readout(latent[task.rows], task.labels, task.recipe, seed=seed) for task in tasks]
    held = _held_out(tasks, shipped, prepared, operator, heads, rng, seed)
    found: dict[str, tuple[Readout, dict[str, Float64]]] = {}
    for task, readout, outputs in zip(tasks, shipped, held, strict=True):
        said: dict[str, Scalar] = {}
        if outputs is not None:
            readout, said = _judged(task, readout, outputs)
        depths = [other.task for other in recipe.readouts if other.label == "depth"]
        # not of a ruler without a root, which has no depth
        if depths and task.recipe.task == recipe.stage_task:
            depth = _depth(recipe.stage_task, readout, cells, ruler, outputs)
            found |= {name: depth(name) for name in depths}
        found[task.recipe.task] = (
            Readout(
                task=task.recipe.task,
                kind=task.recipe.kind or "linear",
                classes=list(readout.classes),
                n_hidden=task.recipe.n_hidden if task.recipe.kind == "mlp" else None,
                stages=task.stages,
                n_cells=len(task.rows),
                parameters=describe(task.recipe) | said,
            ),
            readout.tensors,
        )
    return [found[readout.task] for readout in recipe.readouts if readout.task in found]


def _depth(
    stage_task: str, readout: FittedReadout, cells: PanelCells, ruler: Ruler, outputs: Float64 | None
) -> Callable[[str], tuple[Readout, dict[str, Float64]]]:
    """The mean depth under the probabilities of the stages, and how it orders held-out cells of each study."""
    values = ruler.depth(readout.classes)
    parameters: dict[str, Scalar] = {"label": "depth"}
    if outputs is not None:
        known = np.isfinite(outputs).all(axis=1)
        expected = softmax(outputs[known], axis=1) @ values
        truth = ruler.depth(np.asarray(cells.stage)[known].tolist())
        study = np.asarray(cells.study)[known]
        by_study = [spearmanr(expected[study == s], truth[study == s]).statistic for s in sorted(set(study.tolist()))]
        finite = [float(value) for value in by_study if np.isfinite(value)]
        mean = float(np.mean(finite)) if finite else None
        parameters |= {"held_out_by": "donor", "held_out_spearman_within_studies": mean}

    def named(task: str) -> tuple[Readout, dict[str, Float64]]:
        entry = Readout(
            task=task, kind="expected", classes=[], of=stage_task, n_cells=len(cells.stage), parameters=parameters
        )
        return entry, {"values": values}

    return named


def _can_be_told(task: Task) -> bool:
    """Whether the cells have more than one class of a task that groups stages; says so where they have not."""
    if task.recipe.classes is None or len(set(task.labels.tolist())) > 1:
        return True
    found = ", ".join(sorted(set(task.labels.tolist()))) or "none"
    warnings.warn(
        f"The readout {task.recipe.task!r} is left out: of its classes {', '.join(task.recipe.classes)} the cells "
        f"have {found}.",
        ZooWarning,
        stacklevel=3,
    )
    return False


def _held_out(
    tasks: Sequence[Task],
    shipped: Sequence[FittedReadout],
    prepared: Prepared,
    operator: NDArray[np.float32],
    heads: Heads,
    rng: np.random.Generator,
    seed: int,
) -> list[Float64 | None]:
    """Outputs for held-out cells, ``(n_used, n_outputs)``, NaN where a cell's class was not in the training part."""
    cells = prepared.cells
    of_cell = np.array(cells.donor_ids)
    n_donors = len(set(of_cell.tolist()))
    if n_donors < 2:
        return [None] * len(tasks)
    outputs = [np.full((len(task.rows), len(fit.classes)), np.nan) for task, fit in zip(tasks, shipped, strict=True)]
    folds = GroupKFold(min(N_FOLDS, n_donors), shuffle=True, random_state=seed)
    for train, test in folds.split(of_cell, groups=of_cell):
        head = heads.refit(sorted(set(of_cell[test].tolist())), rng)
        if head is None:
            continue
        projection, offset = fold_projection(operator, head.weights, head.bias, head.mean, head.scale)
        latent = np.asarray(cells.values @ projection.astype(np.float32) + offset.astype(np.float32))
        if isinstance(head, GeodesicHead):
            latent = head.landmarks.place(latent).astype(np.float32)
        inside = np.zeros(len(of_cell), dtype=bool)
        inside[train] = True
        for task, fit, found in zip(tasks, shipped, outputs, strict=True):
            _fill(task, fit, found, latent, inside, seed)
    return [found if np.isfinite(found).all(axis=1).sum() >= 2 else None for found in outputs]


def _fill(
    task: Task,
    shipped: FittedReadout,
    found: Float64,
    latent: NDArray[np.floating],
    inside: NDArray[np.bool_],
    seed: int,
) -> None:
    """Write the outputs of a readout fitted on the cells inside for those outside."""
    train = inside[task.rows]
    if train.sum() < 2 or train.all() or len(set(task.labels[train].tolist())) < 2:
        return
    fitted = fit_readout(latent[task.rows[train]], task.labels[train], task.recipe, seed=seed)
    outputs = fitted.outputs(latent[task.rows[~train]])
    given = np.full((len(outputs), len(shipped.classes)), _NEVER)
    given[:, [shipped.classes.index(name) for name in fitted.classes]] = outputs
    # a class that the training part lacks cannot be predicted by anybody
    given[~np.isin(task.labels[~train], fitted.classes)] = np.nan
    found[~train] = given


def _judged(task: Task, readout: FittedReadout, outputs: Float64) -> tuple[FittedReadout, dict[str, Scalar]]:
    """What held-out cells say of a readout, and the readout after calibration."""
    known = np.isfinite(outputs).all(axis=1)
    truth = np.searchsorted(readout.classes, task.labels[known])
    proba = softmax(outputs[known], axis=1)
    recall = [float((proba[truth == c].argmax(axis=1) == c).mean()) for c in np.unique(truth)]
    said: dict[str, Scalar] = {
        "held_out_by": "donor",
        "n_held_out_cells": int(known.sum()),
        "held_out_balanced_accuracy": float(np.mean(recall)),
        "held_out_calibration_error": calibration_error(proba, truth),
    }
    if not task.recipe.calibrate or len(np.unique(truth)) < 2:
        return readout, said
    temperature = fit_temperature(outputs[known], truth)
    cooled = softmax(outputs[known] / temperature, axis=1)
    said |= {"temperature": temperature, "held_out_calibration_error_calibrated": calibration_error(cooled, truth)}
    return readout.cooled(temperature), said

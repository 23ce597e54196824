"""What manifolds and simpler features say of a study that nothing was fitted to.

For each study in turn operators are read, heads and readouts fitted on the cells of the others, and the study placed.
The same head is fitted to raw expression, standardised genes, ten principal components, and operators of the same
architecture with fresh weights. `--external` studies are placed but never fitted to. Prints a Markdown table for each
study; figures in brackets are the 2.5% and 97.5% quantiles over donors drawn with replacement, where there are more
than two.

- `anchors`, `cells`: Spearman correlation of latent angle and ruler distance over pairs within the study; cells are
  drawn so that stages weigh alike.
- `branch`, `stage`: balanced accuracy of linear readouts, over classes that the training studies have.
- `CD4/CD8`, `mono/macro`: AUROC of linear readouts. `depth`: Spearman correlation of the mean depth under the stage
  probabilities with the depth of the stage.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from threadpoolctl import threadpool_limits

from manifoldzoo.cards._card import Control
from manifoldzoo.extractors import make_job, prepare
from manifoldzoo.extractors._fit_readouts import Task
from manifoldzoo.extractors._interface import Job
from manifoldzoo.extractors._operator import read_operator
from manifoldzoo.extractors._prepare import Prepared
from manifoldzoo.extractors._readout import fit_readout
from manifoldzoo.gates._metrics import all_pairs, angular_distances, distance_spearman
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._let import fit_let
from manifoldzoo.manifolds._panel import Panel, PanelCells, build_panel, read_panel_cells
from manifoldzoo.manifolds._recipe import OperatorRecipe

Features = Callable[[Any], NDArray[np.float64]]
KINDS = {"attention_mean": "drift", "token_qk": "drift", "distilled": "none"}
CELLS_PER_STAGE = 60
N_BOOTSTRAP = 100


def dense(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def sources(job: Job, prepared: Prepared, kinds: list[str], n_untrained: int) -> dict[str, list[Features]]:
    """Features of every source, one function for each seed, made from training cells alone."""
    x = prepared.panel.anchors.astype(np.float64)
    mean, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    pca = PCA(10, svd_solver="full").fit(dense(prepared.cells.values))
    found: dict[str, list[Features]] = {
        "raw expression": [dense],
        "standardised genes": [lambda values: (dense(values) - mean) / spread],
        "PCA-10": [lambda values: pca.transform(dense(values))],
    }
    for kind in kinds:
        recipe = job.recipe.model_copy(update={"operator": OperatorRecipe(kind=kind, combination=KINDS[kind])})
        models = [(kind, job.checkpoint)] + [
            (f"{kind}, untrained", job.checkpoint.random_initialisation(seed)) for seed in range(n_untrained)
        ]
        for seed, (name, model) in enumerate(models):
            control = None if name == kind else Control(kind="random-init", seed=seed)
            ready = replace(prepared, checkpoint=model.with_genes(prepared.panel.genes))
            asked = replace(job, recipe=recipe, checkpoint=model, control=control)
            operator, _ = read_operator(asked, ready, np.random.default_rng(0))
            found.setdefault(name, []).append(lambda values, operator=operator: apply_operator(values, operator))
    return found


def place(job: Job, prepared: Prepared, features: Features, seed: int) -> Callable[[Any], NDArray[np.float64]]:
    """Fit a head to the anchors; returns what places cells."""
    settings = job.recipe.adaptor.settings()
    head = fit_let(features(prepared.panel.anchors), prepared.distances, settings, rng=np.random.default_rng(seed))
    return lambda values: head.latent(features(values))


def read_tasks(
    job: Job, prepared: Prepared, latent: NDArray[np.float64], unseen: NDArray[np.float64]
) -> dict[str, Any]:
    """Probabilities of every task for unseen cells, with their classes and stages."""
    found: dict[str, Any] = {}
    for recipe in job.recipe.readouts:
        if recipe.label == "depth":
            continue
        task = Task.of(recipe, prepared.cells, job.ruler)
        if len(set(task.labels.tolist())) < 2:
            continue
        fitted = fit_readout(latent[task.rows], task.labels, recipe, seed=0)
        found[recipe.task] = softmax(fitted.outputs(unseen), axis=1), list(fitted.classes), recipe.classes
    return found


def score_cells(
    job: Job, cells: PanelCells, rows: NDArray[np.intp], latent: NDArray[np.float64], tasks: dict[str, Any]
) -> dict[str, float]:
    """Every figure of some of the cells; NaN where they cannot be scored."""
    stage, branch = np.array(cells.stage)[rows], np.array(cells.branch)[rows]
    found = {}
    drawn = rows_alike(stage)
    target = job.ruler.distances(stage[drawn].tolist())
    angles = angular_distances(latent[rows][drawn])
    found["cells"] = float(distance_spearman(angles, target, all_pairs(len(drawn)))) if np.ptp(target) else np.nan
    for name, truth in (("branch", branch), ("stage", stage)):
        proba, classes, _ = tasks[name]
        known = np.isin(truth, classes)
        said = np.array(classes)[proba[rows].argmax(axis=1)]
        several = len(set(truth[known].tolist())) > 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = balanced_accuracy_score(truth[known], said[known]) if several else np.nan
    for name, shown in (("cd4_cd8", "CD4/CD8"), ("mono_macro", "mono/macro")):
        found[shown] = np.nan
        if name in tasks:
            proba, classes, groups = tasks[name]
            of = {s: c for c, stages in groups.items() for s in stages}
            label = np.array([of.get(s, "") for s in stage])
            used = label != ""
            if len(set(label[used].tolist())) == 2:
                found[shown] = roc_auc_score(label[used] == classes[1], proba[rows][used, 1])
    proba, classes, _ = tasks["stage"]
    depth = job.ruler.depth(stage.tolist())
    expected = proba[rows] @ job.ruler.depth(classes)
    found["depth"] = float(spearmanr(expected, depth).statistic) if np.ptp(depth) else np.nan
    return found


def rows_alike(stage: NDArray[np.str_]) -> NDArray[np.intp]:
    """At most so many cells of each stage."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(stage == name))[:CELLS_PER_STAGE] for name in sorted(set(stage.tolist()))]
    )


def score(
    job: Job, prepared: Prepared, panel: Panel, cells: PanelCells, features: list[Features], starts: int
) -> dict[str, tuple[float, float, float]]:
    """Mean over seeds and starts of every figure, and its interval over donors."""
    donors = np.array(cells.donor)
    names = sorted(set(donors.tolist()))
    of = {name: np.flatnonzero(donors == name) for name in names}
    rng = np.random.default_rng(0)
    # the same draws for every source; without several donors there is nothing to draw
    parts = [np.arange(len(donors))]
    if len(names) > 2:
        draws = [rng.choice(names, len(names)) for _ in range(N_BOOTSTRAP)]
        parts += [np.concatenate([of[name] for name in draw]) for draw in draws]
    target = job.ruler.distances(panel.stage)
    figures: list[list[dict[str, float]]] = []
    for source in features:
        for start in range(starts):
            head = place(job, prepared, source, start)
            latent = head(cells.values)
            tasks = read_tasks(job, prepared, head(prepared.cells.values), latent)
            angles = angular_distances(head(panel.anchors))
            anchors = float(distance_spearman(angles, target, all_pairs(len(target)))) if np.ptp(target) else np.nan
            scored = [score_cells(job, cells, part, latent, tasks) for part in parts]
            figures.append([{"anchors": anchors, **scored[0]}, *scored[1:]])
    found = {}
    for key in figures[0][0]:
        mean = average([run[0][key] for run in figures])
        spread = [average([run[part].get(key, np.nan) for run in figures]) for part in range(1, len(parts))]
        known = [value for value in spread if np.isfinite(value)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) > len(parts) // 2 > 0 else (np.nan, np.nan)
        found[key] = mean, float(low), float(high)
    return found


def average(values: list[float]) -> float:
    """Mean of those that are numbers."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def show(value: tuple[float, float, float]) -> str:
    mean, low, high = value
    return "" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, nargs="+", required=True, help="studies, each left out once")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="studies that are only placed")
    parser.add_argument("--recipe", default="hematopoietic")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--untrained", type=int, default=2, help="untrained models for each kind")
    parser.add_argument("--starts", type=int, default=3, help="starts of each head")
    parser.add_argument("--json", type=Path, help="file for the same figures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {}
    for left_out in [*options.cells, *options.external]:
        training = [path for path in options.cells if path != left_out]
        job = make_job(options.recipe, cells=training)
        with threadpool_limits(limits=1, user_api="blas"):
            prepared = prepare(job, np.random.default_rng(0))
            given = {"genes": prepared.panel.genes, "labels": read_label_table(job.labels), "ruler": job.ruler}
            panel = build_panel([left_out], **given)
            cells = read_panel_cells([left_out], **given, max_per_stage=None, rng=np.random.default_rng(0))
            made = sources(job, prepared, options.kinds, options.untrained)
            rows = {
                name: score(job, prepared, panel, cells, features, options.starts) for name, features in made.items()
            }
        told[left_out.stem] = rows
        columns = list(next(iter(rows.values())))
        donors = len(set(cells.donor))
        print(f"\n{left_out.stem}: {len(cells.stage)} cells, {len(panel.stage)} anchors, {donors} donors\n")
        print(f"| features | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
        for name, values in rows.items():
            print(f"| {name} |" + "".join(f" {show(values[key])} |" for key in columns), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()

"""What manifolds and simpler features say of a study that nothing was fitted to.

For each study in turn operators are read, heads and readouts fitted on the cells of the others, and the study placed.
The same heads are fitted to raw expression, standardised genes, ten principal components, and operators of the same
architecture with fresh weights. `--external` studies are placed but never fitted to. Prints Markdown: a table for each
study, the mean over the studies, and paired differences. Figures in brackets are the 2.5% and 97.5% quantiles over
donors drawn with replacement, where there are more than two; in the mean over studies, over studies drawn with
replacement, all draws that there are.

Heads: `anchor` as `fit_let`, with its default steps or those of the recipe; `cell` and `hybrid` as `fit_cells`, fitted
for the first of `--kinds` and what it is compared with; `relabelled` is fitted to the ruler with stages permuted,
another permutation for each start, and scored by the true ruler.

- `anchors`, `cells`: Spearman correlation of latent angle and ruler distance over pairs within the study; cells are
  drawn so that stages weigh alike.
- `trust`, `trust expr.`: trustworthiness of the latent angles of the same cells at k = 10, against Euclidean distances
  of the features and of expression; no interval over donors.
- `branch`, `stage`: balanced accuracy of linear readouts, over classes that the training studies have.
- `CD4/CD8`, `mono/macro`: AUROC of linear readouts. `depth`: Spearman correlation of the mean depth under the stage
  probabilities with the depth of the stage.
"""

from __future__ import annotations

import argparse
import itertools
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from manifoldzoo.extractors.adaptors import HYBRID, CellSettings, fit_cells
from manifoldzoo.gates.metrics import (
    Pairs,
    all_pairs,
    angular_distances,
    distance_spearman,
    euclidean_distances,
    trustworthiness,
)
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._let import LetHead, LetSettings, fit_let
from manifoldzoo.manifolds._panel import Panel, PanelCells, build_panel, read_panel_cells
from manifoldzoo.manifolds._recipe import OperatorRecipe

Features = Callable[[Any], NDArray[np.float64]]
Figure = tuple[float, float, float]
Rows = dict[str, dict[str, Figure]]
KINDS = {"attention_mean": "drift", "token_qk": "drift", "distilled": "none"}
TASKS = {"cd4_cd8": "CD4/CD8", "mono_macro": "mono/macro"}
PLAIN = ("raw expression", "standardised genes", "PCA-10")
CELLS_PER_STAGE = 60
N_BOOTSTRAP = 100
NEIGHBOURS = 10


@dataclass(frozen=True)
class Head:
    """A way to fit a head: to anchors, by default steps or those of the recipe, or to cells where settings say how."""

    name: str
    settings: CellSettings | None = None
    relabelled: bool = False
    recipe_steps: bool = False

    def fit(self, job: Job, prepared: Prepared, features: Features, seed: int) -> LetHead:
        """Fit to the training cells of a job; stages are permuted anew for each seed where they are."""
        rng = np.random.default_rng(seed)
        ruler = job.ruler.relabelled(rng=np.random.default_rng(seed)) if self.relabelled else job.ruler
        if self.settings is None:
            asked = job.recipe.adaptor.settings()
            settings = asked if self.recipe_steps else LetSettings(n_components=asked.n_components)
            return fit_let(features(prepared.panel.anchors), ruler.distances(prepared.panel.stage), settings, rng=rng)
        cells, stages = prepared.cells, sorted(set(prepared.cells.stage))
        found = features(cells.values)
        return fit_cells(found, cells.stage, ruler.distances(stages), self.settings, stages=stages, rng=rng).head


ANCHOR = Head("anchor")


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
    varies = bool(np.ptp(target))
    found["cells"] = float(distance_spearman(angles, target, pairs_apart(rows[drawn]))) if varies else np.nan
    for name, truth in (("branch", branch), ("stage", stage)):
        proba, classes, _ = tasks[name]
        known = np.isin(truth, classes)
        said = np.array(classes)[proba[rows].argmax(axis=1)]
        several = len(set(truth[known].tolist())) > 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[name] = balanced_accuracy_score(truth[known], said[known]) if several else np.nan
    for name, shown in TASKS.items():
        found[shown] = np.nan
        if name in tasks:
            proba, classes, groups = tasks[name]
            label = class_of(stage, groups)
            used = label != ""
            if len(set(label[used].tolist())) == 2:
                found[shown] = roc_auc_score(label[used] == classes[1], proba[rows][used, 1])
    depth = job.ruler.depth(stage.tolist())
    expected = mean_depth(job, tasks)[rows]
    found["depth"] = float(spearmanr(expected, depth).statistic) if np.ptp(depth) else np.nan
    return found


def mean_depth(job: Job, tasks: dict[str, Any]) -> NDArray[np.float64]:
    """Mean depth under the stage probabilities, as the readout that is shipped."""
    proba, classes, _ = tasks["stage"]
    return np.asarray(proba @ job.ruler.depth(classes))


def class_of(stage: NDArray[np.str_], groups: dict[str, list[str]]) -> NDArray[np.str_]:
    """Class of each cell in a task that groups stages, empty where it has none."""
    of = {s: c for c, stages in groups.items() for s in stages}
    return np.array([of.get(s, "") for s in stage.tolist()])


def pairs_apart(rows: NDArray[np.intp]) -> Pairs:
    """Every pair, but for a cell that was drawn twice and itself."""
    pairs = all_pairs(len(rows))
    apart = rows[pairs.left] != rows[pairs.right]
    return Pairs(pairs.left[apart], pairs.right[apart])


def trust_of(
    cells: PanelCells, rows: NDArray[np.intp], features: NDArray[np.float64], latent: NDArray[np.float64]
) -> dict[str, float]:
    """Trustworthiness of some cells against features and against expression; NaN where they are too few."""
    if len(rows) <= 2 * NEIGHBOURS:
        return {"trust": np.nan, "trust expr.": np.nan}
    angles = angular_distances(latent[rows])
    spaces = {"trust": features[rows], "trust expr.": dense(cells.values[rows])}
    return {name: trustworthiness(euclidean_distances(x), angles, k=NEIGHBOURS) for name, x in spaces.items()}


def rows_alike(stage: NDArray[np.str_]) -> NDArray[np.intp]:
    """At most so many cells of each stage."""
    rng = np.random.default_rng(0)
    return np.concatenate(
        [rng.permutation(np.flatnonzero(stage == name))[:CELLS_PER_STAGE] for name in sorted(set(stage.tolist()))]
    )


def score(
    job: Job,
    prepared: Prepared,
    panel: Panel,
    cells: PanelCells,
    features: list[Features],
    head: Head,
    starts: int,
) -> dict[str, Figure]:
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
    target, alike = job.ruler.distances(panel.stage), rows_alike(np.array(cells.stage))
    figures: list[list[dict[str, float]]] = []
    for source in features:
        seen, unseen, anchors = (source(x) for x in (prepared.cells.values, cells.values, panel.anchors))
        for start in range(starts):
            fitted = head.fit(job, prepared, source, start)
            latent = fitted.latent(unseen)
            tasks = read_tasks(job, prepared, fitted.latent(seen), latent)
            angles = angular_distances(fitted.latent(anchors))
            apart = float(distance_spearman(angles, target, all_pairs(len(target)))) if np.ptp(target) else np.nan
            scored = [score_cells(job, cells, part, latent, tasks) for part in parts]
            whole = {"anchors": apart, "cells": scored[0].pop("cells"), **trust_of(cells, alike, unseen, latent)}
            figures.append([whole | scored[0], *scored[1:]])
    found = {}
    for key in figures[0][0]:
        mean = average([run[0][key] for run in figures])
        spread = [average([run[part].get(key, np.nan) for run in figures]) for part in range(1, len(parts))]
        known = [value for value in spread if np.isfinite(value)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) > len(parts) // 2 > 0 else (np.nan, np.nan)
        found[key] = mean, float(low), float(high)
    return found


def heads_of(kind: str, options: argparse.Namespace, d: int) -> dict[str, list[Head]]:
    """Heads to fit to each source; the anchor head alone to those not named, and to all without starts on cells."""
    anchor = replace(ANCHOR, recipe_steps=options.recipe_steps)
    cell = Head("cell", CellSettings(epochs=options.epochs, n_components=d))
    hybrid = Head("hybrid", replace(HYBRID, epochs=options.epochs, n_components=d))
    relabelled = [replace(head, name=f"{head.name}, relabelled", relabelled=True) for head in (anchor, cell)]
    asked = {name: [anchor, cell] for name in (*PLAIN, f"{kind}, untrained")} | {
        kind: [anchor, cell, hybrid, *relabelled],
        "": [anchor],
    }
    return {
        name: [head for head in heads if head.settings is None or options.cell_starts] for name, heads in asked.items()
    }


def over_studies(values: list[float]) -> Figure:
    """Mean over studies that have a figure, and its interval over all draws of as many with replacement."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return np.nan, np.nan, np.nan
    means = [float(np.mean(draw)) for draw in itertools.product(known, repeat=len(known))]
    low, high = np.quantile(means, [0.025, 0.975]) if len(known) > 1 else (np.nan, np.nan)
    return float(np.mean(known)), float(low), float(high)


def differences(kind: str) -> list[tuple[str, str]]:
    """Pairs of rows whose difference is shown, chosen before anything was run."""
    against = [*PLAIN, f"{kind}, untrained"]
    pairs = [(f"{kind} | {head}", f"{other} | {head}") for head in ("anchor", "cell") for other in against]
    within = [("cell", "anchor"), ("hybrid", "cell"), ("anchor", "anchor, relabelled"), ("cell", "cell, relabelled")]
    return [*pairs, *((f"{kind} | {one}", f"{kind} | {other}") for one, other in within)]


def average(values: list[float]) -> float:
    """Mean of those that are numbers."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def show(value: Figure) -> str:
    mean, low, high = value
    return "" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def table(first: str, rows: Rows) -> str:
    """Rows as Markdown; a name that holds a bar fills two columns."""
    columns = list(next(iter(rows.values())))
    head = f"| {first} | {' | '.join(columns)} |"
    lines = [head, "|" + " --- |" * (head.count("|") - 1)]
    return "\n".join(
        lines + [f"| {name} |" + "".join(f" {show(row[key])} |" for key in columns) for name, row in rows.items()]
    )


def report_study(study: str, told: dict[str, Any]) -> str:
    counts = f"{told['n_cells']} cells, {told['n_anchors']} anchors, {told['n_donors']} donors"
    return f"\n**{study}**{told['note']}: {counts}\n\n{table('features | head', told['rows'])}"


def report_summary(told: dict[str, Any], kind: str) -> str:
    """Tables over all studies: means, paired differences, and how many cells have the classes of each task."""
    studies = [one["rows"] for one in told.values()]
    every = list(next(iter(studies[0].values())))
    n = {key: sum(np.isfinite(one[f"{kind} | anchor"][key][0]) for one in studies) for key in every}
    columns = [key for key in every if n[key]]
    means: Rows = {
        name: {f"{key} ({n[key]})": over_studies([one[name][key][0] for one in studies]) for key in columns}
        for name in studies[0]
    }
    gaps: Rows = {
        f"{one} | {other}": {
            f"{key} ({n[key]})": over_studies([rows[one][key][0] - rows[other][key][0] for rows in studies])
            for key in columns
        }
        for one, other in differences(kind)
        if one in studies[0] and other in studies[0]
    }
    parts = [
        f"\n**Mean over {len(studies)} studies**; in parentheses how many have the figure\n",
        table("features | head", means),
        "\n**Differences, paired over studies**: the first less the second\n",
        table("first | its head | second | its head", gaps),
    ]
    classes = list(next(iter(told.values()))["classes"])
    if classes:
        lines = [f"| study | {' | '.join(classes)} |", "|" + " --- |" * (len(classes) + 1)]
        lines += [f"| {study} | {' | '.join(str(one['classes'][c]) for c in classes)} |" for study, one in told.items()]
        parts += ["\n**Cells of the classes of tasks that group stages**\n", *lines]
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, nargs="+", required=True, help="studies, each left out once")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="studies that are only placed")
    parser.add_argument("--recipe", default="hematopoietic")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--untrained", type=int, default=2, help="untrained models for each kind")
    parser.add_argument("--starts", type=int, default=3, help="starts of each head fitted to anchors")
    parser.add_argument("--cell-starts", type=int, default=2, help="starts of each head fitted to cells, or 0")
    parser.add_argument("--recipe-steps", action="store_true", help="fit to anchors by the steps of the recipe")
    parser.add_argument("--epochs", type=int, default=CellSettings().epochs, help="of heads fitted to cells")
    parser.add_argument("--json", type=Path, help="file for the same figures")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {}
    for left_out in [*options.cells, *options.external]:
        training = [path for path in options.cells if path != left_out]
        job = make_job(options.recipe, cells=training)
        heads = heads_of(options.kinds[0], options, job.recipe.adaptor.n_components)
        with threadpool_limits(limits=1, user_api="blas"):
            prepared = prepare(job, np.random.default_rng(0))
            given = {"genes": prepared.panel.genes, "labels": read_label_table(job.labels), "ruler": job.ruler}
            panel = build_panel([left_out], **given)
            cells = read_panel_cells([left_out], **given, max_per_stage=None, rng=np.random.default_rng(0))
            made = sources(job, prepared, options.kinds, options.untrained)
            rows = {
                f"{name} | {head.name}": score(
                    job,
                    prepared,
                    panel,
                    cells,
                    features,
                    head,
                    options.starts if head.settings is None else options.cell_starts,
                )
                for name, features in made.items()
                for head in heads.get(name, heads[""])
            }
        grouped = {task.task: task.classes for task in job.recipe.readouts if task.classes}
        told[left_out.stem] = {
            "note": " (external, fitted to by none)" if left_out in options.external else "",
            "n_cells": len(cells.stage),
            "n_anchors": len(panel.stage),
            "n_donors": len(set(cells.donor)),
            "classes": {
                name: int((class_of(np.array(cells.stage), groups) == name).sum())
                for groups in grouped.values()
                for name in groups
            },
            "rows": rows,
        }
        print(report_study(left_out.stem, told[left_out.stem]), flush=True)
        if options.json is not None:
            options.json.write_text(json.dumps(told, indent=1))
    print(report_summary(told, options.kinds[0]))


if __name__ == "__main__":
    main()

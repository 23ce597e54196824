"""What manifolds and simpler features say of a study that nothing was fitted to.

For each study in turn operators are read, heads and readouts fitted on the cells of the others, and the study placed.
The same heads are fitted to raw expression, standardised genes, ten principal components, and operators of the same
architecture with fresh weights. `--external` studies are placed but never fitted to. Prints Markdown: a table for each
study, the mean over the studies, and paired differences. Figures in brackets are the 2.5% and 97.5% quantiles over
donors drawn with replacement, where there are more than two; in the mean over studies, over studies drawn with
replacement, all draws that there are.

Any recipe can be given, also one whose ruler is computed from files: the ruler is then the same for all studies,
computed once and stated on top, and only heads are fitted anew. Where it was computed from the study left out too,
heads that do better than heads fitted to its null rulers (`relabelled`) say more than heads that do well.

Heads: `anchor` as `fit_let`, with its default steps or those of the recipe; heads of other kinds that the recipe names
or has open to choice, or `--adaptors` names, beside it; `cell` and `hybrid` as `fit_cells`, fitted for the first of
`--kinds` and what it is compared with; `relabelled` is fitted to a null ruler, which is a stage graph with stages
permuted, or one that an interaction ruler brings, another one for each start, and scored by the true ruler.

- `anchors`, `cells`: Spearman correlation of latent and ruler distance over pairs within the study; cells are drawn so
  that stages weigh alike.
- `geodesic`: the same of anchors along the graph of neighbours.
- `over PCA-2`, `over PCA-6`: `anchors` less the correlation of Euclidean distances on the first principal components of
  the features of the training anchors; no interval over donors, and none of fewer than ten anchors.
- `trust`, `trust expr.`: trustworthiness of the latent distances of the same cells at k = 10, against Euclidean
  distances of the features and of expression; no interval over donors.
- `branch`, `stage`: balanced accuracy of linear readouts, over classes that the training studies have.
- `CD4/CD8`, `mono/macro`: AUROC of linear readouts. `depth`: Spearman correlation of the mean depth under the stage
  probabilities with the depth of the stage. What the recipe reads out no task of stays empty.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from left_out.tables import PLAIN, Figure, average, report_ruler, report_study, report_summary
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
    distance_spearman,
    euclidean_distances,
    geodesic_correlation,
    principal_coordinates,
    trustworthiness,
)
from manifoldzoo.gates.rungs._geometry import figure_or_reason, neighbours_that_connect
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._heads import Head as FittedHead
from manifoldzoo.manifolds._heads import HeadSettings, fit_head, latent_distances
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._panel import Panel, PanelCells, build_panel, read_panel_cells
from manifoldzoo.manifolds._recipe import AdaptorRecipe, OperatorRecipe, Recipe

Features = Callable[[Any], NDArray[np.float64]]
KINDS = {"attention_mean": "drift", "token_qk": "drift", "distilled": "none"}
TASKS = {"cd4_cd8": "CD4/CD8", "mono_macro": "mono/macro"}
CELLS_PER_STAGE = 60
N_BOOTSTRAP = 100
NEIGHBOURS = 10
PCA_BESIDE = (2, 6)
MIN_ANCHORS = 10


@dataclass(frozen=True)
class Head:
    """A way to fit a head: to anchors, by default LET steps, or to cells where settings say how."""

    name: str
    settings: CellSettings | None = None
    relabelled: bool = False
    on_anchors: HeadSettings | None = None

    def fit(self, job: Job, prepared: Prepared, features: Features, seed: int) -> FittedHead:
        """Fit to the training cells of a job; the null ruler is another one for each seed where there is one."""
        rng, ruler = np.random.default_rng(seed), job.ruler
        if self.relabelled:
            nulls = ruler.nulls([np.random.default_rng(each) for each in range(seed + 1)])
            ruler = nulls[seed % len(nulls)]
        if self.settings is None:
            settings = self.on_anchors or LetSettings(n_components=job.recipe.adaptor.n_components)
            return fit_head(features(prepared.panel.anchors), ruler.distances(prepared.panel.stage), settings, rng=rng)
        cells, stages = prepared.cells, sorted(set(prepared.cells.stage))
        found = features(cells.values)
        return fit_cells(found, cells.stage, ruler.distances(stages), self.settings, stages=stages, rng=rng).head


ANCHOR = Head("anchor")


def apart(head: Head, latent: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distances between latents as a head means them."""
    return latent_distances(latent, head.on_anchors or LetSettings())


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
        read = softmax(fitted.outputs(unseen), axis=1), list(fitted.classes), recipe.classes
        found[recipe.task] = read
        if recipe.classes is None:
            # whatever the recipe calls them
            found.setdefault(recipe.label, read)
    return found


def score_cells(
    job: Job, cells: PanelCells, rows: NDArray[np.intp], latent: NDArray[np.float64], tasks: dict[str, Any], head: Head
) -> dict[str, float]:
    """Every figure of some of the cells; NaN where they cannot be scored."""
    stage, branch = np.array(cells.stage)[rows], np.array(cells.branch)[rows]
    found = {}
    drawn = rows_alike(stage)
    target = job.ruler.distances(stage[drawn].tolist())
    distances = apart(head, latent[rows][drawn])
    varies = bool(np.ptp(target))
    found["cells"] = float(distance_spearman(distances, target, pairs_apart(rows[drawn]))) if varies else np.nan
    for name, truth in (("branch", branch), ("stage", stage)):
        if name not in tasks:
            found[name] = np.nan
            continue
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
    found["depth"] = np.nan
    if job.ruler.root is not None and "stage" in tasks:
        depth, expected = job.ruler.depth(stage.tolist()), mean_depth(job, tasks)[rows]
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
    cells: PanelCells, rows: NDArray[np.intp], features: NDArray[np.float64], latent: NDArray[np.float64], head: Head
) -> dict[str, float]:
    """Trustworthiness of some cells against features and against expression; NaN where they are too few."""
    if len(rows) <= 2 * NEIGHBOURS:
        return {"trust": np.nan, "trust expr.": np.nan}
    distances = apart(head, latent[rows])
    spaces = {"trust": features[rows], "trust expr.": dense(cells.values[rows])}
    return {name: trustworthiness(euclidean_distances(x), distances, k=NEIGHBOURS) for name, x in spaces.items()}


def score_anchors(
    target: NDArray[np.float64],
    distances: NDArray[np.float64],
    seen: NDArray[np.float64],
    features: NDArray[np.float64],
) -> dict[str, float]:
    """Figures of the anchors of a study, margins over components of the training anchors; NaN where there is none."""
    names = ["anchors", "geodesic", *(f"over PCA-{size}" for size in PCA_BESIDE)]
    if not np.ptp(target):
        return dict.fromkeys(names, np.nan)
    pairs = all_pairs(len(target))

    def geodesic() -> float:
        return geodesic_correlation(distances, target, k=neighbours_that_connect(distances))

    def margin(size: int) -> float:
        placed = euclidean_distances(principal_coordinates(seen, features, d=size))
        return own - float(distance_spearman(placed, target, pairs))

    own = float(distance_spearman(distances, target, pairs))
    told = [own, figure_or_reason(geodesic), *(figure_or_reason(partial(margin, size)) for size in PCA_BESIDE)]
    # a reason is no figure, and a few anchors say nothing of margins
    told = told if len(target) >= MIN_ANCHORS else told[:1]
    return {name: value if isinstance(value, float) else np.nan for name, value in zip_longest(names, told)}


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
        trained = source(prepared.panel.anchors)
        for start in range(starts):
            fitted = head.fit(job, prepared, source, start)
            latent = fitted.latent(unseen)
            tasks = read_tasks(job, prepared, fitted.latent(seen), latent)
            placed = score_anchors(target, apart(head, fitted.latent(anchors)), trained, anchors)
            scored = [score_cells(job, cells, part, latent, tasks, head) for part in parts]
            whole = placed | {"cells": scored[0].pop("cells"), **trust_of(cells, alike, unseen, latent, head)}
            figures.append([whole | scored[0], *scored[1:]])
    found = {}
    for key in figures[0][0]:
        mean = average([run[0][key] for run in figures])
        spread = [average([run[part].get(key, np.nan) for run in figures]) for part in range(1, len(parts))]
        known = [value for value in spread if np.isfinite(value)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) > len(parts) // 2 > 0 else (np.nan, np.nan)
        found[key] = mean, float(low), float(high)
    return found


def anchor_heads(options: argparse.Namespace, recipe: Recipe) -> list[Head]:
    """Heads to fit to anchors: one by LET steps first, then those of other kinds."""
    named = [AdaptorRecipe(**_adaptor(each)) for each in options.adaptors]
    if not named:
        named = (
            list(recipe.choice.adaptors) if recipe.choice is not None and recipe.choice.adaptors else [recipe.adaptor]
        )
    d = options.components or recipe.adaptor.n_components
    heads = [ANCHOR]
    for each in named:
        settings = replace(each.settings(), n_components=d)
        if not isinstance(settings, LetSettings):
            heads.append(Head(f"{each.kind}, k = {settings.n_neighbours}", on_anchors=settings))
        elif options.recipe_steps:
            heads[0] = replace(ANCHOR, on_anchors=settings)
    heads[0] = replace(heads[0], on_anchors=heads[0].on_anchors or LetSettings(n_components=d))
    return heads


def _adaptor(name: str) -> dict[str, Any]:
    """A kind of head, and its neighbours after a colon."""
    kind, _, neighbours = name.partition(":")
    return {"kind": kind} | ({"n_neighbours": int(neighbours)} if neighbours else {})


def heads_of(kind: str, options: argparse.Namespace, recipe: Recipe) -> dict[str, list[Head]]:
    """Heads to fit to each source; those on anchors alone to sources not named, and to all without starts on cells."""
    anchor, *others = anchor_heads(options, recipe)
    d = anchor.on_anchors.n_components
    cell = Head("cell", CellSettings(epochs=options.epochs, n_components=d))
    hybrid = Head("hybrid", replace(HYBRID, epochs=options.epochs, n_components=d))
    # a head that does not read the ruler is the same for every other one
    relabelled = [replace(head, name=f"{head.name}, relabelled", relabelled=True) for head in (anchor, cell)]
    asked = {name: [anchor, *others, cell] for name in (*PLAIN, f"{kind}, untrained")} | {
        kind: [anchor, *others, cell, hybrid, *relabelled],
        "": [anchor, *others],
    }
    return {
        name: [head for head in heads if head.settings is None or options.cell_starts] for name, heads in asked.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=Path, nargs="*", help="studies, each left out once; or those of --panels")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="studies that are only placed")
    parser.add_argument("--recipe", default="hematopoietic")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--untrained", type=int, default=2, help="untrained models for each kind")
    parser.add_argument("--starts", type=int, default=3, help="starts of each head fitted to anchors")
    parser.add_argument("--cell-starts", type=int, default=2, help="starts of each head fitted to cells, or 0")
    parser.add_argument("--recipe-steps", action="store_true", help="fit to anchors by the steps of the recipe")
    parser.add_argument("--epochs", type=int, default=CellSettings().epochs, help="of heads fitted to cells")
    parser.add_argument("--json", type=Path, help="file for the same figures")
    parser.add_argument("--adaptors", nargs="*", default=[], help="kinds of head on anchors, such as isomap:15")
    parser.add_argument("--components", type=int, help="coordinates of heads; by default those of the recipe")
    parser.add_argument("--checkpoint", type=Path, help="folder of a model; the reference checkpoint by default")
    parser.add_argument("--panels", type=Path, help="specification whose extraction panels say how files are read")
    parser.add_argument("--data", type=Path, help="folder of its files, and of those that a ruler is computed from")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    told: dict[str, Any] = {}
    # the ruler is that of the recipe, whatever is left out
    where = {"checkpoint": options.checkpoint, "panels": options.panels, "data": options.data}
    whole = replace(make_job(options.recipe, cells=options.cells or None, **where), panels=None)
    print(report_ruler(whole), flush=True)
    heads = heads_of(options.kinds[0], options, whole.recipe)
    for left_out in [*whole.cells, *options.external]:
        job = replace(whole, cells=tuple(path for path in whole.cells if path != left_out))
        with threadpool_limits(limits=1, user_api="blas"):
            prepared = prepare(job, np.random.default_rng(0))
            given = {"genes": prepared.panel.genes, "labels": job.recipe.labels.read(job.labels), "ruler": job.ruler}
            given["reading"] = job.reading
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

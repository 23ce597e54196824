"""How well cells of the marrow are ordered by depth, with the marrow held out of every fit.

Operators are read and heads fitted on the `--others` (and again with `--more`), and the cells of the marrow ordered by

- `depth`: mean depth under the stage probabilities, the readout that is shipped;
- `angle`: latent angle from the centroid of the HSC anchors, the distance that heads are fitted by;
- `diffusion`: diffusion pseudotime over latent directions, from the cell nearest to that centroid.

The same with each run of the marrow left out and the other fitted to as well. Beside them stand orderings that need a
root and no labels: diffusion pseudotime of expression (scanpy), the first principal component, total counts, and the
pseudotime in the file. The three orderings and all settings were chosen before anything was run.

Figures are Spearman correlations with the order HSC < CMP, MEP, GMP < later, and with the pseudotime in the file; an
ordering that has a direction keeps its sign, the first component is turned. Arms are the stages on the ruler's path
from HSC to their ends; `pairs` is the share of pairs of stages, one the ancestor of the other, whose mean ranks are in
order. `root` is the share of fits whose cell nearest to the centroid is labelled HSC. Brackets: 2.5% and 97.5%
quantiles over cells drawn with replacement, heads as they are. Means over starts and untrained models, and over runs
where each is left out. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import scanpy as sc
from leave_one_study_out import ANCHOR, KINDS, Features, Head, average, dense, mean_depth, read_tasks, sources
from numpy.typing import NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from manifoldzoo.extractors import make_job, prepare
from manifoldzoo.extractors._interface import Job
from manifoldzoo.extractors._prepare import Prepared
from manifoldzoo.extractors.adaptors import CellSettings
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._panel import PanelCells, read_panel_cells
from manifoldzoo.manifolds._ruler import StageRuler

Floats = NDArray[np.float64]
Orderings = dict[str, Floats]
ARMS = {
    "erythroid": ("polychromatic_erythroblast",),
    "monocyte": ("classical_monocyte",),
    "dendritic": ("cdc2", "pdc"),
}
PROGENITORS = ("cmp", "mep", "gmp")
PSEUDOTIME = "monocle2_pseudotime"
GOAL = 0.85
N_GENES, N_COMPONENTS, N_NEIGHBOURS, N_ROOTS = 2000, 30, 15, 20
CELL_HEAD_OF = ("raw expression",)


@dataclass(frozen=True, eq=False)
class Truth:
    """What orderings are held against, for some cells.

    `levels` (n,): 0 HSC, 1 CMP, MEP or GMP, 2 later. `draws` (n_draws, n): cells drawn with replacement.
    """

    stage: NDArray[np.str_]
    levels: NDArray[np.int64]
    pseudotime: Floats
    draws: NDArray[np.intp]

    @classmethod
    def of(cls, stage: NDArray[np.str_], pseudotime: Floats, ruler: StageRuler, n_draws: int) -> Truth:
        levels = np.where(stage == ruler.root, 0, np.where(np.isin(stage, PROGENITORS), 1, 2))
        return cls(stage, levels, pseudotime, np.random.default_rng(0).integers(len(stage), size=(n_draws, len(stage))))


def spearman(left: NDArray[Any], right: NDArray[Any]) -> float:
    """Spearman correlation; infinite values are ranks like others; NaN where a side does not vary."""
    x, y = rankdata(left), rankdata(right)
    x, y = x - x.mean(), y - y.mean()
    size = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / size) if size > 0 else np.nan


def ceiling(levels: NDArray[np.int64]) -> float:
    """Correlation of an ordering without ties that never contradicts the levels."""
    return spearman(np.argsort(np.argsort(levels, kind="stable"), kind="stable"), levels)


def arm_stages(ruler: StageRuler, ends: tuple[str, ...], present: set[str]) -> list[str]:
    """Stages on the paths from the root to the ends of an arm that there are cells of, by depth."""
    names = sorted(present)
    return sorted(
        {name for name in names for end in ends if is_ancestor(ruler, name, end) or name == end},
        key=lambda name: (ruler.depth([name])[0], name),
    )


def is_ancestor(ruler: StageRuler, first: str, second: str) -> bool:
    """Whether the shortest way from the root to the second stage passes the first."""
    depth = ruler.depth([first, second])
    return first != second and bool(depth[0] + ruler.distances([first, second])[0, 1] == depth[1])


def figures(ordering: Floats, truth: Truth, ruler: StageRuler, *, turn: bool = False) -> dict[str, list[float]]:
    """Each figure of an ordering, of all cells and then of each draw."""
    sign = -1.0 if turn and spearman(ordering, truth.levels) < 0 else 1.0
    parts = [np.arange(len(ordering)), *truth.draws]
    found: dict[str, list[float]] = {
        "order": [sign * spearman(ordering[part], truth.levels[part]) for part in parts],
        "pseudotime": [sign * spearman(ordering[part], truth.pseudotime[part]) for part in parts],
    }
    for arm, ends in ARMS.items():
        stages = arm_stages(ruler, ends, set(truth.stage.tolist()))
        inside = [part[np.isin(truth.stage[part], stages)] for part in parts]
        found[arm] = [sign * spearman(ordering[part], truth.levels[part]) for part in inside]
        # ranks, because a cell that diffusion does not reach is infinitely far
        ranks = sign * rankdata(ordering)
        mean = {name: ranks[truth.stage == name].mean() for name in stages}
        pairs = [(a, b) for a in stages for b in stages if is_ancestor(ruler, a, b)]
        found[f"{arm}, pairs"] = [float(np.mean([mean[a] < mean[b] for a, b in pairs]))]
    return found


def diffusion(rows: Floats, root: int) -> Floats:
    """Diffusion pseudotime (Haghverdi et al. 2016) over rows, with scanpy's defaults but for the settings above."""
    table = ad.AnnData(np.asarray(rows, dtype=np.float32))
    sc.pp.neighbors(table, n_neighbors=N_NEIGHBOURS, use_rep="X")
    return diffusion_from(table, root)


def diffusion_from(table: ad.AnnData, root: int) -> Floats:
    """Diffusion pseudotime of a table that has neighbours."""
    if "X_diffmap" not in table.obsm:
        sc.tl.diffmap(table)
    table.uns["iroot"] = int(root)
    sc.tl.dpt(table)
    return np.asarray(table.obs["dpt_pseudotime"], dtype=np.float64)


def principal(cells: ad.AnnData, genes: list[str] | None = None) -> ad.AnnData:
    """Principal components and neighbours of cells, over genes that vary or those given."""
    table = cells.copy()
    sc.pp.normalize_total(table, target_sum=1e4)
    sc.pp.log1p(table)
    if genes is None:
        sc.pp.highly_variable_genes(table, n_top_genes=N_GENES)
        table = table[:, table.var["highly_variable"]].copy()
    else:
        table = table[:, table.var_names.isin(genes)].copy()
    sc.pp.pca(table, n_comps=min(N_COMPONENTS, min(table.shape) - 1))
    sc.pp.neighbors(table, n_neighbors=N_NEIGHBOURS)
    return table


def peers(cells: ad.AnnData, stage: NDArray[np.str_], root: str, genes: list[str]) -> tuple[Orderings, Orderings]:
    """Orderings that need no labels but a root, and those from roots drawn among the labelled."""
    whole, panel = principal(cells), principal(cells, genes)
    labelled = np.flatnonzero(stage == root)

    def middle(table: ad.AnnData) -> int:
        rows = table.obsm["X_pca"][labelled]
        return int(labelled[((rows - rows.mean(axis=0)) ** 2).sum(axis=1).argmin()])

    totals = np.asarray(cells.X.sum(axis=1)).ravel()
    marker = dense(cells[:, "CD34"].X).ravel()
    highest = int((marker / totals).argmax())
    drawn = np.random.default_rng(0).choice(labelled, min(N_ROOTS, len(labelled)), replace=False)
    named = {
        "DPT, root in the middle of HSC": diffusion_from(whole, middle(whole)),
        "DPT, root of highest CD34": diffusion_from(whole, highest),
        "DPT of the panel's genes, root in the middle of HSC": diffusion_from(panel, middle(panel)),
        "PC1, turned": np.asarray(whole.obsm["X_pca"][:, 0], dtype=np.float64),
        "total counts": totals.astype(np.float64),
        "pseudotime in the file (Monocle 2)": np.asarray(cells.obs[PSEUDOTIME], dtype=np.float64),
    }
    return named, {str(index): diffusion_from(whole, int(index)) for index in drawn}


def orderings(job: Job, prepared: Prepared, source: Features, head: Head, seed: int, cells: PanelCells) -> Orderings:
    """The three orderings of cells under one head."""
    fitted = head.fit(job, prepared, source, seed)
    latent = fitted.latent(source(cells.values))
    tasks = read_tasks(job, prepared, fitted.latent(source(prepared.cells.values)), latent)
    anchors = np.array(prepared.panel.stage) == job.ruler.root
    # as the angle is the metric, centroids are of directions too
    centre = directions(fitted.latent(source(prepared.panel.anchors[anchors]))).mean(axis=0)
    towards = directions(latent)
    angle = np.arccos(np.clip(towards @ directions(centre[None])[0], -1.0, 1.0))
    return {"depth": mean_depth(job, tasks), "angle": angle, "diffusion": diffusion(towards, int(angle.argmin()))}


def directions(latent: Floats) -> Floats:
    """Latents of length 1."""
    return np.asarray(latent / np.linalg.norm(latent, axis=1, keepdims=True))


Found = dict[str, dict[str, list[dict[str, list[float]]]]]


def order_left_out(
    training: list[Path], left_out: Path, options: argparse.Namespace, found: Found
) -> tuple[StageRuler, tuple[str, ...]]:
    """Add the figures of every source, head, start and ordering for one part that is left out."""
    job = make_job(options.recipe, cells=training)
    prepared = prepare(job, np.random.default_rng(0))
    given = {"genes": prepared.panel.genes, "labels": read_label_table(job.labels), "ruler": job.ruler}
    cells = read_panel_cells([left_out], **given, max_per_stage=None, rng=np.random.default_rng(0))
    known = ad.read_h5ad(left_out, backed="r").obs
    names = [name.split(":", 1)[1] for name in cells.cell_ids]
    pseudotime = known.loc[names, PSEUDOTIME].to_numpy(dtype=np.float64)
    truth = Truth.of(np.array(cells.stage), pseudotime, job.ruler, options.draws)
    anchor = replace(ANCHOR, on_anchors=job.recipe.adaptor.settings()) if options.recipe_steps else ANCHOR
    cell = Head("cell", CellSettings(epochs=options.epochs, n_components=job.recipe.adaptor.n_components))
    for name, features in sources(job, prepared, [options.kind], options.untrained).items():
        for head in [anchor, cell] if name in (*CELL_HEAD_OF, options.kind) and options.cell_starts else [anchor]:
            for source in features:
                for start in range(options.starts if head.settings is None else options.cell_starts):
                    row = found.setdefault(f"{name} | {head.name}", {})
                    made = orderings(job, prepared, source, head, start, cells)
                    root = float(truth.levels[made["angle"].argmin()] == 0)
                    for way, ordering in made.items():
                        scored = {**figures(ordering, truth, job.ruler), "root": [root]}
                        row.setdefault(way, []).append(scored)
    return job.ruler, prepared.panel.genes


def show(runs: list[dict[str, list[float]]], key: str) -> str:
    """Mean over runs, and its interval over draws of cells where there are any."""
    mean = average([run[key][0] for run in runs])
    spread = [average([run[key][draw] for run in runs]) for draw in range(1, len(runs[0][key]))]
    if not spread:
        return f"{mean:.2f}"
    low, high = np.quantile(spread, [0.025, 0.975])
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(found: Found) -> str:
    """Tables of one way to hold out: the order, then the arms."""
    ways = list(next(iter(found.values())))
    columns = [f"{way}: {what}" for what in ("order", "pseudotime") for way in ways]
    order = [
        [name, *(show(row[way], what) for what in ("order", "pseudotime") for way in ways), show(row[ways[0]], "root")]
        for name, row in found.items()
    ]
    means = {(name, way): average([run["order"][0] for run in row[way]]) for name, row in found.items() for way in ways}
    name, way = max(means, key=lambda key: abs(means[key]))
    said = f"{abs(means[name, way]):.3f}, {way} of {name.replace(' | ', ', head ')}"
    verdict = "reached" if abs(means[name, way]) > GOAL else "missed"
    arms = [
        [name, way, *(show(row[way], f"{arm}{part}") for arm in ARMS for part in ("", ", pairs"))]
        for name, row in found.items()
        for way in ways
    ]
    return "\n\n".join(
        [
            markdown(["features", "head", *columns, "root"], order),
            f"The largest of these {len(means)} correlations with the order is {said}; the goal, {GOAL}, is {verdict}.",
            markdown(
                ["features", "head", "ordering", *(f"{arm}{part}" for arm in ARMS for part in ("", ", pairs"))], arms
            ),
        ]
    )


def report_peers(truth: Truth, ruler: StageRuler, named: Orderings, drawn: Orderings) -> str:
    scored = {name: [figures(o, truth, ruler, turn=name.startswith("PC1"))] for name, o in named.items()}
    columns = ["order", "pseudotime", *(f"{arm}{part}" for arm in ARMS for part in ("", ", pairs"))]
    rows = [[name, *(show(runs, key) for key in columns)] for name, runs in scored.items()]
    several = [
        figures(o, Truth(truth.stage, truth.levels, truth.pseudotime, truth.draws[:0]), ruler) for o in drawn.values()
    ]
    spread = []
    for key in columns:
        values = [run[key][0] for run in several]
        spread.append(f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")
    rows.append([f"DPT, {len(drawn)} HSC drawn as roots: median (range)", *spread])
    counts = []
    best = [f"{ceiling(truth.levels):.3f}", ""]
    for ends in ARMS.values():
        stages = arm_stages(ruler, ends, set(truth.stage.tolist()))
        best += [f"{ceiling(truth.levels[np.isin(truth.stage, stages)]):.3f}", "1.00"]
        counts.append(", ".join(f"{name} {(truth.stage == name).sum()}" for name in stages))
    rows.append(["ceiling that ties allow", *best])
    levels = ", ".join(
        f"{name} {n}" for name, n in zip(("HSC", "CMP, MEP, GMP", "later"), np.bincount(truth.levels), strict=True)
    )
    arms = markdown(
        ["arm", "stages and cells, by depth"], [[arm, told] for arm, told in zip(ARMS, counts, strict=True)]
    )
    return f"Cells: {levels}\n\n{arms}\n\n{markdown(['ordering', *columns], rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--marrow", type=Path, required=True, help="cells to order, in two runs or more")
    parser.add_argument("--others", type=Path, nargs="+", required=True, help="studies to fit to")
    parser.add_argument("--more", type=Path, nargs="*", default=[], help="studies to fit to as well, in a second round")
    parser.add_argument("--recipe", default="hematopoietic")
    parser.add_argument("--kind", default="attention_mean", choices=list(KINDS))
    parser.add_argument("--untrained", type=int, default=2, help="untrained models")
    parser.add_argument("--starts", type=int, default=3, help="starts of each head fitted to anchors")
    parser.add_argument("--cell-starts", type=int, default=2, help="starts of each head fitted to cells, or 0")
    parser.add_argument("--recipe-steps", action="store_true", help="fit to anchors by the steps of the recipe")
    parser.add_argument("--epochs", type=int, default=CellSettings().epochs, help="of heads fitted to cells")
    parser.add_argument("--draws", type=int, default=100, help="draws of cells")
    parser.add_argument("--json", type=Path, help="file for the same figures, without those of draws")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sc.settings.verbosity = 0
    cells = ad.read_h5ad(options.marrow)
    told: dict[str, Found] = {}
    with threadpool_limits(limits=1, user_api="blas"), tempfile.TemporaryDirectory() as folder:
        rounds: dict[str, list[tuple[list[Path], Path]]] = {
            f"Fitted to {named(options.others)}": [(options.others, options.marrow)]
        }
        if options.more:
            both = [*options.others, *options.more]
            rounds[f"Fitted to {named(both)}"] = [(both, options.marrow)]
        parts = {run: Path(folder) / f"{number}.h5ad" for number, run in enumerate(sorted(set(cells.obs["donor"])))}
        for run, path in parts.items():
            cells[cells.obs["donor"] == run].copy().write_h5ad(path)
        rounds[f"Each of the runs {', '.join(parts)} left out, fitted to the others and {named(options.others)}"] = [
            ([*(path for path in parts.values() if path != left_out), *options.others], left_out)
            for left_out in parts.values()
        ]
        for number, (title, splits) in enumerate(rounds.items()):
            found: Found = {}
            for training, left_out in splits:
                ruler, genes = order_left_out(training, left_out, options, found)
            if not number:
                labels = read_label_table(make_job(options.recipe, cells=options.others).labels)
                stage = np.array(
                    [
                        str(labels.stage_of(*key))
                        for key in zip(cells.obs["dataset"], cells.obs["cell_type"], strict=True)
                    ]
                )
                truth = Truth.of(stage, cells.obs[PSEUDOTIME].to_numpy(dtype=np.float64), ruler, options.draws)
                beside = peers(cells, stage, ruler.root, list(genes))
                print(f"\n**Without labels**\n\n{report_peers(truth, ruler, *beside)}")
            print(f"\n**{title}**\n\n{report(found)}", flush=True)
            told[title] = found
    if options.json is not None:
        whole = {
            title: {
                name: {way: [{k: v[0] for k, v in run.items()} for run in runs] for way, runs in row.items()}
                for name, row in found.items()
            }
            for title, found in told.items()
        }
        options.json.write_text(json.dumps(whole, indent=1))


def named(paths: list[Path]) -> str:
    return ", ".join(path.stem for path in paths)


if __name__ == "__main__":
    main()

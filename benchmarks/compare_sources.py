"""What the gates of rung 3 say of other features on the same anchors: untrained models and raw expression.

The operators are read over the bundled marrow cells, from the bundled checkpoint and from the same architecture with
fresh weights; the head is refitted on the anchors that travel in ``hematopoietic``. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from threadpoolctl import threadpool_limits

import manifoldzoo as mz
from manifoldzoo.extractors._attention_mean import attention_mean
from manifoldzoo.extractors._extract import reference_checkpoint
from manifoldzoo.extractors._operators import drift
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.gates._holdouts import group_folds, random_folds, refit_holdouts
from manifoldzoo.gates._ladder import gate_data, let_settings
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._panel import read_label_table, read_panel_cells
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds.demo import demo_path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="untrained models")
    parser.add_argument("--starts", type=int, default=10, help="head starts averaged per fold")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load("hematopoietic")
    data, settings = gate_data(manifold), let_settings(manifold)
    folder = recipe_folder("hematopoietic")
    checkpoint = read_scgpt(reference_checkpoint())
    cells = read_panel_cells(
        [demo_path()],
        genes=checkpoint.genes,
        labels=read_label_table(folder / "labels.tsv"),
        ruler=manifold.ruler,
        max_per_stage=None,
        rng=np.random.default_rng(0),
    )

    def features(source):
        return apply_operator(data.expression, drift(attention_mean(source, cells.values, checkpoint.genes).layers))

    expression = np.asarray(data.expression, dtype=np.float64)
    rows = {
        "drift, trained (the bundled operator)": data.features,
        "drift, trained, bundled cells only": features(checkpoint),
        **{
            f"drift, random initialisation {seed}": features(checkpoint.random_initialisation(seed))
            for seed in range(options.seeds)
        },
        "raw expression": expression,
    }
    print("| features | random | donor | branch | study |\n| --- | --- | --- | --- | --- |")
    with threadpool_limits(limits=1):
        for name, values in rows.items():
            print(
                f"| {name} |" + "".join(f" {value:.3f} |" for value in scores(values, data, settings, options.starts))
            )


def scores(values, data, settings, n_starts):
    """Held-out Spearman with the head refitted, the same folds for every row."""
    rng = np.random.default_rng(0)
    folds = (
        random_folds(len(values), rng=rng.spawn(1)[0]),
        group_folds(data.donor_ids),
        group_folds(data.branch),
        group_folds(data.study),
    )
    return [
        refit_holdouts(values, data.distances, part, settings, rng=child, n_starts=n_starts).touching
        for part, child in zip(folds, rng.spawn(len(folds)), strict=True)
    ]


if __name__ == "__main__":
    main()

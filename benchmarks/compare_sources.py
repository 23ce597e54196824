"""What the gates of rung 3 say of other features on the same anchors: untrained models and raw expression.

The operators are read over the bundled marrow cells, from the bundled checkpoint and from the same architecture with
fresh weights; the head is refitted on the anchors that travel in ``hematopoietic``. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

import manifoldzoo as mz
from manifoldzoo.extractors import attention_mean, drift, reference_checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.gates._artifact_data import gate_data, head_settings
from manifoldzoo.gates.rungs._published import published_gates
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._panel import read_panel_cells
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds.demo import demo_path

GATES = ("trustworthiness", "random_holdout", "donor_holdout", "branch_holdout", "study_holdout", "blocked_permutation")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="untrained models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load("hematopoietic")
    data, settings = gate_data(manifold), head_settings(manifold)
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
    print(f"| features | {' | '.join(GATES)} |\n| --- |{' --- |' * len(GATES)}")
    with threadpool_limits(limits=1):
        for name, values in rows.items():
            result = published_gates(replace(data, features=values), settings, seed=0)
            records = {record.gate: record for record in result.records}
            print(f"| {name} |" + "".join(f" {_cell(records[gate])} |" for gate in GATES), flush=True)


def _cell(record) -> str:
    """Statistic of a record, marked where it fails its gate."""
    if record.statistic is None:
        return record.status
    return f"{record.statistic:.3g}" + (" (fails)" if record.status == "fail" and record.decides else "")


if __name__ == "__main__":
    main()

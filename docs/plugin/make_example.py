"""Write an example to a folder: a random checkpoint of the family static-embedding, and a few labelled cells."""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
from manifoldzoo_coexpression._static_embedding import GENES, README, WEIGHTS
from safetensors.numpy import save_file

from manifoldzoo.manifolds.demo import demo_path

LICENCE_HEADER = "---\nlicense: CC0-1.0\n---\n\n# Random gene vectors\n\nDrawn from a seed. They mean nothing.\n"


def write_cells(path: Path, *, per_group: int = 12) -> Path:
    """Write so many cells of each run and cell type of the cells that travel with manifoldzoo."""
    everything = ad.read_h5ad(demo_path())
    groups = everything.obs.groupby(["donor", "cell_type"], observed=True).indices
    rows = np.sort(np.concatenate([rows[:per_group] for rows in groups.values()]))
    everything[rows].copy().write_h5ad(path)
    return path


def write_checkpoint(
    folder: Path, cells: Path, *, n_genes: int = 60, n_heads: int = 2, d_head: int = 4, d_model: int = 8, seed: int = 0
) -> Path:
    """Write a checkpoint with random weights over the genes that most of some cells express."""
    table = ad.read_h5ad(cells)
    expressed = np.asarray((table.X > 0).sum(axis=0)).ravel()
    genes = sorted(table.var_names[np.argsort(-expressed, kind="stable")[:n_genes]])
    inward, outward = (n_heads, d_head, d_model), (n_heads, d_model, d_head)
    shapes = {"embedding": (len(genes), d_model), "query": inward, "key": inward, "value": inward, "output": outward}
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    weights = {part: rng.normal(0, shape[-1] ** -0.5, shape).astype(np.float32) for part, shape in shapes.items()}
    save_file(weights, folder / WEIGHTS)
    (folder / GENES).write_text("\n".join(genes) + "\n", encoding="utf-8")
    (folder / README).write_text(LICENCE_HEADER, encoding="utf-8")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write model/ and cells.h5ad")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(given.folder / "model", write_cells(given.folder / "cells.h5ad"), seed=given.seed)

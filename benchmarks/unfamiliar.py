"""Which cells of a heart and of a blood study that no training saw are flagged as unfamiliar.

Prints a Markdown table of the share flagged by type of cell, and how well either score tells fibroblasts, endothelial
cells and cardiomyocytes of the heart from immune cells, of another study and of the same heart (AUROC).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
from sklearn.metrics import roc_auc_score

import manifoldzoo as mz

STRANGERS = ("fibroblast", "endothelial cell", "regular atrial cardiac myocyte")
IMMUNE = ("lymphocyte", "myeloid cell")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heart", type=Path, required=True, help=".h5ad of raw counts with `cell_type`")
    parser.add_argument("--blood", type=Path, required=True, help=".h5ad of raw counts of a study left out of training")
    parser.add_argument("--manifold", default="hematopoietic")
    options = parser.parse_args()
    manifold = mz.load(options.manifold)
    heart, blood = ad.read_h5ad(options.heart), ad.read_h5ad(options.blood)
    for cells in (heart, blood):
        manifold.transform(cells, scale="counts", key_added="placed")
    kinds = heart.obs["cell_type"].astype(str).to_numpy()
    flagged = heart.obs["placed_unfamiliar"].to_numpy(dtype=bool)
    print("| cells | number | flagged |\n| --- | --- | --- |")
    print(f"| {options.blood.stem} | {blood.n_obs} | {blood.obs['placed_unfamiliar'].mean():.1%} |")
    for kind in (*STRANGERS, *IMMUNE):
        print(f"| heart, {kind} | {np.sum(kinds == kind)} | {flagged[kinds == kind].mean():.1%} |")
    print("\n| score | against the blood study | against the heart's own immune cells |\n| --- | --- | --- |")
    strange = np.isin(kinds, STRANGERS)
    for score in ("familiarity", "familiarity_scaled"):
        of_heart, of_blood = (cells.obs[f"placed_{score}"].to_numpy() for cells in (heart, blood))
        row = [_tells(of_heart[strange], other) for other in (of_blood, of_heart[np.isin(kinds, IMMUNE)])]
        print(f"| `{score}` | {row[0]:.3f} | {row[1]:.3f} |")


def _tells(strangers: np.ndarray, others: np.ndarray) -> float:
    """AUROC of low values standing for strangers."""
    truth = np.r_[np.ones(len(strangers)), np.zeros(len(others))]
    return float(roc_auc_score(truth, -np.r_[strangers, others]))


if __name__ == "__main__":
    main()

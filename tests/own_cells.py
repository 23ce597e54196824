"""Cells that a stranger might bring to the tiny manifold: counts drawn around its planted geometry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from tiny import N_GENES, STAGES, tiny_anchors, tiny_genes

LABELS = tuple(name for name, _, _ in STAGES)


def own_cells(
    *,
    n_donors: int = 3,
    per_group: int = 6,
    labels: Sequence[str] = LABELS,
    study: str | None = "strangers",
    seed: int = 0,
) -> ad.AnnData:
    """Raw counts of ``per_group`` cells of each donor and stage, which ``labels`` names in the order of the stages."""
    rng = np.random.default_rng(seed)
    values, stage = tiny_anchors()
    means = np.stack([values[np.array(stage) == name].mean(axis=0) for name in LABELS])
    which = np.tile(np.repeat(np.arange(len(LABELS)), per_group), n_donors)
    counts = rng.poisson(20 * np.expm1(means[which])).astype(np.float32)
    donor = np.repeat([f"s{number}" for number in range(n_donors)], per_group * len(LABELS))
    obs = pd.DataFrame(
        {"cell_type": np.array(labels, dtype=object)[which], "donor": donor, "tissue": "blood"},
        index=[f"cell_{number}" for number in range(len(which))],
    )
    if study is not None:
        obs["study"] = study
    return ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=list(tiny_genes().symbols)))


def write_own_cells(path: Path, **options: object) -> Path:
    """``own_cells`` as a file."""
    own_cells(**options).write_h5ad(path)
    return path


def dense_log1p(cells: ad.AnnData) -> np.ndarray:
    """``log1p`` of counts per 10,000 by the plainest route, ``(n_cells, n_genes)``."""
    counts = np.asarray(cells.X.todense() if sparse.issparse(cells.X) else cells.X, dtype=np.float64)
    assert counts.shape[1] == N_GENES
    return np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)

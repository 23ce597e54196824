"""Cells for training the reference checkpoint: gene choice, normalisation, token sampling."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import scanpy as sc
import torch
from numpy.typing import NDArray
from torch import Tensor

TARGET_SUM = 1e4


@dataclass(frozen=True)
class Study:
    """One data set restricted to the vocabulary, on the scale the model reads.

    Attributes
    ----------
    name
        Stem of the file.
    values
        ``log1p`` of counts scaled to 10,000 per cell over all genes of the file, ``(n_cells, n_genes)``.
    manifest
        File name, SHA-256, numbers of cells and genes, provenance as the file states it.
    """

    name: str
    values: NDArray[np.float32]
    manifest: dict[str, object]


def choose_genes(training: list[Path], *, n_genes: int) -> list[str]:
    """Choose variable genes on the training studies alone, among the genes that all of them measure.

    Ranking is by analytic Pearson residuals within each study (Lause et al. 2021), as scanpy implements it.
    """
    candidates = sorted(set.intersection(*[set(ad.read_h5ad(path, backed="r").var_names) for path in training]))
    cells = ad.concat([ad.read_h5ad(path)[:, candidates] for path in training], index_unique="-")
    sc.experimental.pp.highly_variable_genes(cells, n_top_genes=n_genes, batch_key="dataset")
    return sorted(cells.var_names[cells.var["highly_variable"]])


def read_study(path: Path, genes: list[str]) -> Study:
    """Read raw counts, normalise over all genes of the file, and keep the vocabulary (absent genes NaN)."""
    cells = ad.read_h5ad(path)
    sc.pp.normalize_total(cells, target_sum=TARGET_SUM)
    sc.pp.log1p(cells)
    position = cells.var_names.get_indexer(genes)
    values = np.full((cells.n_obs, len(genes)), np.nan, dtype=np.float32)
    values[:, position >= 0] = cells.X[:, position[position >= 0]].toarray()
    provenance = dict(cells.uns.get("provenance", {}))
    return Study(
        name=path.stem,
        values=values,
        manifest={
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "n_cells": int(cells.n_obs),
            "n_genes_of_vocabulary": int((position >= 0).sum()),
            "source": str(provenance.get("source", "")),
        },
    )


def sample_tokens(values: Tensor, *, n_tokens: int, generator: torch.Generator) -> Tensor:
    """Draw ``n_tokens`` genes per cell, half of them expressed where the cell has that many.

    ``values`` is ``(n_cells, n_genes)``; returns gene indices ``(n_cells, n_tokens)``. Genes the study did
    not measure (NaN) are never drawn. Balanced draws keep the sequence short without padding; our choice.
    """
    order = torch.rand(values.shape, generator=generator)
    expressed = values > 0
    rank_expressed = torch.where(expressed, order, 2.0).argsort(dim=1)[:, : n_tokens // 2]
    taken = torch.zeros_like(expressed).scatter_(1, rank_expressed, value=True) & expressed
    # taken first, then unexpressed at random, then the remaining expressed, never the unmeasured
    key = torch.where(taken, -1.0, torch.where(expressed, 1.0 + order, order))
    key = torch.where(values.isnan(), 9.0, key)
    return key.argsort(dim=1)[:, :n_tokens]


def mask_positions(shape: tuple[int, int], *, ratio: float, generator: torch.Generator) -> Tensor:
    """Boolean mask of the same number of positions in every row."""
    n_masked = max(1, round(ratio * shape[1]))
    ranks = torch.rand(shape, generator=generator).argsort(dim=1).argsort(dim=1)
    return ranks < n_masked

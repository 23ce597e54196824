"""Masked-value prediction on held-out cells, beside baselines that need no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoints._scgpt_model import ScGPTModel
from ._data import mask_positions, sample_tokens

MASK_VALUE = -1.0


@dataclass(frozen=True)
class MaskSettings:
    """How positions are drawn for scoring: genes per cell, part of them hidden, seed of the draw."""

    n_tokens: int
    mask_ratio: float
    seed: int


def assemble(values: Tensor, genes: Tensor, masked: Tensor, cls_id: int) -> tuple[Tensor, Tensor]:
    """Token ids and model inputs with ``<cls>`` first and masked values replaced by ``MASK_VALUE``."""
    picked = values.gather(1, genes).masked_fill(masked, MASK_VALUE)
    ids = torch.cat([torch.full((len(genes), 1), cls_id, dtype=genes.dtype), genes], dim=1)
    return ids, torch.cat([torch.zeros(len(genes), 1), picked], dim=1)


def predict_masked(
    model: ScGPTModel,
    offset: Tensor,
    values: Tensor,
    *,
    cls_id: int,
    settings: MaskSettings,
    batch_size: int = 128,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Mask part of every cell once and predict it.

    Returns gene index, true value and prediction of every masked position, each ``(n_masked,)``. The draw
    depends on ``settings`` alone, so that models and baselines are scored on the same positions.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    genes = sample_tokens(values, n_tokens=settings.n_tokens, generator=generator)
    masked = mask_positions((len(values), genes.shape[1]), ratio=settings.mask_ratio, generator=generator)
    predicted = torch.empty(genes.shape)
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(values), batch_size):
            rows = slice(start, start + batch_size)
            ids, inputs = assemble(values[rows], genes[rows], masked[rows], cls_id)
            output = model(ids.to(device), inputs.to(device))[:, 1:].float().cpu()
            predicted[rows] = output + offset[genes[rows]]
    truth = values.gather(1, genes)
    return genes[masked].numpy(), truth[masked].numpy(), predicted[masked].numpy()


def score(gene: NDArray[np.int64], truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> dict[str, float]:
    """Score predictions of masked values over all masked positions, and within genes.

    Parameters
    ----------
    gene
        Gene index of each masked position, ``(n_masked,)``.
    truth, predicted
        Values on the ``log1p`` scale, ``(n_masked,)``.

    Returns
    -------
    ``pearson`` and ``mse`` over all positions. ``within_gene_pearson``: Pearson over all positions after each
    gene's own mean is taken from truth and prediction, so that knowing which gene it is earns nothing.
    ``within_gene_pearson_per_gene``: the plain mean of one Pearson per gene over genes with at least 20 masked
    positions, ``..._expressed`` over those with at least 20 non-zero ones; rare genes weigh as much as common
    ones there. A constant prediction or truth scores 0.
    """
    t, p = truth.astype(np.float64), predicted.astype(np.float64)
    n_genes = int(gene.max()) + 1
    count = np.bincount(gene, minlength=n_genes)
    safe = np.maximum(count, 1)
    t_c = t - (np.bincount(gene, t, n_genes) / safe)[gene]
    p_c = p - (np.bincount(gene, p, n_genes) / safe)[gene]
    s_tp, s_tt, s_pp = (np.bincount(gene, w, n_genes) for w in (t_c * p_c, t_c**2, p_c**2))
    per_gene = np.where(s_pp > 1e-9, s_tp / np.sqrt(np.maximum(s_tt * s_pp, 1e-18)), 0.0)
    used = (count >= 20) & (s_tt > 1e-9)
    expressed = (np.bincount(gene, t > 0, n_genes) >= 20) & (s_tt > 1e-9)
    varies = min(s_pp.sum(), s_tt.sum()) > 1e-9 * len(p)
    return {
        "pearson": float(np.corrcoef(t, p)[0, 1]) if min(p.std(), t.std()) > 0 else 0.0,
        "mse": float(((t - p) ** 2).mean()),
        "within_gene_pearson": float(s_tp.sum() / np.sqrt(s_tt.sum() * s_pp.sum())) if varies else 0.0,
        "within_gene_pearson_per_gene": float(per_gene[used].mean()) if used.any() else 0.0,
        "within_gene_pearson_per_gene_expressed": float(per_gene[expressed].mean()) if expressed.any() else 0.0,
        "n_masked": len(t),
        "n_genes": int(used.sum()),
        "n_genes_expressed": int(expressed.sum()),
    }


def column_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each gene over the cells, ``(n_genes,)``, NaN where the study lacks it."""
    missing = np.isnan(values).all(axis=0)
    means = np.where(missing, 0, values).mean(axis=0, dtype=np.float64)
    return np.where(missing, np.nan, means).astype(np.float32)


def mean_where_drawn(
    values: NDArray[np.float32], *, settings: MaskSettings, fallback: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Per-gene mean over the masked positions that the balanced draw picks, ``(n_genes,)``.

    The draw favours expressed genes, so this is a stronger baseline than the plain per-gene mean.
    """
    tensor = torch.from_numpy(values)
    generator = torch.Generator().manual_seed(settings.seed)
    genes = sample_tokens(tensor, n_tokens=settings.n_tokens, generator=generator)
    masked = mask_positions((len(values), genes.shape[1]), ratio=settings.mask_ratio, generator=generator)
    gene, truth = genes[masked].numpy(), tensor.gather(1, genes)[masked].numpy().astype(np.float64)
    count = np.bincount(gene, minlength=values.shape[1])
    total = np.bincount(gene, truth, values.shape[1])
    return np.where(count > 0, total / np.maximum(count, 1), fallback).astype(np.float32)

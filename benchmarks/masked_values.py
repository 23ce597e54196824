"""How well a checkpoint of the scGPT family predicts masked values: what tells a right reading from a wrong one.

A part of the values of each cell is hidden and predicted, once from sequences of expressed genes alone, as scFormer and
scGPT were trained, and once from all genes of the vocabulary that the data set measures, zeros included. Beside the
model stand the mean of each gene over the values that were shown, the same architecture with fresh weights, and the
same weights with the blocks of the attention projection in another order (key, value, query), as a reader would have
them that mistakes the layout. Prints a Markdown table.

scFormer's PBMC model was trained on counts clipped at the 99 % quantile of its own data, 13: pass `--clip 13`.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import anndata as ad
import numpy as np
import torch

from manifoldzoo.extractors import reference_checkpoint
from manifoldzoo.extractors.checkpoints._interface import PADDING
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt
from manifoldzoo.extractors.checkpoints._scgpt_values import input_values

BATCH = 16


@dataclass(frozen=True)
class Masked:
    """Sequences of cells, `(n_cells, n_tokens)`, on the scale of the checkpoint."""

    genes: np.ndarray
    values: np.ndarray
    masked: np.ndarray


def read_cells(path: Path, checkpoint: ScGPTCheckpoint, clip: float | None) -> tuple[ScGPTCheckpoint, np.ndarray]:
    """Values of the genes that model and data set share, on the scale of the model, clipped where asked."""
    cells = ad.read_h5ad(path)
    known = checkpoint.knows(list(cells.var_names))
    chosen = checkpoint.with_genes(list(cells.var_names[known]))
    values = np.asarray(cells.X[:, known].todense(), dtype=np.float32)
    if checkpoint.scale == "log1p":
        values = np.log1p(values * (1e4 / np.asarray(cells.X.sum(axis=1), dtype=np.float32)))
    return chosen, values if clip is None else np.minimum(values, np.float32(clip))


def mask(values: np.ndarray, *, zeros: bool, ratio: float, longest: int, rng: np.random.Generator) -> Masked:
    """Draw a sequence of each cell, and the positions to hide."""
    chosen = []
    for row in values:
        genes = np.arange(len(row)) if zeros else np.flatnonzero(row)
        chosen.append(rng.permutation(genes)[:longest])
    shape = len(values), max(map(len, chosen))
    made = Masked(np.full(shape, PADDING), np.zeros(shape, np.float32), np.zeros(shape, bool))
    for index, genes in enumerate(chosen):
        made.genes[index, : len(genes)] = genes
        made.values[index, : len(genes)] = values[index, genes]
        made.masked[index, : int(len(genes) * ratio)] = True
    return made


def predict(checkpoint: ScGPTCheckpoint, cells: Masked) -> np.ndarray:
    """Predictions at the masked positions, `(n_masked,)`."""
    batches = [slice(start, start + BATCH) for start in range(0, len(cells.genes), BATCH)]
    with torch.inference_mode():
        made = [checkpoint.predict(cells.genes[b], cells.values[b], masked=cells.masked[b]).numpy() for b in batches]
    return np.concatenate(made)[cells.masked].astype(np.float64)


def rotated_blocks(checkpoint: ScGPTCheckpoint) -> ScGPTCheckpoint:
    """The same weights, read as if keys stood first, then values, then queries."""
    model = copy.deepcopy(checkpoint.model)
    for layer in model.layers:
        for parameter in (layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias):
            parameter.data = parameter.data.roll(-checkpoint.d_model, 0)
    return replace(checkpoint, model=model)


def gene_means(cells: Masked, truth: np.ndarray) -> np.ndarray:
    """Mean of each masked gene over the positions that were shown, of all genes where it was never shown."""
    shown = (cells.genes != PADDING) & ~cells.masked
    n_genes = cells.genes.max() + 1
    count = np.bincount(cells.genes[shown], minlength=n_genes)
    total = np.bincount(cells.genes[shown], truth[shown], n_genes)
    return np.where(count > 0, total / np.maximum(count, 1), truth[shown].mean())[cells.genes[cells.masked]]


def measure(
    checkpoint: ScGPTCheckpoint, values: np.ndarray, *, zeros: bool, ratio: float, seed: int
) -> dict[str, dict[str, tuple[float, float]]]:
    """Pearson and mean squared error by positions (`all`, `expressed`) and by what predicts."""
    cells = mask(values, zeros=zeros, ratio=ratio, longest=checkpoint.max_genes, rng=np.random.default_rng(seed))
    read = input_values(cells.values, checkpoint.settings.input_style, checkpoint.settings.n_bins)
    truth = read[cells.masked].astype(np.float64)
    predicted = {
        "model": predict(checkpoint, cells),
        "gene mean": gene_means(cells, read),
        "random weights": predict(checkpoint.random_initialisation(seed), cells),
        "blocks rotated": predict(rotated_blocks(checkpoint), cells),
    }
    scores: dict[str, dict[str, tuple[float, float]]] = {}
    for where, positions in {"all": truth >= 0, "expressed": truth > 0}.items():
        t = truth[positions]
        scores[where] = {
            name: (float(np.corrcoef(t, p[positions])[0, 1]), float(((t - p[positions]) ** 2).mean()))
            for name, p in predicted.items()
        }
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=reference_checkpoint())
    parser.add_argument("--cells", type=Path, nargs="+", required=True, help=".h5ad files of raw counts")
    parser.add_argument("--n-cells", type=int, default=200, help="cells drawn of each file")
    parser.add_argument("--mask-ratio", type=float, default=0.15)
    parser.add_argument("--clip", type=float, default=None, help="highest value, on the scale of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    whole = read_scgpt(options.checkpoint)
    print(f"{whole.name}, {options.n_cells} cells a file, {options.mask_ratio:.0%} masked, Pearson / MSE\n")
    names = ("model", "gene mean", "random weights", "blocks rotated")
    print(f"| cells | genes | sequence | masked | {' | '.join(names)} |")
    print(f"| --- | --- | --- | --- |{' --- |' * len(names)}")
    for path in options.cells:
        checkpoint, values = read_cells(path, whole, options.clip)
        rng = np.random.default_rng(options.seed)
        drawn = values[rng.permutation(len(values))[: options.n_cells]]
        for sequence, zeros in (("expressed genes", False), ("all genes", True)):
            scores = measure(checkpoint, drawn, zeros=zeros, ratio=options.mask_ratio, seed=options.seed)
            for where in ("all", "expressed") if zeros else ("expressed",):
                shown = " | ".join(f"{r:.3f} / {mse:.3f}" for r, mse in (scores[where][name] for name in names))
                print(f"| {path.stem} | {len(checkpoint.genes)} | {sequence} | {where} | {shown} |")


if __name__ == "__main__":
    main()

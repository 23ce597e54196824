"""One tiny random checkpoint of every family, on the same gene names, and cells on the scale it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from plain_checkpoint import PlainCheckpoint
from scipy import sparse
from tiny_scgpt import write_tiny_scgpt
from tiny_transformers import SYMBOLS, write_tiny_cell2sentence, write_tiny_geneformer

from manifoldzoo.extractors.checkpoints._interface import Checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt

GENES = SYMBOLS[:24]
FAMILIES = ("plain", "scgpt", "scgpt-binned", "scformer", "geneformer", "gpt_neox", "gpt2")


def tiny_model(family: str, folder: Path, **changes: Any) -> Checkpoint:
    """Write and read a checkpoint that knows ``GENES``; ``changes`` go to the writer."""
    if family == "plain":
        return PlainCheckpoint(vocabulary=GENES, genes=GENES, **changes)
    if family in ("scgpt", "scgpt-binned", "scformer"):
        style: Any = {"scgpt": "log1p", "scgpt-binned": "binned", "scformer": "counts"}[family]
        return read_scgpt(write_tiny_scgpt(folder, genes=GENES, input_style=style, **changes))
    from manifoldzoo.extractors.checkpoints._families import read_checkpoint

    if family == "geneformer":
        return read_checkpoint(write_tiny_geneformer(folder, genes=GENES, **changes))
    layout: Any = family
    return read_checkpoint(write_tiny_cell2sentence(folder, layout=layout, genes=GENES, **changes))


def tiny_cells(scale: str, n_cells: int, n_genes: int, *, seed: int = 0, density: float = 0.6) -> sparse.csr_array:
    """Random cells on the scale that a model reads."""
    rng = np.random.default_rng(seed)
    present = rng.random((n_cells, n_genes)) < density
    counts = (rng.poisson(4.0, present.shape) + 1) * present
    values = counts if scale == "counts" else np.log1p(counts * rng.uniform(1.5, 2.5, (n_cells, 1)))
    return sparse.csr_array(values.astype(np.float32))

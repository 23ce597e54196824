"""Time ``attention_mean`` on one core: ``python benchmarks/bench_attention_mean.py CHECKPOINT_FOLDER``.

Cells are random, with as many expressed genes as marrow cells have on 1200 variable genes. Prints one JSON document:
seconds of processor time per 1000 cells for several batch sizes, and the peak memory of the process.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from manifoldzoo.extractors._attention_mean import attention_mean
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt


def random_cells(n_cells: int, n_genes: int, n_expressed: int, rng: np.random.Generator) -> sparse.csr_array:
    """Draw log1p cells with ``n_expressed`` genes on average."""
    present = rng.random((n_cells, n_genes)) < n_expressed / n_genes
    values = np.where(present, rng.gamma(2.0, 0.8, (n_cells, n_genes)).clip(0.1, 8.0), 0.0)
    return sparse.csr_array(values.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--expressed", type=int, default=250)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 2, 4, 8, 32])
    parser.add_argument("--per-head", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    checkpoint = read_scgpt(options.checkpoint)
    cells = random_cells(options.cells, len(checkpoint.genes), options.expressed, np.random.default_rng(0))
    seconds = {}
    for batch_size in options.batch_sizes:
        started = time.process_time()
        attention_mean(checkpoint, cells, checkpoint.genes, batch_size=batch_size, per_head=options.per_head)
        seconds[batch_size] = round((time.process_time() - started) * 1000 / options.cells, 1)
    report = {
        "layers_x_heads": [checkpoint.n_layers, checkpoint.n_heads],
        "n_cells": options.cells,
        "mean_expressed": options.expressed,
        "cpu_seconds_per_1000_cells": seconds,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

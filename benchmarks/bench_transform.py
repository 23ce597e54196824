"""Transform of 100,000 sparse cells x 1200 genes against the bare product and against PCA, in one run.

Figures: cells per second as a ratio to the bare ``scipy`` CSR product of the same shapes (goal >= 0.5) and to
scikit-learn's ``PCA.transform`` (goal >= 2), once on the matrix made dense, as PCA is mostly used, and once kept
sparse, which is a bare product too; peak extra memory as a ratio to the input. Medians of alternating runs. The
transform also checks every value, reads two tasks out and uses the processors there are; the product uses one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
import warnings
from collections.abc import Callable

import anndata as ad
import numpy as np
import psutil
from scipy import sparse
from sklearn.decomposition import PCA

import manifoldzoo as mz


def make_cells(n_cells: int, n_genes: int, density: float) -> sparse.csr_matrix:
    """Log-normalised values at random places: speed depends on the pattern only."""
    rng = np.random.default_rng(0)
    per_cell = rng.binomial(n_genes, density, size=n_cells)
    indptr = np.concatenate([[0], np.cumsum(per_cell)]).astype(np.int32)
    indices = np.concatenate([np.sort(rng.choice(n_genes, k, replace=False)) for k in per_cell]).astype(np.int32)
    data = rng.gamma(2.0, 1.0, size=len(indices)).clip(0.1, 9).astype(np.float32)
    return sparse.csr_matrix((data, indices, indptr), shape=(n_cells, n_genes))


def peak_memory(run: Callable[[], object]) -> int:
    """Largest growth of the resident set while ``run`` runs, in bytes."""
    process, stop, peak = psutil.Process(), threading.Event(), [0]
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], process.memory_info().rss - before)
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    stop.set()
    watcher.join()
    return peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--density", type=float, default=0.2, help="the bundled marrow cells have 0.27")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load("hematopoietic")
    values = make_cells(options.cells, len(manifold.genes), options.density)
    cells = ad.AnnData(values)
    cells.var_names = list(manifold.genes.symbols)
    projection = np.ascontiguousarray(manifold.tensors["projection"], dtype=np.float32)
    pca = PCA(n_components=manifold.n_components, random_state=0, svd_solver="arpack").fit(values[:5_000])

    def timed(run: Callable[[], object]) -> float:
        started = time.perf_counter()
        run()
        return time.perf_counter() - started

    runs: dict[str, list[float]] = {"transform": [], "product": [], "pca_dense": [], "pca_sparse": []}
    for _ in range(options.repeats):
        runs["product"].append(timed(lambda: values @ projection))
        runs["transform"].append(timed(lambda: manifold.transform(cells, scale="log1p")))
        runs["pca_dense"].append(timed(lambda: pca.transform(values.toarray())))
        runs["pca_sparse"].append(timed(lambda: pca.transform(values)))
    median = {name: statistics.median(times) for name, times in runs.items()}
    memory = peak_memory(lambda: manifold.transform(cells, scale="log1p"))
    size = values.data.nbytes + values.indices.nbytes + values.indptr.nbytes
    print(
        json.dumps(
            {
                "cells": options.cells,
                "cells_per_second": round(options.cells / median["transform"]),
                "ratio_to_bare_product": round(median["product"] / median["transform"], 3),
                "ratio_to_pca_transform_made_dense": round(median["pca_dense"] / median["transform"], 3),
                "ratio_to_pca_transform_kept_sparse": round(median["pca_sparse"] / median["transform"], 3),
                "peak_memory_to_input": round(memory / size, 3),
                "seconds": {name: round(value, 4) for name, value in median.items()},
                "spread": {name: [round(min(t), 4), round(max(t), 4)] for name, t in runs.items()},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

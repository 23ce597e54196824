"""Placing a million cells of a file that is never loaded, against reading the file alone, in one run.

Writes a sparse file of log-normalised values, reads it in the pieces that the transform reads, transforms it backed,
and prints one JSON document: cells per second of both, their ratio (goal 0.5), and by how much the memory of the
process grows, of which the results themselves take a part. Both run with the file in the cache of the system.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
from anndata.io import write_elem
from bench_transform import make_cells, peak_memory

import manifoldzoo as mz
from manifoldzoo.manifolds._project import CHUNK

BLOCK = 50_000


def write_file(path: Path, n_cells: int, genes: list[str], density: float) -> None:
    """Write the same block of cells again and again, so that making the file takes little memory."""
    block = make_cells(min(BLOCK, n_cells), len(genes), density)
    repeats = -(-n_cells // block.shape[0])
    n = repeats * block.shape[0]
    empty = ad.AnnData(obs={"n": np.arange(n)}, var={"name": genes})
    empty.obs_names, empty.var_names = [f"c{i}" for i in range(n)], genes
    with h5py.File(path, "w") as file:
        empty.write_h5ad(path.with_suffix(".small"))
        with h5py.File(path.with_suffix(".small")) as small:
            for key in small:
                if key != "X":
                    small.copy(key, file)
            file.attrs.update(small.attrs)
        write_elem(file, "X", block)
        group = file["X"]
        for name in ("data", "indices"):
            content = group[name][:]
            del group[name]
            stored = group.create_dataset(name, (repeats * len(content),), content.dtype, chunks=(1 << 18,))
            for repeat in range(repeats):
                stored[repeat * len(content) : (repeat + 1) * len(content)] = content
        pointers = block.indptr.astype(np.int64)
        whole = np.concatenate([[0], *(pointers[1:] + repeat * pointers[-1] for repeat in range(repeats))])
        del group["indptr"]
        group.create_dataset("indptr", data=whole)
        group.attrs["shape"] = (n, len(genes))
    path.with_suffix(".small").unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--manifold", default="hematopoietic")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load(options.manifold)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        write_file(path, options.cells, list(manifold.genes.symbols), options.density)
        reading, placing, grown = [], [], []
        for _ in range(options.repeats):
            cells = ad.read_h5ad(path, backed="r")
            began = time.perf_counter()
            for start in range(0, cells.n_obs, CHUNK):
                cells.X[start : start + CHUNK]
            reading.append(time.perf_counter() - began)
            began = time.perf_counter()
            grown.append(peak_memory(lambda cells=cells: manifold.transform(cells, scale="log1p")))
            placing.append(time.perf_counter() - began)
            results = sum(array.nbytes for array in cells.obsm.values()) + int(cells.obs.memory_usage().sum())
        read, placed = statistics.median(reading), statistics.median(placing)
        report = {
            "manifold": repr(manifold),
            "cells": cells.n_obs,
            "file_gb": round(path.stat().st_size / 1e9, 2),
            "read_cells_per_second": round(cells.n_obs / read),
            "transform_cells_per_second": round(cells.n_obs / placed),
            "ratio_to_reading": round(read / placed, 2),
            "results_mb": round(results / 1e6),
            "peak_growth_mb": round(max(grown) / 1e6),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""Placing a million cells of a file that is never loaded, against reading the file alone, in one run.

Writes sparse files of log-normalised values as anndata writes them, plain and compressed with gzip. Reads each in two
ways: slices of a backed AnnData object, as its users do, and the pieces that the transform reads, with h5py and into
the same memory again and again, the fastest there is. Transforms it backed, with everything that the manifold can say
and once without familiarity. Prints one JSON document: microseconds per cell, medians over alternating rounds; the
ratio of each way of reading to the transform (goal 0.5), a median of ratios within a round; and by how much the memory
of a fresh process grows, less the results, for files of several sizes. All with the files in the cache of the system.
A transform takes every processor it gets, reading takes one: how many processors other programs took meanwhile is told
too, and the seconds of processors that each way takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import psutil
from anndata.io import write_elem
from bench_transform import make_cells, peak_memory

import manifoldzoo as mz
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._project import _STORED, CHUNK
from manifoldzoo.manifolds._stored_rows import StoredRows

BLOCK = 50_000


def write_file(path: Path, n_cells: int, genes: list[str], density: float, compression: str | None = None) -> None:
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
            stored = group.create_dataset(name, (repeats * len(content),), content.dtype, compression=compression)
            for repeat in range(repeats):
                stored[repeat * len(content) : (repeat + 1) * len(content)] = content
        pointers = block.indptr.astype(np.int64)
        whole = np.concatenate([[0], *(pointers[1:] + repeat * pointers[-1] for repeat in range(repeats))])
        del group["indptr"]
        group.create_dataset("indptr", data=whole, compression=compression)
        group.attrs["shape"] = (n, len(genes))
    path.with_suffix(".small").unlink()


def without_familiarity(manifold: Manifold) -> Manifold:
    """The same manifold, its thresholds for unfamiliar cells forgotten."""
    extraction = manifold.card.extraction.model_copy(update={"familiarity": None})
    return dataclasses.replace(manifold, card=manifold.card.model_copy(update={"extraction": extraction}))


def read_slices(path: Path) -> None:
    cells = ad.read_h5ad(path, backed="r")
    for start in range(0, cells.n_obs, CHUNK):
        cells.X[start : start + CHUNK]


def read_pieces(path: Path) -> None:
    stored = StoredRows.of(ad.read_h5ad(path, backed="r").X)
    for piece in stored.pieces(CHUNK, _STORED):
        stored.read(*piece)


def transform(path: Path, manifold: Manifold) -> ad.AnnData:
    cells = ad.read_h5ad(path, backed="r")
    manifold.transform(cells, scale="log1p")
    return cells


def timed(run: Callable[[], object], empty: Callable[[], object]) -> np.ndarray:
    """Seconds that pass, and seconds of processors, less those of what is no part of it."""
    seconds = []
    for work in (empty, run):
        began = time.perf_counter(), time.process_time()
        work()
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return np.subtract(seconds[1], seconds[0])


def busy() -> float:
    """Seconds of processors that other programs have taken since the machine was started."""
    spent = psutil.cpu_times()
    return spent.user + spent.system + spent.nice - time.process_time()


def speeds(path: Path, manifold: Manifold, repeats: int) -> dict[str, Any]:
    """Microseconds per cell of every way, and ratios."""
    with h5py.File(path) as file:
        n_cells = int(file["X"].attrs["shape"][0])
    runs: dict[str, Callable[[], object]] = {
        "read_slices_of_anndata": lambda: read_slices(path),
        "read_pieces": lambda: read_pieces(path),
        "transform": lambda: transform(path, manifold),
    }
    if manifold.card.extraction.familiarity is not None:
        bare = without_familiarity(manifold)
        runs["transform_without_familiarity"] = lambda: transform(path, bare)
    transform(path, manifold)
    began, before = time.perf_counter(), busy()
    # opening reads the names of the cells and is the same for all
    rounds = [
        {name: timed(run, lambda: ad.read_h5ad(path, backed="r")) for name, run in runs.items()} for _ in range(repeats)
    ]
    others = (busy() - before) / (time.perf_counter() - began)

    def median(name: str, which: int) -> float:
        return round(statistics.median(r[name][which] for r in rounds) / n_cells * 1e6, 2)

    told: dict[str, Any] = {
        "cells": n_cells,
        "file_gb": round(path.stat().st_size / 1e9, 2),
        "processors_taken_by_others": round(others, 2),
        "us_per_cell": {name: median(name, 0) for name in runs},
        "processor_us_per_cell": {name: median(name, 1) for name in runs},
    }
    for name in (name for name in runs if name.startswith("transform")):
        told[f"{name}_ratio_to"] = {
            read: round(statistics.median(r[read][0] / r[name][0] for r in rounds), 2)
            for read in ("read_slices_of_anndata", "read_pieces")
        }
    return told


def memory(path: Path, reference: str) -> dict[str, Any]:
    """Growth of the resident set of this process during a transform, and the part of it that is results."""
    warnings.simplefilter("ignore")
    manifold = mz.load(reference)
    cells = ad.read_h5ad(path, backed="r")
    before = int(cells.obs.memory_usage().sum())
    grown = peak_memory(lambda: manifold.transform(cells, scale="log1p"))
    results = sum(array.nbytes for array in cells.obsm.values()) + int(cells.obs.memory_usage().sum()) - before
    megabytes = {"growth_mb": grown, "results_mb": results, "beside_results_mb": grown - results}
    return {"cells": cells.n_obs} | {name: round(value / 1e6) for name, value in megabytes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[250_000, 500_000, 1_000_000], help="the last is timed")
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--manifold", default="hematopoietic")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compression", nargs="+", choices=["none", "gzip"], default=["none", "gzip"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load(options.manifold)
    report: dict[str, Any] = {"manifold": repr(manifold), "processors": len(os.sched_getaffinity(0))}
    genes, fresh = list(manifold.genes.symbols), multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cells.h5ad"
        for kind in options.compression:
            told: dict[str, Any] = {"memory": []}
            sizes = options.cells if kind == "none" else options.cells[-1:]
            for n_cells in sizes:
                write_file(path, n_cells, genes, options.density, None if kind == "none" else kind)
                with fresh.Pool(1) as pool:
                    told["memory"].append(pool.apply(memory, (path, options.manifold)))
            report[kind] = speeds(path, manifold, options.repeats) | told
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()

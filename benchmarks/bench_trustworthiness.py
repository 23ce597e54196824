"""Exact trustworthiness of many points against scikit-learn, in one run, and what 100,000 points take.

Figures: seconds of ``trustworthiness_of_points`` and of ``sklearn.manifold.trustworthiness`` on the same points, on one
processor and on all, in alternating runs, and their ratio (goal >= 10); then seconds and peak resident memory of a
process of its own that does nothing but 100,000 points (goal <= 2 GB, all of Python and the libraries included).
Seconds are medians of the wall clock; beside them those that processors worked, which other programs on the machine do
not change much. Both are told to use the same number of threads, and scikit-learn sorts in one whatever it is told. Run
``python benchmarks/bench_trustworthiness.py``; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.manifold import trustworthiness as plain
from threadpoolctl import threadpool_limits

from manifoldzoo.gates.metrics import trustworthiness_of_points

Floats = NDArray[np.float64]


def planted(n: int, p: int, d: int) -> tuple[Floats, Floats]:
    """Make points in p dimensions that lie near a sheet of d, and their place on it but for some noise."""
    rng = np.random.default_rng(0)
    place = rng.standard_normal((n, d))
    points = place @ rng.standard_normal((d, p)) + rng.standard_normal((n, p))
    return points, place + 0.5 * rng.standard_normal((n, d))


def timed(run: Callable[[], float]) -> tuple[float, float, float]:
    """Wall seconds, processor seconds and result."""
    began, worked = time.perf_counter(), time.process_time()
    value = run()
    return time.perf_counter() - began, time.process_time() - worked, value


def compare(options: argparse.Namespace, threads: int) -> dict[str, object]:
    """Time both on the same points with the same number of threads."""
    points, latent = planted(options.points, options.features, options.latent)
    runs: dict[str, list[tuple[float, float, float]]] = {"ours": [], "sklearn": []}
    with threadpool_limits(limits=threads):
        for _ in range(options.repeats):
            runs["sklearn"].append(timed(lambda: float(plain(points, latent, n_neighbors=options.k))))
            runs["ours"].append(
                timed(lambda: trustworthiness_of_points(points, latent, k=options.k, n_threads=threads))
            )
    wall, work = ({name: statistics.median(run[i] for run in times) for name, times in runs.items()} for i in (0, 1))
    return {
        "threads": threads,
        "seconds": {name: round(value, 3) for name, value in wall.items()},
        "spread": {name: [round(f(run[0] for run in times), 3) for f in (min, max)] for name, times in runs.items()},
        "processor_seconds": {name: round(value, 3) for name, value in work.items()},
        "ratio": round(wall["sklearn"] / wall["ours"], 1),
        "ratio_of_processor_seconds": round(work["sklearn"] / work["ours"], 1),
        "difference": abs(runs["ours"][0][2] - runs["sklearn"][0][2]),
    }


def alone(options: argparse.Namespace) -> dict[str, float]:
    """Compute the many points and nothing else; what the process took."""
    points, latent = planted(options.many, options.features, options.latent)
    # compiles, or loads what was compiled
    trustworthiness_of_points(points[:100], latent[:100], k=options.k)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, work, value = timed(lambda: trustworthiness_of_points(points, latent, k=options.k))
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "points": options.many,
        "trustworthiness": value,
        "seconds": round(wall, 2),
        "processor_seconds": round(work, 2),
        "peak_mb": round(peak * unit / 1e6),
        "peak_mb_before": round(before * unit / 1e6),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--points", type=int, default=10_000, help="compared with scikit-learn, which needs 24 n^2 bytes"
    )
    parser.add_argument("--many", type=int, default=100_000, help="done alone, in a process of their own")
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--latent", type=int, default=10)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="only the many points, in this process")
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(alone(options)))
        return
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sizes = [f"--{name}={getattr(options, name)}" for name in ("many", "features", "latent", "k")]
    child = subprocess.run([sys.executable, __file__, "--alone", *sizes], capture_output=True, text=True, check=True)
    small = planted(100, options.features, options.latent)
    trustworthiness_of_points(*small, k=options.k)
    document = {
        "bench": "trustworthiness",
        "numpy": np.__version__,
        "points": options.points,
        "features": options.features,
        "latent": options.latent,
        "k": options.k,
        "against_sklearn": [compare(options, threads) for threads in sorted({1, available})],
        "many": json.loads(child.stdout),
    }
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()

"""Blocked Mantel test against scikit-bio's, which has no blocks, in one run on the same number of threads.

Prints one JSON object: seconds for 10,000 permutations of 300 anchors, medians of alternating runs, and their ratio
(goal >= 2), with blocks and without; the largest difference of r from scikit-bio's; and p of both without blocks, of
two matrices that have nothing to do with each other, with the part of their difference that chance explains.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable

import numba
import numpy as np
import skbio
from numpy.typing import NDArray
from skbio.stats.distance import DistanceMatrix
from skbio.stats.distance import mantel as peer_mantel

from manifoldzoo.gates import mantel


def distances(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Euclidean distances of random points."""
    points = rng.standard_normal((n, 5))
    found = np.sqrt(((points[:, None] - points[None]) ** 2).sum(axis=-1))
    return (found + found.T) / 2


def steps(n: int, n_stages: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Distances of stages on a line, many of them equal, as a ruler has."""
    stage = rng.integers(n_stages, size=n)
    return np.abs(stage[:, None] - stage[None]).astype(float)


def seconds(run: Callable[[], object]) -> float:
    """Time one run."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anchors", type=int, default=300)
    parser.add_argument("--permutations", type=int, default=10_000)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="those that numba finds at most")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    x, y = distances(options.anchors, rng), steps(options.anchors, 25, rng)
    blocks = rng.integers(options.blocks, size=options.anchors)
    peer_x, peer_y = DistanceMatrix(x), DistanceMatrix(y)
    count = options.permutations
    found = []
    for threads in options.threads:
        numba.set_num_threads(threads)
        for method in ("pearson", "spearman"):

            def ours(labels: NDArray[np.integer] | None, method: str = method, threads: int = threads) -> object:
                drawn = np.random.default_rng(1)
                return mantel(x, y, blocks=labels, method=method, n_permutations=count, rng=drawn, n_threads=threads)

            def peer(method: str = method) -> tuple[float, float, int]:
                return peer_mantel(peer_x, peer_y, method=method, permutations=count, seed=1, alternative="greater")

            runs: dict[str, list[float]] = {"blocked": [], "unblocked": [], "scikit-bio": []}
            plain, theirs = ours(None), peer()  # compiles, too
            for _ in range(options.repeats):
                runs["blocked"].append(seconds(lambda: ours(blocks)))
                runs["scikit-bio"].append(seconds(peer))
                runs["unblocked"].append(seconds(lambda: ours(None)))
            median = {name: statistics.median(times) for name, times in runs.items()}
            chance = float(np.sqrt(2 * theirs[1] * (1 - theirs[1]) / count))
            found.append(
                {
                    "threads": threads,
                    "method": method,
                    "seconds": {name: round(value, 4) for name, value in median.items()},
                    "spread": {name: [round(min(times), 4), round(max(times), 4)] for name, times in runs.items()},
                    "ratio_blocked": round(median["scikit-bio"] / median["blocked"], 2),
                    "ratio_unblocked": round(median["scikit-bio"] / median["unblocked"], 2),
                    "difference_of_r": abs(plain.statistic - theirs[0]),
                    "p": plain.p_value,
                    "p_scikit_bio": theirs[1],
                    "difference_of_p_in_standard_errors": round(abs(plain.p_value - theirs[1]) / chance, 2),
                }
            )
    told = {"bench": "mantel", "anchors": options.anchors, "permutations": count, "scikit-bio": skbio.__version__}
    print(json.dumps({**told, "results": found}, indent=1))


if __name__ == "__main__":
    main()

"""Time refitted permutations: batched in the row space against one by one in feature space, in one run.

Run ``python benchmarks/bench_permutation.py``; prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray

from manifoldzoo.manifolds._let import LetSettings, fit_in_row_space, fit_let, row_space
from manifoldzoo.manifolds._let_kernel import PairLayout, let_gradient


def fit_one_by_one(
    features: NDArray[np.float64], target: NDArray[np.float64], settings: LetSettings, rng: np.random.Generator
) -> None:
    """Fit one head the plain way: every feature a parameter, one problem at a time."""
    x = ((features - features.mean(0)) / np.maximum(features.std(0), 1e-3)).astype(np.float32)
    p, d = x.shape[1], settings.n_components
    layout = PairLayout.of(target[None].astype(np.float32), strip_rows=10**9)
    parameters = [
        (rng.standard_normal((1, d, p)) / np.sqrt(p)).astype(np.float32),
        np.zeros((1, p), dtype=np.float32),
        np.zeros(1, dtype=np.float32),
    ]
    gradients = [np.zeros_like(value) for value in parameters]
    first = [np.zeros_like(value) for value in parameters]
    second = [np.zeros_like(value) for value in parameters]
    columns = np.ascontiguousarray(x.T)
    for step in range(1, settings.n_steps + 1):
        let_gradient(x, columns, layout, *parameters, settings.alpha, out=(gradients[0], gradients[1], gradients[2]))
        for value, gradient, m, v in zip(parameters, gradients, first, second, strict=True):
            m += 0.1 * (gradient - m)
            v += 0.001 * (gradient * gradient - v)
            value -= settings.learning_rate * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)


def planted(n: int, p: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make features and small integer distances of the size of a real panel."""
    latent = rng.standard_normal((n, 10))
    distances = np.round(np.abs(latent[:, None, :3] - latent[None, :, :3]).sum(-1))
    np.fill_diagonal(distances, 0)
    return latent @ rng.standard_normal((10, p)) + rng.standard_normal((n, p)), distances


def main() -> None:
    """Print seconds per 1000 refits both ways, and their ratio, for each panel size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anchors", type=int, nargs="+", default=[114, 300])
    parser.add_argument("--features", type=int, default=2400)
    parser.add_argument("--batched", type=int, default=64, help="problems timed in batches")
    parser.add_argument("--single", type=int, default=4, help="problems timed one by one")
    options = parser.parse_args()
    settings = LetSettings()
    found = []
    small, distances = planted(12, 20, np.random.default_rng(0))
    fit_let(small, distances, LetSettings(n_steps=1), rng=np.random.default_rng(0))  # compiles the kernel
    for n in options.anchors:
        rng = np.random.default_rng(0)
        features, distances = planted(n, options.features, rng)
        train = np.sort(rng.permutation(n)[: round(0.8 * n)])
        orders = [rng.permutation(n) for _ in range(options.batched)]
        targets = np.stack([distances[np.ix_(order, order)] for order in orders])
        began = time.perf_counter()
        space = row_space(features, settings, rng=rng, train=train)
        fit_in_row_space(space, targets, settings, rngs=rng.spawn(options.batched))
        batched = (time.perf_counter() - began) / options.batched * 1000
        began = time.perf_counter()
        for target in targets[: options.single]:
            fit_one_by_one(features[train], target[np.ix_(train, train)], settings, rng)
        single = (time.perf_counter() - began) / options.single * 1000
        found.append(
            {
                "anchors": n,
                "features": options.features,
                "batched_s_per_1000": round(batched, 2),
                "one_by_one_s_per_1000": round(single, 2),
                "ratio": round(single / batched, 1),
            }
        )
    print(json.dumps({"bench": "permutation", "numpy": np.__version__, "results": found}, indent=2))


if __name__ == "__main__":
    main()

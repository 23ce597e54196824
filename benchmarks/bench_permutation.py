"""Time refitted permutations in one run: batched in the row space, one by one in feature space, and plain PyTorch.

Run ``python benchmarks/bench_permutation.py``; prints one JSON object. ``kernel_loop`` fits one head at a time to all
features with the gradient that the batched fits use, ``torch_loop`` does so with automatic differentiation, as a reader
of the paper would write it. All take the same steps and may use the same number of threads. Held-out scores of all are
compared on the same permutations; ``seed_difference`` is how far two starts of the batched fits lie apart.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from manifoldzoo.gates.metrics import angular_distances, distance_spearman
from manifoldzoo.gates.refits._holdouts import touching_pairs
from manifoldzoo.manifolds._let import LetSettings, fit_in_row_space, fit_let, row_space
from manifoldzoo.manifolds._let_kernel import PairLayout, let_gradient, unpack
from manifoldzoo.manifolds._threads import n_threads

Floats = NDArray[np.float64]
Fit = Callable[[NDArray[np.float32], NDArray[np.float32], LetSettings, np.random.Generator], Floats]


def kernel_loop(
    x: NDArray[np.float32], target: NDArray[np.float32], settings: LetSettings, rng: np.random.Generator
) -> Floats:
    """Fit one head with our gradient, every feature a parameter; returns the latents of all rows."""
    n, p, d = len(target), x.shape[1], settings.n_components
    rows = x[:n]
    layout = PairLayout.of(target[None], strip_rows=10**9)
    flat = start(p, d, target, rng)[None]
    gradient, first, second = (np.zeros_like(flat) for _ in range(3))
    columns = np.ascontiguousarray(rows.T)
    for step, rate in enumerate(settings.rates().tolist(), 1):
        let_gradient(rows, columns, layout, *unpack(flat, d), settings.alpha, out=unpack(gradient, d))
        first += 0.1 * (gradient - first)
        second += 0.001 * (gradient * gradient - second)
        flat -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    weights, bias, _ = unpack(flat, d)
    return ((x - bias[0]) @ weights[0].T).astype(np.float64)


def torch_loop(
    x: NDArray[np.float32], target: NDArray[np.float32], settings: LetSettings, rng: np.random.Generator
) -> Floats:
    """Fit one head by automatic differentiation and Adam of PyTorch; returns the latents of all rows."""
    import torch

    n, p, d = len(target), x.shape[1], settings.n_components
    weights, bias, log_beta = unpack(start(p, d, target, rng)[None], d)
    parameters = [torch.tensor(value[0], requires_grad=True) for value in (weights, bias, log_beta)]
    w, b, beta = parameters
    rows, goal = torch.tensor(x[:n]), torch.tensor(target)
    left, right = torch.triu_indices(n, n, 1)
    optimiser = torch.optim.Adam(parameters)
    for rate in settings.rates().tolist():
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        z = (rows - b) @ w.T
        unit = torch.nn.functional.normalize(z, dim=1)
        angle = torch.arccos((unit @ unit.T)[left, right] * (1 - 1e-6))
        stress = 2 * (beta.exp() * angle - goal[left, right]).square().sum()
        loss = stress + settings.alpha * (z @ w + b - rows).square().sum()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return ((torch.tensor(x) - b) @ w.T).numpy().astype(np.float64)


def start(p: int, d: int, target: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Flat parameters to start from, as the batched fits have them."""
    flat = np.zeros(d * p + p + 1, dtype=np.float32)
    flat[: d * p] = rng.standard_normal(d * p) / np.sqrt(p)
    flat[-1] = np.log(target.sum() / (len(target) * (len(target) - 1)) / (np.pi / 2))
    return flat


def planted(n: int, p: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Make features and small integer distances of the size of a real panel."""
    latent = rng.standard_normal((n, 10))
    distances = np.round(np.abs(latent[:, None, :3] - latent[None, :, :3]).sum(-1))
    np.fill_diagonal(distances, 0)
    return latent @ rng.standard_normal((10, p)) + rng.standard_normal((n, p)), distances


def compare(n: int, p: int, settings: LetSettings, n_batched: int, n_single: int) -> dict[str, float]:
    """Fit heads to permuted distances all three ways."""
    rng = np.random.default_rng(0)
    features, distances = planted(n, p, rng)
    held_out = np.sort(rng.permutation(n)[: n // 5])
    train = np.setdiff1d(np.arange(n), held_out)
    pairs = touching_pairs(n, held_out)
    # half of the labels move, so that there is something left to be found
    orders = [partly(n, rng) for _ in range(n_batched)]
    targets = np.stack([distances[np.ix_(order, order)] for order in orders])
    space = row_space(features, settings, rng=rng, train=train)
    began = time.perf_counter()
    fit = fit_in_row_space(space, targets, settings, rngs=rng.spawn(n_batched))
    scores = distance_spearman(angular_distances(fit.latents(space.rows)), targets, pairs)
    found = {"batched_s_per_1000": (time.perf_counter() - began) / n_batched * 1000}
    few = targets[:n_single]
    again = fit_in_row_space(space, few, settings, rngs=rng.spawn(n_single))
    other = distance_spearman(angular_distances(again.latents(space.rows)), few, pairs)
    found["score"] = float(scores.mean())
    found["seed_difference"] = float(np.abs(scores[:n_single] - other).mean())
    order = np.concatenate([train, held_out])
    x = ((features - space.mean) / space.scale).astype(np.float32)[order]
    loops: dict[str, Fit] = {"kernel_loop": kernel_loop, "torch_loop": torch_loop}
    for name, loop in loops.items():
        loop(x, targets[0][np.ix_(train, train)].astype(np.float32), LetSettings(n_steps=2), rng)
        began = time.perf_counter()
        latents = [loop(x, t[np.ix_(train, train)].astype(np.float32), settings, rng) for t in few]
        found[f"{name}_s_per_1000"] = (time.perf_counter() - began) / n_single * 1000
        placed = np.empty((n_single, n, settings.n_components))
        placed[:, order] = latents
        single = distance_spearman(angular_distances(placed), few, pairs)
        found[f"{name}_difference"] = float((single - scores[:n_single]).mean())
        found[f"{name}_ratio"] = found[f"{name}_s_per_1000"] / found["batched_s_per_1000"]
    return {name: round(value, 4 if "diff" in name or name == "score" else 1) for name, value in found.items()}


def partly(n: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """A permutation that moves half of the rows."""
    order = np.arange(n)
    moved = rng.permutation(n)[: n // 2]
    order[moved] = rng.permutation(moved)
    return order


def main() -> None:
    """Print seconds per 1000 refits of each way and their ratios, for each panel size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--anchors", type=int, nargs="+", default=[114, 300])
    parser.add_argument("--features", type=int, default=2400)
    parser.add_argument("--batched", type=int, default=128, help="problems timed in batches")
    parser.add_argument("--single", type=int, default=6, help="problems timed one by one")
    options = parser.parse_args()
    # those of the bundled recipe
    settings = LetSettings(n_steps=300, learning_rate=0.005, schedule="cosine")
    small, distances = planted(12, 20, np.random.default_rng(0))
    fit_let(small, distances, LetSettings(n_steps=1), rng=np.random.default_rng(0))  # compiles the kernel
    results = [
        {"anchors": n, "features": options.features}
        | compare(n, options.features, settings, options.batched, options.single)
        for n in options.anchors
    ]
    told = {"bench": "permutation", "numpy": np.__version__, "threads": n_threads(), "results": results}
    print(json.dumps(told, indent=2))


if __name__ == "__main__":
    main()

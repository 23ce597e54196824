"""Time the screen of all heads against fitting the heads one by one, in one run.

Run ``python benchmarks/bench_screen.py``; prints one JSON object. The peer is the plain way: for each head a PyTorch
loop with autograd over all features, heads one after another. A second peer has this project's own gradient, still one
head at a time over all features. Both are timed on a few heads, between two runs of the screen.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from bench_permutation import kernel_loop
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch.nn.functional import normalize

from manifoldzoo.extractors.screen._score import score_heads
from manifoldzoo.gates.metrics import Pairs, angular_distances, distance_spearman
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._let_many import feature_coordinates, fit_let_many


def plain_fit(
    features: NDArray[np.float32],
    distances: NDArray[np.float64],
    train: NDArray[np.intp],
    settings: LetSettings,
    seed: int,
) -> NDArray[np.float64]:
    """Fit one head as one would write it down, and return the latents of all anchors."""
    draw = torch.Generator().manual_seed(seed)
    fitted = features[train]
    spread = fitted.std(axis=0)
    x = torch.from_numpy(
        (features - fitted.mean(axis=0)) / np.maximum(spread, settings.scale_floor * np.median(spread))
    )
    rows, target = x[train], torch.from_numpy(distances[np.ix_(train, train)].astype(np.float32))
    weights = (torch.randn(settings.n_components, x.shape[1], generator=draw) / x.shape[1] ** 0.5).requires_grad_()
    bias, log_beta = torch.zeros(x.shape[1], requires_grad=True), torch.zeros((), requires_grad=True)
    optimiser = torch.optim.Adam([weights, bias, log_beta], lr=settings.learning_rate)
    for _ in range(settings.n_steps):
        optimiser.zero_grad()
        centred = rows - bias
        latent = centred @ weights.T
        unit = normalize(latent, dim=1)
        angles = ((unit @ unit.T) * (1 - 1e-6)).acos()
        loss = ((log_beta.exp() * angles - target) ** 2).sum()
        loss = loss + settings.alpha * ((latent @ weights - centred) ** 2).sum()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        return ((x - bias) @ weights.T).numpy().astype(np.float64)


def own_fit(
    features: NDArray[np.float32],
    distances: NDArray[np.float64],
    train: NDArray[np.intp],
    settings: LetSettings,
    rng: np.random.Generator,
) -> None:
    """Fit one head with our gradient, every feature a parameter."""
    fitted = features[train]
    x = (fitted - fitted.mean(axis=0)) / np.maximum(fitted.std(axis=0), 1e-3)
    kernel_loop(x.astype(np.float32), distances[np.ix_(train, train)].astype(np.float32), settings, rng)


def held_out(latents: NDArray[np.float64], distances: NDArray[np.float64], held: NDArray[np.bool_]) -> float:
    """Spearman correlation over the pairs that touch a held-out anchor."""
    pairs = Pairs(*np.nonzero(np.triu(held[:, None] | held, 1)))
    return float(distance_spearman(angular_distances(latents), distances, pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--anchors", type=int, default=300)
    parser.add_argument("--genes", type=int, default=1200)
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--one-by-one", type=int, default=4, help="heads that the peers fit")
    options = parser.parse_args()
    settings, rng = LetSettings(), np.random.default_rng(0)
    n, genes, shape = options.anchors, options.genes, (options.layers, options.heads)
    latent = rng.standard_normal((n, 3))
    anchors = (latent @ rng.standard_normal((3, genes)) + 2 * rng.standard_normal((n, genes))).astype(np.float32)
    distances = np.round(np.abs(latent[:, None] - latent).sum(-1))
    operators = (rng.standard_normal((*shape, genes, genes)) / genes).astype(np.float32)
    names = {"study": ["s"] * n, "donor": [f"d{i % 5}" for i in range(n)], "tissue": ["t"] * n}

    def ours() -> float:
        began = time.perf_counter()
        with threadpool_limits(limits=1, user_api="blas"):
            score_heads(anchors, operators, distances, **names, settings=settings, n_splits=options.splits, seed=0)
        return time.perf_counter() - began

    held = np.zeros(n, dtype=bool)
    held[rng.permutation(n)[: n // 5]] = True
    train = np.flatnonzero(~held)
    some = operators.reshape(-1, genes, genes)[: options.one_by_one]
    plain_fit(anchors @ some[0], distances, train, LetSettings(n_steps=2), 0)
    own_fit(anchors @ some[0], distances, train, LetSettings(n_steps=2), rng)
    score_heads(anchors, some[None, :2], distances, **names, settings=LetSettings(n_steps=2), n_splits=2, seed=0)

    n_fits = int(np.prod(shape)) * (options.splits + 1)
    first, plain_seconds, own_seconds, scores = ours(), [], [], []
    for operator in some:
        began = time.perf_counter()
        features = anchors @ operator
        found = plain_fit(features, distances, train, settings, 0)
        plain_seconds.append(time.perf_counter() - began)
        scores.append(held_out(found, distances, held))
        began = time.perf_counter()
        own_fit(anchors @ operator, distances, train, settings, rng)
        own_seconds.append(time.perf_counter() - began)
    seconds = (first + ours()) / 2
    starts = [held_out(plain_fit(anchors @ some[0], distances, train, settings, s), distances, held) for s in range(3)]
    coordinates = np.stack([feature_coordinates(anchors @ operator, scale_floor=0.1) for operator in some])
    placed = fit_let_many(coordinates, distances, settings, rng=rng, train=train)
    report = {
        "bench": "screen",
        "heads": int(np.prod(shape)),
        "anchors": n,
        "genes": genes,
        "fits": n_fits,
        "threads_of_the_peers": torch.get_num_threads(),
        "screen_seconds": round(seconds, 2),
        "screen_ms_per_fit": round(seconds / n_fits * 1e3, 1),
        "plain_ms_per_fit": round(float(np.mean(plain_seconds)) * 1e3, 1),
        "own_gradient_one_by_one_ms_per_fit": round(float(np.mean(own_seconds)) * 1e3, 1),
        "ratio_to_plain": round(float(np.mean(plain_seconds)) * n_fits / seconds, 1),
        "ratio_to_own_gradient_one_by_one": round(float(np.mean(own_seconds)) * n_fits / seconds, 1),
        "held_out_spearman": {
            "plain": round(float(np.mean(scores)), 4),
            "screen": round(float(np.mean([held_out(latents, distances, held) for latents in placed])), 4),
            "sd_over_starts_of_plain": round(float(np.std(starts, ddof=1)), 4),
        },
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

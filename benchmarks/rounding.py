"""How far a head moves when its operator changes by as much as another processor's arithmetic changes it.

Another processor adds numbers in another order. The script changes every entry of a bundled operator by a relative
6e-7, about what PyTorch's plain kernels do to it, fits the head to both on the artifact's own anchors, and prints the
largest change of a coordinate in units of the tolerance that the card declares, over some starts, as a Markdown table.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.stats import spearmanr
from threadpoolctl import threadpool_limits

import manifoldzoo as mz
from manifoldzoo.manifolds import LetSettings, fit_let
from manifoldzoo.manifolds._features import apply_operator

TRIED = [
    ("constant", 150, 0.02),
    ("cosine", 150, 0.02),
    ("cosine", 300, 0.02),
    ("cosine", 300, 0.01),
    ("cosine", 300, 0.005),
    ("cosine", 600, 0.005),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--change", type=float, default=6e-7)
    options = parser.parse_args()
    manifold = mz.load("hematopoietic")
    target = manifold.ruler.distances(manifold.anchor_stages)
    anchors, tolerance = manifold.tensors["panel.anchors"], manifold.card.test_vectors
    operator = np.asarray(manifold.operator, dtype=np.float32)
    pairs = np.triu_indices(len(anchors), 1)
    print("| schedule | steps | first step size | median | largest | fit |\n| --- | --- | --- | --- | --- | --- |")
    for schedule, n_steps, rate in TRIED:
        settings = LetSettings(
            n_components=manifold.n_components, n_steps=n_steps, learning_rate=rate, schedule=schedule
        )
        moved, fits = [], []
        for start in range(options.starts):
            noise = np.random.default_rng([1, start]).standard_normal(operator.shape)
            latents = []
            for read in (operator, (operator * (1 + options.change * noise)).astype(np.float32)):
                features = apply_operator(anchors, read)
                latents.append(fit_let(features, target, settings, rng=np.random.default_rng(start)).latent(features))
            one, other = latents
            moved.append(np.max(np.abs(one - other) / (tolerance.atol + tolerance.rtol * np.abs(one))))
            unit = one / np.linalg.norm(one, axis=1, keepdims=True)
            fits.append(spearmanr(-(unit @ unit.T)[pairs], target[pairs]).statistic)
        row = (schedule, n_steps, rate, f"{np.median(moved):.2g}", f"{np.max(moved):.2g}", f"{np.mean(fits):.3f}")
        print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()

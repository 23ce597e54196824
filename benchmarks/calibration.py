"""Does the refitted permutation test reject at its level? Simulated panels in which there is nothing to find.

Each panel has 60 to 80 anchors in 8 to 12 blocks (study x donor x tissue) of unequal size and composition. Their
features hold an effect of each block, which follows the mean place of the block's own stages, structure that has
nothing to do with stages and differs in strength between blocks, and noise. Stages are then dealt out anew within each
block, so that every arrangement within blocks is as likely as the one observed: the null is true, though blocks agree
with the ruler.

Prints one JSON object: for the refitted test, the same with a fixed head and two Mantel tests of the features, how
often p is at most 0.01, 0.05 and 0.1, with exact intervals (Clopper & Pearson 1934), and whether p is uniform; the same
for panels with a planted effect. Then the same as a table.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, kstest

from manifoldzoo.gates import mantel, permutation_test
from manifoldzoo.gates.metrics import euclidean_distances
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

LEVELS = (0.01, 0.05, 0.1)
SETTINGS = LetSettings()
"""Those of the ladder, so that the test is the one that decides there."""
N_FEATURES = 200
TESTS = ("refitted head", "fixed head", "Mantel of features, blocked", "Mantel of features, not blocked")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One simulated panel."""

    features: Floats
    distances: Floats
    stage: list[str]
    blocks: NDArray[np.intp]


def stage_places(distances: Floats, d: int = 5) -> Floats:
    """Place stages such that Euclidean distances follow the ruler (classical scaling), of unit mean length."""
    n = len(distances)
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances**2 @ centring)
    places = vectors[:, -d:] * np.sqrt(np.maximum(values[-d:], 0))
    return np.asarray(places / np.sqrt((places**2).sum(axis=1).mean()))


def simulate(rng: np.random.Generator, *, effect: float) -> Panel:
    """Draw a panel; an anchor's own stage moves its features by ``effect``, which is 0 where the null is true.

    As in a real panel, no stage comes twice in a block, and blocks lean to different parts of the tree.
    """
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))
    names = [stage.id for stage in ruler.stages]
    places = stage_places(np.asarray(ruler.distances(names), dtype=np.float64))
    n, n_blocks = int(rng.integers(60, 81)), int(rng.integers(8, 13))
    sizes = 3 + rng.multinomial(n - 3 * n_blocks, rng.dirichlet(np.full(n_blocks, 4.0)))
    blocks = np.repeat(np.arange(n_blocks), np.minimum(sizes, len(names)))
    codes = []
    for size in np.bincount(blocks):
        lean = np.exp(places @ rng.standard_normal(places.shape[1]))
        codes.append(rng.choice(len(names), size=size, replace=False, p=lean / lean.sum()))
    mean_place = np.stack([places[code].mean(axis=0) for code in codes])[blocks]
    loadings = rng.standard_normal((places.shape[1], N_FEATURES))
    donor = rng.standard_normal((n_blocks, N_FEATURES))[blocks]
    strength = rng.uniform(0.5, 2.0, size=n_blocks)[blocks, None]
    free = strength * rng.standard_normal((len(blocks), 6)) @ rng.standard_normal((6, N_FEATURES)) / np.sqrt(6)
    # dealt out anew: by construction every arrangement within blocks has the same chance
    code = np.concatenate([rng.permutation(code) for code in codes])
    features = mean_place @ loadings + donor + free + effect * places[code] @ loadings
    features += rng.standard_normal(features.shape)
    stage = [names[index] for index in code]
    return Panel(features, np.asarray(ruler.distances(stage), dtype=np.float64), stage, blocks)


def p_values(panel: Panel, rng: np.random.Generator, *, n_permutations: int, n_splits: int) -> list[float]:
    """P of each test, in the order of ``TESTS``."""
    result = permutation_test(
        panel.features,
        panel.distances,
        panel.stage,
        panel.blocks,
        SETTINGS,
        rng=rng,
        n_permutations=n_permutations,
        n_splits=n_splits,
    )
    apart = euclidean_distances(panel.features)
    options = {"method": "spearman", "n_permutations": n_permutations, "rng": rng, "n_threads": 1}
    plain = [mantel(apart, panel.distances, blocks=blocks, **options).p_value for blocks in (panel.blocks, None)]
    return [result.p_value, result.fixed_p_value, *plain]


def draw(n_panels: int, *, effect: float, seed: int, n_permutations: int = 99, n_splits: int = 3) -> Floats:
    """P of every test on every panel, shape (n_panels, n_tests)."""
    children = np.random.default_rng(seed).spawn(n_panels)
    return np.array(
        [
            p_values(simulate(rng, effect=effect), rng, n_permutations=n_permutations, n_splits=n_splits)
            for rng in children
        ]
    )


def summarise(p: Floats, n_permutations: int, rng: np.random.Generator) -> dict[str, object]:
    """Rates of rejection with exact 95% intervals, and the Kolmogorov-Smirnov test that p is uniform.

    A valid p takes the values 1 / (1 + n_permutations) to 1 with equal chance; less a uniform part of one step it is
    uniform on 0 to 1, which is what is tested.
    """
    rates: dict[str, object] = {}
    for level in LEVELS:
        count = int((p <= level + 1e-12).sum())
        interval = binomtest(count, len(p)).proportion_ci(0.95, method="exact")
        rates[str(level)] = {"rate": count / len(p), "interval": [round(interval.low, 4), round(interval.high, 4)]}
    test = kstest(p - rng.random(len(p)) / (1 + n_permutations), "uniform")
    return {"rates": rates, "mean_p": float(p.mean()), "ks": float(test.statistic), "ks_p": float(test.pvalue)}


def table(found: dict[str, dict[str, dict[str, object]]]) -> str:
    """Rates and intervals as Markdown."""
    lines = ["| panels | test | " + " | ".join(f"p <= {level:g}" for level in LEVELS) + " | uniform, KS p |"]
    lines.append("| --- " * (3 + len(LEVELS)) + "|")
    for panels, tests in found.items():
        for name, said in tests.items():
            rates = said["rates"]
            assert isinstance(rates, dict)
            cells = []
            for rate in rates.values():
                low, high = rate["interval"]
                cells.append(f"{rate['rate']:.3f} ({low:.3f} to {high:.3f})")
            ks_p = said["ks_p"]
            assert isinstance(ks_p, float)
            uniform = (f"{ks_p:.2g}" if ks_p >= 1e-9 else "< 1e-9") if panels.startswith("null") else ""
            lines.append(f"| {panels} | {name} | {' | '.join(cells)} | {uniform} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=200, help="in which the null is true")
    parser.add_argument("--planted", type=int, default=40, help="with an effect, for orientation")
    parser.add_argument(
        "--effects", type=float, nargs="*", default=[0.1, 0.2], help="of an anchor's own stage; that of blocks is 1"
    )
    parser.add_argument("--permutations", type=int, default=99, help="99 or 199, so that p can be 0.05 exactly")
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started, worked = time.perf_counter(), time.process_time()
    found: dict[str, dict[str, dict[str, object]]] = {}
    planted = [(f"effect {effect:g}", options.planted, effect) for effect in options.effects]
    cases = [("null is true", options.panels, 0.0), *planted]
    for index, (name, count, effect) in enumerate(cases):
        p = draw(
            count,
            effect=effect,
            seed=options.seed + index,
            n_permutations=options.permutations,
            n_splits=options.splits,
        )
        jitter = np.random.default_rng(options.seed)
        found[f"{name}, {count}"] = {
            test: summarise(column, options.permutations, jitter) for test, column in zip(TESTS, p.T, strict=True)
        }
    told = {
        "bench": "calibration",
        "permutations": options.permutations,
        "splits": options.splits,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - started, 1),
        "processor_seconds": round(time.process_time() - worked, 1),
        "results": found,
    }
    print(json.dumps(told, indent=1))
    print(f"\n{table(found)}")


if __name__ == "__main__":
    main()

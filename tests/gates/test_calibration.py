"""The refitted test rejects at its level where there is nothing to find, and a fixed head does not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, binom

from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "calibration.py"


@pytest.fixture
def calibration(monkeypatch):
    """The benchmark as a module, with a head that is quickly fitted."""
    spec = importlib.util.spec_from_file_location("tried_calibration", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SETTINGS", LetSettings(n_components=5, n_steps=50, learning_rate=0.05))
    return module


def test_panels_are_of_the_shape_that_is_claimed(calibration):
    for seed in range(20):
        panel = calibration.simulate(np.random.default_rng(seed), effect=0.0)
        n, sizes = len(panel.stage), np.bincount(panel.blocks)
        assert 60 <= n <= 80 and 8 <= len(sizes) <= 12 and sizes.min() >= 3
        assert panel.features.shape == (n, calibration.N_FEATURES)
        for block in range(len(sizes)):
            stages = np.array(panel.stage)[panel.blocks == block]
            assert len(set(stages)) == len(stages)
        ruler = read_stage_ruler(recipe_folder("hematopoietic"))
        np.testing.assert_array_equal(panel.distances, ruler.distances(panel.stage))


def test_without_an_effect_features_do_not_depend_on_how_stages_are_dealt(calibration, monkeypatch):
    class Undealt:
        """A generator that leaves everything in its place."""

        def __init__(self, rng):
            self.rng = rng

        def permutation(self, values):
            self.rng.permutation(values)
            return values

        def __getattr__(self, name):
            return getattr(self.rng, name)

    for effect, same in ((0.0, True), (0.3, False)):
        dealt = calibration.simulate(np.random.default_rng(3), effect=effect)
        undealt = calibration.simulate(Undealt(np.random.default_rng(3)), effect=effect)
        assert dealt.stage != undealt.stage
        assert np.array_equal(dealt.features, undealt.features) == same


def test_blocks_agree_with_the_ruler_though_nothing_within_them_does(calibration):
    """Or the null would be one that ignoring the blocks could pass as well."""
    many = np.array(
        [
            calibration.mantel(
                calibration.euclidean_distances(panel.features),
                panel.distances,
                blocks=blocks,
                n_permutations=99,
                rng=np.random.default_rng(0),
            ).p_value
            for seed in range(40)
            for panel in [calibration.simulate(np.random.default_rng(seed), effect=0.0)]
            for blocks in (panel.blocks, None)
        ]
    ).reshape(40, 2)
    blocked, unblocked = (many <= 0.05).sum(axis=0)
    assert blocked <= binom.ppf(0.999, 40, 0.05) < unblocked


def test_rates_intervals_and_uniformity(calibration):
    p = np.arange(1, 101) / 100
    said = calibration.summarise(p, 99, np.random.default_rng(0))
    assert [said["rates"][str(level)]["rate"] for level in (0.01, 0.05, 0.1)] == [0.01, 0.05, 0.1]
    low, high = said["rates"]["0.05"]["interval"]
    assert low == pytest.approx(beta.ppf(0.025, 5, 96), abs=1e-4)
    assert high == pytest.approx(beta.ppf(0.975, 6, 95), abs=1e-4)
    assert said["ks"] <= 0.01 and said["ks_p"] > 0.99
    assert calibration.summarise(np.full(100, 0.01), 99, np.random.default_rng(0))["ks_p"] < 1e-9
    lines = calibration.table({"null is true, 100": {"refitted head": said}}).splitlines()
    assert lines[-1].startswith("| null is true, 100 | refitted head | 0.010 (0.000 to 0.054) | 0.050 ")
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_the_refitted_test_holds_its_level_and_finds_what_is_planted(calibration):
    refitted, fixed, blocked, unblocked = calibration.draw(60, effect=0.0, seed=11).T
    # a test that holds its level exceeds this once in a thousand times
    most = binom.ppf(0.999, 60, 0.05)
    assert (refitted <= 0.05).sum() <= most
    assert (blocked <= 0.05).sum() <= most
    assert calibration.summarise(refitted, 99, np.random.default_rng(0))["ks_p"] > 0.001
    # what would be broken exceeds it
    assert (fixed <= 0.05).sum() > 50
    assert (unblocked <= 0.05).sum() > most
    planted = calibration.draw(20, effect=0.4, seed=12)[:, 0]
    assert (planted <= 0.05).sum() >= 18

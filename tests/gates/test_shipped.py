"""The head that is shipped has to be one that its procedure gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.gates.rungs._shipped import SHORTFALL, shipped_record
from manifoldzoo.manifolds._let import LetSettings, fit_let

SETTINGS = LetSettings(n_components=3, n_steps=60)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    place = rng.integers(0, 5, size=(30, 2)).astype(float)
    features = np.hstack([place, rng.standard_normal((30, 4))]) @ rng.standard_normal((6, 20))
    distances = np.abs(place[:, None] - place[None]).sum(-1)
    names = [f"s{i}" for i in range(30)]
    return GateData(features, features, names, distances, names, ["d"] * 30, ["t"] * 30, ["x"] * 30)


@pytest.fixture(scope="module")
def refits(panel):
    heads = [fit_let(panel.features, panel.distances, SETTINGS, rng=np.random.default_rng(s)) for s in range(4)]
    return np.stack([angular_distances(head.latent(panel.features)) for head in heads])


def fitted(panel, seed=9):
    return fit_let(panel.features, panel.distances, SETTINGS, rng=np.random.default_rng(seed)).latent(panel.features)


def test_a_head_from_another_start_passes(panel, refits):
    record = shipped_record(panel, fitted(panel), refits, seed=1)
    assert record.status == "pass" and record.threshold == SHORTFALL


def test_the_shortfall_is_the_difference_of_the_correlations(panel, refits):
    latent, upper = fitted(panel), np.triu_indices(30, 1)
    ruler = panel.distances[upper]
    by_start = [spearmanr(angles[upper], ruler).statistic for angles in refits]
    own = spearmanr(angular_distances(latent)[upper], ruler).statistic
    record = shipped_record(panel, latent, refits, seed=1)
    assert record.statistic == pytest.approx(np.mean(by_start) - own, abs=1e-12)


@pytest.mark.parametrize("what", ["other rows", "noise", "one direction"])
def test_another_head_fails(panel, refits, what):
    rng, latent = np.random.default_rng(2), fitted(panel)
    other = {
        "other rows": rng.permutation(latent),
        "noise": rng.standard_normal(latent.shape),
        "one direction": np.ones_like(latent) + 1e-9 * rng.standard_normal(latent.shape),
    }[what]
    record = shipped_record(panel, other, refits, seed=1)
    assert record.status == "fail" and record.statistic > SHORTFALL


def test_anchors_without_a_direction_fail(panel, refits):
    record = shipped_record(panel, np.zeros((30, 3)), refits, seed=1)
    assert record.status == "fail" and record.statistic is None
    assert record.details["anchors_without_direction"] == 30

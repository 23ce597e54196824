"""The head that is shipped has to be one that its procedure gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.gates.rungs._shipped import REPEATED, SHORTFALL, shipped_record
from manifoldzoo.manifolds._geodesic import fit_geodesic, geodesic_latents
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._heads import latent_distances
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


class TestGeodesicHeads:
    """A head that does not read the ruler must be the one that its procedure gives, not one that follows the ruler."""

    settings = GeodesicSettings(n_components=3, n_neighbours=8)

    def record(self, panel, latent):
        refit = latent_distances(geodesic_latents(panel.features, self.settings)[None], self.settings)
        return shipped_record(panel, latent, refit, seed=1, settings=self.settings)

    def test_the_head_itself_agrees_with_its_only_refit(self, panel):
        head = fit_geodesic(panel.features, panel.distances, self.settings)
        record = self.record(panel, head.latent(panel.features).astype(np.float32))
        assert record.status == "pass" and record.statistic == pytest.approx(0, abs=1e-6)
        assert record.threshold == REPEATED < SHORTFALL
        assert "anchors_without_direction" not in record.details
        # turned, mirrored and moved it is the same picture
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
        assert self.record(panel, head.latent(panel.features) @ turn + 5).statistic == pytest.approx(0, abs=1e-9)

    def test_the_shortfall_is_one_less_the_correlation_of_distances(self, panel):
        latent, upper = fitted(panel), np.triu_indices(30, 1)
        own, refit = (cdist(each, each)[upper] for each in (latent, geodesic_latents(panel.features, self.settings)))
        assert self.record(panel, latent).statistic == pytest.approx(1 - spearmanr(own, refit).statistic, abs=1e-9)

    def test_a_layout_of_the_ruler_fails_although_it_follows_the_ruler_better(self, panel):
        centring = np.eye(30) - 1 / 30
        values, vectors = np.linalg.eigh(-0.5 * centring @ panel.distances**2 @ centring)
        layout = vectors[:, -3:] * np.sqrt(np.maximum(values[-3:], 0))
        refit = geodesic_latents(panel.features, self.settings)
        upper, ruler = np.triu_indices(30, 1), panel.distances[np.triu_indices(30, 1)]
        follows = [spearmanr(cdist(each, each)[upper], ruler).statistic for each in (layout, refit)]
        assert follows[0] > follows[1]
        assert self.record(panel, layout).status == "fail"

    @pytest.mark.parametrize("what", ["other rows", "one place", "nowhere"])
    def test_another_head_fails(self, panel, what):
        latent = geodesic_latents(panel.features, self.settings)
        other = {
            "other rows": np.random.default_rng(2).permutation(latent),
            "one place": np.ones_like(latent),
            "nowhere": np.full_like(latent, np.nan),
        }[what]
        assert self.record(panel, other).status == "fail"


def test_anchors_without_a_direction_fail(panel, refits):
    record = shipped_record(panel, np.zeros((30, 3)), refits, seed=1)
    assert record.status == "fail" and record.statistic is None
    assert record.details["anchors_without_direction"] == 30

"""The shipped head beside principal components on panels that neither was fitted to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_tree import SETTINGS, planted_panel
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.decomposition import PCA

import manifoldzoo as mz
from manifoldzoo.cards._evidence import conclude
from manifoldzoo.gates._artifact_data import gate_data, outside_panels
from manifoldzoo.gates.metrics import angular_distances, geodesic_correlation
from manifoldzoo.gates.rungs._transfer_geometry import MIN_ANCHORS, transfer_geometry_record
from manifoldzoo.manifolds._let import fit_let


@pytest.fixture(scope="module")
def real():
    return planted_panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def stranger():
    return planted_panel(np.random.default_rng(7), n_donors=2, prefix="e")


@pytest.fixture(scope="module")
def head(real):
    return fit_let(real.features, real.distances, SETTINGS, rng=np.random.default_rng(0))


@pytest.fixture(scope="module")
def record(real, stranger, head):
    return transfer_geometry_record("x", real, stranger, head.latent(stranger.features), SETTINGS, seed=3)


def test_it_never_decides(record, stranger):
    assert (record.gate, record.status, record.decides, record.statistic) == ("x", "cannot decide", False, None)
    assert (record.n, record.seed) == (len(stranger.stage), 3)
    assert conclude(5, [record]).status == "not run"


def test_margins_are_over_components_of_the_extraction_panel(record, real, stranger, head):
    upper = np.triu_indices(len(stranger.stage), 1)
    ruler = np.asarray(stranger.distances)[upper]
    angles = angular_distances(head.latent(stranger.features))
    own = spearmanr(angles[upper], ruler).statistic
    assert record.details["spearman"] == pytest.approx(own)
    k = record.details["geodesic_k"]
    assert record.details["geodesic_spearman"] == pytest.approx(geodesic_correlation(angles, stranger.distances, k=k))
    for d in (2, 6):
        fitted = PCA(d, svd_solver="full").fit(real.features)
        expected = spearmanr(pdist(fitted.transform(stranger.features)), ruler).statistic
        assert record.details[f"pca_{d}_spearman"] == pytest.approx(expected)
        assert record.details[f"margin_over_pca_{d}"] == pytest.approx(own - expected)
        seen = PCA(d, svd_solver="full").fit(stranger.features)
        refitted = spearmanr(pdist(seen.transform(stranger.features)), ruler).statistic
        assert abs(refitted - expected) > 1e-3
    assert record.details["n_components"] == SETTINGS.n_components == 6
    assert record.details["margin_over_pca_2"] > 0


def test_another_number_of_coordinates_has_its_own_margin(real, stranger, head):
    latent = head.latent(stranger.features)[:, :4]
    found = transfer_geometry_record("x", real, stranger, latent, SETTINGS, seed=0)
    assert {name for name in found.details if name.startswith("margin")} == {f"margin_over_pca_{d}" for d in (2, 4, 6)}


def test_what_the_panel_does_not_allow_says_why(real, stranger, head):
    few = planted_panel(np.random.default_rng(7), n_donors=1, prefix="e")
    rows = range(MIN_ANCHORS - 1)
    named = {name: [getattr(few, name)[r] for r in rows] for name in ("stage", "branch", "donor", "tissue", "study")}
    tables = {name: np.asarray(getattr(few, name))[: len(rows)] for name in ("features", "expression")}
    small = replace(few, **named, **tables, distances=np.asarray(few.distances)[: len(rows), : len(rows)])
    found = transfer_geometry_record("x", real, small, head.latent(small.features), SETTINGS, seed=0)
    assert found.reason == "9 anchors, expected at least 10" and not found.details
    nowhere = transfer_geometry_record("x", real, stranger, np.zeros((len(stranger.stage), 3)), SETTINGS, seed=0)
    assert nowhere.details["spearman"].endswith("latents are zero or not finite, expected directions.")
    assert nowhere.details["margin_over_pca_2"] == nowhere.details["spearman"]
    assert isinstance(nowhere.details["pca_2_spearman"], float)
    thin = replace(real, features=np.asarray(real.features)[:, :3])
    like = replace(stranger, features=np.asarray(stranger.features)[:, :3])
    found = transfer_geometry_record("x", thin, like, head.latent(stranger.features), SETTINGS, seed=0)
    assert found.details["pca_6_spearman"] == "d is 6, expected 1 to 3, the rank of the features."
    assert isinstance(found.details["margin_over_pca_2"], float)


def test_of_the_bundled_manifold_it_agrees_with_the_gate():
    manifold = mz.load("hematopoietic@1.1.0")
    inside = gate_data(manifold)
    for panel in outside_panels(manifold):
        found = transfer_geometry_record("x", inside, panel.data, panel.latent, None, seed=0)
        upper = np.triu_indices(len(panel.data.stage), 1)
        angles = angular_distances(np.asarray(panel.latent, dtype=np.float64))[upper]
        expected = spearmanr(angles, np.asarray(panel.data.distances)[upper]).statistic
        assert found.details["spearman"] == pytest.approx(expected)
        assert all(isinstance(found.details[f"margin_over_pca_{d}"], float) for d in (2, 6, 10))

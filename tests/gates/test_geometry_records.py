"""The record of the shipped head: all its figures, no verdict."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_manifold

import manifoldzoo as mz
from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._evidence import conclude, judge
from manifoldzoo.gates import GateData, geometry_records
from manifoldzoo.gates._artifact_data import gate_data
from manifoldzoo.gates.metrics import (
    all_pairs,
    angular_distances,
    distance_kendall,
    distance_pearson,
    distance_spearman,
    effective_dimension,
    euclidean_distances,
    geodesic_correlation,
    pca_margin,
    residualised_correlation,
    shared_labels,
    stress,
)
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings

FIGURES = {
    "pearson",
    "spearman",
    "kendall",
    "residualised_spearman",
    "geodesic_spearman",
    "stress",
    "effective_dimension",
    "margin_over_pca_2",
    "margin_over_pca_10",
}


@pytest.fixture(scope="module")
def shipped():
    manifold = mz.load("hematopoietic@1.0.0")
    data = gate_data(manifold)
    return data, manifold.project(np.asarray(data.expression))


@pytest.fixture(scope="module")
def record(shipped):
    (found,) = geometry_records(*shipped, seed=3)
    return found


def test_it_never_decides_and_never_passes(record):
    assert (record.gate, record.status, record.decides) == ("shipped_geometry", "cannot decide", False)
    assert record.statistic is None and record.threshold is None
    assert "fitted on" in record.reason and "prove nothing" in record.reason
    assert conclude(3, [record]).status == "not run"
    assert conclude(3, [record, judge("x", 1.0, ">=", 0.0)]).status == "pass"


def test_its_figures_are_those_of_the_metrics(record, shipped):
    data, latent = shipped
    angles, ruler, pairs = angular_distances(latent), np.asarray(data.distances), all_pairs(len(latent))
    features = np.asarray(data.features)
    assert set(record.details) >= FIGURES
    assert all(isinstance(record.details[name], float) for name in FIGURES)
    expected = {
        "pearson": distance_pearson(angles, ruler, pairs),
        "spearman": distance_spearman(angles, ruler, pairs),
        "kendall": distance_kendall(angles, ruler, pairs),
        "residualised_spearman": residualised_correlation(
            angles, ruler, shared_labels(data.donor_ids, data.study, data.tissue), pairs, rng=np.random.default_rng(3)
        ),
        "geodesic_spearman": geodesic_correlation(angles, ruler, k=record.details["geodesic_k"]),
        "stress": stress(angles, ruler),
        "effective_dimension": effective_dimension(latent),
        "margin_over_pca_2": pca_margin(features, latent, ruler, d=2),
        "margin_over_pca_10": pca_margin(features, latent, ruler, d=10),
    }
    for name, value in expected.items():
        assert record.details[name] == pytest.approx(float(value)), name
    assert (record.n, record.seed, record.details["n_components"]) == (len(latent), 3, 10)
    assert len({record.details[name] for name in FIGURES}) == len(FIGURES)


def test_a_geodesic_head_is_described_by_its_own_distances(shipped):
    data, latent = shipped
    settings = GeodesicSettings(n_components=10)
    (found,) = geometry_records(data, latent, seed=3, settings=settings)
    apart, ruler, pairs = euclidean_distances(latent), np.asarray(data.distances), all_pairs(len(latent))
    assert found.details["spearman"] == pytest.approx(float(distance_spearman(apart, ruler, pairs)))
    assert found.details["stress"] == pytest.approx(stress(apart, ruler))
    margin = pca_margin(np.asarray(data.features), latent, ruler, d=2, latent_metric="euclidean")
    assert found.details["margin_over_pca_2"] == pytest.approx(margin)
    assert found.status == "cannot decide" and "without the ruler" in found.reason
    assert geometry_records(data, latent, seed=3, settings=LetSettings()) == geometry_records(data, latent, seed=3)
    assert found.details["spearman"] != geometry_records(data, latent, seed=3)[0].details["spearman"]


def test_the_same_seed_gives_the_same_record_and_another_other_folds(record, shipped):
    assert geometry_records(*shipped, seed=3) == [record]
    (other,) = geometry_records(*shipped, seed=4)
    differ = {name for name in record.details if other.details[name] != record.details[name]}
    assert differ == {"residualised_spearman"}


def test_neighbours_are_the_first_that_keep_the_graph_in_one_piece(shipped, record):
    assert record.details["geodesic_k"] == 10
    data, _ = shipped
    # two bundles of directions of 12 and 76: ten neighbours stay within theirs, 15 reach over
    rng = np.random.default_rng(0)
    bundle = np.where(np.arange(88) < 12, 1.0, -1.0)[:, None] * np.eye(4)[0] + 0.1 * rng.standard_normal((88, 4))
    (found,) = geometry_records(data, bundle, seed=0)
    assert found.details["geodesic_k"] == 15
    bundle[:44, 0] = np.abs(bundle[:44, 0])
    bundle[44:, 0] = -np.abs(bundle[44:, 0])
    (found,) = geometry_records(data, bundle, seed=0)
    assert found.details["geodesic_k"] == 20
    assert found.details["geodesic_spearman"].startswith("The graph of 20 nearest neighbours falls into 2 parts")
    assert isinstance(found.details["spearman"], float)


def test_what_the_panel_does_not_allow_says_why():
    manifold = tiny_manifold()
    data = gate_data(manifold)
    latent = manifold.project(np.asarray(data.expression))
    (constant,) = geometry_records(data, np.zeros_like(latent), seed=0)
    n = len(latent)
    assert constant.details["spearman"] == f"{n} latents are zero or not finite, expected directions."
    assert constant.details["effective_dimension"] == f"All {n} points are the same, expected some that vary."
    (alike,) = geometry_records(data, np.ones_like(latent), seed=0)
    assert alike.details["pearson"] == alike.details["residualised_spearman"] == "a side does not vary"
    assert not any(isinstance(value, float) and not np.isfinite(value) for value in alike.details.values())


def test_another_number_of_anchors_is_refused(shipped):
    data, latent = shipped
    assert isinstance(data, GateData)
    with pytest.raises(BadInputError, match=r"latent has shape \(80, 10\), expected 88 rows"):
        geometry_records(data, latent[:80], seed=0)

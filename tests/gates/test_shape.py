"""Dimension, stress and the margin over principal components against known shapes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.decomposition import PCA

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import (
    Pairs,
    all_pairs,
    angular_distances,
    distance_kendall,
    distance_spearman,
    effective_dimension,
    euclidean_distances,
    pca_margin,
    principal_coordinates,
    stress,
)


@pytest.mark.parametrize("d", [1, 3, 10])
def test_dimension_of_directions_that_vary_alike(d):
    cross = np.vstack([np.eye(d), -np.eye(d)]) + 7
    assert effective_dimension(cross) == pytest.approx(d)


def test_dimension_is_that_of_the_spectrum_and_of_no_unit_or_place():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((200, 6)) * [5, 3, 1, 1, 0.1, 0]
    spectrum = np.linalg.eigvalsh(np.cov(points.T))
    expected = spectrum.sum() ** 2 / (spectrum**2).sum()
    assert effective_dimension(points) == pytest.approx(expected)
    turned = points @ np.linalg.qr(rng.standard_normal((6, 6)))[0] * 1e-6 + 4
    assert effective_dimension(turned) == pytest.approx(expected, rel=1e-6)
    assert effective_dimension(points[:, :1]) == pytest.approx(1)


def test_points_without_a_shape_are_refused():
    with pytest.raises(BadInputError, match="All 5 points are the same"):
        effective_dimension(np.full((5, 3), 0.1))
    with pytest.raises(BadInputError, match=r"points have shape \(1, 3\)"):
        effective_dimension(np.ones((1, 3)))
    with pytest.raises(BadInputError, match="points hold 2 values that are not finite"):
        effective_dimension(np.array([[0, np.nan], [1, np.inf], [2, 3]]))


def test_stress_is_kruskals_at_the_best_scale():
    rng = np.random.default_rng(0)
    latent, ruler = (euclidean_distances(rng.standard_normal((12, 3))) for _ in range(2))
    pairs = all_pairs(12)
    d, r = pairs.of(latent), pairs.of(ruler)
    best = minimize_scalar(
        lambda b: np.sqrt(((d - b * r) ** 2).sum() / (d**2).sum()), bounds=(0, 10), options={"xatol": 1e-12}
    )
    assert stress(latent, ruler) == pytest.approx(best.fun, abs=1e-7)
    assert stress(ruler, latent) == pytest.approx(stress(latent, ruler))
    assert stress(3 * latent, 0.01 * ruler) == pytest.approx(stress(latent, ruler))


def test_stress_of_known_distances():
    ruler = np.array([[0, 3, 4], [3, 0, 5], [4, 5, 0]], dtype=float)
    assert stress(2.5 * ruler, ruler) == pytest.approx(0, abs=1e-15)
    # one pair of two is apart in each: the vectors (1, 0) and (1, 1) enclose 45 degrees
    latent, other = np.zeros((3, 3)), np.zeros((3, 3))
    latent[0, 1] = other[0, 1] = other[0, 2] = 1
    pairs = Pairs(np.array([0, 0]), np.array([1, 2]))
    assert stress(latent, other, pairs) == pytest.approx(np.sqrt(0.5))
    latent[0, 1], latent[0, 2], other[0, 2] = 0, 1, 0
    assert stress(latent, other, pairs) == 1.0


def test_what_has_no_stress_is_refused():
    square = euclidean_distances(np.arange(4.0)[:, None])
    with pytest.raises(BadInputError, match="All 6 distances are 0"):
        stress(square * 0, square)
    with pytest.raises(BadInputError, match=r"shapes \(4, 4\) and \(3, 3\)"):
        stress(square, square[:3, :3])
    with pytest.raises(BadInputError, match=r"hold -3\.0 to -1\.0"):
        stress(square, -square)
    with pytest.raises(BadInputError, match="hold nan to nan"):
        stress(square, square * np.nan)
    with pytest.raises(BadInputError, match="0 pairs"):
        stress(square, square, Pairs(np.array([], dtype=int), np.array([], dtype=int)))


@pytest.mark.parametrize("statistic", [distance_spearman, distance_kendall])
@pytest.mark.parametrize("d", [2, 5])
def test_margin_is_over_the_components_of_sklearn(statistic, d):
    rng = np.random.default_rng(0)
    features, latent = rng.standard_normal((30, 9)) * np.arange(1, 10) + 50, rng.standard_normal((30, 4))
    ruler = euclidean_distances(rng.standard_normal((30, 2)))
    components = euclidean_distances(PCA(d).fit_transform(features))
    for pairs in (None, Pairs(np.arange(20), np.arange(20) + 10)):
        chosen = all_pairs(30) if pairs is None else pairs
        for metric, distances in (("angular", angular_distances), ("euclidean", euclidean_distances)):
            expected = statistic(distances(latent), ruler, chosen) - statistic(components, ruler, chosen)
            found = pca_margin(features, latent, ruler, d=d, pairs=pairs, statistic=statistic, latent_metric=metric)
            assert found == pytest.approx(float(expected), abs=1e-12)


def test_margin_of_the_components_themselves_is_zero_and_of_the_truth_positive():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((40, 2))
    # what the features vary most in has nothing to do with the ruler
    features = np.hstack([10 * rng.standard_normal((40, 3)), truth])
    ruler = euclidean_distances(truth)
    assert pca_margin(features, features, ruler, d=5, latent_metric="euclidean") == pytest.approx(0, abs=1e-12)
    assert pca_margin(features, truth, ruler, d=2, latent_metric="euclidean") > 0.8
    assert pca_margin(features, features[:, :2], ruler, d=5, latent_metric="euclidean") < 0.1


def test_margin_over_what_is_not_there_is_refused():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((10, 3)) @ rng.standard_normal((3, 8))
    ruler = euclidean_distances(features)
    for d in (0, 4):
        with pytest.raises(BadInputError, match=f"d is {d}, expected 1 to 3"):
            pca_margin(features, features, ruler, d=d)
    with pytest.raises(BadInputError, match=r"10 rows of features, 9 of the latent and a ruler of shape \(10, 10\)"):
        pca_margin(features, features[:9], ruler, d=2)
    with pytest.raises(BadInputError, match="metric is 'cosine'"):
        pca_margin(features, features, ruler, d=2, latent_metric="cosine")


def test_others_are_placed_as_scikit_learn_does_up_to_signs():
    rng = np.random.default_rng(3)
    seen, new = rng.standard_normal((30, 80)) + 2, rng.standard_normal((11, 80)) - 1
    expected = PCA(4, svd_solver="full").fit(seen).transform(new)
    found = principal_coordinates(seen, new, d=4)
    assert np.abs(found) == pytest.approx(np.abs(expected))
    assert np.abs((found * expected).sum(axis=0)) == pytest.approx((expected**2).sum(axis=0))


def test_others_need_the_same_features_and_enough_components():
    rng = np.random.default_rng(3)
    seen = rng.standard_normal((5, 8))
    with pytest.raises(BadInputError, match="d is 5, expected 1 to 4, the rank of the features"):
        principal_coordinates(seen, seen, d=5)
    with pytest.raises(BadInputError, match=r"others have shape \(5, 7\), expected finite rows as those of \(5, 8\)"):
        principal_coordinates(seen, seen[:, 1:], d=2)
    with pytest.raises(BadInputError, match="expected finite rows"):
        principal_coordinates(seen, np.full((2, 8), np.inf), d=2)

"""Metrics against sklearn, scipy and small truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import (
    Pairs,
    all_pairs,
    angular_distances,
    continuity,
    distance_spearman,
    euclidean_distances,
    trustworthiness,
)


@pytest.mark.parametrize("k", [1, 5, 19])
def test_trustworthiness_equals_sklearn(k):
    rng = np.random.default_rng(k)
    x, z = rng.standard_normal((40, 8)), rng.standard_normal((40, 3))
    reference, latent = euclidean_distances(x), euclidean_distances(z)
    assert trustworthiness(reference, latent, k=k) == pytest.approx(sklearn_trustworthiness(x, z, n_neighbors=k))
    assert continuity(reference, latent, k=k) == pytest.approx(sklearn_trustworthiness(z, x, n_neighbors=k))


def test_trustworthiness_is_one_for_the_same_space_and_lower_for_noise():
    rng = np.random.default_rng(0)
    x = euclidean_distances(rng.standard_normal((50, 4)))
    noise = euclidean_distances(rng.standard_normal((50, 4)))
    assert trustworthiness(x, x**2, k=10) == 1.0
    assert trustworthiness(x, noise, k=10) < 0.65


def test_inputs_are_left_as_they_were():
    x = euclidean_distances(np.random.default_rng(0).standard_normal((20, 4)))
    kept = x.copy()
    trustworthiness(x, x, k=3)
    np.testing.assert_array_equal(x, kept)


@pytest.mark.parametrize("k", [0, 10, 20])
def test_k_out_of_range_is_refused(k):
    x = np.zeros((20, 20))
    with pytest.raises(BadInputError, match=f"k is {k}"):
        trustworthiness(x, x, k=k)


def test_shapes_that_differ_are_refused():
    with pytest.raises(BadInputError, match=r"\(20, 20\) and \(19, 19\)"):
        trustworthiness(np.zeros((20, 20)), np.zeros((19, 19)), k=3)


def test_spearman_equals_scipy_with_ties_and_in_stacks():
    rng = np.random.default_rng(0)
    latent = rng.uniform(size=(3, 15, 15)).round(1)
    ruler = rng.integers(0, 4, (15, 15)).astype(float)
    pairs = Pairs(np.array([0, 1, 2, 3, 9, 14, 7]), np.array([5, 2, 8, 11, 10, 3, 0]))
    expected = [spearmanr(z[pairs.left, pairs.right], ruler[pairs.left, pairs.right])[0] for z in latent]
    np.testing.assert_allclose(distance_spearman(latent, ruler, pairs), expected, rtol=1e-12)
    assert float(distance_spearman(latent[1], ruler, pairs)) == pytest.approx(expected[1])


def test_spearman_without_variance_is_not_a_number():
    latent = np.random.default_rng(0).uniform(size=(6, 6))
    assert np.isnan(distance_spearman(latent, np.ones((6, 6)), all_pairs(6)))
    with pytest.raises(BadInputError, match="0 pairs"):
        distance_spearman(latent, latent, Pairs(np.array([], dtype=int), np.array([], dtype=int)))


def test_angles_of_known_directions():
    z = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [5.0, 5.0]])
    expected = np.pi * np.array(
        [
            [0, 0.5, 1, 0.25],
            [0.5, 0, 0.5, 0.25],
            [1, 0.5, 0, 0.75],
            [0.25, 0.25, 0.75, 0],
        ]
    )
    np.testing.assert_allclose(angular_distances(z), expected, atol=1e-7)
    np.testing.assert_array_equal(angular_distances(np.stack([z, -z]))[1], angular_distances(-z))


def test_angles_to_oneself_are_exactly_zero():
    latents = np.random.default_rng(0).standard_normal((2, 30, 7))
    assert not np.diagonal(angular_distances(latents), axis1=1, axis2=2).any()


def test_a_latent_without_direction_is_refused():
    with pytest.raises(BadInputError, match="2 latents"):
        angular_distances(np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0]]))

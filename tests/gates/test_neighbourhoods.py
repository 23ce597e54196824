"""Trustworthiness of points against sklearn and against the matrix of all distances."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import (
    continuity,
    continuity_of_points,
    distances_between,
    trustworthiness,
    trustworthiness_of_points,
)

METRICS = ("euclidean", "angular")


def two_spaces(n, p, d, seed=0):
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, d))
    return latent @ rng.standard_normal((d, p)) + rng.standard_normal((n, p)), latent


def by_matrix(x, z, k, metric="euclidean", latent_metric="euclidean"):
    return trustworthiness(distances_between(x, metric), distances_between(z, latent_metric), k=k)


# the last is larger than a tile in both directions
@pytest.mark.parametrize(("n", "p", "d", "k"), [(9, 1, 1, 4), (40, 8, 3, 1), (300, 20, 5, 149), (2300, 60, 10, 7)])
def test_points_equal_sklearn_and_the_matrix(n, p, d, k):
    x, z = two_spaces(n, p, d)
    value = trustworthiness_of_points(x, z, k=k)
    assert value == pytest.approx(sklearn_trustworthiness(x, z, n_neighbors=k), abs=1e-12)
    assert value == pytest.approx(by_matrix(x, z, k), abs=1e-12)
    assert continuity_of_points(x, z, k=k) == pytest.approx(sklearn_trustworthiness(z, x, n_neighbors=k), abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("latent_metric", METRICS)
def test_metrics_equal_the_matrix(metric, latent_metric):
    x, z = two_spaces(400, 30, 4)
    kinds = {"metric": metric, "latent_metric": latent_metric}
    assert trustworthiness_of_points(x, z, k=12, **kinds) == pytest.approx(by_matrix(x, z, 12, **kinds), abs=1e-12)
    matrices = distances_between(x, metric), distances_between(z, latent_metric)
    assert continuity_of_points(x, z, k=12, **kinds) == pytest.approx(continuity(*matrices, k=12), abs=1e-12)


def test_angles_are_no_distances():
    x, z = two_spaces(200, 10, 3)
    far = z * np.random.default_rng(1).uniform(0.1, 10, (200, 1))
    assert trustworthiness_of_points(x, z, k=9, latent_metric="angular") == trustworthiness_of_points(
        x, far, k=9, latent_metric="angular"
    )
    assert trustworthiness_of_points(x, z, k=9) != trustworthiness_of_points(x, far, k=9)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equal_distances_keep_the_order_of_the_rows(data):
    n = data.draw(st.integers(3, 40))
    p, d = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    k = data.draw(st.integers(1, (n - 1) // 2))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    levels = data.draw(st.integers(1, 4))
    x, z = rng.integers(0, levels, (n, p)), rng.integers(0, levels, (n, d))
    assert trustworthiness_of_points(x, z, k=k) == by_matrix(x, z, k)


def test_equal_angles_keep_the_order_of_the_rows():
    rng = np.random.default_rng(0)
    # lengths that are powers of two leave directions along an axis without rounding
    z = np.eye(4)[rng.integers(0, 4, 200)] * rng.choice([-2.0, 0.5, 1.0, 8.0], (200, 1))
    x = rng.integers(0, 3, (200, 4))
    assert trustworthiness_of_points(x, z, k=20, latent_metric="angular") == by_matrix(
        x, z, 20, latent_metric="angular"
    )


def test_duplicates_are_tied_even_where_products_round_differently():
    x, z = two_spaces(150, 40, 10)
    twice, again = np.vstack([x, x, x]), np.vstack([z, z, z])
    order = np.random.default_rng(3).permutation(450)
    twice, again = twice[order], again[order]
    assert trustworthiness_of_points(twice, again, k=5) == by_matrix(twice, again, 5)
    constant = np.ones((450, 3))
    assert trustworthiness_of_points(twice, constant, k=5) == by_matrix(twice, constant, 5)
    assert trustworthiness_of_points(constant, again, k=5) == by_matrix(constant, again, 5)


def test_a_far_point_leaves_the_order_of_the_others_alone():
    rng = np.random.default_rng(0)
    x, z = rng.integers(-9, 10, (300, 3)).astype(float), rng.integers(-9, 10, (300, 2)).astype(float)
    # it shifts the mean so far that products tell nothing of the others
    x[7], z[290] = 3e7, -3e7
    assert trustworthiness_of_points(x, z, k=10) == by_matrix(x, z, 10)
    assert continuity_of_points(x, z, k=10) == by_matrix(z, x, 10)


def test_threads_layout_and_precision_of_the_input_change_nothing():
    x, z = (values.astype(np.float32) for values in two_spaces(700, 12, 4))
    value = trustworthiness_of_points(x, z, k=8, n_threads=1)
    assert value == trustworthiness_of_points(x, z, k=8, n_threads=3)
    assert value == trustworthiness_of_points(np.asfortranarray(x), z[::-1][::-1].astype(np.float64), k=8)
    assert value == trustworthiness_of_points(x.astype(np.float64) + 4096, z, k=8)


def test_the_same_space_is_one_and_noise_is_a_half():
    x, _ = two_spaces(600, 5, 5)
    noise = np.random.default_rng(9).standard_normal((600, 3))
    assert trustworthiness_of_points(x, 2 * x + 1, k=30) == 1.0
    assert trustworthiness_of_points(x, noise, k=30) == pytest.approx(0.5, abs=0.03)


def test_memory_holds_no_matrix():
    x, z = two_spaces(5000, 4, 2)
    trustworthiness_of_points(x[:50], z[:50], k=5)
    tracemalloc.start()
    trustworthiness_of_points(x, z, k=5, n_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the matrices take 200 MB each
    assert peak < 12e6


@pytest.mark.parametrize("k", [0, 10, 20])
def test_k_out_of_range_is_refused(k):
    x, z = two_spaces(20, 3, 2)
    with pytest.raises(BadInputError, match=f"k is {k}, expected 1 to below half of the 20 rows"):
        trustworthiness_of_points(x, z, k=k)


def test_what_is_no_set_of_points_is_refused():
    x, z = two_spaces(20, 3, 2)
    with pytest.raises(BadInputError, match="reference has 20 points and latent 19"):
        trustworthiness_of_points(x, z[:19], k=3)
    with pytest.raises(BadInputError, match=r"latent has shape \(20,\)"):
        trustworthiness_of_points(x, z[:, 0], k=3)
    with pytest.raises(BadInputError, match=r"reference has shape \(20, 0\)"):
        trustworthiness_of_points(x[:, :0], z, k=3)
    for bad in (np.nan, np.inf):
        with pytest.raises(BadInputError, match="reference holds 1 values that are not finite"):
            trustworthiness_of_points(np.where(np.arange(60).reshape(20, 3) == 7, bad, x), z, k=3)
    with pytest.raises(BadInputError, match="latent holds 1e"):
        trustworthiness_of_points(x, z * 0 + 1e200, k=3)
    with pytest.raises(BadInputError, match="metric is 'cosine', expected one of euclidean, angular"):
        trustworthiness_of_points(x, z, k=3, latent_metric="cosine")
    with pytest.raises(BadInputError, match="n_threads is 0"):
        trustworthiness_of_points(x, z, k=3, n_threads=0)


def test_a_zero_point_has_no_direction():
    x, z = two_spaces(20, 3, 2)
    z[4] = 0
    with pytest.raises(BadInputError, match="1 points of latent are zero, expected directions"):
        trustworthiness_of_points(x, z, k=3, latent_metric="angular")
    assert 0 <= trustworthiness_of_points(x, z, k=3) <= 1

"""Variance between classes on each axis: the analysis of variance, and what chance alone would give."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import f_oneway, ortho_group
from sklearn.linear_model import LinearRegression

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import epsilon_squared, eta_squared, eta_squared_of_all_axes

GROUPS = ["a"] * 5 + ["b"] * 9 + ["c"] * 3 + ["d"] * 6


@pytest.fixture(scope="module")
def latent():
    rng = np.random.default_rng(0)
    shift = {"a": 0.0, "b": 1.0, "c": -2.0, "d": 0.5}
    return rng.standard_normal((23, 4)) + np.outer([shift[name] for name in GROUPS], [2.0, 0.5, 0.0, -1.0])


def test_it_is_the_share_of_the_sum_of_squares(latent):
    found = eta_squared(latent, GROUPS)
    labels = np.array(GROUPS)
    for axis, values in enumerate(latent.T):
        between = sum((labels == g).sum() * (values[labels == g].mean() - values.mean()) ** 2 for g in set(GROUPS))
        assert found[axis] == pytest.approx(between / ((values - values.mean()) ** 2).sum())


def test_it_gives_the_f_of_scipy(latent):
    eta, n, k = eta_squared(latent, GROUPS), len(GROUPS), 4
    f = eta / (1 - eta) * (n - k) / (k - 1)
    labels = np.array(GROUPS)
    assert f == pytest.approx(f_oneway(*(latent[labels == group] for group in sorted(set(GROUPS)))).statistic)


def test_corrected_it_is_the_adjusted_r_squared_of_a_regression_on_the_groups(latent):
    dummies = (np.array(GROUPS)[:, None] == np.array(sorted(set(GROUPS)))).astype(float)
    n, k = dummies.shape
    for axis, values in enumerate(latent.T):
        r2 = LinearRegression().fit(dummies, values).score(dummies, values)
        assert eta_squared(latent, GROUPS)[axis] == pytest.approx(r2)
        assert epsilon_squared(latent, GROUPS)[axis] == pytest.approx(1 - (1 - r2) * (n - 1) / (n - k))


def test_over_all_exchanges_of_labels_the_corrected_one_is_zero_and_the_plain_one_is_not():
    values = np.array([[0.3], [1.0], [-2.0], [0.7], [5.0], [0.1]])
    labels = ["a", "a", "b", "b", "b", "c"]
    orders = set(permutations(labels))
    plain = [eta_squared(values, order)[0] for order in orders]
    assert np.mean(plain) == pytest.approx((3 - 1) / (6 - 1))
    assert np.mean([epsilon_squared(values, order)[0] for order in orders]) == pytest.approx(0.0, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 5), st.integers(1, 4))
def test_of_all_axes_it_does_not_hang_on_how_they_are_turned(seed, n_groups, d):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((20, d)) * rng.uniform(0.1, 5, d)
    groups = [str(i % n_groups) for i in range(20)]
    turned = z @ ortho_group.rvs(d, random_state=seed % 2**31) if d > 1 else -z
    found = eta_squared_of_all_axes(z, groups)
    assert 0 <= found <= 1
    assert eta_squared_of_all_axes(3.0 * turned + 1.0, groups) == pytest.approx(found)
    weights = z.var(axis=0)
    assert found == pytest.approx(np.average(eta_squared(z, groups), weights=weights))


def test_perfect_and_absent_separation():
    labels = ["a"] * 3 + ["b"] * 3
    z = np.array([[0, 0.1, 0], [0, 0.1, 1], [0, 0.1, 2], [1, 0.1, 0], [1, 0.1, 1], [1, 0.1, 2]], dtype=float)
    told = eta_squared(z, labels)
    assert told[0] == 1.0 and np.isnan(told[1]) and told[2] == 0.0
    assert epsilon_squared(z, labels)[0] == 1.0 and epsilon_squared(z, labels)[2] < 0
    assert np.isnan(eta_squared_of_all_axes(z[:, 1:2], labels))


@pytest.mark.parametrize("measure", [eta_squared, epsilon_squared, eta_squared_of_all_axes])
def test_bad_input_is_refused(measure):
    z = np.zeros((4, 2))
    with pytest.raises(BadInputError, match="there are 3 groups, expected one a row"):
        measure(z, ["a", "b", "c"])
    with pytest.raises(BadInputError, match="There are 1 groups of 4 rows"):
        measure(z, ["a"] * 4)
    with pytest.raises(BadInputError, match="There are 4 groups of 4 rows"):
        measure(z, list("abcd"))
    with pytest.raises(BadInputError, match="8 values that are not finite"):
        measure(np.full((4, 2), np.nan), list("aabb"))

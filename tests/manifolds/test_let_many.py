"""Many feature matrices at once: each as if it were alone, in coordinates that keep its geometry."""

from __future__ import annotations

import numpy as np
import pytest

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import all_pairs, angular_distances, distance_spearman
from manifoldzoo.manifolds._let import LetSettings, fit_let
from manifoldzoo.manifolds._let_many import feature_coordinates, fit_let_many, fit_let_starts

SETTINGS = LetSettings(n_components=4, n_steps=80)


def planted(n=50, p=120, seed=0, n_problems=3):
    """Features in which a line is planted, the first problem's clearly and the last's hardly."""
    rng = np.random.default_rng(seed)
    at = rng.random(n)
    carried = np.column_stack([at, at**2, np.sin(3 * at)]) @ rng.standard_normal((3, p))
    noise = [0.1, 1.0, 10.0][:n_problems]
    return np.stack([carried + level * rng.standard_normal((n, p)) for level in noise]), np.abs(at[:, None] - at) * 5


def coordinates(features, floor=0.1):
    return np.stack([feature_coordinates(matrix, scale_floor=floor) for matrix in features])


@pytest.mark.parametrize(("n", "p"), [(20, 70), (20, 20), (20, 7), (20, 1)])
def test_coordinates_keep_every_distance_of_the_standardised_features(n, p):
    features = np.random.default_rng(p).gamma(1, 3, (n, p)) * 10.0 ** np.random.default_rng(0).integers(-3, 3, p)
    placed = feature_coordinates(features, scale_floor=0.1)
    assert placed.shape == (n, n)
    assert placed.dtype == np.float32
    spread = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.maximum(spread, 0.1 * np.median(spread))
    assert np.allclose(placed @ placed.T, standard @ standard.T, atol=1e-3 * p)


def test_features_that_are_constant_up_to_rounding_do_not_vary():
    with pytest.raises(BadInputError, match="none of the 4"):
        feature_coordinates(np.full((9, 4), 0.1) * [1, 1e6, 1e-6, 3], scale_floor=0.1)
    with pytest.raises(BadInputError, match="not finite"):
        feature_coordinates(np.full((9, 4), np.nan), scale_floor=0.1)


def test_batches_and_company_change_nothing():
    features, distances = planted()
    placed = coordinates(features)
    train = np.arange(0, 50, 2)
    whole = fit_let_many(placed, distances, SETTINGS, rng=np.random.default_rng(5), train=train)
    assert whole.shape == (3, 50, 4)
    for size in (1, 2, 8):
        again = fit_let_many(placed, distances, SETTINGS, rng=np.random.default_rng(5), train=train, batch_size=size)
        assert np.allclose(again, whole, atol=1e-3)
    alone = fit_let_many(placed[1:2], distances, SETTINGS, rng=np.random.default_rng(5), train=train)
    assert np.allclose(alone[0], whole[1], atol=1e-3)


def test_it_is_the_fit_of_the_plain_function_up_to_its_start():
    """Other rotations and starts reach other minima of the same loss; in sample all of them follow the ruler."""
    features, distances = planted(n_problems=2)
    many = angular_distances(fit_let_many(coordinates(features), distances, SETTINGS, rng=np.random.default_rng(0)))
    pairs = all_pairs(50)
    for matrix, found in zip(features, many, strict=True):
        head = fit_let(matrix, distances, SETTINGS, rng=np.random.default_rng(0))
        plain = distance_spearman(angular_distances(head.latent(matrix)), distances, pairs)
        assert distance_spearman(found, distances, pairs) == pytest.approx(float(plain), abs=0.05)


def test_held_out_rows_do_not_touch_the_fit():
    features, distances = planted(n_problems=1)
    placed, train = coordinates(features), np.arange(40)
    before = fit_let_many(placed, distances, SETTINGS, rng=np.random.default_rng(0), train=train)
    moved = placed.copy()
    moved[:, 40:] += 7
    other = distances.copy()
    other[40:] = other[:, 40:] = 3
    np.fill_diagonal(other, 0)
    after = fit_let_many(moved, other, SETTINGS, rng=np.random.default_rng(0), train=train)
    assert np.array_equal(after[:, :40], before[:, :40])
    assert not np.allclose(after[:, 40:], before[:, 40:])


def test_rows_held_out_of_a_planted_line_are_placed_on_it_and_noise_is_not():
    features, distances = planted(n=80)
    train = np.random.default_rng(0).permutation(80)[:60]
    held = np.setdiff1d(np.arange(80), train)
    angles = angular_distances(
        fit_let_many(coordinates(features), distances, SETTINGS, rng=np.random.default_rng(0), train=train)
    )
    left, right = (index.ravel() for index in np.meshgrid(held, train, indexing="ij"))
    rho = [np.corrcoef(matrix[left, right], distances[left, right])[0, 1] for matrix in angles]
    assert rho[0] > 0.9
    assert rho[0] > rho[1] > rho[2] + 0.2


def test_features_of_low_rank_are_fitted_in_their_span():
    rng = np.random.default_rng(0)
    at = rng.random(40)
    features = np.outer(at, rng.standard_normal(30))[None]
    found = fit_let_many(
        coordinates(features), np.abs(at[:, None] - at), SETTINGS, rng=np.random.default_rng(0), train=np.arange(30)
    )
    assert np.isfinite(found).all()
    # a line has no room beside it: the latents lie on one too
    assert np.linalg.matrix_rank(found[0] - found[0].mean(axis=0), tol=1e-2 * np.abs(found).max()) == 1


def test_rows_that_repeat_one_another_cost_no_direction():
    """Features of a stage alone: the first rows are the same, and what tells later ones apart must be kept."""
    at = np.repeat(np.arange(8), [6, 1, 5, 2, 7, 1, 3, 4])
    one_hot = np.eye(8)[at]
    distances = 1.0 * np.abs(at[:, None] - at)
    placed, settings = feature_coordinates(one_hot, scale_floor=0.1)[None], LetSettings(n_components=4, n_steps=400)
    found = fit_let_many(placed, distances, settings, rng=np.random.default_rng(0))
    head = fit_let(one_hot, distances, settings, rng=np.random.default_rng(0))
    pairs = all_pairs(len(at))
    many, one = (distance_spearman(angular_distances(z), distances, pairs) for z in (found[0], head.latent(one_hot)))
    assert one > 0.95
    assert many > one - 0.02


def test_starts_are_those_of_their_generators_in_any_batch():
    features, distances = planted(n_problems=2)
    placed, train = coordinates(features), np.arange(0, 50, 2)
    together = fit_let_starts(placed, distances, SETTINGS, rngs=np.random.default_rng(3).spawn(3), train=train)
    assert together.shape == (2, 3, 50, 4)
    for batch_size in (1, 4, 100):
        rngs = np.random.default_rng(3).spawn(3)
        again = fit_let_starts(placed, distances, SETTINGS, rngs=rngs, train=train, batch_size=batch_size)
        assert np.array_equal(again, together)
    for start, rng in enumerate(np.random.default_rng(3).spawn(3)):
        alone = fit_let_many(placed, distances, SETTINGS, rng=rng, train=train)
        assert np.array_equal(alone, together[:, start])
    assert not np.allclose(together[:, 0], together[:, 1])
    with pytest.raises(BadInputError, match="0 generators"):
        fit_let_starts(placed, distances, SETTINGS, rngs=[])


def test_what_does_not_fit_together_is_refused():
    features, distances = planted()
    placed = coordinates(features)
    with pytest.raises(BadInputError, match=r"\(50, 50\)"):
        fit_let_many(placed[0], distances, SETTINGS, rng=np.random.default_rng(0))
    with pytest.raises(BadInputError, match="2 training"):
        fit_let_many(placed, distances, SETTINGS, rng=np.random.default_rng(0), train=np.arange(2))
    with pytest.raises(BadInputError):
        fit_let_many(placed, distances[:4, :4], SETTINGS, rng=np.random.default_rng(0))

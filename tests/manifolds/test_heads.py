"""Every kind of head by the same calls: LET heads as they always were, geodesic ones once for all targets."""

from __future__ import annotations

import numpy as np
import pytest
from planted_tree import STAGES, planted_panel
from scipy.spatial.distance import cdist

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.manifolds import _latent_distances
from manifoldzoo.manifolds._geodesic import GeodesicHead, GeodesicSettings, fit_geodesic, geodesic_latents
from manifoldzoo.manifolds._heads import fit_head, latent_distances, least_rows, refit_latents, refit_starts
from manifoldzoo.manifolds._let import LetHead, LetSettings, fit_let, fit_let_batch
from manifoldzoo.manifolds._let_many import feature_coordinates, fit_let_starts

LET = LetSettings(n_components=4, n_steps=30)
GEODESIC = [GeodesicSettings("isomap", 3, 6), GeodesicSettings("geodesic-mds", 3, 6)]
TRAIN = np.arange(len(STAGES), 4 * len(STAGES))


@pytest.fixture(scope="module")
def data():
    return planted_panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def targets(data):
    orders = [np.random.default_rng(seed).permutation(len(data.distances)) for seed in range(3)]
    return np.stack([data.distances[np.ix_(order, order)] for order in orders])


def test_a_let_head_is_that_of_fit_let_to_the_bit(data):
    found = fit_head(data.features, data.distances, LET, rng=np.random.default_rng(1))
    expected = fit_let(data.features, data.distances, LET, rng=np.random.default_rng(1))
    assert isinstance(found, LetHead)
    assert found.weights.tobytes() == expected.weights.tobytes()
    assert (found.beta, found.loss) == (expected.beta, expected.loss)


@pytest.mark.parametrize("settings", GEODESIC, ids=lambda s: s.kind)
def test_a_geodesic_head_is_that_of_fit_geodesic(data, settings):
    found = fit_head(data.features, data.distances, settings, rng=np.random.default_rng(1))
    expected = fit_geodesic(data.features, data.distances, settings)
    assert isinstance(found, GeodesicHead)
    assert found.latent(data.features).tobytes() == expected.latent(data.features).tobytes()


@pytest.mark.parametrize("train", [None, TRAIN], ids=["all", "some"])
def test_let_heads_are_refitted_as_by_fit_let_batch_to_the_bit(data, targets, train):
    rng = np.random.default_rng(2)
    rotation, children = rng.spawn(1)[0], rng.spawn(3)
    found = refit_latents(data.features, targets, LET, rng=rotation, rngs=children, train=train)
    expected = fit_let_batch(data.features, targets, LET, rng=np.random.default_rng(2), train=train)
    assert found.tobytes() == expected.tobytes()
    # without a generator of its own the rotation is drawn from the first
    again = [
        refit_latents(data.features, targets, LET, rngs=np.random.default_rng(3).spawn(3), train=train)
        for _ in range(2)
    ]
    assert again[0].tobytes() == again[1].tobytes() != found.tobytes()


@pytest.mark.parametrize("settings", GEODESIC, ids=lambda s: s.kind)
@pytest.mark.parametrize("train", [None, TRAIN], ids=["all", "some"])
def test_a_geodesic_head_is_fitted_once_for_all_targets(data, targets, settings, train, monkeypatch):
    found = refit_latents(data.features, targets, settings, rngs=np.random.default_rng(3).spawn(3), train=train)
    expected = geodesic_latents(data.features, settings, train=train)
    assert found.shape == (3, *expected.shape)
    for each in found:
        np.testing.assert_array_equal(each, expected)
    # one array in memory, of which distances are computed once
    assert found.strides[0] == 0
    calls = []
    monkeypatch.setattr(_latent_distances, "cdist", lambda *rows: calls.append(1) or cdist(*rows))
    apart = latent_distances(found, settings)
    assert (apart.shape, len(calls)) == ((3, len(expected), len(expected)), 1)
    np.testing.assert_array_equal(apart[2], cdist(expected, expected))


def test_many_sets_of_coordinates_of_let_heads_are_those_of_fit_let_starts(data):
    coordinates = np.stack([feature_coordinates(x, scale_floor=0.1) for x in (data.features, data.expression)])
    rngs = [np.random.default_rng(4).spawn(2) for _ in range(2)]
    found = refit_starts(coordinates, data.distances, LET, rngs=rngs[0], train=TRAIN)
    expected = fit_let_starts(coordinates, data.distances, LET, rngs=rngs[1], train=TRAIN)
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("settings", GEODESIC, ids=lambda s: s.kind)
def test_many_sets_of_coordinates_under_a_geodesic_head_are_those_of_their_features(data, settings):
    features = [np.asarray(data.features), np.asarray(data.features)[:, :60]]
    coordinates = np.stack([feature_coordinates(x, scale_floor=settings.scale_floor) for x in features])
    found = refit_starts(coordinates, data.distances, settings, rngs=np.random.default_rng(4).spawn(2))
    assert found.shape == (2, 2, len(data.distances), 3)
    for placed, x in zip(found, features, strict=True):
        np.testing.assert_array_equal(placed[0], placed[1])
        expected = geodesic_latents(x, settings)
        np.testing.assert_allclose(cdist(placed[0], placed[0]), cdist(expected, expected), rtol=1e-3, atol=1e-3)


def test_latents_lie_apart_as_their_head_means_it():
    z = np.random.default_rng(5).standard_normal((4, 7, 3))
    np.testing.assert_array_equal(latent_distances(z, LET), angular_distances(z))
    np.testing.assert_array_equal(latent_distances(z[0], LET), angular_distances(z[0]))
    straight = latent_distances(z, GEODESIC[0])
    for apart, rows in zip(straight, z, strict=True):
        np.testing.assert_array_equal(apart, cdist(rows, rows))
    np.testing.assert_array_equal(latent_distances(z[1], GEODESIC[0]), straight[1])
    # the origin is a place like others, and no direction
    z[0, 0] = 0
    assert np.isfinite(latent_distances(z, GEODESIC[0])).all()
    with pytest.raises(BadInputError, match="1 latents are zero"):
        latent_distances(z, LET)
    z[0, 0] = np.nan
    with pytest.raises(BadInputError, match="1 latents are not finite"):
        latent_distances(z, GEODESIC[0])


def test_targets_that_do_not_fit_are_refused(data, targets):
    rngs = np.random.default_rng(6).spawn(3)
    for settings in (LET, *GEODESIC):
        with pytest.raises(BadInputError, match="targets have shape"):
            refit_latents(data.features, targets[:2], settings, rngs=rngs)
        with pytest.raises(BadInputError, match="targets have shape"):
            refit_latents(data.features, targets[:, 1:, 1:], settings, rngs=rngs)
        with pytest.raises(BadInputError, match="targets have shape"):
            refit_latents(data.features, targets[:0], settings, rngs=[])


def test_fewest_rows_that_a_head_can_be_fitted_on(data):
    assert least_rows(LET) == 3
    for settings in (GeodesicSettings("isomap", 2, 9), GeodesicSettings("geodesic-mds", 9, 5)):
        n = least_rows(settings)
        assert n == 10
        with pytest.raises(BadInputError):
            geodesic_latents(data.features, settings, train=np.arange(n - 1))
    assert geodesic_latents(data.features, GeodesicSettings("isomap", 2, 9), train=np.arange(10)).shape[1] == 2

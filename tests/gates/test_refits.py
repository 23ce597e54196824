"""Refits of heads of either kind: those of LET are the fits there were, a geodesic head has one whatever the ruler."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.gates.refits._holdouts import group_folds, refit_holdouts
from manifoldzoo.gates.refits._refits import (
    MIN_TRAINING,
    distances_under,
    least_training,
    n_distinct_starts,
    reads_ruler,
    refits_from_starts,
    refits_on,
)
from manifoldzoo.gates.refits._refitted import RefittedStatistic
from manifoldzoo.manifolds._geodesic import fit_geodesic
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings, fit_in_row_space, row_space

LET = LetSettings(n_components=3, n_steps=30)
ISOMAP = GeodesicSettings(n_components=3, n_neighbours=6)
MDS = GeodesicSettings(kind="geodesic-mds", n_components=3, n_neighbours=6)
TRAIN = np.arange(8, 40)


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 4, size=(40, 2))
    features = place @ rng.standard_normal((2, 15)) + 0.3 * rng.standard_normal((40, 15))
    distances = np.round(2 * cdist(place, place, "cityblock"))
    return features, distances


def test_let_refits_are_the_fits_in_one_row_space(panel):
    features, distances = panel
    targets = np.stack([distances, distances**2, distances + (distances > 0)])
    rngs = np.random.default_rng(1).spawn(3)
    found = refits_on(features, LET, rng=np.random.default_rng(2), train=TRAIN).latents(targets, rngs)
    space = row_space(features, LET, rng=np.random.default_rng(2), train=TRAIN)
    expected = fit_in_row_space(space, targets, LET, rngs=np.random.default_rng(1).spawn(3)).latents(space.rows)
    assert np.array_equal(found, expected)
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("settings", [ISOMAP, MDS])
def test_a_geodesic_head_is_its_own_refit_to_any_ruler_and_from_any_start(panel, settings):
    features, distances = panel
    other = np.random.default_rng(3).permutation(40)
    targets = np.stack([distances, distances[np.ix_(other, other)]])
    refits = refits_on(features, settings, rng=np.random.default_rng(4), train=TRAIN)
    first, second = refits.latents(targets, np.random.default_rng(5).spawn(2))
    assert np.array_equal(first, second)
    again = refits_from_starts(features, distances, settings, rng=np.random.default_rng(6), n_starts=7, train=TRAIN)
    assert again.shape == (1, 40, 3)
    assert np.array_equal(again[0], first)
    head = fit_geodesic(features[TRAIN], distances[np.ix_(TRAIN, TRAIN)], settings)
    assert np.allclose(head.latent(features), first, atol=1e-8)


def test_starts_that_are_one_are_counted_as_one(panel):
    assert (n_distinct_starts(LET, 20), n_distinct_starts(ISOMAP, 20), n_distinct_starts(MDS, 20)) == (20, 1, 1)
    assert reads_ruler(LET) and reads_ruler(None) and not reads_ruler(ISOMAP) and not reads_ruler(MDS)
    features, distances = panel
    folds = group_folds([str(row % 4) for row in range(40)])
    counted = {}
    for settings in (LET, ISOMAP):
        result = refit_holdouts(features, distances, folds, settings, rng=np.random.default_rng(7), n_starts=5)
        counted[settings] = result.n_starts, max(score.start_sd for score in result.scores) > 0
    assert counted == {LET: (5, True), ISOMAP: (1, False)}


def test_the_fewest_anchors_are_enough_for_the_graph_and_the_dimensions():
    assert least_training(LET) == least_training(ISOMAP) == MIN_TRAINING
    assert least_training(GeodesicSettings(n_neighbours=15, n_components=6)) == 16
    assert least_training(GeodesicSettings(n_neighbours=5, n_components=12)) == 13


def test_a_fold_that_leaves_too_few_anchors_for_the_graph_is_skipped(panel):
    features, distances = panel
    folds = group_folds(["a"] * 22 + ["b"] * 9 + ["c"] * 9)
    wide = GeodesicSettings(n_neighbours=20, n_components=3)
    result = refit_holdouts(features, distances, folds, wide, rng=np.random.default_rng(0))
    assert [score.name for score in result.scores] == ["b", "c"]
    assert result.skipped == (("a", "18 anchors left to train on, expected at least 21"),)
    with pytest.raises(BadInputError, match="16 anchors left to train on, expected at least 21"):
        RefittedStatistic(features[:20], wide, rng=np.random.default_rng(0))


def test_distances_are_what_the_head_means_by_them(panel):
    latents = np.random.default_rng(8).standard_normal((2, 9, 3)) + 1
    for settings in (LET, None):
        assert np.array_equal(distances_under(latents, settings), angular_distances(latents))
    for settings in (ISOMAP, MDS):
        assert np.allclose(distances_under(latents, settings), [cdist(each, each) for each in latents])


@pytest.mark.parametrize("settings", [LET, ISOMAP])
def test_the_statistic_of_a_target_does_not_hang_on_its_company(panel, settings):
    features, distances = panel
    rng = np.random.default_rng(9)
    targets = np.stack([distances[np.ix_(order, order)] for order in (rng.permutation(40) for _ in range(20))])
    statistic = RefittedStatistic(features, settings, rng=np.random.default_rng(10))
    together = statistic.of(targets, np.random.default_rng(11).spawn(20))
    alone = [statistic.of(targets[i : i + 1], [np.random.default_rng(11).spawn(20)[i]])[0] for i in (0, 17, 19)]
    assert np.allclose(together[[0, 17, 19]], alone, atol=5e-3 if settings is LET else 1e-12)

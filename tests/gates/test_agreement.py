"""Agreement of distance matrices against scipy, regressions done one by one, and graphs walked by hand."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import (
    Pairs,
    all_pairs,
    angular_distances,
    distance_kendall,
    distance_pearson,
    distance_spearman,
    euclidean_distances,
    geodesic_correlation,
    geodesic_distances,
    partial_distance_spearman,
    residualised_correlation,
    shared_labels,
)
from manifoldzoo.gates.metrics._agreement import centred_ranks
from manifoldzoo.gates.metrics._residualised import anchor_folds, cross_fitted_residuals

SCIPY = {distance_pearson: pearsonr, distance_spearman: spearmanr, distance_kendall: kendalltau}
NO_PAIRS = Pairs(np.array([], dtype=int), np.array([], dtype=int))


def symmetric(n, rng, count=1):
    values = np.triu(rng.standard_normal((count, n, n)), 1)
    return values + values.transpose(0, 2, 1)


@pytest.mark.parametrize("statistic", SCIPY)
def test_statistics_equal_scipy_with_ties_and_in_stacks(statistic):
    rng = np.random.default_rng(0)
    latent = rng.uniform(size=(3, 15, 15)).round(1)
    ruler = rng.integers(0, 4, (15, 15)).astype(float)
    pairs = Pairs(np.array([0, 1, 2, 3, 9, 14, 7]), np.array([5, 2, 8, 11, 10, 3, 0]))
    expected = [SCIPY[statistic](z[pairs.left, pairs.right], ruler[pairs.left, pairs.right])[0] for z in latent]
    np.testing.assert_allclose(statistic(latent, ruler, pairs), expected, rtol=1e-12)
    np.testing.assert_allclose(statistic(ruler, latent, pairs), expected, rtol=1e-12)
    one = statistic(latent[1], ruler, pairs)
    assert one.shape == () and one.dtype == np.float64
    assert float(one) == pytest.approx(expected[1])
    assert len(set(np.round(expected, 6))) == 3


@pytest.mark.parametrize("statistic", SCIPY)
def test_statistics_of_what_does_not_vary_are_no_numbers(statistic):
    latent = np.random.default_rng(0).uniform(size=(2, 6, 6))
    # the mean of these is not 0.1 in floating point
    latent[0] = 0.1
    found = statistic(latent, latent[1], all_pairs(6))
    assert np.isnan(found[0]) and found[1] == pytest.approx(1)
    with pytest.raises(BadInputError, match="0 pairs"):
        statistic(latent, latent, NO_PAIRS)


def test_shared_labels_of_two_lists():
    found = shared_labels(["a", "b", "a"], ["x", "x", "y"])
    np.testing.assert_array_equal(found[0], [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(found[1], [[1, 1, 0], [1, 1, 0], [0, 0, 1]])


def test_every_residual_is_that_of_a_regression_that_knows_neither_anchor():
    rng = np.random.default_rng(0)
    n, pairs = 17, all_pairs(17)
    values, design = rng.standard_normal(len(pairs)), rng.standard_normal((3, len(pairs)))
    fold = anchor_folds(pairs, 4, rng=rng)
    assert sorted(np.bincount(fold)) == [4, 4, 4, 5]
    expected = np.empty(len(pairs))
    for place, (i, j) in enumerate(zip(pairs.left, pairs.right, strict=True)):
        known = [m for m in range(n) if fold[m] not in (fold[i], fold[j])]
        used = np.isin(pairs.left, known) & np.isin(pairs.right, known)
        x = np.column_stack([np.ones(len(pairs)), design.T])
        expected[place] = values[place] - x[place] @ np.linalg.lstsq(x[used], values[used], rcond=None)[0]
    np.testing.assert_allclose(
        cross_fitted_residuals(values, design, pairs, fold), expected - expected.mean(), atol=1e-9
    )


def in_sample_residuals(values, design):
    x = np.column_stack([np.ones(values.shape[-1]), design.T])
    return values - x @ np.linalg.lstsq(x, values, rcond=None)[0]


def test_residuals_in_sample_shrink_by_what_was_learned_of_their_noise_and_cross_fitted_ones_do_not():
    rng = np.random.default_rng(1)
    pairs = all_pairs(40)
    noise, design = rng.standard_normal(len(pairs)), rng.standard_normal((150, len(pairs)))
    fold = anchor_folds(pairs, 5, rng=rng)
    assert in_sample_residuals(noise, design).var() < 0.85 * noise.var()
    assert cross_fitted_residuals(noise, design, pairs, fold).var() > 1.15 * noise.var()


def test_a_saturated_model_leaves_nothing_in_sample_and_is_refused_cross_fitted():
    rng = np.random.default_rng(2)
    n, pairs = 9, all_pairs(9)
    each_pair = np.zeros((len(pairs), n, n))
    each_pair[np.arange(len(pairs)), pairs.left, pairs.right] = 1
    latent, ruler = symmetric(n, rng, 2)
    assert np.abs(in_sample_residuals(rankdata(pairs.of(latent)), pairs.of(each_pair))).max() < 1e-9
    with pytest.raises(BadInputError, match=r"of 36 covariates do is not determined by the \d+ pairs outside"):
        residualised_correlation(latent, ruler, each_pair, pairs, rng=rng)


def confounded(rng, n=60, signal=0.0):
    study = rng.integers(0, 3, n).astype(str)
    apart = 1 - shared_labels(study)[0]
    own, other, common = symmetric(n, rng, 3)
    return 3 * apart + own + signal * common, 3 * apart + other + signal * common, shared_labels(study)


def test_nothing_is_left_of_a_confounder_alone_and_what_is_true_stays():
    latent, ruler, shared = confounded(np.random.default_rng(3))
    pairs = all_pairs(60)
    assert float(distance_spearman(latent, ruler, pairs)) > 0.5
    left = residualised_correlation(latent, ruler, shared, pairs, rng=np.random.default_rng(0))
    assert abs(float(left)) < 0.06
    latent, ruler, shared = confounded(np.random.default_rng(3), signal=2.0)
    left = residualised_correlation(latent, ruler, shared, pairs, rng=np.random.default_rng(0))
    assert 0.7 < float(left) < float(distance_spearman(latent, ruler, pairs))


def test_a_covariate_that_says_nothing_leaves_the_rank_correlation():
    rng = np.random.default_rng(4)
    common, own, other, noise = symmetric(80, rng, 4)
    pairs = all_pairs(80)
    left = residualised_correlation(common + own, common + other, noise, pairs, rng=rng)
    assert float(left) == pytest.approx(float(distance_spearman(common + own, common + other, pairs)), abs=0.01)


def test_residualised_stacks_units_and_repeated_covariates():
    rng = np.random.default_rng(5)
    latents, (ruler,), pairs = symmetric(25, rng, 3), symmetric(25, rng), all_pairs(25)
    shared = shared_labels(rng.integers(0, 2, 25).astype(str), rng.integers(0, 3, 25).astype(str))
    seed = 11
    found = residualised_correlation(latents, ruler, shared, pairs, rng=np.random.default_rng(seed))
    one = residualised_correlation(latents[2], ruler, shared, pairs, rng=np.random.default_rng(seed))
    assert found.shape == (3,) and one.shape == () and float(one) == pytest.approx(found[2])
    repeated = np.concatenate([shared * 1e6 - 5e8, shared[:1] + shared[1:], np.ones((1, 25, 25))])
    again = residualised_correlation(np.exp(latents), ruler, repeated, pairs, rng=np.random.default_rng(seed))
    np.testing.assert_allclose(again, found, atol=1e-8)


def test_nothing_is_left_of_a_ruler_that_is_a_covariate():
    rng = np.random.default_rng(6)
    (latent,), pairs = symmetric(20, rng), all_pairs(20)
    ruler = shared_labels(rng.integers(0, 2, 20).astype(str))[0]
    assert np.isnan(residualised_correlation(latent, ruler, ruler, pairs, rng=rng))


def test_what_cannot_be_residualised_is_refused():
    rng = np.random.default_rng(7)
    latent, ruler, covariate = symmetric(12, rng, 3)
    pairs = all_pairs(12)
    with pytest.raises(BadInputError, match="2 folds of 12 anchors, expected at least 3"):
        residualised_correlation(latent, ruler, covariate, pairs, rng=rng, n_folds=2)
    with pytest.raises(BadInputError, match="13 folds of 12 anchors"):
        residualised_correlation(latent, ruler, covariate, pairs, rng=rng, n_folds=13)
    with pytest.raises(BadInputError, match="0 pairs"):
        residualised_correlation(latent, ruler, covariate, NO_PAIRS, rng=rng)
    with pytest.raises(BadInputError, match="expected the same n by n"):
        residualised_correlation(latent, ruler, covariate[:5, :5], pairs, rng=rng)
    with pytest.raises(BadInputError, match="are not finite"):
        residualised_correlation(np.where(latent == latent[0, 1], np.nan, latent), ruler, covariate, pairs, rng=rng)
    with pytest.raises(BadInputError, match="1 pairs lie outside two folds, expected at least 2"):
        residualised_correlation(latent[:4, :4], ruler[:4, :4], covariate[:4, :4], all_pairs(4), rng=rng, n_folds=4)
    # one donor's anchor lies in one fold: what sets its pairs apart is known nowhere else
    alone = np.zeros((12, 12))
    alone[3] = alone[:, 3] = 1
    with pytest.raises(BadInputError, match="1 of 1 covariates do is not determined"):
        residualised_correlation(latent, ruler, alone, pairs, rng=rng)


def test_geodesics_follow_a_ring():
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    chord = euclidean_distances(ring)
    steps = np.abs(np.arange(24)[:, None] - np.arange(24))
    steps = np.minimum(steps, 24 - steps)
    np.testing.assert_allclose(geodesic_distances(chord, k=2), steps * chord[0, 1], rtol=1e-12)


def test_geodesics_unroll_what_straight_distances_do_not():
    down, right = np.arange(8), np.arange(1, 6)
    bent = np.vstack([np.c_[0 * down, 7 - down], np.c_[right, 0 * right], np.c_[6 + 0 * down, down]])
    straight = euclidean_distances(bent)
    along = np.abs(np.arange(21)[:, None] - np.arange(21)).astype(float)
    np.testing.assert_allclose(geodesic_distances(straight, k=2), along)
    assert geodesic_correlation(straight, along, k=2) == pytest.approx(1)
    assert float(distance_spearman(straight, along, all_pairs(21))) < 0.95
    near = Pairs(np.arange(20), np.arange(20) + 1)
    assert np.isnan(geodesic_correlation(straight, along, k=2, pairs=near))
    pearson = geodesic_correlation(straight, along**2, k=2, statistic=distance_pearson)
    assert pearson == pytest.approx(float(distance_pearson(along, along**2, all_pairs(21))))


@pytest.mark.parametrize("k", [3, 6, 29])
def test_geodesics_equal_networkx(k):
    distances = angular_distances(np.random.default_rng(k).standard_normal((30, 3)))
    graph = nx.Graph()
    for i in range(30):
        for j in np.argsort(distances[i])[1 : k + 1]:
            graph.add_edge(i, int(j), weight=distances[i, j])
    found = dict(nx.all_pairs_dijkstra_path_length(graph))
    expected = [[found[i][j] for j in range(30)] for i in range(30)]
    np.testing.assert_allclose(geodesic_distances(distances, k=k), expected, atol=1e-12)


def test_points_in_the_same_place_are_tied():
    points = np.array([[0.0], [0.0], [1.0], [1.0], [2.5]])
    expected = np.abs(points - points.T)
    # every point has a twin or one neighbour; the first of equal ones is taken
    np.testing.assert_allclose(geodesic_distances(expected, k=2), expected)


def test_a_graph_in_parts_is_not_joined():
    points = np.array([0.0, 1, 2, 100, 101, 102, 103])[:, None]
    with pytest.raises(BadInputError, match=r"2 nearest neighbours falls into 2 parts of 3 to 4 of 7 points"):
        geodesic_distances(euclidean_distances(points), k=2)
    assert np.isfinite(geodesic_distances(euclidean_distances(points), k=4)).all()


def test_what_is_no_graph_is_refused():
    square = euclidean_distances(np.arange(5.0)[:, None])
    for k in (0, 5):
        with pytest.raises(BadInputError, match=f"k is {k}, expected 1 to 4 for 5 rows"):
            geodesic_distances(square, k=k)
    with pytest.raises(BadInputError, match=r"shape \(4, 5\)"):
        geodesic_distances(square[:4], k=2)
    with pytest.raises(BadInputError, match=r"hold -4\.0 to"):
        geodesic_distances(-square, k=2)
    with pytest.raises(BadInputError, match="hold nan"):
        geodesic_distances(square * np.nan, k=2)
    with pytest.raises(BadInputError, match=r"shapes \(5, 5\) and \(4, 4\)"):
        geodesic_correlation(square, square[:4, :4], k=2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=12, max_size=12), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.5, -1.0, 2000.0]),
)
def test_whole_numbers_are_ranked_as_by_sorting(rows, shift):
    values = np.array(rows, dtype=np.float64) + shift
    expected = rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2
    assert (centred_ranks(values) == expected).all()


def test_partial_is_the_correlation_of_what_a_regression_of_ranks_leaves():
    rng = np.random.default_rng(0)
    shared, own, other = (rng.random((3, 12, 12)) for _ in range(3))
    latent, ruler, held = 2 * shared + own, shared + other, shared
    pairs = all_pairs(12)
    found = partial_distance_spearman(latent, ruler, held, pairs)
    assert found.shape == (3,)
    for number in range(3):
        ranks = [rankdata(pairs.of(given[number])) for given in (latent, ruler, held)]
        x = np.column_stack([np.ones(len(pairs)), ranks[2]])
        left = [values - x @ np.linalg.lstsq(x, values, rcond=None)[0] for values in ranks[:2]]
        assert found[number] == pytest.approx(np.corrcoef(left)[0, 1])
        alone = partial_distance_spearman(latent[number], ruler[number], held[number], pairs)
        assert float(alone) == pytest.approx(found[number])
    # nothing but what is shared: what is left is noise
    assert abs(found).max() < 0.4 < distance_spearman(latent, ruler, pairs).min()


def test_partial_of_what_is_explained_or_does_not_vary_is_no_number():
    rng = np.random.default_rng(0)
    latent, ruler = rng.random((2, 9, 9))
    pairs = all_pairs(9)
    assert np.isnan(partial_distance_spearman(latent, ruler, np.exp(ruler), pairs))
    assert np.isnan(partial_distance_spearman(np.ones((9, 9)), ruler, latent, pairs))
    with pytest.raises(BadInputError, match="0 pairs"):
        partial_distance_spearman(latent, ruler, latent, Pairs(np.zeros(0, dtype=int), np.zeros(0, dtype=int)))

"""Placing points by their paths to landmarks: scikit-learn's Isomap, exact geometry, and the least stress."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from sklearn.manifold import Isomap, smacof

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds import _landmarks
from manifoldzoo.manifolds._landmarks import Landmarks, place_by_landmarks


def bent(n, seed=0, noise=0.05):
    """Points along a helix in five dimensions."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.uniform(0, 3 * np.pi, n))
    return np.c_[np.cos(t), np.sin(t), t / 2, 0.3 * rng.random((n, 2))] + noise * rng.standard_normal((n, 5))


def fitted(n=60, k=6, d=3, seed=0):
    """Landmarks of a helix under scikit-learn's Isomap."""
    isomap = Isomap(n_neighbors=k, n_components=d, eigen_solver="dense").fit(bent(n, seed))
    return isomap, (isomap.nbrs_._fit_X, isomap.dist_matrix_, isomap.embedding_, k)


def brute_force_paths(points, landmarks, geodesics, k):
    """Path lengths, point by point."""
    found = []
    for point in points:
        direct = np.array([np.sqrt(((point - place) ** 2).sum()) for place in landmarks])
        nearest = sorted(range(len(landmarks)), key=lambda i: direct[i])[:k]
        found.append([min(direct[i] + geodesics[i, j] for i in nearest) for j in range(len(landmarks))])
    return np.array(found)


@pytest.mark.filterwarnings("ignore:The number of connected components", "ignore:Changing the sparsity structure")
@settings(deadline=None, max_examples=25)
@given(n=st.integers(25, 70), k=st.integers(4, 12), d=st.integers(1, 4), seed=st.integers(0, 99))
def test_it_is_the_transform_of_isomap(n, k, d, seed):
    isomap, parts = fitted(n, k, d, seed)
    new = np.vstack([bent(20, seed + 1), 3 * bent(5, seed + 2), isomap.nbrs_._fit_X])
    np.testing.assert_allclose(place_by_landmarks(new, *parts), isomap.transform(new), atol=2e-5)
    # and gives the landmarks back, as a Nystrom extension does
    np.testing.assert_allclose(place_by_landmarks(parts[0], *parts), isomap.embedding_, atol=2e-5)


def test_points_of_a_plane_keep_their_distances_to_every_landmark():
    rng = np.random.default_rng(0)
    plane, new = rng.standard_normal((30, 2)), rng.standard_normal((12, 2))
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    there, others = plane @ turn[:2], new @ turn[:2]
    # every landmark a neighbour: paths are straight, and two dimensions hold them
    isomap = Isomap(n_neighbors=29, n_components=2, eigen_solver="dense").fit(there)
    placed = place_by_landmarks(others, there, cdist(there, there), isomap.embedding_, 30)
    np.testing.assert_allclose(cdist(placed, isomap.embedding_), cdist(new, plane), atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, 40])
def test_paths_begin_with_a_nearest_landmark(k):
    _, (places, geodesics, coordinates, _) = fitted(40)
    new = bent(15, 5, noise=0.4)
    expected = brute_force_paths(new, places, geodesics, k)
    found = Landmarks.of(places, geodesics, coordinates, k)._paths(new)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def squeezed(k=8, d=2, seed=0):
    """Landmarks of metric MDS in fewer dimensions than the paths have."""
    rng = np.random.default_rng(seed)
    isomap = Isomap(n_neighbors=k, n_components=d, eigen_solver="dense").fit(rng.standard_normal((50, 6)))
    placed, _ = smacof(
        isomap.dist_matrix_, init=isomap.embedding_, n_components=d, n_init=1, max_iter=2000, eps=1e-12,
        normalized_stress=False,
    )  # fmt: skip
    return isomap.nbrs_._fit_X, isomap.dist_matrix_, placed - placed.mean(axis=0), k


def stress_of(z, coordinates, paths):
    return ((cdist(z, coordinates) - paths) ** 2).sum(axis=1)


def test_no_step_raises_the_stress_of_any_point_and_many_find_the_least():
    parts = squeezed()
    new = np.random.default_rng(1).standard_normal((25, 6))
    paths = brute_force_paths(new, parts[0], parts[1], parts[3])
    along = [stress_of(place_by_landmarks(new, *parts, n_steps=n), parts[2], paths) for n in (0, 1, 2, 5, 20, 400)]
    for before, after in pairwise(along):
        assert (after <= before * (1 + 1e-9)).all()
    assert along[0].sum() > 1.02 * along[-1].sum()
    # twenty steps are within a hundredth of the least
    assert np.sqrt(along[4].sum()) < 1.01 * np.sqrt(along[-1].sum())
    placed = place_by_landmarks(new, *parts, n_steps=400)
    for z, own in zip(placed, paths, strict=True):
        near = minimize(lambda x, own=own: stress_of(x[None], parts[2], own[None])[0], z)
        assert stress_of(z[None], parts[2], own[None])[0] < near.fun * (1 + 1e-4)


def test_landmarks_of_metric_mds_come_back_to_where_they_are():
    parts = squeezed()
    size = np.sqrt((parts[2] ** 2).sum(axis=1).mean())
    off = [
        np.sqrt(((place_by_landmarks(parts[0], *parts, n_steps=n) - parts[2]) ** 2).sum(axis=1).mean()) / size
        for n in (0, 20, 400)
    ]
    assert off[0] > 0.1
    assert off[1] < 0.07
    assert off[2] < 0.04


def test_where_the_coordinates_lie_and_how_they_are_turned_changes_nothing_else():
    parts = squeezed(d=3)
    new = np.random.default_rng(2).standard_normal((10, 6))
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((3, 3)))
    plain = place_by_landmarks(new, *parts, n_steps=20)
    moved = place_by_landmarks(new, *parts[:2], parts[2] @ turn + [5, -3, 100], parts[3], n_steps=20)
    np.testing.assert_allclose(moved, plain @ turn + [5, -3, 100], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 1000])
@pytest.mark.parametrize("n_steps", [0, 5])
def test_batches_change_nothing(batch, n_steps, monkeypatch):
    parts = squeezed()
    new = np.random.default_rng(4).standard_normal((23, 6)).astype(np.float32)
    expected = place_by_landmarks(new, *parts, n_steps=n_steps)
    monkeypatch.setattr(_landmarks, "_BATCH", batch)
    np.testing.assert_allclose(place_by_landmarks(new, *parts, n_steps=n_steps), expected, rtol=1e-9, atol=1e-9)
    assert expected.dtype == np.float64
    assert place_by_landmarks(new[:0], *parts).shape == (0, 2)


def test_one_point_on_a_landmark_is_no_division_by_zero():
    parts = squeezed()
    coordinates = parts[2].copy()
    coordinates[1] = coordinates[0]
    placed = place_by_landmarks(parts[0], parts[0], parts[1], coordinates, parts[3], n_steps=50)
    assert np.isfinite(placed).all()


def test_what_does_not_fit_is_refused():
    places, geodesics, coordinates, k = squeezed()
    with pytest.raises(BadInputError, match=r"\(49, 50\)"):
        place_by_landmarks(places, places, geodesics[1:], coordinates, k)
    with pytest.raises(BadInputError, match=r"\(49, 2\)"):
        place_by_landmarks(places, places, geodesics, coordinates[1:], k)
    for wrong in (0, 51):
        with pytest.raises(BadInputError, match=f"n_neighbours is {wrong}, expected 1 to 50"):
            place_by_landmarks(places, places, geodesics, coordinates, wrong)
    with pytest.raises(BadInputError, match="6 columns"):
        place_by_landmarks(places[:, :5], places, geodesics, coordinates, k)


def test_settings_are_kept():
    found = Landmarks.of(*squeezed(), n_steps=3)
    assert (found.n_neighbours, found.n_steps) == (8, 3)
    assert not np.allclose(found.place(found.places), replace(found, n_steps=0).place(found.places))

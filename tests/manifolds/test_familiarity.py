from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from manifoldzoo.manifolds._familiarity import SCALE_FLOOR, familiarity


@pytest.fixture
def anchors():
    rng = np.random.default_rng(0)
    return rng.gamma(1.0, 1.0, (7, 30)), ["a", "b", "a", "c", "c", "b", "d"]


def brute_force(x, anchors, stage):
    centroids = [
        np.mean([a for a, s in zip(anchors, stage, strict=True) if s == name], axis=0) for name in sorted(set(stage))
    ]
    mean, spread = np.mean(centroids, axis=0), np.std(centroids, axis=0)
    scale = np.maximum(spread, SCALE_FLOOR * np.median(spread))

    def cosine(u, v):
        return u @ v / (np.linalg.norm(u) * np.linalg.norm(v))

    plain = [[cosine(row, c) for c in centroids] for row in x]
    scaled = [[cosine((row - mean) / scale, (c - mean) / scale) for c in centroids] for row in x]
    return np.stack([np.max(plain, axis=1), np.max(scaled, axis=1)], axis=1)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_scores_are_the_largest_cosines(anchors, kind):
    rng = np.random.default_rng(1)
    x = rng.gamma(1.0, 1.0, (20, 30)) * (rng.random((20, 30)) < 0.5)
    scores = familiarity(*anchors)
    got = scores.scores(scores.products(kind(x.astype(np.float32))))
    np.testing.assert_allclose(got, brute_force(x, *anchors), atol=2e-5)


def test_a_centroid_is_as_familiar_as_can_be_and_nothing_is_not(anchors):
    scores = familiarity(*anchors)
    x = np.stack([np.mean([anchors[0][0], anchors[0][2]], axis=0), np.zeros(30)]).astype(np.float32)
    got = scores.scores(scores.products(x))
    np.testing.assert_allclose(got[0], [1, 1], atol=1e-4)
    assert (got[1] == 0).all()


def test_depth_of_a_cell_changes_the_first_score_by_nothing(anchors):
    x = np.random.default_rng(2).gamma(1.0, 1.0, (5, 30)).astype(np.float32)
    scores = familiarity(*anchors)
    once, twice = (scores.scores(scores.products(values))[:, 0] for values in (x, 2 * x))
    np.testing.assert_allclose(once, twice, atol=1e-5)


def test_genes_of_equal_centroids_give_finite_scores():
    scores = familiarity(np.ones((4, 6)), ["a", "a", "b", "b"])
    assert np.isfinite(scores.scores(scores.products(np.ones((3, 6), np.float32)))).all()


def test_a_platform_that_loses_genes_lowers_the_first_score_more(anchors):
    """Half of the genes are measured ten times worse; which stage a cell is of stays written in the others."""
    rng = np.random.default_rng(3)
    base = rng.gamma(4.0, 1.0, 200)
    centroids = base + rng.normal(0, 1.0, (5, 200))
    efficiency = np.where(np.arange(200) % 2, 0.1, 1.0)
    scores = familiarity(centroids, list("abcde"))
    own, other = (scores.scores(scores.products((centroids * e).astype(np.float32))) for e in (1.0, efficiency))
    assert (own > 0.999).all()
    assert (other[:, 0] < 0.9).all()

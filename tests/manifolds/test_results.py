from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_manifold, tiny_manifold_with_tasks

from manifoldzoo.manifolds import _results
from manifoldzoo.manifolds._readouts import most_probable, probabilities
from manifoldzoo.manifolds._results import Results

MANIFOLD = tiny_manifold_with_tasks()
N = 57


def placed(n=N):
    """Coordinates around the panel's, and two scores."""
    rng = np.random.default_rng(0)
    latent = np.tile(MANIFOLD.project(MANIFOLD.tensors["panel.anchors"]), (3, 1))[:n]
    latent = latent + 0.2 * rng.standard_normal(latent.shape)
    return np.hstack([latent, rng.random((n, 2))]).astype(np.float32)


@pytest.mark.parametrize("strip", [4, 1000])
@pytest.mark.parametrize("piece", [1, 10, N])
def test_pieces_in_any_order_give_what_the_readouts_say(piece, strip, monkeypatch):
    monkeypatch.setattr(_results, "_STRIP", strip)
    results, given = Results(MANIFOLD, N), placed()
    for start in np.random.default_rng(1).permutation(np.arange(0, N, piece)):
        results.put(start, given[start : start + piece])
    latent = given[:, :3]
    np.testing.assert_array_equal(results.latent, latent)
    np.testing.assert_array_equal(np.stack(results.scores, axis=1), given[:, 3:])
    for task in ("stage", "side", "branch"):
        expected = MANIFOLD.read_out(latent, task)
        assert results.proba[task].dtype == np.float32
        np.testing.assert_allclose(results.proba[task], expected, rtol=1e-5, atol=1e-7)
        best = results.proba[task].argmax(axis=1)
        if task == "side":
            outside = results.proba["stage"][:, MANIFOLD.classes("stage").index("stem")] > 0.5
            assert 0 < outside.sum() < N
            best[outside] = -1
        np.testing.assert_array_equal(results.best[task], best)
    assert set(results.values) == {"depth"}
    np.testing.assert_allclose(results.values["depth"], MANIFOLD.read_out(latent, "depth"), rtol=1e-5, atol=1e-6)


def test_without_thresholds_there_are_no_scores():
    results = Results(tiny_manifold(), 5)
    results.put(0, placed(5)[:, :3])
    assert results.scores == []
    assert set(results.proba) == set(results.best) == {"branch"}


def test_it_holds_the_results_and_nothing_beside_them():
    results = Results(MANIFOLD, 1000)
    assert {array.dtype for array in results.best.values()} == {np.dtype(np.int8)}
    held = [results.latent, *results.scores, *results.proba.values(), *results.best.values(), *results.values.values()]
    assert sum(array.nbytes for array in held) == 1000 * (3 * 4 + 2 * 4 + (6 + 2 + 3) * 4 + 3 * 1 + 4)


def test_probabilities_of_coordinates_far_out_are_finite_and_sum_to_one():
    readout = MANIFOLD.card.extraction.readouts[0]
    proba = probabilities(np.array([[1e6, 0.0], [-1e6, 0], [1e6, 0]], np.float32), readout, MANIFOLD.tensors)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=0), 1, rtol=1e-6)


def test_of_equal_probabilities_the_first_is_named():
    rng = np.random.default_rng(0)
    proba = rng.integers(0, 4, (5, 300)).astype(np.float32)
    np.testing.assert_array_equal(most_probable(proba), proba.argmax(axis=0))

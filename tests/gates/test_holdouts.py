"""Holdouts: which pairs, which folds, and that the held-out part is really unknown to the fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.metrics import angular_distances
from manifoldzoo.gates.refits._holdouts import (
    Fold,
    FoldScore,
    HoldoutResult,
    group_folds,
    holdout_pairs,
    holdout_record,
    random_folds,
    refit_holdouts,
    touching_pairs,
)
from manifoldzoo.manifolds._let import LetSettings, fit_let_batch

QUICK = LetSettings(n_components=4, n_steps=60)


def line(n=40, p=30, noise=0.2, seed=0):
    """Lay stages on a circle arc, seen through random features; distances are integer steps."""
    rng = np.random.default_rng(seed)
    stage = np.arange(n) % 8
    angle = stage / 8 * np.pi
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    features = points @ rng.standard_normal((2, p)) + noise * rng.standard_normal((n, p))
    return features, np.abs(stage[:, None] - stage[None, :]).astype(float), stage


def test_pairs_by_brute_force():
    held = np.array([1, 4])
    within, across = holdout_pairs(5, held)
    pairs = [(i, j) for i in range(5) for j in range(i + 1, 5)]
    assert list(zip(within.left, within.right, strict=True)) == [(1, 4)]
    expected = [pair for pair in pairs if len({1, 4} & set(pair)) == 1]
    assert list(zip(across.left, across.right, strict=True)) == expected
    assert len(touching_pairs(5, held)) == len(within) + len(across) == 7


def test_random_folds_hold_out_the_fraction_without_repeats_within():
    folds = random_folds(50, rng=np.random.default_rng(0), n_repeats=4)
    assert [len(set(fold.held_out)) for fold in folds] == [10] * 4
    assert len({fold.held_out.tobytes() for fold in folds}) == 4
    with pytest.raises(BadInputError, match=r"fraction is 1\.0"):
        random_folds(50, rng=np.random.default_rng(0), fraction=1.0)


def test_group_folds_leave_each_group_out_once():
    folds = group_folds(["b", "a", "b", "c"])
    assert [(fold.name, fold.held_out.tolist()) for fold in folds] == [
        ("a", [1]),
        ("b", [0, 2]),
        ("c", [3]),
    ]


def test_planted_order_passes_and_noise_does_not():
    features, distances, _ = line()
    folds = random_folds(40, rng=np.random.default_rng(0), n_repeats=4)
    real = refit_holdouts(features, distances, folds, QUICK, rng=np.random.default_rng(1), n_starts=3)
    noise = np.random.default_rng(2).standard_normal(features.shape)
    none = refit_holdouts(noise, distances, folds, QUICK, rng=np.random.default_rng(1), n_starts=3)
    assert real.touching > 0.8 and real.within > 0.7 and real.across > 0.8
    assert abs(none.touching) < 0.2
    assert holdout_record("random_holdout", real, 0.2, seed=1).status == "pass"
    assert holdout_record("random_holdout", none, 0.2, seed=1).status == "fail"


def test_a_score_is_the_spearman_of_a_head_fitted_without_the_fold():
    features, distances, _ = line()
    fold = Fold("x", np.arange(10))
    found = refit_holdouts(features, distances, [fold], QUICK, rng=np.random.default_rng(1), n_starts=2).scores[0]
    child = np.random.default_rng(1).spawn(1)[0]
    latents = fit_let_batch(features, np.stack([distances] * 2), QUICK, rng=child, train=np.arange(10, 40))
    i, j = np.triu_indices(40, 1)
    masks = {"touching": i < 10, "within": j < 10, "across": (i < 10) & (j >= 10)}
    for name, mask in masks.items():
        rho = [spearmanr(angular_distances(z)[i[mask], j[mask]], distances[i[mask], j[mask]])[0] for z in latents]
        assert getattr(found, name) == pytest.approx(np.mean(rho), abs=1e-9), name


def test_a_group_of_its_own_is_held_out_of_the_fit():
    features, distances, _ = line()
    # in the group the order is upside down: a head that had seen it could fit it, one that had not cannot
    upside = distances.copy()
    group = np.arange(24, 40)
    stage = np.arange(40) % 8
    stage[group] = 7 - stage[group]
    upside = np.abs(stage[:, None] - stage[None, :]).astype(float)
    result = refit_holdouts(
        features,
        upside,
        [Fold("g", group)],
        QUICK,
        rng=np.random.default_rng(0),
        n_starts=3,
    )
    assert result.across < 0


def test_small_groups_are_skipped_and_named():
    features, distances, stage = line()
    labels = ["big"] * 18 + ["other"] * 18 + ["pair"] * 2 + ["alone"] + ["single"]
    result = refit_holdouts(
        features,
        distances,
        group_folds(labels),
        QUICK,
        rng=np.random.default_rng(0),
        n_starts=1,
    )
    assert [score.name for score in result.scores] == ["big", "other"]
    assert [name for name, _ in result.skipped] == ["alone", "pair", "single"]
    assert result.covered == pytest.approx(36 / 40)
    record = holdout_record("donor_holdout", result, 0.2, seed=0)
    assert record.details["n_skipped"] == 3 and "alone" in str(record.details["skipped"])
    same = group_folds([f"stage {value}" for value in stage])
    nothing = refit_holdouts(features, distances, same, QUICK, rng=np.random.default_rng(0), n_starts=1)
    assert not nothing.scores
    assert holdout_record("branch_holdout", nothing, 0.2, seed=0).status == "cannot decide"


def test_one_group_or_little_cover_cannot_decide():
    features, distances, _ = line()
    one = refit_holdouts(
        features,
        distances,
        group_folds(["a"] * 40),
        QUICK,
        rng=np.random.default_rng(0),
    )
    assert holdout_record("study_holdout", one, 0.2, seed=0).status == "cannot decide"
    score = FoldScore("a", 5, 0.9, 0.9, 0.9, 0.0)
    little = HoldoutResult((score, score), (("b", "too small"),), covered=0.3, n_starts=1)
    record = holdout_record("donor_holdout", little, 0.2, seed=0)
    assert record.status == "cannot decide" and "30%" in record.reason


def test_folds_weigh_equally_whatever_their_size():
    scores = (
        FoldScore("a", 50, 0.2, 0.1, 0.3, 0.0),
        FoldScore("b", 5, 0.6, 0.5, 0.7, 0.0),
    )
    result = HoldoutResult(scores, (), covered=1.0, n_starts=1)
    assert (result.touching, result.within, result.across) == pytest.approx((0.4, 0.3, 0.5))


def test_an_unused_fold_does_not_change_the_others():
    features, distances, _ = line()
    folds = [Fold("lone", np.array([3])), Fold("x", np.arange(10))]
    first = refit_holdouts(features, distances, folds, QUICK, rng=np.random.default_rng(1), n_starts=2)
    folds[0] = Fold("more", np.arange(20, 30))
    second = refit_holdouts(features, distances, folds, QUICK, rng=np.random.default_rng(1), n_starts=2)
    assert first.scores[-1] == second.scores[-1]

"""Rung 3 as a whole: a planted panel passes, noise fails, and what cannot be decided says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.rungs._published import published_gates
from manifoldzoo.manifolds._let import LetSettings, fit_let

QUICK = LetSettings(n_components=4, n_steps=40)
LIGHT = {"n_repeats": 3, "n_starts": 2, "seed": 3}


def planted(n=72, p=40, seed=0):
    """Make two branches of six stages on a tree, seen in two studies of three donors each."""
    rng = np.random.default_rng(seed)
    stage = np.arange(n) % 12
    branch, depth = stage // 6, stage % 6
    donor = np.arange(n) // 12
    points = (
        np.stack(
            [
                np.where(branch == 0, depth, 0),
                np.where(branch == 1, depth, 0),
                5 - depth,
            ],
            axis=1,
        )
        + 0.5
    )
    features = points @ rng.standard_normal((3, p)) + 0.5 * rng.standard_normal((n, p))
    same = branch[:, None] == branch[None, :]
    distances = np.where(
        same,
        np.abs(depth[:, None] - depth[None, :]),
        depth[:, None] + depth[None, :] + 1,
    )
    return GateData(
        features=features,
        expression=features,
        stage=[f"s{value}" for value in stage],
        distances=distances.astype(float),
        branch=[f"b{value}" for value in branch],
        donor=[f"d{value % 3}" for value in donor],
        tissue=["blood"] * n,
        study=[f"x{value // 3}" for value in donor],
    )


@pytest.fixture(scope="module")
def passed():
    seen, data = [], planted()
    latent = fit_let(data.features, data.distances, QUICK, rng=np.random.default_rng(7)).latent(data.features)
    return published_gates(data, QUICK, latent=latent, n_permutations=999, progress=seen.append, **LIGHT), seen


def test_a_planted_panel_passes_every_gate(passed):
    result, seen = passed
    assert result.status == "pass", result.reason
    found = {record.gate: record for record in result.records if record.decides}
    assert {gate: (record.threshold, record.direction) for gate, record in found.items()} == {
        "no_copied_anchors": (0.0, "<="),
        "shipped_head": (0.05, "<="),
        "trustworthiness": (0.80, ">="),
        "random_holdout": (0.20, ">="),
        "donor_holdout": (0.20, ">="),
        "branch_holdout": (0.20, ">="),
        "blocked_permutation": (0.001, "<="),
    }
    assert found["trustworthiness"].details["k"] == 10 and found["trustworthiness"].details["space"] == "features"
    assert found["donor_holdout"].details["n_folds"] == 6
    assert seen[-1] == 999


def test_the_warning_figures_do_not_decide(passed):
    result, _ = passed
    shown = {record.gate for record in result.records if not record.decides}
    assert shown == {
        "trustworthiness_expression",
        "continuity",
        "study_holdout",
        "blocked_permutation_fixed_head",
        "shipped_geometry",
        "mantel",
        "partial_mantel",
        "subsample_stability",
    }


def test_without_the_shipped_head_its_gate_is_open():
    result = published_gates(planted(n=36), QUICK, n_permutations=5, **LIGHT)
    record = next(record for record in result.records if record.gate == "shipped_head")
    assert record.status == "not run"


def test_noise_features_fail():
    data = planted()
    noise = np.random.default_rng(1).standard_normal(data.features.shape)
    result = published_gates(replace(data, features=noise), QUICK, n_permutations=999, **LIGHT)
    assert result.status == "fail"
    failed = {record.gate for record in result.records if record.status == "fail"}
    assert {
        "trustworthiness",
        "random_holdout",
        "branch_holdout",
        "blocked_permutation",
    } <= failed
    fixed = next(record for record in result.records if record.gate == "blocked_permutation_fixed_head")
    assert fixed.status == "pass"


def test_the_same_seed_gives_the_same_records():
    data = planted(n=36)
    first, second = (published_gates(data, QUICK, n_permutations=20, **LIGHT) for _ in range(2))
    assert first == second


def test_too_few_permutations_or_arrangements_cannot_decide():
    data = planted()
    few = published_gates(data, QUICK, n_permutations=20, **LIGHT)
    assert few.status == "cannot decide" and "20 permutations" in few.reason
    alone = replace(data, donor=[str(value) for value in range(72)])
    result = published_gates(alone, QUICK, n_permutations=999, **LIGHT)
    found = {record.gate: record for record in result.records}
    assert found["blocked_permutation"].status == "cannot decide"
    assert found["donor_holdout"].status == "cannot decide"
    assert result.status == "cannot decide"


def test_a_small_panel_cannot_decide_trustworthiness():
    result = published_gates(planted(n=36), QUICK, n_permutations=5, neighbours=18, **LIGHT)
    record = next(record for record in result.records if record.gate == "trustworthiness")
    assert record.status == "cannot decide" and "36 anchors" in record.reason


def test_donors_of_two_studies_are_told_apart():
    data = planted()
    assert len(set(data.donor_ids)) == 6
    assert len(set(data.blocks)) == 6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"stage": ["a"]}, "stage has 1"),
        ({"expression": np.zeros((3, 4))}, r"\(3, 4\)"),
        ({"features": np.full((72, 4), np.inf)}, "features"),
        ({"distances": np.zeros((72, 72))}, "all distances"),
    ],
)
def test_bad_panels_are_named(change, match):
    with pytest.raises(BadInputError, match=match):
        replace(planted(), **change)

"""Stability over subsamples: by brute force, for either kind of head, and in no other record's way."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from planted_tree import SETTINGS, planted_panel
from scipy.spatial import procrustes
from scipy.stats import spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates._named_child import named_child
from manifoldzoo.gates.metrics import angular_distances, euclidean_distances
from manifoldzoo.gates.rungs._stability import GATE, N_SUBSAMPLES, stability_record
from manifoldzoo.manifolds._geodesic import geodesic_latents
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import fit_in_row_space, row_space

LABELS = ("stage", "branch", "donor", "tissue", "study")
ISOMAP = GeodesicSettings(n_components=4, n_neighbours=8)


@pytest.fixture(scope="module")
def data():
    return planted_panel(np.random.default_rng(0))


def placed_by_hand(data, settings, n_subsamples):
    """Latents of all anchors under heads on subsamples, drawn as the record draws them."""
    n, found = len(data.stage), []
    for rng in np.random.default_rng(5).spawn(n_subsamples):
        row_rng, space_rng, start_rng = rng.spawn(3)
        train = np.sort(row_rng.permutation(n)[: round(0.8 * n)])
        if settings is ISOMAP:
            found.append(geodesic_latents(data.features, settings, train=train))
        else:
            space = row_space(data.features, settings, rng=space_rng, train=train)
            fit = fit_in_row_space(space, data.distances[None], settings, rngs=[start_rng])
            found.append(fit.latents(space.rows)[0])
    return found


@pytest.mark.parametrize("settings", [SETTINGS, ISOMAP])
def test_figures_are_those_of_scipy(data, settings):
    record = stability_record(data, settings, rng=np.random.default_rng(5), seed=1, n_subsamples=4)
    places, upper = placed_by_hand(data, settings, 4), np.triu_indices(len(data.stage), 1)
    apart = angular_distances if settings is SETTINGS else euclidean_distances
    if settings is SETTINGS:
        # lengths mean nothing where angles are the distances
        places = [latents / np.linalg.norm(latents, axis=1, keepdims=True) for latents in places]
    pairs = list(combinations(places, 2))
    rho = [spearmanr(apart(one)[upper], apart(other)[upper]).statistic for one, other in pairs]
    left = [procrustes(one, other)[2] for one, other in pairs]
    assert record.statistic == pytest.approx(np.mean(rho), abs=1e-9)
    told = {name: record.details[name] for name in ("sd", "lowest", "disparity", "highest_disparity")}
    expected = (np.std(rho, ddof=1), np.min(rho), np.mean(left), np.max(left))
    assert list(told.values()) == pytest.approx(expected, abs=1e-9)
    assert (record.details["n_subsamples"], record.details["anchors_kept"]) == (4, 58)


@pytest.mark.parametrize("settings", [SETTINGS, ISOMAP])
def test_structure_is_found_again_and_noise_is_not(data, settings):
    rng = np.random.default_rng(1)
    noise = replace(data, features=rng.standard_normal(data.features.shape))
    structured, other = (
        stability_record(each, settings, rng=np.random.default_rng(0), seed=0, n_subsamples=5) for each in (data, noise)
    )
    assert structured.statistic > 0.8 and structured.statistic > other.statistic + 0.2
    assert structured.details["disparity"] < other.details["disparity"]


def test_it_never_decides_and_has_no_threshold(data):
    record = stability_record(data, ISOMAP, rng=np.random.default_rng(0), seed=7)
    assert (record.gate, record.status, record.decides, record.threshold) == (GATE, "cannot decide", False, None)
    assert (record.seed, record.n, record.details["n_subsamples"]) == (7, 72, N_SUBSAMPLES)
    assert 0 < record.details["lowest"] <= record.statistic <= 1


def test_its_draws_move_no_other():
    root = np.random.default_rng(3)
    before = np.random.default_rng(3).spawn(2)[1].random()
    named_child(root, GATE).spawn(20)
    assert root.spawn(2)[1].random() == before


@pytest.mark.parametrize(
    ("rows", "settings", "match"),
    [
        (np.arange(10), SETTINGS, "8 anchors left to train on, expected at least 10"),
        (np.arange(24), GeodesicSettings(n_components=4, n_neighbours=20), "19 anchors .* at least 21"),
        (np.repeat(np.arange(6), 4), ISOMAP, "dimensions"),
        (np.arange(0, 72, 18).repeat(4), SETTINGS, "no distance between"),
    ],
)
def test_panels_that_allow_no_refits_say_why(data, rows, settings, match):
    few = replace(
        data,
        features=data.features[rows],
        expression=data.expression[rows],
        distances=np.where(np.eye(len(rows)), 0.0, 1.0),
        **{name: [getattr(data, name)[row] for row in rows] for name in LABELS},
    )
    if "between" in match:
        # one anchor apart from all others, which most subsamples lack
        distances = np.zeros((len(rows), len(rows)))
        distances[0, 1:] = distances[1:, 0] = 1.0
        few = replace(few, distances=distances)
    record = stability_record(few, settings, rng=np.random.default_rng(0), seed=0)
    assert (record.status, record.statistic, record.decides) == ("cannot decide", None, False)
    assert re.search(match, record.reason)


@pytest.mark.parametrize("change", [{"n_subsamples": 1}, {"kept": 0.0}, {"kept": 1.0}])
def test_bad_arguments_are_named(data, change):
    with pytest.raises(BadInputError, match="subsamples of"):
        stability_record(data, SETTINGS, rng=np.random.default_rng(0), seed=0, **change)

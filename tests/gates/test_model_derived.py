"""Rung 6 on planted panels: features that know the tree win, equals neither win nor lose, and nothing hangs on luck."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from planted_tree import SETTINGS, by_gate, planted_panel
from scipy.spatial.distance import cdist
from scipy.stats import false_discovery_control, spearmanr, wilcoxon

from manifoldzoo.cards._evidence import Record
from manifoldzoo.gates.controls._comparators import COMPARED, Comparator, comparators
from manifoldzoo.gates.metrics import angular_distances, distance_spearman
from manifoldzoo.gates.refits._holdouts import touching_pairs
from manifoldzoo.gates.rungs import _model_derived
from manifoldzoo.gates.rungs._model_derived import N_STARTS, gates_of, model_derived
from manifoldzoo.manifolds._geodesic import geodesic_latents
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import fit_let
from manifoldzoo.manifolds._let_many import feature_coordinates

COMPARISONS = [f"beats_{name}" for name in (*COMPARED, "random_init")]


def untrained(data, n=5):
    rng = np.random.default_rng(3)
    return [
        feature_coordinates(rng.standard_normal(data.expression.shape).astype("f4"), scale_floor=0.1) for _ in range(n)
    ]


@pytest.fixture(scope="module")
def eight():
    """Features that know the tree, beside expression that is mostly noise."""
    rng = np.random.default_rng(0)
    data = planted_panel(rng, n_donors=8)
    return replace(data, expression=np.asarray(data.expression) + 60 * rng.standard_normal(data.expression.shape))


@pytest.fixture(scope="module")
def two(eight):
    """Raw expression and models without training: as little as the rung runs with."""
    own = feature_coordinates(eight.expression, scale_floor=0.1)
    return [
        Comparator("raw", "expression", own[None]),
        Comparator("random-init", "untrained", np.stack(untrained(eight))),
    ]


@pytest.fixture(scope="module")
def beaten(eight, two):
    return model_derived(eight, two, SETTINGS, seed=1, n_starts=2)


def test_features_that_know_more_beat_all(eight):
    operator = np.eye(120, dtype=np.float32)[None]
    others = comparators(eight, operator, {"random-init": untrained(eight)}, rng=np.random.default_rng(0))
    told = []
    result = model_derived(eight, others, SETTINGS, seed=1, n_starts=1, progress=told.append)
    assert result.status == "pass", result.reason
    assert told == [1] * len(others)
    assert [record.gate for record in result.records if record.decides] == COMPARISONS
    found = by_gate(result)
    assert found["verdict_beats_expression"].status == found["verdict_beats_untrained_weights"].status == "pass"
    assert found["beats_svd"].details["n_seeds"] == 1
    for gate in ("beats_random_init", "beats_spectrum_matched", "beats_gene_permuted"):
        assert found[gate].details["n_seeds"] == 5


def test_what_a_comparison_records(eight, beaten):
    record = by_gate(beaten)["beats_random_init"]
    told, parts = record.details, np.array(list(record.parts.values()))
    assert list(record.parts) == sorted(set(eight.donor_ids))
    assert parts.mean() == pytest.approx(told["difference"]) == pytest.approx(told["own"] - told["other"])
    assert told["interval_low"] < told["difference"] < told["interval_high"]
    assert (told["rank_biserial"], told["parts_won"], told["held_out"]) == (1.0, 1.0, "donor")
    assert told["d_z"] == pytest.approx(parts.mean() / parts.std(ddof=1))
    assert (told["q"], told["n_starts"], told["family"]) == (record.statistic, 2, "untrained")
    assert "warning" not in told


def test_scores_are_those_of_heads_refitted_one_by_one(eight):
    """With other starts, so that only what a start moves lies between them."""
    own = feature_coordinates(eight.features, scale_floor=0.1)
    others = [Comparator("raw", "expression", own[None]), Comparator("random-init", "untrained", own[None])]
    told = by_gate(model_derived(eight, others, SETTINGS, seed=1, n_starts=4))["beats_raw"].details["own"]
    donor, scores = np.array(eight.donor_ids), []
    for name in sorted(set(eight.donor_ids)):
        train = np.flatnonzero(donor != name)
        distances = np.asarray(eight.distances)[np.ix_(train, train)]
        head = fit_let(np.asarray(eight.features)[train], distances, SETTINGS, rng=np.random.default_rng(0))
        pairs = touching_pairs(len(donor), np.flatnonzero(donor == name))
        scores.append(distance_spearman(angular_distances(head.latent(eight.features)), eight.distances, pairs))
    assert told == pytest.approx(np.mean(scores), abs=0.01)


def test_the_same_features_beat_nothing(eight):
    own = feature_coordinates(eight.features, scale_floor=0.1)
    others = [
        Comparator("raw", "expression", own[None]),
        Comparator("random-init", "untrained", np.stack([own] * 5)),
    ]
    result = model_derived(eight, others, SETTINGS, seed=1, n_starts=3)
    assert result.status == "fail"
    for gate in ("beats_raw", "beats_random_init"):
        record = by_gate(result)[gate]
        assert record.statistic == record.details["p"] == 1.0
        assert record.details["difference"] == record.details["interval_low"] == record.details["interval_high"] == 0.0
        assert set(record.parts.values()) == {0.0}


def test_features_that_know_less_lose(eight):
    noise = np.random.default_rng(0).standard_normal((len(eight.stage), 120))
    own = feature_coordinates(eight.features, scale_floor=0.1)
    others = [
        Comparator("raw", "expression", own[None]),
        Comparator("random-init", "untrained", np.stack(untrained(eight))),
    ]
    result = model_derived(replace(eight, features=noise), others, SETTINGS, seed=1, n_starts=1)
    record = by_gate(result)["beats_raw"]
    assert record.statistic > 0.9
    assert record.details["interval_high"] < 0
    assert record.details["rank_biserial"] == -1.0
    assert by_gate(result)["verdict_beats_expression"].status == "fail"


def test_too_few_untrained_seeds_cannot_decide_and_help_no_other(eight, two, beaten):
    few = [two[0], Comparator("random-init", "untrained", two[1].coordinates[:4])]
    found = by_gate(model_derived(eight, few, SETTINGS, seed=1, n_starts=2))
    assert found["beats_random_init"].status == "cannot decide"
    assert found["beats_random_init"].reason.startswith("4 seeds")
    assert found["beats_raw"].statistic == pytest.approx(2 * found["beats_raw"].details["p"])
    assert found["beats_raw"].details["p"] == by_gate(beaten)["beats_raw"].details["p"]


def test_without_untrained_models_it_is_not_run(eight):
    assert model_derived(eight, [], SETTINGS, seed=1).status == "not run"


def test_q_is_that_of_the_paired_tests(beaten):
    found = by_gate(beaten)
    ps = [found[gate].details["p"] for gate in ("beats_raw", "beats_random_init")]
    qs = false_discovery_control(ps)
    assert [found[gate].statistic for gate in ("beats_raw", "beats_random_init")] == pytest.approx(list(qs))
    for gate in ("beats_raw", "beats_random_init"):
        exact = wilcoxon(list(found[gate].parts.values()), alternative="greater").pvalue
        assert found[gate].details["p"] == pytest.approx(exact)
    # with eight parts all won, the smallest one-sided p is 1 / 2^8
    assert ps[0] == pytest.approx(1 / 2**8)


def test_the_seed_alone_decides_and_a_comparator_more_moves_no_score(eight, two, beaten):
    assert model_derived(eight, two, SETTINGS, seed=1, n_starts=2) == beaten
    more = [Comparator("svd", "expression", two[0].coordinates), *reversed(two)]
    found, before = by_gate(model_derived(eight, more, SETTINGS, seed=1, n_starts=2)), by_gate(beaten)
    for gate in ("beats_raw", "beats_random_init"):
        assert found[gate].parts == before[gate].parts
        same = set(found[gate].details) - {"q"}
        assert {key: found[gate].details[key] for key in same} == {key: before[gate].details[key] for key in same}
    assert found["label_lookup"] == before["label_lookup"]


def test_batches_change_nothing(eight, two, beaten, monkeypatch):
    monkeypatch.setattr(_model_derived, "_BATCH", 3)
    assert model_derived(eight, two, SETTINGS, seed=1, n_starts=2) == beaten


def test_twenty_starts_unless_told_otherwise(eight, two, monkeypatch):
    seen = set()

    def counted(coordinates, target, settings, *, rngs, **_):
        seen.add(len(rngs))
        rng = np.random.default_rng(0)
        return rng.standard_normal((len(coordinates), len(rngs), len(target), 3))

    monkeypatch.setattr(_model_derived, "refit_starts", counted)
    result = model_derived(eight, two, SETTINGS, seed=1)
    assert seen == {N_STARTS}
    assert N_STARTS >= 20
    assert by_gate(result)["beats_raw"].details["n_starts"] == N_STARTS


class TestLabelLookup:
    def test_it_informs_and_decides_nothing(self, beaten):
        record = by_gate(beaten)["label_lookup"]
        assert (record.decides, record.status) == (False, "cannot decide")
        assert beaten.status == "pass"

    def test_labels_are_all_that_a_donor_holdout_asks_for(self, beaten):
        """Every stage is in every donor: knowing it is enough, and as good as features that know the tree."""
        told = by_gate(beaten)["label_lookup"].details
        assert told["other"] > 0.95
        assert told["other"] > told["own"] - 0.02

    def test_of_a_branch_that_is_held_out_they_say_less_than_features_that_know_the_tree(self, beaten):
        record = by_gate(beaten)["label_lookup"]
        told = record.details
        assert told["other_branch_across"] < told["own_branch_across"] - 0.1
        assert told["other_branch"] < told["other"] - 0.1
        assert told["n_branches"] == 6
        assert len(record.parts) == 8 + 6
        branches = [value for name, value in record.parts.items() if name.startswith("branch ")]
        assert np.mean(branches) == pytest.approx(told["own_branch"] - told["other_branch"])

    def test_one_branch_leaves_its_part_empty(self, eight, two):
        # stages differ and branches do not
        alone = replace(eight, branch=["b"] * len(eight.stage))
        record = by_gate(model_derived(alone, two, SETTINGS, seed=1, n_starts=1))["label_lookup"]
        assert record.details["other_branch"] is None
        assert record.details["n_branches"] == 0
        assert Record.model_validate_json(record.model_dump_json()) == record


class TestFewDonors:
    def test_random_fifths_say_that_their_p_is_too_small(self, eight, two):
        alone = replace(eight, donor=["d"] * len(eight.stage), study=["s"] * len(eight.stage))
        found = by_gate(model_derived(alone, two, SETTINGS, seed=1, n_starts=1))
        record = found["beats_raw"]
        assert record.details["held_out"] == "random fifth"
        assert "too small" in record.details["warning"]
        assert next(iter(record.parts)) == "random 1"
        assert found["label_lookup"].reason.startswith("shown beside")

    def test_too_few_parts_leave_every_comparison_open(self, eight, two, monkeypatch):
        monkeypatch.setattr(_model_derived, "MIN_FOLDS", 50)
        result = model_derived(eight, two, SETTINGS, seed=1, n_starts=1)
        assert result.status == "cannot decide"
        assert [record.gate for record in result.records] == ["beats_raw", "beats_random_init"]
        assert "20 parts can be held out, expected 50" in result.reason


def card(kind="let-anchor", controls=("random-init",) * 5):
    return SimpleNamespace(
        extraction=SimpleNamespace(adaptor=SimpleNamespace(kind=kind, fitted_on_anchors=kind != "let-cell")),
        untrained=[SimpleNamespace(control=name) for name in controls],
        evidence=None,
    )


def test_registered_are_exactly_the_comparisons_that_decide():
    assert gates_of(card()) == [(gate, "<", 0.05) for gate in COMPARISONS]
    assert gates_of(card(controls=())) == []
    assert gates_of(card(kind="let-cell")) == []
    assert gates_of(card(kind="isomap")) == gates_of(card())


class TestHeadsThatDoNotReadTheRuler:
    settings = GeodesicSettings(n_components=5, n_neighbours=8)

    @pytest.fixture(scope="class")
    def found(self, eight, two):
        return model_derived(eight, two, self.settings, seed=1)

    def test_comparators_get_the_same_kind_of_head_in_the_same_features(self, eight, two, found):
        record = by_gate(found)["beats_random_init"]
        upper, donors = np.triu_indices(len(eight.stage), 1), np.array(eight.donor_ids)
        expected = {}
        for donor in np.unique(donors):
            train = np.flatnonzero(donors != donor)
            touching = (donors[upper[0]] == donor) | (donors[upper[1]] == donor)

            def score(features, standardise, train=train, touching=touching):
                placed = geodesic_latents(features, self.settings, train=train, standardise=standardise)
                return spearmanr(cdist(placed, placed)[upper][touching], eight.distances[upper][touching]).statistic

            own = feature_coordinates(eight.features, scale_floor=0.1)
            theirs = np.mean([score(each, False) for each in two[1].coordinates])
            expected[str(donor)] = score(own, False) - theirs
        assert record.parts == pytest.approx(expected, abs=1e-6)
        assert found.status == "pass" and record.details["n_starts"] == 1

    def test_equal_features_do_not_win(self, eight, two):
        own = feature_coordinates(eight.features, scale_floor=0.1)
        result = model_derived(eight, [Comparator("raw", "expression", own[None]), two[1]], self.settings, seed=1)
        assert by_gate(result)["beats_raw"].details["difference"] == 0
        assert by_gate(result)["beats_raw"].status == "fail"

    def test_of_labels_it_knows_which_are_the_same(self, eight, found):
        record = by_gate(found)["label_lookup"]
        stage, upper = np.array(eight.stage), np.triu_indices(len(eight.stage), 1)
        differ = (stage[upper[0]] != stage[upper[1]]).astype(float)
        donors, scores = np.array(eight.donor_ids), []
        for donor in np.unique(donors):
            touching = (donors[upper[0]] == donor) | (donors[upper[1]] == donor)
            scores.append(spearmanr(differ[touching], eight.distances[upper][touching]).statistic)
        assert record.details["other"] == pytest.approx(np.mean(scores))
        assert record.details["other_branch_across"] is None
        assert not record.decides

    def test_features_of_too_few_dimensions_leave_one_comparison_open(self, eight, two):
        line = feature_coordinates(np.outer(np.arange(len(eight.stage)), np.ones(3)), scale_floor=0.1)
        result = model_derived(eight, [*two, Comparator("pca", "expression", line[None])], self.settings, seed=1)
        found = by_gate(result)
        assert found["beats_pca"].status == "cannot decide" and "dimensions" in found["beats_pca"].reason
        assert found["beats_raw"].status == "pass" and result.status == "cannot decide"

"""A head fitted on cells: gates of the head as it is are run, gates that refit are not, and nothing is refitted."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_anchors, tiny_document, tiny_manifold

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._evidence import rung_reached
from manifoldzoo.cards._readme import render_readme
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._artifact_data import gate_data, head_settings
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates.metrics import angular_distances, euclidean_distances, trustworthiness
from manifoldzoo.gates.refits._refitted import CANNOT_REFIT
from manifoldzoo.gates.rungs import _as_shipped, _published, _transfers
from manifoldzoo.gates.rungs._as_shipped import as_shipped
from manifoldzoo.gates.rungs._published import NEIGHBOURS, published_gates
from manifoldzoo.gates.rungs._transfers import Outside
from manifoldzoo.manifolds._digests import anchors_digest
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._let_many import feature_coordinates
from manifoldzoo.manifolds._manifold import Manifold

CONVERGENCE = {
    "terms": {"stage": 0.3},
    "n_epochs": 20,
    "best_epoch": 20,
    "stopped_early": False,
    "change": 0.001,
    "converged": True,
    "n_train_cells": 120,
    "n_validation_cells": 0,
}


def fitted_on_cells(kind: str, *, beside: bool) -> Manifold:
    """The tiny manifold as if its head had been fitted on cells; with all that upper rungs ask for, or without."""
    plain, document = tiny_manifold(), tiny_document()
    document["extraction"]["adaptor"] |= {"kind": kind, "parameters": {"epochs": 20}, "convergence": CONVERGENCE}
    tensors = dict(plain.tensors)
    if beside:
        values = (tiny_anchors()[0] + np.float32(0.02)).astype(np.float32)
        anchors = [anchor | {"study": "other"} for anchor in document["panel"]["anchors"]]
        manifest = document["panel"] | {"anchors": anchors}
        manifest["digest"] = anchors_digest(values, anchors, plain.genes.symbols)
        common = {"n_shared_cells": 0, "n_shared_donors": 0, "specification": "4" * 64, "manifest": manifest}
        document["panels"] = [
            {"name": "external", "role": "external", **common},
            {"name": "negative", "role": "negative", **common},
        ]
        tensors |= {"panel.external.anchors": values, "panel.negative.anchors": values}
        document["untrained"] = [{"control": "random-init", "seed": s, "digest": "5" * 64} for s in range(5)]
        noise = np.random.default_rng(0).standard_normal((5, *values.shape))
        for seed, features in enumerate(noise):
            tensors[f"comparator.random-init.{seed}"] = feature_coordinates(features, scale_floor=0.1)
    return Manifold.build(parse_card(document), plain.genes, tensors, plain.vectors)


@pytest.fixture(scope="module")
def sound() -> Manifold:
    return fitted_on_cells("let-cell", beside=True)


@pytest.fixture(scope="module")
def run(sound):
    return validate(sound, through=6)


@pytest.fixture(autouse=True)
def no_refits(monkeypatch):
    for module, name in (
        (_ladder, "published_gates"),
        (_ladder, "specific"),
        (_ladder, "model_derived"),
        (_published, "refits_from_starts"),
        (_transfers, "refits_from_starts"),
    ):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("a head was refitted"))


@pytest.mark.parametrize("kind", ["let-cell", "let-hybrid"])
@pytest.mark.parametrize("beside", [False, True])
def test_rung_2_is_the_highest_and_what_refits_is_not_run(kind, beside):
    climbed = validate(fitted_on_cells(kind, beside=beside), through=6)
    assert [result.status for result in climbed.rungs[:2]] == ["pass", "pass"]
    assert "pass" not in [result.status for result in climbed.rungs[2:]]
    assert [climbed.rungs[rung - 1].status for rung in (4, 6)] == ["not run", "not run"]
    assert rung_reached(climbed.rungs) == 2
    for rung in (4, 6):
        assert climbed.rungs[rung - 1].reason.endswith(CANNOT_REFIT)


@pytest.fixture(scope="module")
def gates_of_an_anchor_head() -> set[str]:
    settings = LetSettings(n_components=3, n_steps=2)
    few = published_gates(gate_data(tiny_manifold()), settings, seed=1, n_permutations=1, n_repeats=1, n_starts=1)
    return {record.gate for record in few.records if record.decides}


def test_every_gate_of_rung_3_is_there_and_only_trustworthiness_has_a_number(gates_of_an_anchor_head, run):
    deciding = {record.gate: record for record in run.rungs[2].records if record.decides}
    assert set(deciding) == gates_of_an_anchor_head
    assert deciding["trustworthiness"].statistic is not None
    for gate in _as_shipped.REFITTED:
        assert (deciding[gate].status, deciding[gate].reason) == ("not run", CANNOT_REFIT)
        assert deciding[gate].statistic is None


def test_trustworthiness_is_that_of_the_shipped_head(sound, run):
    data = gate_data(sound)
    latent = sound.project(sound.tensors["panel.anchors"]).astype(np.float64)
    angles = angular_distances(latent)
    record = next(record for record in run.rungs[2].records if record.gate == "trustworthiness")
    assert record.statistic == trustworthiness(euclidean_distances(data.features), angles, k=NEIGHBOURS)
    assert (record.details["n_starts"], record.details["start_sd"]) == (1, 0.0)


def test_a_head_that_fails_as_it_is_fails_the_rung(sound):
    data = gate_data(sound)
    noise = np.random.default_rng(0).standard_normal((len(data.stage), 3))
    result = as_shipped(3, data, noise, [], seed=1)
    assert result.status == "fail"
    assert result.reason.startswith("trustworthiness")


def test_the_frozen_head_is_tried_on_the_external_panel(run):
    records = {record.gate: record for record in run.rungs[4].records}
    assert records.pop("external_branch_holdout").reason == CANNOT_REFIT
    numbers = {gate for gate, record in records.items() if record.statistic is not None}
    assert {"external_all", "external_between_donors", "external_trustworthiness", "no_shared_cells"} <= numbers
    assert run.rungs[4].status in ("not run", "fail")


def test_an_external_panel_that_shares_cells_still_fails(sound):
    data = gate_data(sound)
    latent = sound.project(sound.tensors["panel.anchors"])
    result = as_shipped(5, data, latent, [Outside(data, latent, 3, 0)], seed=1, n_permutations=19)
    assert result.status == "fail"


def test_a_head_that_keeps_neighbours_leaves_the_rung_open_and_says_why_once(sound):
    data = gate_data(sound)
    features = np.asarray(data.features) - np.mean(data.features, axis=0)
    # seen from afar, angles are distances
    latent = np.hstack([1e-3 * features, np.ones((len(features), 1))])
    result = as_shipped(3, data, latent, [], seed=1)
    found = {record.gate: record for record in result.records}
    assert found["trustworthiness"].statistic == pytest.approx(1.0)
    assert found["no_copied_anchors"].status == "pass"
    assert (result.status, result.reason) == ("not run", f"{', '.join(_as_shipped.REFITTED)}: {CANNOT_REFIT}")


def test_the_readme_shows_the_rung_reached_and_how_the_fit_went(sound, run):
    text = render_readme(sound.card, sound.digest, [run])
    assert "Highest rung reached: **2** of 6" in text
    assert f"| 4 | specific | not run | specific: {CANNOT_REFIT} |" in text
    assert "Adaptor: let-cell, 3 coordinates, epochs 20. Fitted on 120 cells in 20 epochs: stage 0.3." in text


def test_there_are_no_settings_to_refit_with(sound):
    with pytest.raises(BadInputError, match="let-cell"):
        head_settings(sound)

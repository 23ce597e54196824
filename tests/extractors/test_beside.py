"""Panels and untrained models that travel with an extraction, and the rungs that they make possible."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from small import write_small_cells, write_small_recipe

from manifoldzoo.cards._errors import BadInputError, FormatError, PanelError
from manifoldzoo.extractors import extract, reference_checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._artifact_data import panel_data
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._cell_ids import CellIds, shared_with
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._panel_overlap import read_panel_members

SPEC = """
[[panels]]
name = "one-run"
role = "extraction"
files = ["own.h5ad"]
labels = "hematopoietic"

[[panels]]
name = "other-run"
role = "external"
files = ["{other}"]
labels = "hematopoietic"

[[panels]]
name = "strangers"
role = "negative"
files = ["strangers.h5ad"]
min_cells = 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The two runs of the bundled cells as two files, and cells of types that nobody knows."""
    folder = tmp_path_factory.mktemp("beside")
    cells = ad.read_h5ad(write_small_cells(folder / "all.h5ad"))
    first, second = sorted(cells.obs["donor"].astype(str).unique())
    cells[cells.obs["donor"] == first].copy().write_h5ad(folder / "own.h5ad")
    other = cells[cells.obs["donor"] == second]
    # of one cell type there are too few for an anchor
    few = np.flatnonzero(other.obs["cell_type"] == other.obs["cell_type"].iloc[0])[3:]
    other[np.setdiff1d(np.arange(other.n_obs), few)].copy().write_h5ad(folder / "other.h5ad")
    strange = cells[:60].copy()
    strange.obs["dataset"], strange.obs["donor"] = "elsewhere", "nobody"
    strange.obs["cell_type"] = [f"type {index % 12}" for index in range(60)]
    strange.obs_names = [f"stranger{index}" for index in range(60)]
    strange.write_h5ad(folder / "strangers.h5ad")
    (folder / "panels.toml").write_text(SPEC.format(other="other.h5ad"))
    write_small_recipe(folder / "recipe", 'kind = "token_qk"')
    return folder


@pytest.fixture(scope="module")
def made(folder) -> Manifold:
    return extract(folder / "recipe", cells=[folder / "own.h5ad"], panels=folder / "panels.toml", n_untrained=5)


def test_panels_travel_with_their_manifests(made, folder, tmp_path):
    again = Manifold.read(made.save(tmp_path / "made"))
    assert valid(again).status == reproduces(again).status == "pass"
    beside = {panel.name: panel for panel in again.card.panels}
    assert list(beside) == ["other-run", "strangers"]
    assert beside["other-run"].role == "external"
    assert (beside["other-run"].n_shared_cells, beside["other-run"].n_shared_donors) == (0, 0)
    panel, data = panel_data(again, "external")
    assert panel.manifest.files[0].name == "other.h5ad"
    assert data.expression.shape == (len(panel.manifest.anchors), len(again.genes))
    assert {anchor.study for anchor in beside["strangers"].manifest.anchors} == {"elsewhere"}


def test_cells_of_every_panel_travel_also_of_groups_too_small_for_an_anchor(made, folder):
    own, beside = CellIds.read(made.tensors), CellIds.read(made.tensors, "panel.other-run")
    other, panel = made.card.panels
    strangers = CellIds.read(made.tensors, "panel.strangers")
    labelled = read_panel_members([folder / "other.h5ad"], labels=read_label_table(folder / "recipe" / "labels.tsv"))
    assert (len(own.cells), len(beside.cells)) == (made.card.panel.files[0].n_cells, len(labelled.ids))
    assert own.n_shared(beside) == 0
    assert shared_with(beside, labelled).n_cells == len(labelled.ids)
    assert sum(anchor.n_cells for anchor in other.manifest.anchors) == len(beside.cells) - 3
    assert len(strangers.cells) == panel.manifest.files[0].n_cells


def test_untrained_models_are_those_of_their_seeds(made):
    source = read_scgpt(reference_checkpoint())
    assert [other.digest for other in made.card.untrained] == [
        source.random_initialisation(seed).digest for seed in range(5)
    ]
    n = len(made.card.panel.anchors)
    coordinates = [made.tensors[f"comparator.random-init.{seed}"] for seed in range(5)]
    assert {array.shape for array in coordinates} == {(n, n)}
    assert not np.allclose(coordinates[0], coordinates[1])


def test_every_rung_can_be_tried_from_the_artifact_alone(made, monkeypatch):
    monkeypatch.setattr(_ladder, "N_PERMUTATIONS", 19)
    monkeypatch.setattr(_ladder, "N_BRANCH_PERMUTATIONS", 19)
    monkeypatch.setattr(_ladder, "N_STARTS", 2)
    told = []
    run = validate(made, through=6, progress=lambda *call: told.append(call))
    gates = {record.gate for result in run.rungs for record in result.records}
    assert {"negative_control", "external_all", "beats_random_init", "verdict_beats_expression"} <= gates
    statuses = {result.rung: result.status for result in run.rungs}
    assert statuses[5] in ("pass", "fail", "cannot decide")
    assert statuses[6] in ("pass", "fail", "cannot decide")
    assert [done for what, done, total in told if what == "comparators"] == list(range(1, 9))


def test_a_panel_of_the_same_cells_is_refused(folder, tmp_path):
    (tmp_path / "panels.toml").write_text(SPEC.format(other="own.h5ad"))
    with pytest.raises(PanelError, match="share"):
        extract(folder / "recipe", cells=[folder / "own.h5ad"], panels=tmp_path / "panels.toml", data=folder)
    # the cells that are fitted to are those given, whatever the specification calls its extraction panel
    (tmp_path / "panels.toml").write_text(SPEC.format(other="other.h5ad"))
    with pytest.raises(PanelError, match="share"):
        extract(folder / "recipe", cells=[folder / "other.h5ad"], panels=tmp_path / "panels.toml", data=folder)


def test_bad_arguments_are_refused_before_any_work(folder, tmp_path):
    given = {"cells": [folder / "own.h5ad"]}
    with pytest.raises(BadInputError, match="n_untrained is -1"):
        extract(folder / "recipe", **given, n_untrained=-1)
    with pytest.raises(FormatError, match="nowhere"):
        extract(folder / "recipe", **given, panels=tmp_path / "nowhere.toml")

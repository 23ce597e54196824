"""Readouts and thresholds of whole extractions, on some of the bundled cells."""

from __future__ import annotations

import numpy as np
import pytest
from small import write_small_cells, write_small_recipe

from manifoldzoo.extractors import extract
from manifoldzoo.extractors._fit_familiarity import MIN_CELLS, fit_familiarity
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._familiarity import familiarity
from manifoldzoo.manifolds._panel import PanelCells

READOUTS = """
[[readouts]]
task = "lineage"
kind = "mlp"
n_hidden = 8
classes = { erythroid = ["mep", "erythroid_progenitor", "proerythroblast"], myeloid = ["gmp", "monoblast", "cdc2"] }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stage3")
    recipe = write_small_recipe(folder / "recipe", 'kind = "token_qk"')
    text = (recipe / "recipe.toml").read_text()
    (recipe / "recipe.toml").write_text(text.replace("[[citations]]", READOUTS + "\n[[citations]]", 1))
    cells = write_small_cells(folder / "cells.h5ad")
    return extract(recipe, cells=[cells]), extract(recipe, cells=[cells])


def test_every_task_is_fitted_and_judged_on_donors_held_out(made):
    manifold, _ = made
    told = {readout.task: readout for readout in manifold.card.extraction.readouts}
    assert list(told) == ["branch", "stage", "depth", "lineage"]
    assert told["lineage"].classes == ["erythroid", "myeloid"]
    assert told["lineage"].n_hidden == 8
    assert told["lineage"].n_cells < told["stage"].n_cells
    for task in ("branch", "stage", "lineage"):
        said = told[task].parameters
        assert said["held_out_by"] == "donor"
        assert 0 <= said["held_out_balanced_accuracy"] <= 1
        assert said["temperature"] > 0
    assert told["depth"].of == "stage"
    assert -1 <= told["depth"].parameters["held_out_spearman_within_studies"] <= 1
    stages = told["stage"].classes
    assert manifold.tensors["readout.depth.values"].tolist() == manifold.ruler.depth(stages).tolist()
    assert valid(manifold).status == reproduces(manifold).status == "pass"


def test_equal_input_gives_equal_bytes(made):
    assert made[0].digest == made[1].digest


def test_one_study_leaves_donors_out_for_the_thresholds(made):
    limits = made[0].card.extraction.familiarity
    assert limits.held_out_by == "donor"
    assert limits.threshold == pytest.approx(np.mean(list(limits.groups.values())))


def planted(n_studies=3, n_donors=2):
    """Cells of two stages in several studies, one of which measures half of the genes worse."""
    rng = np.random.default_rng(0)
    base = rng.gamma(2.0, 1.0, (2, 50))
    stage, study, donor = [], [], []
    values = []
    for s in range(n_studies):
        for d in range(n_donors):
            for t in range(2):
                cells = base[t] + 0.3 * rng.standard_normal((MIN_CELLS, 50)).clip(-1, 1)
                values.append(cells * (np.where(np.arange(50) % 2, 0.3, 1) if s == n_studies - 1 else 1))
                stage += [f"t{t}"] * MIN_CELLS
                study += [f"s{s}"] * MIN_CELLS
                donor += [f"d{d}"] * MIN_CELLS
    from scipy import sparse

    table = sparse.csr_matrix(np.concatenate(values).clip(0).astype(np.float32))
    n = table.shape[0]
    cells = PanelCells(
        table, np.ones(n), tuple(stage), tuple(stage), tuple(study), tuple(donor), tuple(map(str, range(n)))
    )

    class Anchors:
        anchors = np.stack([np.asarray(part.mean(axis=0)) for part in values])
        stage = tuple(f"t{i % 2}" for i in range(len(values)))
        study = tuple(f"s{i // (2 * n_donors)}" for i in range(len(values)))
        donor = tuple(f"d{i // 2 % n_donors}" for i in range(len(values)))

    return Anchors(), cells


def test_thresholds_are_means_over_left_out_studies():
    panel, cells = planted()
    limits = fit_familiarity(panel, cells)
    expected = {}
    for study in ("s0", "s1", "s2"):
        rest = np.array(panel.study) != study
        scores = familiarity(panel.anchors[rest], np.array(panel.stage)[rest].tolist())
        found = scores.scores(scores.products(cells.values[np.array(cells.study) == study]))
        expected[study] = np.quantile(found, 0.1, axis=0)
    assert limits.held_out_by == "study"
    assert limits.groups == pytest.approx({study: plain for study, (plain, _) in expected.items()})
    assert limits.scaled_threshold == pytest.approx(np.mean([scaled for _, scaled in expected.values()]))
    assert limits.groups["s2"] < min(limits.groups["s0"], limits.groups["s1"])


def test_a_single_donor_sets_no_threshold():
    panel, cells = planted(n_studies=1, n_donors=1)
    assert fit_familiarity(panel, cells) is None

"""A manifold whose labels are scored: what reaches the gene axis, the card, panels beside, and somebody's own cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from phases import N_GENES, N_PROGRAM, PHASES, phased_cells, programs, write_phases
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.extractors._extract import extract, make_job
from manifoldzoo.extractors._prepare import prepare
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._own_panel import read_own_panel

PROGRAM_GENES = {gene for one in programs() for gene in one.genes}
PANELS = """[[panels]]
name = "external"
role = "external"
files = ["three.h5ad"]
labels = "{recipe}"
min_cells = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Cells of four studies, a model that knows all their genes, recipe and panels."""
    folder = tmp_path_factory.mktemp("scored")
    for seed, name in enumerate(("one", "two", "three", "four")):
        phased_cells(name, seed=seed).write_h5ad(folder / f"{name}.h5ad")
    write_tiny_scgpt(folder / "model", genes=[*(f"G{i}" for i in range(N_GENES)), "NOT_MEASURED"])
    write_phases(folder / "recipe", adaptor="n_steps = 200")
    (folder / "panels.toml").write_text(PANELS.format(recipe=folder / "recipe"), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made(folder) -> Manifold:
    cells = [folder / "one.h5ad", folder / "two.h5ad"]
    return extract(folder / "recipe", cells=cells, checkpoint=folder / "model", panels=folder / "panels.toml")


def test_no_gene_of_a_program_stands_on_the_axis(made):
    assert len(made.genes.symbols) == N_GENES + 1 - len(PROGRAM_GENES)
    assert not PROGRAM_GENES & set(made.genes.symbols)
    assert made.card.scored_labels.n_excluded_genes == len(PROGRAM_GENES)


def test_unless_the_recipe_says_so(folder, tmp_path):
    recipe = write_phases(tmp_path / "recipe", labels="exclude_genes = false")
    job = make_job(recipe, cells=[folder / "one.h5ad"], checkpoint=folder / "model")
    prepared = prepare(job, np.random.default_rng(0))
    assert set(prepared.panel.genes) >= PROGRAM_GENES
    assert prepared.scored.n_excluded_genes == 0


def test_nor_on_that_of_a_model_of_which_some_genes_are_chosen(folder, tmp_path):
    recipe = write_phases(tmp_path / "recipe")
    text = (recipe / "recipe.toml").read_text(encoding="utf-8").replace("[panel]", "[panel]\nn_genes = 60")
    (recipe / "recipe.toml").write_text(text, encoding="utf-8")
    job = make_job(recipe, cells=[folder / "one.h5ad"], checkpoint=folder / "model")
    prepared = prepare(job, np.random.default_rng(0))
    assert len(prepared.panel.genes) == 60
    assert not PROGRAM_GENES & set(prepared.panel.genes)


def test_the_card_says_how_cells_were_scored(made, tmp_path):
    told = made.card.scored_labels
    assert [one.name for one in told.programs] == list(PHASES)
    assert told.parameters == {
        "margin": 0.5,
        "above": 2.0,
        "exclude_genes": True,
        "n_controls": 50,
        "n_bins": 25,
        "seed": 0,
    }
    assert [study.study for study in told.studies] == ["one", "two"]
    used = sum(sum(study.n_leading.values()) for study in told.studies)
    assert used == sum(file.n_cells for file in made.card.panel.files)
    assert all(study.n_measured_genes == dict.fromkeys(PHASES, N_PROGRAM) for study in told.studies)
    again = Manifold.read(made.save(tmp_path / "made"))
    assert (again.digest, again.card.scored_labels) == (made.digest, told)


def test_anchors_tell_type_and_phase_apart(made):
    pairs = {(anchor.cell_type, anchor.stage) for anchor in made.card.panel.anchors}
    assert pairs == {(name, phase) for name in ("round", "flat") for phase in PHASES}
    assert made.card.panels[0].manifest.anchors[0].study == "three"


def test_the_head_reads_the_phase_from_other_genes(made):
    stage = np.array(made.anchor_stages)
    told = made.read_out(made.project(made.tensors["panel.anchors"]), "phase")
    classes = made.card.extraction.readouts[0].classes
    assert (np.array(classes)[told.argmax(axis=1)] == stage).mean() > 0.8


class TestOwnCells:
    @pytest.fixture(scope="class")
    def own(self, folder, made):
        return read_own_panel(made, folder / "four.h5ad")

    def test_are_scored_as_the_card_says(self, own, folder):
        planted = phased_cells("four", seed=3).obs
        found = planted.loc[list(own.members.ids), "planted"]
        assert (found != "").mean() > 0.85
        assert set(own.panel.stage) == set(PHASES)
        assert set(own.panel.cell_type) == {"round", "flat"}
        assert {one.by for one in own.report.mapped} == {"gene scores"}
        assert {(one.label, one.stage) for one in own.report.mapped} == {
            (name, phase) for name in ("round", "flat") for phase in PHASES
        }
        assert sum(one.n_anchors for one in own.report.mapped) == own.report.n_anchors == len(own.panel.anchors)
        n_cells = sum(one.n_cells for one in own.report.mapped) + sum(own.report.left_out.values())
        assert (n_cells, own.report.unmapped) == (own.report.n_cells, {})

    def test_a_table_of_their_owner_is_believed_instead(self, folder, made):
        own = read_own_panel(made, folder / "four.h5ad", labels={"round": "mid", "flat": "-"})
        assert set(own.panel.stage if own.panel else ["mid"]) == {"mid"}
        assert [(one.label, one.stage, one.by) for one in own.report.mapped] == [("round", "mid", "own table")]

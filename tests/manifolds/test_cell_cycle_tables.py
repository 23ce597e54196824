"""The tables of the cell cycle manifold: a ring of phases, and the published genes of each."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from manifoldzoo.manifolds._count_file import read_columns
from manifoldzoo.manifolds._programs import read_programs
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

FOLDER = recipe_folder("cell-cycle")
SHARED = Path(__file__).parents[3] / "shared"
PHASES = ["g1_s", "s", "g2", "g2_m", "m_g1"]
# genes whose phase every textbook tells
KNOWN = {
    "g1_s": {"CCNE1", "CCNE2", "E2F1", "CDC6", "MCM2", "MCM5", "MCM6", "PCNA"},
    "s": {"RRM1", "RRM2", "TYMS", "DHFR", "RAD51", "BRCA1", "CDC45", "FEN1"},
    "g2": {"CDK1", "CCNF", "CDC25C", "AURKB", "MAD2L1", "NDC80", "KIF11"},
    "g2_m": {"PLK1", "CCNB2", "CDC20", "AURKA", "CENPE", "CENPF", "MKI67", "FOXM1"},
    "m_g1": {"PTTG1", "CDKN3", "RAD21", "PRC1"},
}


def test_phases_are_a_ring():
    ruler = read_stage_ruler(FOLDER)
    assert [stage.id for stage in ruler.stages] == PHASES
    steps = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
    assert np.array_equal(ruler.distances(PHASES), np.minimum(steps, 5 - steps))
    assert len(set(ruler.branch(PHASES))) == 5


def test_every_phase_has_genes_of_its_own():
    programs = {program.name: program.genes for program in read_programs(FOLDER / "programs.tsv")}
    assert list(programs) == PHASES
    assert all(len(genes) >= 12 for genes in programs.values())
    counted = Counter(gene for genes in programs.values() for gene in genes)
    assert max(counted.values()) == 1
    for phase, genes in KNOWN.items():
        assert genes <= set(programs[phase]), phase


def test_the_numbers_in_the_text_are_those_of_the_table():
    text = " ".join((FOLDER / "SOURCES.md").read_text(encoding="utf-8").split())
    *first, last = (len(program.genes) for program in read_programs(FOLDER / "programs.tsv"))
    assert f"{', '.join(map(str, first))} and {last} genes." in text


def test_the_recipe_scores_cells_and_reads_the_phase():
    recipe = read_recipe(FOLDER)
    assert (recipe.name, recipe.version, recipe.labels.kind) == ("cell-cycle", "0.1.0", "gene-scores")
    assert recipe.labels.exclude_genes
    assert [readout.label for readout in recipe.readouts] == ["stage"]


@pytest.mark.shared
def test_most_genes_are_measured_by_every_large_data_set():
    for study in ("marrow_setty2019", "blood_zheng2017", "kidney_stewart2019", "heart_kanemaru2023"):
        with h5py.File(SHARED / "data" / f"{study}.h5ad") as file:
            measured = set(read_columns(file["var"], SHARED, []).index)
        for program in read_programs(FOLDER / "programs.tsv"):
            assert len(measured & set(program.genes)) >= 0.9 * len(program.genes), (study, program.name)

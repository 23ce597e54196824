"""The tables of the communication manifold: cell types, labels, panels, curated paths and gene programs."""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from manifoldzoo.manifolds._count_file import read_columns
from manifoldzoo.manifolds._labels import LEFT_OUT, read_label_table
from manifoldzoo.manifolds._panel_spec import read_panel_set
from manifoldzoo.manifolds._programs import read_programs
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder

FOLDER = recipe_folder("communication")
SHARED = Path(__file__).parents[3] / "shared"
CITATION = re.compile(r"[^;]+ (19|20)\d{2} [A-Z][A-Za-z ]+ \d+:[A-Z]?\d+")
SYMBOL = re.compile(r"[A-Z][A-Z0-9-]*")
STUDIES = (
    "marrow_setty2019",
    "blood_zheng2017",
    "kidney_stewart2019",
    "blood_kang2018",
    "blood_hao2021",
    "heart_kanemaru2023",
    "tonsil_cillo2020_lr_genes",
)


def rows(name: str) -> list[dict[str, str]]:
    lines = (line for line in (FOLDER / name).read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def cell_types() -> dict[str, str]:
    return {row["id"]: row["branch"] for row in rows("stages.tsv")}


def ontology() -> dict[str, str]:
    known = {}
    for name in ("is_a", "develops_from"):
        with gzip.open(SHARED / "knowledge" / f"cell_ontology_{name}.tsv.gz", "rt", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                known |= {row["child_id"]: row["child_label"], row["parent_id"]: row["parent_label"]}
    return known


def own_stages(study: str, column: str) -> set[str]:
    with h5py.File(SHARED / "data" / f"{study}.h5ad") as file:
        return set(read_columns(file["obs"], SHARED, [column])[column].astype(str))


def test_there_are_as_many_cell_types_and_classes_as_are_told():
    types = cell_types()
    assert len(types) == len(rows("stages.tsv")) == 21
    assert len(set(types.values())) == 11
    assert all(re.fullmatch(r"CL:\d{7}", row["ontology_id"]) and row["label"] for row in rows("stages.tsv"))
    # a broad class is no name of a cell type, but where it has one type only
    several = {name for name, n in Counter(types.values()).items() if n > 1}
    assert several == {"monocyte_macrophage", "granulocyte", "dendritic", "t_cell", "mesenchymal"}
    assert not several & set(types)


def test_every_label_is_a_cell_type_or_left_out_with_a_reason():
    types = cell_types()
    labels = read_label_table(FOLDER / "labels.tsv")
    assert {study for study, _ in labels.stages} == set(STUDIES)
    assert set(labels.stages.values()) == set(types) | {LEFT_OUT}
    for row in rows("labels.tsv"):
        assert row["note"].strip(), row
        assert row["stage"] != LEFT_OUT or len(row["note"]) > 10, row


def test_no_label_is_told_in_two_ways():
    seen: dict[tuple[str, str], str] = {}
    for row in rows("labels.tsv"):
        key = row["dataset"], row["cell_type"]
        assert seen.setdefault(key, row["stage"]) == row["stage"]


def test_panels_agree_with_the_recipe_and_keep_kang_and_hao_out():
    recipe = read_recipe(FOLDER)
    panels = read_panel_set("communication").panels
    fitted = {file for panel in panels if panel.role == "extraction" for file in panel.files}
    beside = {role: [p for p in panels if p.role == role] for role in ("external", "zero-shot", "negative")}
    assert all(len(found) == 1 for found in beside.values())
    assert {"blood_kang2018.h5ad", "blood_hao2021.h5ad"} == {
        file for role in ("external", "zero-shot") for file in beside[role][0].files
    }
    of_ruler = {file.name for file in recipe.ruler.files}
    assert of_ruler == fitted | {"tonsil_cillo2020_lr_genes.h5ad"}
    assert not (fitted | of_ruler) & {"blood_kang2018.h5ad", "blood_hao2021.h5ad"}
    assert {panel.min_cells for panel in panels} == {recipe.panel.min_cells}
    labels = read_label_table(FOLDER / "labels.tsv")
    # a cell type of the ruler would be no negative
    strangers = beside["negative"][0].cell_types
    assert {labels.stage_of("marrow_setty2019", name) for name in strangers} == {None}


def test_every_path_joins_two_different_cell_types_and_is_cited():
    types = set(cell_types())
    paths = rows("paths.tsv")
    assert len(paths) >= 40
    for row in paths:
        assert {row["sender"], row["receiver"]} <= types, row
        assert row["sender"] != row["receiver"], row
        assert all(CITATION.fullmatch(source) for source in row["source"].split("; ")), row["source"]
        assert all(SYMBOL.fullmatch(gene) for end in ("ligand", "receptor") for gene in row[end].split("_")), row
    keys = [(row["ligand"], row["receptor"], row["sender"], row["receiver"]) for row in paths]
    assert len(set(keys)) == len(keys)
    # a list that left types out could say little of the others
    assert {row["sender"] for row in paths} | {row["receiver"] for row in paths} == types


def test_programs_are_families_of_genes_each_named_once():
    programs = read_programs(FOLDER / "programs.tsv")
    names = {program.name for program in programs}
    asked = {"cytokine_chemokine", "lipid_metabolic", "adhesion", "antigen_presentation", "extracellular_matrix"}
    assert asked | {"growth_factor", "interferon_response", "cytotoxicity"} <= names
    for program in programs:
        assert 15 <= len(program.genes) <= 60, program.name
        assert len(set(program.genes)) == len(program.genes)
        assert all(SYMBOL.fullmatch(gene) for gene in program.genes), program.name
        assert "HGNC" in program.source
    sets = {program.name: set(program.genes) for program in programs}
    shared = {(a, b): len(sets[a] & sets[b]) for a in sets for b in sets if a < b}
    # programs that are mostly one another would be one finding told twice
    assert max(shared.values()) <= 6, max(shared, key=shared.get)


def test_the_numbers_in_the_text_are_those_of_the_tables():
    text = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    paths, programs = rows("paths.tsv"), read_programs(FOLDER / "programs.tsv")
    types = cell_types()
    pairs = {(row["sender"], row["receiver"]) for row in paths}
    sizes = [len(program.genes) for program in programs]
    assert f"{len(types)} cell types in {len(set(types.values()))} broad classes" in text
    assert f"{len(paths)} paths of {len(pairs)} pairs" in text
    assert f"{len(programs)} gene programs, {min(sizes)} to {max(sizes)} genes each" in text
    absent = [row for row in paths if row["in_consensus"] == "no"]
    assert len(absent) == 2
    assert all(f"`{row['ligand']}`, `{row['receptor']}`" in text for row in absent)


@pytest.mark.shared
@pytest.mark.parametrize("study", STUDIES)
def test_no_cell_type_of_a_data_set_is_missing(study):
    known = {name for there, name in read_label_table(FOLDER / "labels.tsv").stages if there == study}
    columns = ["cell_type", *(["cell_state"] if study == "heart_kanemaru2023" else [])]
    assert known == set.union(*(own_stages(study, column) for column in columns))


@pytest.mark.shared
def test_every_ontology_id_exists_and_those_of_cell_types_are_called_alike():
    known = ontology()
    for row in rows("labels.tsv"):
        assert not row["ontology_id"] or row["ontology_id"] in known, row
    for row in rows("stages.tsv"):
        name = known[row["ontology_id"]].lower()
        assert any(word in row["label"].lower() for word in name.split() if word not in ("cell", "positive")), row


@pytest.mark.shared
def test_paths_stand_in_the_consensus_as_they_are_written_and_only_where_told():
    with gzip.open(
        SHARED / "knowledge" / "ligand_receptor_liana_omni.csv.gz", "rt", encoding="utf-8", newline=""
    ) as stream:
        table = [row for row in csv.DictReader(stream) if row["resource"] == "consensus"]
    pairs = {(row["source_genesymbol"], row["target_genesymbol"]) for row in table}
    for row in rows("paths.tsv"):
        assert ((row["ligand"], row["receptor"]) in pairs) == (row["in_consensus"] == "yes"), row


@pytest.mark.shared
def test_genes_of_programs_are_measured_by_some_data_set():
    measured: set[str] = set()
    for study in STUDIES[:-1]:
        with h5py.File(SHARED / "data" / f"{study}.h5ad") as file:
            measured |= set(read_columns(file["var"], SHARED, []).index)
    for program in read_programs(FOLDER / "programs.tsv"):
        assert not set(program.genes) - measured, program.name


@pytest.mark.shared
def test_the_negative_panel_is_of_the_same_runs_as_the_stem_cells():
    """Or a difference of platform would tell it apart."""
    labels = read_label_table(FOLDER / "labels.tsv")
    negative = next(panel for panel in read_panel_set("communication").panels if panel.role == "negative")
    with h5py.File(SHARED / "data" / "marrow_setty2019.h5ad") as file:
        obs = read_columns(file["obs"], SHARED, ["donor", "cell_type"]).astype(str)
    stages = np.array([labels.stage_of("marrow_setty2019", name) for name in obs["cell_type"]])
    assert set(obs["donor"][stages == "hsc"]) == set(obs["donor"][obs["cell_type"].isin(negative.cell_types)])

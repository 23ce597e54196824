"""Interaction rulers from files of expression: held against the definition, gene by gene and cell by cell."""

from __future__ import annotations

import doctest
import importlib.util

import anndata as ad
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from interactions import BRANCH, GENES, PAIRS, TYPES, logged, talking_cells, write_tables
from sklearn.metrics import roc_auc_score

from manifoldzoo.cards._errors import BadInputError, FormatError, NotFoundError, PanelError, ScaleError
from manifoldzoo.extractors.interactions import _build, build_interaction_ruler, read_paths
from manifoldzoo.extractors.interactions._curated import CuratedPath, paths_auroc
from manifoldzoo.manifolds import Stage
from manifoldzoo.manifolds._ruler_recipe import RulerFile

NAMES = list(TYPES)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two studies: all genes as counts, and a few genes as logarithms."""
    folder = write_tables(tmp_path_factory.mktemp("world"))
    talking_cells("one").write_h5ad(folder / "one.h5ad")
    part = [gene for gene in GENES if gene not in ("L2", "R3", "R7") and not gene.startswith("H")]
    logged(talking_cells("two", donors=["d3"], seed=1))[:, part].copy().write_h5ad(folder / "two.h5ad")
    return folder


def files(world):
    return [world / "one.h5ad", RulerFile(name=str(world / "two.h5ad"), scale="log1p")]


def build(world, **changes):
    given = {"labels": world / "labels.tsv", "stages": world, "resource": world / "pairs.csv", "n_nulls": 4}
    return build_interaction_ruler(changes.pop("files", None) or files(world), **(given | changes))


def by_definition(world, expressed: float = 0.1) -> np.ndarray:
    """Directed distances in plain loops over dense cells."""
    mean: dict[tuple[str, str], list[float]] = {}
    having: dict[tuple[str, str], list[float]] = {}
    for name, logs in (("one", False), ("two", True)):
        cells = ad.read_h5ad(world / f"{name}.h5ad")
        values = (cells if logs else logged(cells)).X.toarray().astype(float)
        for (_, cell_type), rows in cells.obs.groupby(["donor", "cell_type"], observed=True).indices.items():
            for column, gene in enumerate(cells.var_names):
                mean.setdefault((cell_type, gene), []).append(values[rows, column].mean())
                having.setdefault((cell_type, gene), []).append((values[rows, column] > 0).mean())

    def level(cell_type: str, name: str) -> float:
        found = []
        for gene in name.split("_"):
            enough = np.mean(having[cell_type, gene]) >= expressed
            found.append(float(np.mean(mean[cell_type, gene])) if enough else 0.0)
        return min(found)

    graph = nx.Graph([(("l", ligand), ("r", receptor)) for ligand, receptor in PAIRS])
    ligands, receptors = sorted({a for a, _ in PAIRS}), sorted({b for _, b in PAIRS})
    table = np.zeros((len(NAMES), len(NAMES)))
    for a, sender in enumerate(NAMES):
        for b, receiver in enumerate(NAMES):
            total = weight = 0.0
            for ligand in ligands:
                if level(sender, ligand) > 0:
                    steps = nx.single_source_shortest_path_length(graph, ("l", ligand))
                    near = min(min(steps.get(("r", r), 9), 9) for r in receptors if level(receiver, r) > 0)
                    total += np.sqrt(level(sender, ligand)) * near
                    weight += np.sqrt(level(sender, ligand))
            table[a, b] = total / weight
    return table


@pytest.mark.parametrize("expressed", [0.1, 0.6])
def test_a_ruler_is_as_defined(world, expressed):
    built = build(world, expressed=expressed)
    np.testing.assert_allclose(built.ruler.directed, by_definition(world, expressed), rtol=1e-5)
    assert [stage.id for stage in built.ruler.stages] == NAMES
    assert built.ruler.branch(NAMES) == list(BRANCH.values())
    assert (built.ruler.name, built.ruler.version) == ("talk", "0.1.0")


def test_the_least_fraction_of_cells_matters(world):
    assert build(world).ruler.digest != build(world, expressed=0.6).ruler.digest


def test_the_card_says_how_it_was_computed(world):
    built = build(world)
    told = built.entry
    assert (told.resource, told.resource_version, told.n_pairs) == ("pairs.csv", "", len(PAIRS))
    assert (told.n_ligands, told.n_receptors, told.n_nulls, told.null_seed) == (8, 7, 4, 0)
    assert told.resource_digest == built.resource.digest
    measured = [(file.name, file.n_groups, file.n_ligands, file.n_receptors) for file in told.files]
    assert measured == [("one.h5ad", 8, 8, 7), ("two.h5ad", 4, 7, 5)]
    table = built.coverage_table().splitlines()
    assert table[0].split() == ["file", "groups", "cells", "ligands", "receptors", "scale"]
    assert table[2].split() == ["two.h5ad", "4", "32", "7/8", "5/7", "log1p"]


def test_a_file_of_logarithms_gives_what_its_counts_give(world, tmp_path):
    cells = talking_cells("one")
    logged(cells).write_h5ad(tmp_path / "logs.h5ad")
    counts = build(world, files=[world / "one.h5ad"])
    logs = build(world, files=[RulerFile(name=str(tmp_path / "logs.h5ad"), scale="log1p")])
    np.testing.assert_allclose(logs.ruler.directed, counts.ruler.directed, rtol=1e-5)
    assert np.array_equal(logs.profiles.fraction, counts.profiles.fraction)


def test_the_scale_that_is_said_is_checked(world, tmp_path):
    with pytest.raises(ScaleError, match=r"two\.h5ad does not hold raw counts.*scale = 'log1p'"):
        build(world, files=[world / "one.h5ad", world / "two.h5ad"])
    with pytest.raises(ScaleError, match=r"one\.h5ad does not hold log1p of counts per 10,000.*scale = 'counts'"):
        build(world, files=[RulerFile(name=str(world / "one.h5ad"), scale="log1p")])
    for value in (np.nan, -1.0, np.inf):
        cells = logged(talking_cells("one"))
        cells.X.data[3] = value
        cells.write_h5ad(tmp_path / "bad.h5ad")
        with pytest.raises(ScaleError, match=r"bad\.h5ad does not hold log1p values"):
            build(world, files=[RulerFile(name=str(tmp_path / "bad.h5ad"), scale="log1p")])


def test_files_are_read_by_gene_dense_or_from_a_layer_alike(world, tmp_path):
    expected = build(world, files=[world / "one.h5ad"]).ruler.digest
    cells = talking_cells("one")
    for name, matrix in (("csc", cells.X.tocsc()), ("dense", cells.X.toarray())):
        other = cells.copy()
        other.X = matrix
        other.write_h5ad(tmp_path / f"{name}.h5ad")
        assert build(world, files=[tmp_path / f"{name}.h5ad"]).ruler.digest == expected
    named = ad.AnnData(np.zeros(cells.shape, np.float32), obs=cells.obs.rename(columns={"cell_type": "kind"}))
    named.var = pd.DataFrame({"symbol": GENES}, index=[f"g{i}" for i in range(len(GENES))])
    named.layers["raw"] = cells.X
    del named.obs["tissue"]
    named.write_h5ad(tmp_path / "named.h5ad")
    told = RulerFile(
        name=str(tmp_path / "named.h5ad"),
        columns={"cell_type": "kind"},
        constants={"tissue": "lab"},
        layer="raw",
        gene_column="symbol",
    )
    assert build(world, files=[told]).ruler.digest == expected


def test_reading_in_small_pieces_changes_nothing(world, monkeypatch):
    from manifoldzoo.manifolds import _expression_blocks

    expected = build(world).ruler.directed
    monkeypatch.setattr(_expression_blocks, "CHUNK", 5)
    np.testing.assert_allclose(build(world).ruler.directed, expected, rtol=1e-6)


def test_small_groups_and_cells_left_out_give_nothing(world, tmp_path):
    cells = talking_cells("one")
    extra = talking_cells("one", donors=["few"], per_group=4, seed=5)
    extra.obs_names = [f"few{i}" for i in range(extra.n_obs)]
    both = ad.concat([cells, extra])
    both.write_h5ad(tmp_path / "both.h5ad")
    expected = build(world, files=[world / "one.h5ad"]).ruler.digest
    assert build(world, files=[tmp_path / "both.h5ad"]).ruler.digest == expected
    assert build(world, files=[tmp_path / "both.h5ad"], min_cells=4).ruler.digest != expected


def test_nulls_come_from_their_seed_one_by_one(world):
    four, again, two, other = (build(world, **k).ruler for k in ({}, {}, {"n_nulls": 2}, {"null_seed": 1}))
    assert four.digest == again.digest
    assert np.array_equal(two.null_tables, four.null_tables[:2])
    assert not np.array_equal(other.null_tables, four.null_tables)
    assert np.array_equal(other.directed, four.directed)
    assert not any(np.array_equal(null, four.directed) for null in four.null_tables)


def test_progress_tells_files_and_nulls(world):
    told = []
    build(world, progress=lambda *step: told.append(step))
    assert {name for name, _, _ in told} == {"ruler: one.h5ad", "ruler: two.h5ad", "ruler: paired nulls"}
    assert ("ruler: two.h5ad", 32, 32) in told and ("ruler: paired nulls", 4, 4) in told


def test_curated_paths_judge_and_change_nothing(world):
    plain, built = build(world), build(world, paths=world / "paths.tsv")
    assert plain.ruler.digest == built.ruler.digest and plain.entry.curated is None and plain.paths == ()
    assert [check.status for check in built.paths] == ["expressed", "expressed", "absent", "silent", "silent"]
    told = built.entry.curated
    assert (told.n_paths, told.n_pairs, told.n_absent, told.n_silent) == (5, 4, 1, 2)
    named = {("sender", "talker"), ("talker", "hearer"), ("sender", "hearer"), ("sender", "loner")}
    places = [(a, b) for a in range(4) for b in range(4) if a != b]
    truth = [(NAMES[a], NAMES[b]) in named for a, b in places]
    for table, found in zip(
        [built.ruler.directed, *built.ruler.null_tables], [told.auroc, *told.null_auroc], strict=True
    ):
        assert found == pytest.approx(roc_auc_score(truth, [-float(table[place]) for place in places]))


def test_paths_are_judged_by_direction():
    directed = np.array([[0.0, 1.0, 5.0], [4.0, 0.0, 5.0], [5.0, 5.0, 0.0]])
    path = CuratedPath("L", "R", "x", "y", "book")
    back = CuratedPath("L", "R", "y", "x", "book")
    assert paths_auroc([path, path], ["x", "y", "z"], directed) == 1.0
    assert paths_auroc([back], ["x", "y", "z"], directed) == pytest.approx(0.8)
    assert paths_auroc([CuratedPath("L", "R", "x", "x", "book")], ["x", "y", "z"], directed) is None


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ligand\treceptor\tsender\treceiver\nA\tB\tx\ty\n", "lacks source"),
        ("ligand\treceptor\tsender\treceiver\tsource\nA\tB\tx\t\tz\n", "Path 1 .*nothing in receiver"),
        ("ligand\treceptor\tsender\treceiver\tsource\nA\tB\tx\ty\tz\nA\tB\tx\ty\tw\n", "Path 2 .*second time: A B x y"),
        ("ligand\treceptor\tsender\treceiver\tsource\n", "lists no path"),
    ],
)
def test_what_is_no_table_of_paths_is_refused(tmp_path, text, match):
    (tmp_path / "paths.tsv").write_text(text)
    with pytest.raises(FormatError, match=match):
        read_paths(tmp_path / "paths.tsv")


def test_paths_of_types_that_the_ruler_lacks_are_refused(world):
    with pytest.raises(FormatError, match=r"'stranger', which the ruler does not have.*sender, talker"):
        build(world, paths=[CuratedPath("L1", "R1", "sender", "stranger", "book")])


def test_stages_without_cells_and_cells_without_stages_are_named(world):
    stages = [Stage(name, name, "", "b") for name in [*NAMES, "ghost"]]
    with pytest.raises(PanelError, match=r"at least 5 cells in one\.h5ad, two\.h5ad has the stage 'ghost'"):
        build(world, stages=stages)
    with pytest.raises(PanelError, match="the stage 'loner', which the ruler does not have"):
        build(world, stages=stages[:3])
    with pytest.raises(PanelError, match="have no group of at least 50 cells"):
        build(world, min_cells=50)


def test_a_type_that_expresses_nothing_is_named(world, tmp_path):
    (tmp_path / "pairs.csv").write_text("ligand,receptor\nL1,R1\nL2,R2\nL8,R4\nL6,R6\n")
    with pytest.raises(PanelError, match=r"cell type '\w+' expresses no (ligand|receptor) of the resource"):
        build(world, resource=tmp_path / "pairs.csv", expressed=0.95)


def test_files_without_any_gene_of_the_resource_are_named(world, tmp_path):
    (tmp_path / "pairs.csv").write_text("ligand,receptor\nNONE1,NONE2\nNONE1,NONE3\n")
    with pytest.raises(PanelError, match=r"one\.h5ad has none of the 3 panel genes"):
        build(world, resource=tmp_path / "pairs.csv")


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"files": "one.h5ad"}, BadInputError, "expected a list"),
        ({"expressed": 0.0}, BadInputError, r"expressed is 0\.0"),
        ({"expressed": 1.5}, BadInputError, r"expressed is 1\.5"),
        ({"n_nulls": 0}, BadInputError, "n_nulls 0"),
        ({"files": ["nowhere.h5ad"]}, NotFoundError, r"no file 'nowhere\.h5ad'"),
    ],
)
def test_arguments_are_checked(world, changes, error, match):
    with pytest.raises(error, match=match):
        build(world, **changes)


def test_own_cells_need_neither_labels_nor_stages(world, tmp_path):
    cells = talking_cells("mine")
    cells.obs["cell_type"] = cells.obs["cell_type"].astype(str).str.replace("talker", "B cells (memory)")
    cells.write_h5ad(tmp_path / "mine.h5ad")
    built = build_interaction_ruler([str(tmp_path / "mine.h5ad")], resource=world / "pairs.csv", n_nulls=2)
    assert [stage.id for stage in built.ruler.stages] == ["b_cells_memory", "hearer", "loner", "sender"]
    assert (built.ruler.name, built.ruler.version) == ("communication", "0.1.0")
    same = build_interaction_ruler([world / "one.h5ad"], resource=world / "pairs.csv", n_nulls=2)
    order = ["b_cells_memory", "sender"], ["talker", "sender"]
    assert np.array_equal(built.ruler.distances(order[0]), same.ruler.distances(order[1]))
    cells.obs["cell_type"] = cells.obs["cell_type"].str.replace("loner", "b cells memory")
    cells.write_h5ad(tmp_path / "mine.h5ad")
    with pytest.raises(PanelError, match="makes no id of its own: 'b_cells_memory'"):
        build_interaction_ruler([tmp_path / "mine.h5ad"], resource=world / "pairs.csv")


def test_the_examples_hold():
    assert doctest.testmod(_build).failed == 0


@pytest.mark.shared
@pytest.mark.skipif(importlib.util.find_spec("liana") is None, reason="needs the package liana")
def test_the_package_and_the_table_give_the_same_ruler_on_real_cells(shared, tmp_path):
    table = pd.read_csv(shared / "knowledge" / "ligand_receptor_liana_omni.csv.gz")
    own = table[table["resource"] == "consensus"][["source_genesymbol", "target_genesymbol"]]
    own.set_axis(["ligand", "receptor"], axis=1).to_csv(tmp_path / "own.csv", index=False)
    from manifoldzoo.manifolds import recipe_folder

    folder, data = recipe_folder("communication"), shared / "data"
    names = ["marrow_setty2019", "blood_zheng2017", "kidney_stewart2019", "heart_kanemaru2023"]
    given = [data / f"{name}.h5ad" for name in names]
    given.append(RulerFile(name=str(data / "tonsil_cillo2020_lr_genes.h5ad"), scale="log1p"))
    made = [
        build_interaction_ruler(given, labels=folder / "labels.tsv", stages=folder, resource=resource, n_nulls=3)
        for resource in ("liana:consensus", tmp_path / "own.csv")
    ]
    assert made[0].ruler.digest == made[1].ruler.digest
    assert made[0].entry.resource_digest == made[1].entry.resource_digest
    assert made[0].entry.resource == "liana:consensus" and made[1].entry.resource == "own.csv"
    tonsil = made[0].entry.files[-1]
    assert (tonsil.n_ligands, tonsil.n_receptors) == (77, 119)
    # fibroblasts and mural cells of one tissue lie nearer than T cells lie to each other
    near, far = (
        made[0].ruler.distances(["fibroblast", "mural"]),
        made[0].ruler.distances(["naive_cd4_t", "naive_cd8_t"]),
    )
    assert near[0, 1] < 2 < far[0, 1]

"""Panels: anchors against a dense loop, whatever the file is stored as, and every way a file can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from tiny import tiny_ruler

from manifoldzoo.cards._errors import BadInputError, FormatError, PanelError, ScaleError
from manifoldzoo.cards._names import sha256_file
from manifoldzoo.manifolds import _expression_blocks
from manifoldzoo.manifolds._count_file import PanelReading
from manifoldzoo.manifolds._digests import cells_digest
from manifoldzoo.manifolds._labels import LabelTable, assign_stages, read_label_table
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._panel import (
    build_panel,
    gene_names,
    read_ensembl_ids,
    read_panel_cells,
)
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler
from manifoldzoo.manifolds.demo import demo_path

FOLDER = recipe_folder("hematopoietic")
GENES = ("G3", "G0", "ABSENT", "G7")
TYPES = {"alpha": "stem", "beta": "left_1", "gamma": "left_1", "noise": "-"}
LABELS = LabelTable({(study, name): stage for study in ("one", "two") for name, stage in TYPES.items()}, "table.tsv")


def study(name: str, *, n: int = 90, seed: int = 0) -> ad.AnnData:
    """Counts of 12 genes in two donors and four cell types, two cells without any count."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, (n, 12)).astype(np.float32)
    counts[:2] = 0
    cells = ad.AnnData(counts)
    cells.obs_names = [f"cell{i}" for i in range(n)]
    cells.var_names = [f"G{i}" for i in range(12)]
    cells.obs["dataset"] = name
    cells.obs["donor"] = rng.choice(["d1", "d2"], n)
    cells.obs["tissue"] = "blood"
    cells.obs["cell_type"] = rng.choice(list(TYPES), n)
    cells.uns["provenance"] = {"source": f"made up {name}"}
    return cells


def written(cells: ad.AnnData, path: Path, storage: str = "csr") -> Path:
    cells = cells.copy()
    if storage != "dense":
        cells.X = sparse.csr_matrix(cells.X) if storage == "csr" else sparse.csc_matrix(cells.X)
    cells.write_h5ad(path)
    return path


def by_hand(cells: ad.AnnData, genes: tuple[str, ...]) -> np.ndarray:
    """Dense ``log1p`` of counts per 10,000, a loop over cells."""
    values = np.zeros((cells.n_obs, len(genes)))
    for row in range(cells.n_obs):
        counts = np.asarray(cells.X[row], dtype=np.float64).ravel()
        for column, gene in enumerate(genes):
            if gene in cells.var_names and counts.sum():
                values[row, column] = np.log1p(counts[cells.var_names.get_loc(gene)] / counts.sum() * 1e4)
    return values


def build(paths, **changes):
    options = {"genes": GENES, "labels": LABELS, "ruler": tiny_ruler()} | changes
    return build_panel(paths, **options)


def read_cells(paths, *, seed=0, max_per_stage=None, **changes):
    options = {"genes": GENES, "labels": LABELS, "ruler": tiny_ruler()} | changes
    return read_panel_cells(paths, max_per_stage=max_per_stage, rng=np.random.default_rng(seed), **options)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("chunk", [7, 8_192])
def test_anchors_are_the_means_of_a_dense_loop(tmp_path, monkeypatch, storage, chunk):
    monkeypatch.setattr(_expression_blocks, "CHUNK", chunk)
    one, two = study("one"), study("two", seed=1)
    panel = build([written(one, tmp_path / "one.h5ad", storage), written(two, tmp_path / "two.h5ad", storage)])
    expected = {}
    for cells in (one, two):
        values = by_hand(cells, GENES)
        for key, rows in cells.obs.reset_index().groupby(["dataset", "donor", "tissue", "cell_type"]).indices.items():
            if key[3] != "noise" and len(rows) >= 5:
                expected[key] = (values[rows].mean(axis=0), len(rows))
    keys = list(zip(panel.study, panel.donor, panel.tissue, panel.cell_type, strict=True))
    assert sorted(keys) == sorted(expected)
    assert panel.anchors.dtype == np.float32
    assert np.allclose(panel.anchors, [expected[key][0] for key in keys], atol=1e-5)
    assert panel.n_cells.tolist() == [expected[key][1] for key in keys]
    assert list(panel.stage) == [TYPES[name] for name in panel.cell_type]
    assert list(panel.branch) == tiny_ruler().branch(panel.stage)
    assert {"beta", "gamma"} <= set(panel.cell_type)


def test_what_was_used_of_each_file_is_recorded(tmp_path):
    one = study("one")
    path = written(one, tmp_path / "one.h5ad")
    (file,) = build([path]).files
    used = one.obs_names[one.obs["cell_type"] != "noise"]
    assert (file.name, file.sha256, file.source) == ("one.h5ad", sha256_file(path), "made up one")
    assert file.missing_genes == ("ABSENT",)
    assert file.n_cells == len(used)
    assert file.cells_digest == cells_digest(used.tolist()) == cells_digest(used.tolist()[::-1])


def test_small_groups_make_no_anchor(tmp_path):
    one = study("one")
    path = written(one, tmp_path / "one.h5ad")
    sizes = one.obs[one.obs["cell_type"] != "noise"].value_counts(["donor", "cell_type"])
    floor = int(sizes.min()) + 1
    panel = build([path], min_cells=floor)
    assert len(panel.anchors) == int((sizes >= floor).sum()) < len(sizes)
    assert panel.n_cells.min() >= floor
    assert len(build([path], min_cells=floor - 1).anchors) == len(sizes)
    with pytest.raises(PanelError, match="0 anchors"):
        build([path], min_cells=1000)


def test_a_file_without_labelled_cells_adds_nothing(tmp_path):
    two = study("two")
    two.obs["cell_type"] = "noise"
    one = written(study("one"), tmp_path / "one.h5ad")
    alone, both = build([one]), build([one, written(two, tmp_path / "two.h5ad")])
    assert np.array_equal(alone.anchors, both.anchors)
    assert both.files[1].n_cells == 0
    with pytest.raises(PanelError, match=r"two\.h5ad"):
        read_cells([tmp_path / "two.h5ad"])


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_cells_are_the_rows_of_a_dense_loop(tmp_path, monkeypatch, storage):
    monkeypatch.setattr(_expression_blocks, "CHUNK", 11)
    sources = {name: study(name, seed=seed) for seed, name in enumerate(("one", "two"))}
    cells = read_cells([written(source, tmp_path / f"{name}.h5ad", storage) for name, source in sources.items()])
    assert sparse.issparse(cells.values)
    assert (cells.values.format, cells.values.dtype) == ("csr", np.float32)
    expected = {
        f"{name}:{barcode}": (row, TYPES[source.obs.loc[barcode, "cell_type"]])
        for name, source in sources.items()
        for barcode, row in zip(source.obs_names, by_hand(source, GENES), strict=True)
        if source.obs.loc[barcode, "cell_type"] != "noise"
    }
    assert sorted(cells.cell_ids) == sorted(expected)
    assert np.allclose(cells.values.toarray(), [expected[name][0] for name in cells.cell_ids], atol=1e-5)
    assert list(cells.stage) == [expected[name][1] for name in cells.cell_ids]
    assert list(cells.branch) == tiny_ruler().branch(cells.stage)
    assert [name.split(":")[0] for name in cells.cell_ids] == list(cells.study)


def test_stages_are_balanced_over_files_and_by_chance(tmp_path):
    paths = [written(study(name, seed=seed), tmp_path / f"{name}.h5ad") for seed, name in enumerate(("one", "two"))]
    every = read_cells(paths)
    few = read_cells(paths, max_per_stage=20)
    assert Counter(few.stage) == {stage: min(n, 20) for stage, n in Counter(every.stage).items()}
    assert set(few.study) == {"one", "two"}
    values = dict(zip(every.cell_ids, every.values.toarray().tolist(), strict=True))
    assert [values[name] for name in few.cell_ids] == few.values.toarray().tolist()
    assert read_cells(paths, max_per_stage=20).digest == few.digest
    assert read_cells(paths, max_per_stage=20, seed=1).digest != few.digest


def without_tissue(cells: ad.AnnData) -> ad.AnnData:
    del cells.obs["tissue"]
    return cells


def with_value(value: float):
    def change(cells: ad.AnnData) -> ad.AnnData:
        cells.X[40:60, 4] = value
        return cells

    return change


def with_new_type(cells: ad.AnnData) -> ad.AnnData:
    cells.obs.loc["cell5", "cell_type"] = "omega"
    return cells


def with_repeated_gene(cells: ad.AnnData) -> ad.AnnData:
    cells.var_names = ["G0", *cells.var_names[:-1]]
    return cells


def with_repeated_cell(cells: ad.AnnData) -> ad.AnnData:
    cells.obs_names = ["cell7", *cells.obs_names[1:]]
    return cells


def transposed_names(cells: ad.AnnData) -> ad.AnnData:
    cells.var_names = [f"barcode{i}" for i in range(cells.n_vars)]
    return cells


@pytest.mark.filterwarnings("ignore:Variable names are not unique", "ignore:Observation names are not unique")
@pytest.mark.parametrize("call", [build, read_cells], ids=["build_panel", "read_panel_cells"])
@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (without_tissue, PanelError, "lacks tissue"),
        (with_value(0.5), ScaleError, r"one\.h5ad.*0\.5"),
        (with_value(-2.0), ScaleError, r"one\.h5ad.*-2"),
        (with_value(np.nan), ScaleError, r"one\.h5ad.*NaN"),
        (with_new_type, PanelError, r"'omega' of the data set 'one' is not in table\.tsv"),
        (with_repeated_gene, PanelError, "'G0'"),
        (with_repeated_cell, PanelError, "cell7"),
        (transposed_names, PanelError, r"one\.h5ad has none of the 4"),
    ],
    ids=["column", "fraction", "negative", "nan", "label", "gene twice", "cell twice", "no gene"],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path, call, change, error, match):
    path = written(change(study("one")), tmp_path / "one.h5ad")
    with pytest.raises(error, match=match):
        call([path])


def test_a_new_label_says_what_line_to_add(tmp_path):
    path = written(with_new_type(study("one")), tmp_path / "one.h5ad")
    with pytest.raises(PanelError) as caught:
        build([path])
    assert "one<TAB>omega<TAB>" in caught.value.hint


@pytest.mark.parametrize("call", [build, read_cells], ids=["build_panel", "read_panel_cells"])
def test_a_cell_counted_twice_is_refused_across_files(tmp_path, call):
    paths = [written(study("one"), tmp_path / f"{name}.h5ad") for name in ("first", "second")]
    with pytest.raises(PanelError, match=r"'one:cell0' in second\.h5ad"):
        call(paths)


def test_equal_barcodes_of_two_studies_are_two_cells(tmp_path):
    paths = [written(study(name), tmp_path / f"{name}.h5ad") for name in ("one", "two")]
    assert set(build(paths).study) == {"one", "two"}


def test_a_stage_the_ruler_lacks_is_named(tmp_path):
    labels = LabelTable(dict(LABELS.stages) | {("one", "alpha"): "left_9"})
    with pytest.raises(BadInputError, match="left_9"):
        build([written(study("one"), tmp_path / "one.h5ad")], labels=labels)


def test_what_is_no_h5ad_is_refused(tmp_path):
    (tmp_path / "one.h5ad").write_text("no")
    with pytest.raises(PanelError, match=r"one\.h5ad"):
        build([tmp_path / "one.h5ad"])


def test_ensembl_ids_come_from_the_first_file_that_knows(tmp_path):
    one, two = study("one"), study("two")
    one.var["ensembl_id"] = ["ENSG00000000001.4", *["unknown"] * 11]
    two.var["ensembl_id"] = ["ENSG00000000009", "unknown", "unknown", "ENSG00000000003", *["unknown"] * 8]
    paths = [written(one, tmp_path / "one.h5ad"), written(two, tmp_path / "two.h5ad")]
    assert read_ensembl_ids(paths, GENES) == ("ENSG00000000003", "ENSG00000000001", "", "")
    assert read_ensembl_ids([written(study("one"), tmp_path / "none.h5ad")], GENES) == ("",) * 4


@pytest.mark.filterwarnings("ignore")
def test_anchors_of_the_bundled_cells_are_those_of_scanpy_and_pandas(tmp_path):
    """The peers' way: normalise the whole file in memory, group, average."""
    import scanpy as sc

    cells = ad.read_h5ad(demo_path())
    genes = [*cells.var_names[::40], "NOT_A_GENE"]
    labels, ruler = read_label_table(FOLDER / "labels.tsv"), read_stage_ruler(FOLDER)
    panel = build_panel([demo_path()], genes=genes, labels=labels, ruler=ruler)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    frame = pd.DataFrame(cells[:, genes[:-1]].X.toarray(), columns=genes[:-1])
    keys = [cells.obs[column].astype(str).to_numpy() for column in ("donor", "cell_type")]
    groups = frame.groupby(keys)
    means, sizes = groups.mean(), groups.size()
    wanted = sizes[sizes >= 5]
    found = list(zip(panel.donor, panel.cell_type, strict=True))
    assert found == sorted(wanted.index)
    assert panel.n_cells.tolist() == [wanted[key] for key in found]
    assert np.allclose(panel.anchors[:, :-1], means.loc[found], atol=1e-5)
    assert not panel.anchors[:, -1].any()
    assert panel.files[0].missing_genes == ("NOT_A_GENE",)
    assert panel.anchors.max() > 1


def test_equal_input_gives_equal_bytes_whatever_the_chunk(tmp_path, monkeypatch):
    path = written(study("one"), tmp_path / "one.h5ad")
    whole, drawn = build([path]), read_cells([path], max_per_stage=9)
    for chunk in (1, 13, 90):
        monkeypatch.setattr(_expression_blocks, "CHUNK", chunk)
        assert np.allclose(build([path]).anchors, whole.anchors, rtol=1e-6)
        again = read_cells([path], max_per_stage=9)
        assert again.cell_ids == drawn.cell_ids
        assert (again.values != drawn.values).nnz == 0
    assert build([path]).anchors.tobytes() == build([path]).anchors.tobytes()


@pytest.mark.parametrize("call", [build, read_cells], ids=["build_panel", "read_panel_cells"])
def test_a_file_without_x_is_refused(tmp_path, call):
    cells = study("one")
    cells.layers["counts"] = cells.X
    cells.X = None
    cells.write_h5ad(tmp_path / "one.h5ad")
    with pytest.raises(PanelError, match=r"one\.h5ad"):
        call([tmp_path / "one.h5ad"])


@pytest.mark.parametrize("column", ["dataset", "donor", "tissue", "cell_type"])
@pytest.mark.parametrize("nothing", ["", None, np.nan])
def test_cells_without_a_label_are_counted(tmp_path, column, nothing):
    """A missing donor must not become the donor 'nan', nor an empty one fail only when the card is written."""
    cells = study("one")
    values = cells.obs[column].astype(object)
    values.iloc[[4, 9]] = nothing
    cells.obs[column] = values.astype("category")
    with pytest.raises(PanelError, match=rf"2 of 90 cells no {column}.*'cell4'"):
        build([written(cells, tmp_path / "one.h5ad")])


HEADER = "dataset\tcell_type\tstage\tnote\n"


def test_a_label_table_is_read_with_what_is_left_out(tmp_path):
    (tmp_path / "labels.tsv").write_text(HEADER + "one\tNaïve B\tleft_1\t\none\tdoublet\t-\tnot a cell type\n")
    table = read_label_table(tmp_path / "labels.tsv")
    assert table.stage_of("one", "Naïve B") == "left_1"
    assert table.stage_of("one", "doublet") is None
    with pytest.raises(PanelError, match="'doublet' of the data set 'two'"):
        table.stage_of("two", "doublet")


def test_a_quote_in_a_label_swallows_nothing(tmp_path):
    lines = 'one\t"double" positive\tleft_1\t\none\t"open\tleft_2\t\none\tlast\tstem\t\n'
    (tmp_path / "labels.tsv").write_text(HEADER + lines)
    assert dict(read_label_table(tmp_path / "labels.tsv").stages) == {
        ("one", '"double" positive'): "left_1",
        ("one", '"open'): "left_2",
        ("one", "last"): "stem",
    }


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "no label table"),
        (HEADER + "one\ta\tx\t\none\ta\ty\t\n", "line 3 .*'a' of 'one'"),
        (HEADER + "one\ta\t\tforgot the stage\n", "line 2"),
        ("dataset\tcell_type\none\ta\n", "line 2"),
        (HEADER + "one\tNa\udcefve B\tx\t\n", "labels.tsv"),
    ],
    ids=["no file", "twice", "no stage", "no column", "latin-1"],
)
def test_a_bad_label_table_is_refused(tmp_path, text, match):
    if text is not None:
        (tmp_path / "labels.tsv").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(FormatError, match=match):
        read_label_table(tmp_path / "labels.tsv")


def test_the_shipped_labels_name_stages_of_the_ruler_and_give_a_reason():
    ruler, table = read_stage_ruler(FOLDER), pd.read_csv(FOLDER / "labels.tsv", sep="\t", keep_default_na=False)
    assert set(table["stage"]) - {"-"} <= {stage.id for stage in ruler.stages}
    assert (table["note"] != "").all()
    assert not table.duplicated(["dataset", "cell_type"]).any()


@pytest.mark.shared
def test_every_label_of_every_data_set_is_mapped(shared):
    listed = set(read_label_table(FOLDER / "labels.tsv").stages)
    found = set()
    for path in sorted((shared / "data").glob("*.h5ad")):
        obs = ad.read_h5ad(path, backed="r").obs
        found |= set(zip(obs["dataset"].astype(str), obs["cell_type"].astype(str), strict=True))
    assert len({dataset for dataset, _ in found}) == 7
    assert found == listed


@pytest.mark.shared
def test_the_real_files_make_the_panel_that_is_reported(shared):
    names = ("marrow_setty2019", "blood_zheng2017", "kidney_stewart2019", "blood_kang2018")
    paths = [shared / "data" / f"{name}.h5ad" for name in names]
    genes = ad.read_h5ad(paths[-1], backed="r").var_names[::60].tolist()
    ruler, labels = read_stage_ruler(FOLDER), read_label_table(FOLDER / "labels.tsv")
    panel = build_panel(paths, genes=genes, labels=labels, ruler=ruler)
    assert (len(panel.anchors), len(set(panel.stage)), len(set(panel.branch))) == (112, 30, 9)
    assert Counter(panel.study).keys() == set(names)


@pytest.mark.shared
def test_the_bundled_artifact_is_made_of_these_files(shared):
    """Panel, drawn cells and ruler are those that the card of the bundled artifact names."""
    folder = max(FOLDER.parent.glob("bundled/hematopoietic/*"), key=lambda path: [*map(int, path.name.split("."))])
    bundled, recipe = Manifold.read(folder), read_recipe(FOLDER)
    paths = [shared / "data" / file.name for file in bundled.card.panel.files]
    common = {"genes": bundled.genes.symbols, "labels": read_label_table(FOLDER / "labels.tsv")}
    common["ruler"] = read_stage_ruler(FOLDER)
    panel = build_panel(paths, min_cells=recipe.panel.min_cells, **common)
    assert len(panel.anchors) == len(bundled.card.panel.anchors)
    assert np.allclose(panel.anchors, bundled.tensors["panel.anchors"], atol=1e-6)
    said = [(a.study, a.donor, a.tissue, a.cell_type, a.stage, a.branch, a.n_cells) for a in bundled.card.panel.anchors]
    columns = (panel.study, panel.donor, panel.tissue, panel.cell_type, panel.stage, panel.branch, panel.n_cells)
    assert said == list(zip(*columns, strict=True))
    assert [file.sha256 for file in panel.files] == [file.sha256 for file in bundled.card.panel.files]
    assert [file.cells_digest for file in panel.files] == [file.cells_digest for file in bundled.card.panel.files]
    rng = np.random.default_rng(bundled.card.extraction.seed).spawn(2)[0]
    drawn = read_panel_cells(paths, max_per_stage=recipe.panel.max_cells_per_stage, rng=rng, **common)
    assert drawn.digest == bundled.card.extraction.operator.cells_digest
    assert bundled.card.ruler.digest == common["ruler"].digest


@pytest.mark.shared
def test_normalised_values_are_refused(shared):
    path = shared / "data" / "tonsil_cillo2020_lr_genes.h5ad"
    genes = ad.read_h5ad(path, backed="r").var_names[:10].tolist()
    with pytest.raises(ScaleError, match=path.name):
        build_panel([path], genes=genes, labels=read_label_table(FOLDER / "labels.tsv"), ruler=read_stage_ruler(FOLDER))


def test_the_counts_of_cells_are_recovered_exactly_and_their_totals_are_of_the_whole_file(tmp_path):
    one = study("one")
    # counts as large as a marrow cell has of its commonest gene
    one.X[5:20, 3] = np.arange(15) * 1000 + 1
    cells = read_cells([written(one, tmp_path / "one.h5ad")], max_per_stage=8)
    names = [name.split(":", 1)[1] for name in cells.cell_ids]
    truth = one[names]
    assert np.array_equal(cells.totals, np.asarray(truth.X).sum(axis=1))
    counts = cells.counts().toarray()
    for column, gene in enumerate(GENES):
        expected = np.asarray(truth[:, gene].X).ravel() if gene in one.var_names else np.zeros(len(names))
        assert np.array_equal(counts[:, column], expected), gene
    assert list(cells.donor) == truth.obs["donor"].tolist()


def test_the_genes_of_a_file_are_read_as_it_spells_them(tmp_path):
    path = written(study("one"), tmp_path / "one.h5ad")
    assert gene_names(path) == tuple(f"G{i}" for i in range(12))
    with pytest.raises(PanelError, match=r"none\.h5ad"):
        gene_names(tmp_path / "none.h5ad")


def same_panel(one, other) -> bool:
    """Everything but the identity of the files."""
    columns = ("genes", "stage", "branch", "cell_type", "donor", "tissue", "study")
    return (
        np.array_equal(one.anchors, other.anchors)
        and np.array_equal(one.n_cells, other.n_cells)
        and all(getattr(one, name) == getattr(other, name) for name in columns)
    )


def test_columns_of_other_names_and_constants_make_the_same_panel(tmp_path):
    one = study("one")
    plain = build([written(one, tmp_path / "plain.h5ad")])
    renamed = one.copy()
    renamed.obs = one.obs.rename(columns={"dataset": "study", "donor": "patient", "cell_type": "label"})
    del renamed.obs["tissue"]
    path = written(renamed, tmp_path / "renamed.h5ad")
    columns = {"dataset": "study", "donor": "patient", "cell_type": "label"}
    reading = PanelReading(columns=columns, constants={"tissue": "blood"})
    assert same_panel(build([path], reading=reading), plain)
    assert read_cells([path], reading=reading).cell_ids == read_cells([tmp_path / "plain.h5ad"]).cell_ids
    with pytest.raises(PanelError, match="lacks tissue in obs"):
        build([path], reading=PanelReading(columns=columns))
    with pytest.raises(PanelError, match="lacks organ in obs"):
        build([path], reading=PanelReading(columns=columns | {"tissue": "organ"}))


def test_a_column_that_a_file_has_wins_over_the_constant(tmp_path):
    path = written(study("one"), tmp_path / "one.h5ad")
    assert set(build([path], reading=PanelReading(constants={"tissue": "skin"})).tissue) == {"blood"}
    reading = PanelReading(columns={"tissue": "organ"}, constants={"tissue": "skin"})
    assert set(build([path], reading=reading).tissue) == {"skin"}


def test_one_column_may_say_two_things(tmp_path):
    path = written(study("one"), tmp_path / "one.h5ad")
    assert set(build([path], reading=PanelReading(columns={"tissue": "donor"})).tissue) == {"d1", "d2"}


@pytest.mark.parametrize(
    ("reading", "keeps"),
    [
        (PanelReading(donors=("d1",)), lambda obs: obs["donor"] == "d1"),
        (PanelReading(exclude_donors=("d1",)), lambda obs: obs["donor"] != "d1"),
        (PanelReading(exclude_donors=("two:d1",)), lambda obs: (obs["donor"] != "d1") | (obs["dataset"] != "two")),
        (PanelReading(studies=("two",)), lambda obs: obs["dataset"] == "two"),
        (PanelReading(exclude_studies=("two",)), lambda obs: obs["dataset"] == "one"),
        (PanelReading(exclude_cell_types=("beta", "noise")), lambda obs: ~obs["cell_type"].isin(["beta", "noise"])),
        (PanelReading(cell_types=("beta", "alpha")), lambda obs: obs["cell_type"].isin(["beta", "alpha"])),
        (
            PanelReading(donors=("one:d1", "d2"), exclude_studies=("two",), cell_types=("alpha", "beta", "gamma")),
            lambda obs: (obs["dataset"] == "one") & (obs["cell_type"] != "noise"),
        ),
    ],
    ids=["donors", "not donors", "not one's donor", "studies", "not studies", "not types", "types", "several"],
)
def test_filters_leave_what_subsetting_leaves(tmp_path, reading, keeps):
    sources = [study("one"), study("two", seed=1)]
    paths = [written(cells, tmp_path / f"{number}.h5ad") for number, cells in enumerate(sources)]
    kept = [cells[keeps(cells.obs).to_numpy()].copy() for cells in sources]
    subset = [written(cells, tmp_path / f"kept_{number}.h5ad") for number, cells in enumerate(kept) if cells.n_obs]
    assert same_panel(build(paths, reading=reading), build(subset))
    found, expected = read_cells(paths, reading=reading), read_cells(subset)
    assert found.cell_ids == expected.cell_ids
    assert np.array_equal(found.values.toarray(), expected.values.toarray())


@pytest.mark.parametrize("option", ["donors", "exclude_donors", "studies", "exclude_studies", "cell_types"])
def test_a_filter_that_names_nothing_is_refused(tmp_path, option):
    """A misspelt name to exclude would leave the very cells in that must not be there."""
    path = written(study("one"), tmp_path / "one.h5ad")
    with pytest.raises(PanelError, match=f"'{option}' names 'd3'"):
        build([path], reading=PanelReading(**{option: ("d3",)}))


def test_what_the_filters_leave_out_need_not_be_in_order(tmp_path):
    """An atlas that repeats another file's study, with unknown types and nameless donors there, can be used without."""
    one, two = study("one"), study("one")
    two.obs["dataset"] = ["one"] * 40 + ["two"] * 50
    two.obs["cell_type"] = ["omega"] * 40 + two.obs["cell_type"].tolist()[40:]
    two.obs["tissue"] = pd.Categorical([None] * 40 + ["blood"] * 50)
    paths = [written(one, tmp_path / "one.h5ad"), written(two, tmp_path / "two.h5ad")]
    with pytest.raises(PanelError):
        build(paths)
    with pytest.raises(PanelError, match=r"gives 40 of 90 cells no tissue"):
        build(paths[1:])
    other = written(two[40:].copy(), tmp_path / "rest.h5ad")
    assert same_panel(build(paths[1:], reading=PanelReading(exclude_studies=("one",))), build([other]))


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_counts_may_lie_in_a_layer_or_in_raw(tmp_path, storage):
    one = study("one")
    plain = build([written(one, tmp_path / "plain.h5ad", storage)])
    shape = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[storage]
    layered = one.copy()
    layered.layers["counts"] = shape(one.X)
    layered.X = np.log1p(one.X)
    layered.write_h5ad(tmp_path / "layered.h5ad")
    assert same_panel(build([tmp_path / "layered.h5ad"], reading=PanelReading(layer="counts")), plain)
    with pytest.raises(ScaleError, match=r"layered\.h5ad"):
        build([tmp_path / "layered.h5ad"])
    with pytest.raises(PanelError, match="has no layers/spliced") as caught:
        build([tmp_path / "layered.h5ad"], reading=PanelReading(layer="spliced"))
    assert "counts" in caught.value.hint
    # raw has genes of its own, more than X has
    raw = one.copy()
    raw.X = shape(one.X)
    raw.raw = raw
    raw = raw[:, 8:].copy()
    raw.X = np.log1p(one.X[:, 8:])
    raw.write_h5ad(tmp_path / "raw.h5ad")
    reading = PanelReading(layer="raw.X")
    assert same_panel(build([tmp_path / "raw.h5ad"], reading=reading), plain)
    assert gene_names(tmp_path / "raw.h5ad", reading=reading) == tuple(one.var_names)
    assert gene_names(tmp_path / "raw.h5ad") == tuple(one.var_names[8:])


def test_gene_names_may_lie_in_a_column_of_var(tmp_path):
    one = study("one")
    plain = build([written(one, tmp_path / "plain.h5ad")])
    one.var["feature_name"] = one.var_names
    one.var["unclear"] = ["G0"] * 12
    one.var_names = [f"ENSG{number:011d}" for number in range(12)]
    one.var["ensembl_id"] = one.var_names
    path = written(one, tmp_path / "ensembl.h5ad")
    reading = PanelReading(gene_column="feature_name")
    assert same_panel(build([path], reading=reading), plain)
    assert read_ensembl_ids([path], ["G3"], reading=reading) == ("ENSG00000000003",)
    with pytest.raises(PanelError, match="'G0' more than once in unclear"):
        build([path], reading=PanelReading(gene_column="unclear"))
    with pytest.raises(PanelError, match="lacks symbol in var"):
        build([path], reading=PanelReading(gene_column="symbol"))


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize("stored", [1, 30, 500])
def test_pieces_of_any_size_give_the_same(tmp_path, monkeypatch, storage, stored):
    """Pieces are cut by the values they hold too, and a matrix stored by gene in pieces of genes."""
    path = written(study("one"), tmp_path / "one.h5ad", storage)
    whole, every = build([path]), read_cells([path])
    seen = []
    monkeypatch.setattr(_expression_blocks, "STORED", stored)
    again = build([path], progress=lambda *told: seen.append(told))
    assert same_panel(build([path]), again)
    assert np.allclose(again.anchors, whole.anchors, rtol=1e-6)
    cells = read_cells([path])
    assert cells.cell_ids == every.cell_ids
    assert np.array_equal(cells.values.toarray(), every.values.toarray())
    assert np.array_equal(cells.totals, every.totals)
    steps = [done for _, done, _ in seen]
    assert {(name, total) for name, _, total in seen} == {("one.h5ad", seen[0][2])}
    assert steps == sorted(set(steps)) and steps[-1] == seen[0][2]
    assert len(steps) > 1 or (storage, stored) == ("csc", 500)


@given(st.lists(st.integers(0, 12), max_size=40), st.integers(1, 9), st.integers(1, 30))
def test_pieces_hold_no_more_than_they_may_and_no_less_than_they_could(sizes, chunk, stored):
    lines = np.arange(len(sizes)) * 3
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(_expression_blocks, "CHUNK", chunk)
        patched.setattr(_expression_blocks, "STORED", stored)
        pieces = list(_expression_blocks._pieces(lines, np.array(sizes, dtype=np.int64)))
    assert [line for piece in pieces for line in piece] == lines.tolist()
    held = [[sizes[line // 3] for line in piece] for piece in pieces]
    assert all(len(piece) == 1 or (len(piece) <= chunk and sum(piece) <= stored) for piece in held)
    for piece, after in pairwise(held):
        assert len(piece) == chunk or sum(piece) + after[0] > stored


@pytest.mark.parametrize("fault", [0.5, np.nan])
@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_only_the_cells_that_are_used_are_checked(tmp_path, storage, fault):
    """What is left out may be anything, whatever way the matrix is stored."""
    one = study("one")
    plain = build([written(one, tmp_path / "plain.h5ad", storage)])
    one.X[(one.obs["cell_type"] == "noise").to_numpy(), 4] = fault
    assert same_panel(build([written(one, tmp_path / "one.h5ad", storage)]), plain)
    one.X[np.flatnonzero(one.obs["cell_type"] == "alpha")[0], 9] = fault
    with pytest.raises(ScaleError, match=r"one\.h5ad"):
        build([written(one, tmp_path / "one.h5ad", storage)])


def test_cells_far_apart_in_a_file_are_found(tmp_path):
    """A run of rows is read as a slice, some with gaps too, few far apart row by row."""
    one = study("one", n=400)
    kept = np.r_[np.arange(3, 40, 2), 100, 180, 260, np.arange(330, 360)]
    one.obs["cell_type"] = "noise"
    one.obs.iloc[kept, one.obs.columns.get_loc("cell_type")] = "alpha"
    cells = read_cells([written(one, tmp_path / "one.h5ad")])
    assert cells.cell_ids == tuple(f"one:cell{row}" for row in kept)
    assert np.allclose(cells.values.toarray(), by_hand(one, GENES)[kept], atol=1e-5)


def test_an_older_layout_of_tables_is_read(tmp_path):
    """anndata 0.7 kept the categories of a column in a folder of their own."""
    one = study("one")
    path = written(one, tmp_path / "old.h5ad")
    plain = build([path])
    with h5py.File(path, "r+") as file:
        for table in ("obs", "var"):
            file[table].attrs["encoding-version"] = "0.1.0"
            for name in list(file[table]):
                column = file[table][name]
                if isinstance(column, h5py.Group):
                    codes, categories = column["codes"][:], column["categories"][:]
                    del file[table][name]
                    file[table][f"__categories/{name}"] = categories
                    file[table][f"__categories/{name}"].attrs.update({"ordered": False})
                    file[table][name] = codes
                    file[table][name].attrs["categories"] = file[table][f"__categories/{name}"].ref
    assert same_panel(build([path]), plain)
    with h5py.File(path, "r+") as file:
        del file["obs"].attrs["column-order"]
    with pytest.raises(PanelError, match=r"before 0\.7"):
        build([path])


def test_a_damaged_matrix_is_named(tmp_path):
    one = study("one")
    one.X = sparse.csr_matrix(one.X)
    one.write_h5ad(tmp_path / "one.h5ad", compression="gzip")
    with h5py.File(tmp_path / "one.h5ad", "r") as file:
        begin = file["X/data"].id.get_chunk_info(0).byte_offset
    with (tmp_path / "one.h5ad").open("r+b") as stream:
        stream.seek(begin)
        stream.write(b"\xff" * 16)
    with pytest.raises(PanelError, match=r"one\.h5ad' is damaged"):
        build([tmp_path / "one.h5ad"])


# Growth of memory while a panel is built, VmHWM being the peak of this program alone.
MEASURE = """
import json, sys
from pathlib import Path
from manifoldzoo.manifolds import _expression_blocks, _panel
from manifoldzoo.manifolds._count_file import PanelReading
from manifoldzoo.manifolds._labels import LabelTable
from tiny import tiny_ruler
def memory(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name + ":")) / 1024
given = json.loads(sys.argv[1])
_expression_blocks.STORED = given["stored"] or _expression_blocks.STORED
labels = LabelTable({("one", "alpha"): "stem", ("one", "beta"): "left_1", ("one", "noise"): "-"})
before, told = memory("VmRSS"), []
for path, layer in given["files"]:
    panel = _panel.build_panel([Path(path)], genes=[f"G{i}" for i in range(0, 4000, 4)], labels=labels,
                               ruler=tiny_ruler(), reading=PanelReading(layer=layer))
    told.append([len(panel.anchors), float(panel.anchors.mean()), memory("VmHWM") - before])
print(json.dumps(told))
"""


def write_large(path: Path, n_cells: int, storage: str = "csr", *, layers: tuple[str, ...] = ()) -> None:
    """As many cells of 4,000 genes, 1,000 of them counted in each, without holding them in memory."""
    n_genes, per_cell = 4000, 1000
    lines, each = (n_cells, per_cell) if storage == "csr" else (n_genes, n_cells * per_cell // n_genes)
    some = max(1, (1 << 21) // each)
    rng = np.random.default_rng(0)
    inner = np.tile(np.arange(each, dtype=np.int32) * 4, some)
    counts = rng.integers(1, 5, len(inner)).astype(np.float32)
    kinds = rng.choice(["alpha", "beta", "noise"], n_cells)
    obs = pd.DataFrame(
        {"dataset": "one", "donor": rng.choice(["d1", "d2"], n_cells), "tissue": "t", "cell_type": kinds}
    )
    obs.index = [f"cell{number}" for number in range(n_cells)]
    ad.AnnData(obs=obs, var=pd.DataFrame(index=[f"G{number}" for number in range(n_genes)])).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        for where in ("X", *(f"layers/{name}" for name in layers)):
            group = file.create_group(where)
            group.attrs.update({"encoding-type": f"{storage}_matrix", "encoding-version": "0.1.0"})
            group.attrs["shape"] = np.array([n_cells, n_genes])
            group["indptr"] = np.arange(lines + 1, dtype=np.int64) * each
            data = group.create_dataset("data", (lines * each,), "f4", chunks=(1 << 17,))
            indices = group.create_dataset("indices", (lines * each,), "i4", chunks=(1 << 17,))
            for start in range(0, lines, some):
                stop = min(lines, start + some)
                data[start * each : stop * each] = counts[: (stop - start) * each]
                indices[start * each : stop * each] = inner[: (stop - start) * each]


def measured(files, stored: int | None) -> list[list[float]]:
    given = json.dumps({"files": [[str(path), layer] for path, layer in files], "stored": stored})
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n{MEASURE}"
    ran = subprocess.run([sys.executable, "-c", code, given], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux tells it")


@on_linux
def test_a_file_is_never_in_memory(tmp_path):
    """Neither rows, nor columns, nor the layers that are not read: 150 to 300 MB in less than 70."""
    files = [("csr", "csr", (), None), ("csc", "csc", (), None), ("layered", "csr", ("counts",), "counts")]
    for name, storage, layers, _ in files:
        write_large(tmp_path / f"{name}.h5ad", 20_000, storage, layers=layers)
    told = measured([(tmp_path / f"{name}.h5ad", layer) for name, _, _, layer in files], 1 << 18)
    sizes = [(tmp_path / f"{name}.h5ad").stat().st_size / 2**20 for name, _, _, _ in files]
    assert min(sizes) > 150
    assert [n for n, _, _ in told] == [4, 4, 4]
    # all the genes asked for are counted, 1 to 4 times of about 2,500 counts a cell
    assert told[0][1] == pytest.approx(2.2, abs=0.3)
    assert told[2][1] == pytest.approx(told[0][1], rel=1e-6)
    assert max(growth for _, _, growth in told) < 70, told


@on_linux
@pytest.mark.slow
def test_a_file_larger_than_the_memory_allowed_is_read(tmp_path):
    """1.5 GB in pieces of the size that is shipped; what grows with the file is the table of its cells."""
    write_large(tmp_path / "large.h5ad", 200_000)
    assert (tmp_path / "large.h5ad").stat().st_size > 1.5e9
    ((n_anchors, _, growth),) = measured([(tmp_path / "large.h5ad", None)], None)
    assert n_anchors == 4
    assert growth < 300


def test_ontology_ids_of_a_label_table_are_read(tmp_path):
    header = "dataset\tcell_type\tstage\tnote\tontology_id\n"
    (tmp_path / "labels.tsv").write_text(header + "one\ta\tstem\t\tCL:0000037\none\tb\t-\t\t\n")
    table = read_label_table(tmp_path / "labels.tsv")
    assert dict(table.ontology) == {("one", "a"): "CL:0000037"}
    (tmp_path / "plain.tsv").write_text(HEADER + "one\tb\t-\tsay\none\ta\tstem\t\n")
    plain = read_label_table(tmp_path / "plain.tsv")
    assert dict(plain.ontology) == {}
    assert plain.stages == table.stages
    assert plain.digest != table.digest
    assert plain.digest == LabelTable(dict(table.stages)).digest
    assert plain.digest != LabelTable(dict(table.stages) | {("one", "b"): "stem"}).digest
    (tmp_path / "labels.tsv").write_text(header + "one\ta\tstem\t\tHSC\n")
    with pytest.raises(FormatError, match="line 2 has the ontology id 'HSC'"):
        read_label_table(tmp_path / "labels.tsv")


STAGES = tuple(stage.id for stage in tiny_ruler().stages)


def test_assigned_stages_are_a_draw_that_can_be_repeated():
    pairs = [("one", "a"), ("two", "a"), ("two", "b"), ("two", "c")]
    table = assign_stages(pairs, STAGES, rng=np.random.default_rng(3))
    assert table.stages == assign_stages(pairs[::-1] * 2, STAGES, rng=np.random.default_rng(3)).stages
    assert table.stages["one", "a"] == table.stages["two", "a"]
    assert len(set(table.stages.values())) == 3
    drawn = Counter(
        assign_stages(pairs, STAGES, rng=np.random.default_rng(seed)).stages["two", "b"] for seed in range(600)
    )
    # each stage 100 times, with a standard deviation of 9
    assert set(drawn) == set(STAGES) and min(drawn.values()) > 60 and max(drawn.values()) < 145


def test_more_cell_types_than_stages_share_them_evenly():
    table = assign_stages([("one", f"t{i}") for i in range(15)], STAGES, rng=np.random.default_rng(0))
    assert sorted(Counter(table.stages.values()).values()) == [2, 2, 2, 3, 3, 3]


def test_what_the_ruler_knows_is_no_negative_control():
    known = LabelTable({("one", "a"): "stem", ("one", "b"): "-"})
    pairs = [("one", "a"), ("one", "b"), ("one", "c"), ("two", "a")]
    table = assign_stages(pairs, STAGES, rng=np.random.default_rng(0), known=known)
    assert table.stage_of("one", "a") is None
    assert None not in [table.stage_of(*pair) for pair in pairs[1:]]


def without_matrix(file: h5py.File) -> None:
    del file["X/indptr"]


def without_categories(file: h5py.File) -> None:
    del file["obs/donor/categories"]


def without_cells(file: h5py.File) -> None:
    del file["obs"]


def with_plain_provenance(file: h5py.File) -> None:
    del file["uns/provenance"]
    file["uns"]["provenance"] = "by hand"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without_matrix, r"X of '.*one\.h5ad' is not a matrix"),
        (without_categories, r"one\.h5ad' has a table '/obs' that cannot be read"),
        (without_cells, r"one\.h5ad' has no table of cells"),
    ],
)
def test_a_file_with_a_part_missing_is_refused(tmp_path, change, match):
    path = written(study("one"), tmp_path / "one.h5ad")
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(PanelError, match=match):
        build([path])


def test_a_source_may_be_a_plain_word(tmp_path):
    path = written(study("one"), tmp_path / "one.h5ad")
    with h5py.File(path, "r+") as file:
        with_plain_provenance(file)
    assert build([path]).files[0].source == "by hand"


def log_file(path: Path, cells: ad.AnnData, storage: str = "csr") -> Path:
    """Cells as ``log1p`` of counts per 10,000 over all genes."""
    cells = cells.copy()
    cells.X = by_hand(cells, tuple(cells.var_names)).astype(np.float32)
    return written(cells, path, storage)


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
def test_files_of_logarithms_make_the_panel_of_their_counts(tmp_path, storage):
    cells, logs = study("one"), PanelReading(scale="log1p")
    counts = build([written(cells, tmp_path / "counts.h5ad")])
    found = build([log_file(tmp_path / "logs.h5ad", cells, storage)], reading=logs)
    np.testing.assert_allclose(found.anchors, counts.anchors, rtol=1e-5, atol=1e-6)
    assert found.stage == counts.stage and found.files[0].missing_genes == ("ABSENT",)
    # of these genes alone, as they are: they were normalised over all
    part = ad.read_h5ad(tmp_path / "logs.h5ad")[:, ["G3", "G0", "G7"]].copy()
    again = build([written(part, tmp_path / "part.h5ad", storage)], reading=logs)
    np.testing.assert_allclose(again.anchors, found.anchors, rtol=1e-6)


def test_cells_of_logarithms_have_no_counts(tmp_path):
    path = log_file(tmp_path / "logs.h5ad", study("one"))
    cells = read_cells([path], reading=PanelReading(scale="log1p"))
    assert np.isnan(cells.totals).all()
    with pytest.raises(ScaleError, match=r"cells were read from log1p values, and raw counts are needed"):
        cells.counts()


@pytest.mark.parametrize("storage", ["csr", "csc", "dense"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda values: np.expm1(values), r"not hold log1p of counts per 10,000, as announced \(largest value"),
        (lambda values: np.rint(values), "as announced"),
        (lambda values: -values, "not hold log1p values: .*negative"),
        (lambda values: np.where(values > 0, np.nan, 0), "not hold log1p values: .*NaN"),
        (lambda values: np.where(values > 0, np.inf, 0), "not hold log1p values: .*infinite"),
    ],
)
def test_values_that_are_no_logarithms_are_refused_where_these_are_announced(tmp_path, storage, change, match):
    cells = study("one")
    cells.X = change(by_hand(cells, tuple(cells.var_names))).astype(np.float32)
    with pytest.raises(ScaleError, match=match):
        build([written(cells, tmp_path / "bad.h5ad", storage)], reading=PanelReading(scale="log1p"))

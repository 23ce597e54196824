"""Panels: anchors against a dense loop, whatever the file is stored as, and every way a file can be wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tiny import tiny_ruler

from manifoldzoo.cards._errors import BadInputError, FormatError, PanelError, ScaleError
from manifoldzoo.cards._names import sha256_file
from manifoldzoo.manifolds import _panel
from manifoldzoo.manifolds._digests import cells_digest
from manifoldzoo.manifolds._labels import LabelTable, read_label_table
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
    monkeypatch.setattr(_panel, "CHUNK", chunk)
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
    monkeypatch.setattr(_panel, "CHUNK", 11)
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
        monkeypatch.setattr(_panel, "CHUNK", chunk)
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

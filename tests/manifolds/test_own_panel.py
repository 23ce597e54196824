"""A stranger's own cells: what their labels lead to, what is told of the rest, and every way a file can be wrong."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_cells import LABELS, dense_log1p, own_cells, write_own_cells
from scipy import sparse
from tiny import tiny_document, tiny_genes, tiny_manifold, tiny_ruler

import manifoldzoo as mz
from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import (
    BadInputError,
    CoverageWarning,
    FormatError,
    GeneError,
    LowCoverageError,
    NotFoundError,
    PanelError,
    ScaleError,
)
from manifoldzoo.cards._names import sha256_file
from manifoldzoo.cards._own_panel import OwnPanelReport
from manifoldzoo.manifolds._own_columns import OwnColumns, find_columns
from manifoldzoo.manifolds._own_labels import label_table_of, read_own_labels, resolve_labels
from manifoldzoo.manifolds._own_panel import read_own_panel
from manifoldzoo.manifolds.demo import demo_path

CL = {"stem": "CL:0000037", "left_1": "CL:0000557", "right_1": "CL:0000050"}


@pytest.fixture(scope="module")
def manifold():
    return tiny_manifold()


def card_with(changes=None, *, ontology=CL, panels=()):
    """The tiny card with ontology ids, other cell types of the first anchors, and more panels."""
    document = tiny_document()
    for stage in document["ruler"]["stages"]:
        stage["ontology_id"] = ontology.get(stage["id"], "")
    for number, change in enumerate(changes or ()):
        document["panel"]["anchors"][number] |= change
    document["panels"] = [
        {"name": name, "role": role, "n_shared_cells": 0, "n_shared_donors": 0, "specification": "4" * 64}
        | {"manifest": document["panel"] | {"anchors": [one | change for one in document["panel"]["anchors"][:3]]}}
        for name, role, change in panels
    ]
    return parse_card(document)


def resolved(labels, card=None, own=None):
    carried = labels if isinstance(labels, dict) else {label: [] for label in labels}
    found = resolve_labels(carried, label_table_of(card or card_with()), own or {}, tiny_ruler())
    return {label: None if one is None else (one.stage, one.by) for label, one in found.items()}


def written(tmp_path: Path, cells: ad.AnnData) -> Path:
    cells.write_h5ad(tmp_path / "mine.h5ad")
    return tmp_path / "mine.h5ad"


class TestLabels:
    def test_each_source_in_its_turn(self):
        # "left_2" names a stage, but the card's panel uses the word for another one
        card = card_with([{"cell_type": "left_2", "stage": "right_2"}, {"cell_type": "Blob", "stage": "left_1"}])
        card = card.model_copy(
            update={"panel": card.panel.model_copy(update={"anchors": [*card.panel.anchors[:2]] * 2})}
        )
        assert resolved(
            ["left_2", "Blob", "left_3", "Left 1", " LEFT 2 ", "CL:0000037", "CL_0000050", "odd"], card
        ) == {
            "left_2": ("right_2", "cell type of the card"),
            "Blob": ("left_1", "cell type of the card"),
            "left_3": ("left_3", "stage id"),
            "Left 1": ("left_1", "stage label"),
            " LEFT 2 ": ("left_2", "stage label"),
            "CL:0000037": ("stem", "ontology id"),
            "CL_0000050": ("right_1", "ontology id"),
            "odd": None,
        }
        own = {"left_2": "-", "odd": "stem"}
        assert resolved(["left_2", "odd"], card, own) == {"left_2": ("-", "own table"), "odd": ("stem", "own table")}

    def test_nothing_is_guessed(self):
        assert resolved(["stem cells", "Stem ", "stems", "CL:37", "CL:0000037x", ""]) == {
            "stem cells": None,
            "Stem ": ("stem", "stage label"),
            "stems": None,
            "CL:37": None,
            "CL:0000037x": None,
            "": None,
        }

    def test_studies_that_disagree_are_refused_by_name(self):
        changes = [{"cell_type": "B cell", "stage": "left_2"}, {"cell_type": "B cell", "stage": "left_3"}]
        changes += [{"cell_type": "T", "stage": "right_1"}] * 2
        card = card_with(changes)
        with pytest.raises(PanelError, match=r"1 labels .* 'B cell' by cell type of the card: left_2, l") as caught:
            resolved(["T", "B cell", "stem"], card)
        assert "--labels" in caught.value.hint
        # a table of one's own settles it
        assert resolved(["B cell"], card, {"B cell": "left_3"}) == {"B cell": ("left_3", "own table")}
        assert resolved(["T"], card)["T"] == ("right_1", "cell type of the card")

    def test_two_stages_of_one_ontology_id_are_refused(self):
        with pytest.raises(PanelError, match="'CL:0000037' by ontology id: left_1, stem"):
            resolved(["CL:0000037"], card_with(ontology=CL | {"left_1": "CL:0000037"}))

    def test_negative_panels_are_not_asked_and_others_are(self):
        lot = {"cell_type": "fibroblast", "stage": "left_3"}
        assert resolved(["fibroblast"], card_with(panels=[("lot", "negative", lot)])) == {"fibroblast": None}
        for role in ("external", "zero-shot"):
            card = card_with(panels=[("other", role, lot)])
            assert resolved(["fibroblast"], card) == {"fibroblast": ("left_3", "cell type of the card")}

    def test_ids_that_cells_carry(self):
        carried = {
            "mine": ["CL:0000037"],
            "theirs": ["CL_0000557", "CL:0000557"],
            "unknown": ["CL:0000084"],
            "in part": ["CL:0000037", "CL:0000084"],
            "none": ["nan"],
            "stem": ["CL:0000050"],
        }
        assert resolved(carried) == {
            "mine": ("stem", "ontology id"),
            "theirs": ("left_1", "ontology id"),
            "unknown": None,
            "in part": None,
            "none": None,
            # what the label says comes first
            "stem": ("stem", "cell type of the card"),
        }
        with pytest.raises(PanelError, match="'both' by ontology id: right_1, stem"):
            resolved({"both": ["CL:0000037", "CL:0000050"]})

    def test_a_stage_of_the_own_table_that_is_none(self):
        with pytest.raises(BadInputError, match="no stage 'lefft_1'") as caught:
            resolved(["a"], own={"a": "lefft_1"})
        assert "left_1" in caught.value.hint


class TestOwnTable:
    def test_with_and_without_a_header(self, tmp_path):
        plain, headed = tmp_path / "plain.tsv", tmp_path / "headed.tsv"
        plain.write_text("B cell\tleft_1\n\n T \t right_1 \nodd\t-\n", encoding="utf-8")
        headed.write_text(
            "dataset\tcell_type\tstage\tnote\none\tB cell\tleft_1\tx\none\tT\tright_1\ntwo\tT\tright_1\none\todd\t-\n",
            encoding="utf-8-sig",
        )
        expected = {"B cell": "left_1", "T": "right_1", "odd": "-"}
        assert read_own_labels(plain) == read_own_labels(headed) == expected

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "holds no label"),
            (b"\n\n", "holds no label"),
            (b"cell_type\tstage\n", "holds no label"),
            (b"B cell\n", "line 1 needs a label, a tab and a stage"),
            (b"B cell\t \n", "line 1 needs"),
            (b"\tstem\n", "line 1 needs"),
            (b"cell_type\tstage\nB\n", "line 2 needs"),
            (b"B\tstem\nB\tleft_1\n", "line 2 gives 'B' the stage 'left_1', before 'stem'"),
            (b"B\t\xff\n", "not UTF-8"),
        ],
    )
    def test_bad_tables(self, tmp_path, content, said):
        (tmp_path / "mine.tsv").write_bytes(content)
        with pytest.raises(FormatError, match=said):
            read_own_labels(tmp_path / "mine.tsv")

    def test_no_table(self, tmp_path):
        with pytest.raises(FormatError, match="cannot be read"):
            read_own_labels(tmp_path / "none.tsv")


class TestColumns:
    def test_usual_names_in_any_case(self, tmp_path):
        cells = own_cells()
        cells.obs = cells.obs.rename(columns={"cell_type": "CellType", "donor": "Donor_ID", "study": "dataset_id"})
        found = find_columns(written(tmp_path, cells))
        assert found.columns == {
            "cell_type": "CellType",
            "donor": "Donor_ID",
            "tissue": "tissue",
            "dataset": "dataset_id",
        }
        assert found.told["study"] == "dataset_id"
        assert found.ontology is None

    def test_without_tissue_and_study_there_is_one_of_each(self, tmp_path):
        cells = own_cells(study=None)
        del cells.obs["tissue"]
        found = find_columns(written(tmp_path, cells))
        assert found.constants == {"tissue": "not stated", "dataset": "mine"}
        assert found.told == {"cell_type": "cell_type", "donor": "donor", "study": "= mine", "tissue": "= not stated"}

    def test_a_missing_column_lists_those_that_there_are(self, tmp_path):
        cells = own_cells()
        del cells.obs["donor"]
        cells.obs["sample"] = "s"
        with pytest.raises(PanelError, match=r"donor of its cells.*'cell_type', 'tissue', 'study', 'sample'") as caught:
            find_columns(written(tmp_path, cells))
        assert "--donor-key" in caught.value.hint
        assert find_columns(tmp_path / "mine.h5ad", OwnColumns(donor="sample")).columns["donor"] == "sample"
        with pytest.raises(PanelError, match=r"no column 'sampel'.*'cell_type'") as caught:
            find_columns(tmp_path / "mine.h5ad", OwnColumns(donor="sampel"))
        assert "'sample'" in caught.value.hint
        del cells.obs["cell_type"]
        with pytest.raises(PanelError, match="cell type of its cells") as caught:
            find_columns(written(tmp_path, cells))
        assert "--cell-type-key" in caught.value.hint

    def test_ontology_ids_alone_are_labels(self, tmp_path):
        cells = own_cells()
        cells.obs = cells.obs.rename(columns={"cell_type": "cell_type_ontology_term_id"})
        found = find_columns(written(tmp_path, cells))
        assert found.columns["cell_type"] == "cell_type_ontology_term_id"
        assert found.ontology is None


class TestAnchors:
    @pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
    def test_they_are_the_means_of_a_plain_loop(self, tmp_path, manifold, kind):
        cells = own_cells()
        dense = np.asarray(cells.X.todense())
        cells.X = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}[kind](dense)
        own = read_own_panel(manifold, written(tmp_path, cells))
        values, rows = dense_log1p(own_cells()), []
        for donor in ("s0", "s1", "s2"):
            for label in sorted(LABELS):
                chosen = (cells.obs["donor"] == donor) & (cells.obs["cell_type"] == label)
                rows.append(values[chosen.to_numpy()].mean(axis=0))
        assert own.panel.anchors == pytest.approx(np.array(rows), abs=1e-5)
        assert own.panel.genes == manifold.genes.symbols
        assert own.panel.stage == tuple(sorted(LABELS)) * 3
        assert own.panel.donor_ids[:1] == ["strangers:s0"]
        report = own.report
        assert (report.n_anchors, report.n_donors, report.n_stages, report.n_branches) == (18, 3, 6, 3)
        assert (report.n_studies, report.n_tissues, report.n_cells, report.n_used_cells) == (1, 1, 108, 108)
        assert (report.coverage, report.n_missing_genes, report.layer) == (1.0, 0, "X")
        assert report.sha256 == sha256_file(tmp_path / "mine.h5ad")
        assert len(report.digest) == 64
        assert OwnPanelReport.model_validate_json(report.model_dump_json()) == report

    def test_genes_by_ensembl_id_and_in_any_order(self, tmp_path, manifold):
        plain = read_own_panel(manifold, write_own_cells(tmp_path / "plain.h5ad"))
        cells = own_cells()
        # symbols where the manifold knows no id, versions where it does, and a column that it does not know
        names = [f"{e}.7" if e else s for s, e in zip(tiny_genes().symbols, tiny_genes().ensembl, strict=True)]
        cells.var_names = names
        cells = cells[:, ::-1].copy()
        cells.write_h5ad(tmp_path / "plain2.h5ad")
        own = read_own_panel(manifold, tmp_path / "plain2.h5ad")
        assert own.panel.anchors == pytest.approx(plain.panel.anchors, abs=1e-6)
        assert own.panel.genes == manifold.genes.symbols
        named = own_cells()
        named.var["ids"] = names
        named.var_names = [f"x{number}" for number in range(named.n_vars)]
        again = read_own_panel(manifold, written(tmp_path, named), gene_column="ids")
        assert again.panel.anchors == pytest.approx(plain.panel.anchors, abs=1e-6)

    def test_a_missing_gene_counts_as_zero_and_is_told(self, tmp_path, manifold):
        cells = own_cells()[:, 1:].copy()
        own = read_own_panel(manifold, written(tmp_path, cells))
        assert (own.panel.anchors[:, 0] == 0).all()
        assert own.report.n_missing_genes == 1
        weight = np.linalg.norm(manifold.tensors["projection"].astype(np.float64), axis=1)
        assert own.report.coverage == pytest.approx(weight[1:].sum() / weight.sum())
        assert own.panel.files[0].missing_genes == ("GENE0",)

    def test_layer_of_the_counts(self, tmp_path, manifold):
        plain = read_own_panel(manifold, write_own_cells(tmp_path / "plain.h5ad"))
        cells = own_cells()
        cells.layers["counts"] = cells.X.copy()
        cells.raw = cells.copy()
        cells.X = np.log1p(cells.X.toarray())
        path = written(tmp_path, cells)
        for layer in ("counts", "raw.X"):
            own = read_own_panel(manifold, path, layer=layer)
            assert own.panel.anchors == pytest.approx(plain.panel.anchors, abs=1e-6)
        with pytest.raises(ScaleError, match="does not hold raw counts") as caught:
            read_own_panel(manifold, path)
        assert "one of counts, raw.X" in caught.value.hint
        with pytest.raises(PanelError, match="has no layers/nothing"):
            read_own_panel(manifold, path, layer="nothing")

    def test_what_has_no_stage_is_listed_with_its_cells(self, tmp_path, manifold):
        cells = own_cells(labels=["stem", "left_1", "mystery", "left_3", "doublet", "right_2"])
        own = read_own_panel(manifold, written(tmp_path, cells), labels={"doublet": "-", "left_3": "left_2", "no": "-"})
        report = own.report
        assert report.unmapped == {"mystery": 18}
        assert report.left_out == {"doublet": 18}
        assert report.unused == ["no"]
        assert {one.label: (one.stage, one.by, one.n_cells, one.n_anchors) for one in report.mapped} == {
            "stem": ("stem", "cell type of the card", 18, 3),
            "left_1": ("left_1", "cell type of the card", 18, 3),
            "left_3": ("left_2", "own table", 18, 3),
            "right_2": ("right_2", "cell type of the card", 18, 3),
        }
        assert report.n_anchors == len(own.panel.anchors) == 12
        assert set(own.panel.stage) == {"stem", "left_1", "left_2", "right_2"}

    def test_small_groups_make_no_anchor_and_are_counted(self, tmp_path, manifold):
        cells = own_cells(n_donors=2)
        # one cell of a group of six goes: five are enough; two of another: four are not
        drop = ["cell_0", "cell_6", "cell_7"]
        own = read_own_panel(manifold, written(tmp_path, cells[~cells.obs_names.isin(drop)].copy()))
        assert (own.report.n_anchors, own.report.n_small_groups, own.report.n_small_cells) == (11, 1, 4)
        assert len(own.members.ids) == 69
        assert own.panel.n_cells.sum() == own.report.n_used_cells == 65

    @settings(max_examples=20)
    @given(st.lists(st.sampled_from(["stem", "left_1", "LEFT 2", "odd", "out", "right_2"]), min_size=6, max_size=40))
    def test_no_cell_is_lost(self, tmp_path_factory, manifold, labels):
        counts = np.random.default_rng(0).poisson(5, (len(labels), 40)).astype(np.float32)
        obs = pd.DataFrame({"cell_type": labels, "donor": "d"}, index=[f"c{i}" for i in range(len(labels))])
        path = tmp_path_factory.mktemp("any") / "any.h5ad"
        ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=list(tiny_genes().symbols))).write_h5ad(path)
        report = read_own_panel(manifold, path, labels={"out": "-"}).report
        told = [one.n_cells for one in report.mapped] + [*report.unmapped.values(), *report.left_out.values()]
        assert sum(told) == report.n_cells == len(labels)
        assert report.n_used_cells + report.n_small_cells == sum(one.n_cells for one in report.mapped)
        assert report.n_anchors == sum(one.n_anchors for one in report.mapped)


class TestHostileFiles:
    def test_unknown_labels_make_no_panel_but_a_report(self, tmp_path, manifold):
        own = read_own_panel(manifold, write_own_cells(tmp_path / "mine.h5ad", labels=["a", "b", "c", "d", "e", "f"]))
        assert own.panel is None
        assert own.report.digest is None
        assert own.report.unmapped == dict.fromkeys("abcdef", 18)
        assert own.report.n_anchors == own.report.n_stages == own.report.n_branches == 0
        assert own.members.ids == ()

    def test_two_anchors_are_no_panel(self, tmp_path, manifold):
        labels = dict.fromkeys(LABELS[1:], "-")
        own = read_own_panel(manifold, write_own_cells(tmp_path / "mine.h5ad", n_donors=2), labels=labels)
        assert own.panel is None
        assert (own.report.n_anchors, own.report.digest) == (2, None)

    def test_log_normalised_values(self, tmp_path, manifold):
        cells = own_cells()
        cells.X = dense_log1p(cells).astype(np.float32)
        with pytest.raises(ScaleError, match="does not hold raw counts") as caught:
            read_own_panel(manifold, written(tmp_path, cells))
        assert "none in this file" in caught.value.hint

    def test_genes_of_the_mouse(self, tmp_path, manifold):
        cells = own_cells()
        cells.var_names = [f"Gene{number}" for number in range(cells.n_vars)]
        with pytest.raises(GeneError, match="another species"):
            read_own_panel(manifold, written(tmp_path, cells))
        cells.var_names = [f"ENSMUSG{number:011d}" for number in range(cells.n_vars)]
        with pytest.raises(GeneError, match="another species"):
            read_own_panel(manifold, written(tmp_path, cells))

    def test_too_few_genes(self, tmp_path, manifold):
        with pytest.raises(LowCoverageError, match=r"below its floor of 0.3"):
            read_own_panel(manifold, written(tmp_path, own_cells()[:, :5].copy()))
        with pytest.warns(CoverageWarning, match="covers"):
            read_own_panel(manifold, written(tmp_path, own_cells()[:, :25].copy()))

    def test_transposed(self, tmp_path, manifold):
        turned = own_cells().T.copy()
        turned.obs["cell_type"], turned.obs["donor"] = "stem", "d"
        with pytest.raises(GeneError, match="transposed"):
            read_own_panel(manifold, written(tmp_path, turned))

    def test_empty_and_nameless(self, tmp_path, manifold):
        with pytest.raises(PanelError, match="holds no cells"):
            read_own_panel(manifold, written(tmp_path, own_cells()[:0].copy()))
        cells = own_cells()
        cells.obs["donor"] = pd.Series([None] + ["d"] * (cells.n_obs - 1), index=cells.obs_names, dtype=object)
        with pytest.raises(PanelError, match="gives 1 of 108 cells no donor"):
            read_own_panel(manifold, written(tmp_path, cells))

    def test_cells_that_are_there_twice(self, tmp_path, manifold):
        cells = own_cells()
        names = cells.obs_names.tolist()
        names[1] = names[0]
        cells.obs_names = names
        with pytest.raises(PanelError, match=r"'strangers:cell_0' .* more than once"):
            read_own_panel(manifold, written(tmp_path, cells))

    def test_no_file_and_no_h5ad(self, tmp_path, manifold):
        with pytest.raises(NotFoundError, match="no file"):
            read_own_panel(manifold, tmp_path / "none.h5ad")
        (tmp_path / "text.h5ad").write_text("text")
        with pytest.raises(PanelError, match=r"not a readable .h5ad"):
            read_own_panel(manifold, tmp_path / "text.h5ad")


class TestRealCells:
    def test_the_bundled_cells_need_no_table(self):
        own = read_own_panel(mz.load("hematopoietic"), demo_path())
        assert own.report.coverage == 1.0
        assert {one.by for one in own.report.mapped} == {"cell type of the card"}
        assert own.report.n_anchors == len(own.panel.anchors) == 29
        # cell types of which the extraction panel has no anchor are unknown to its card
        assert own.report.unmapped["Mature B cells class switched"] == 8

    @pytest.mark.shared
    def test_a_file_of_the_extraction_panel_gives_its_anchors(self, shared):
        manifold = mz.load("hematopoietic")
        own = read_own_panel(manifold, shared / "data" / "marrow_setty2019.h5ad")
        theirs = {
            (anchor.donor, anchor.cell_type): row
            for row, anchor in enumerate(manifold.card.panel.anchors)
            if anchor.study == "marrow_setty2019"
        }
        rows = [theirs[key] for key in zip(own.panel.donor, own.panel.cell_type, strict=True)]
        assert sorted(rows) == sorted(theirs.values())
        assert own.panel.anchors == pytest.approx(manifold.tensors["panel.anchors"][rows], abs=1e-5)
        assert own.report.sha256 in {file.sha256 for file in manifold.card.panel.files}

    @pytest.mark.shared
    def test_cells_of_other_studies(self, shared):
        manifold = mz.load("hematopoietic")
        with pytest.warns(CoverageWarning, match="covers 0.33"):
            blood = read_own_panel(manifold, shared / "data" / "blood_hao2021.h5ad")
        assert blood.report.unmapped == {"T cells CD4 conv": 150, "T cells CD8": 150, "ILC": 13}
        assert blood.report.n_donors == 13
        heart = read_own_panel(manifold, shared / "data" / "heart_kanemaru2023.h5ad")
        assert heart.panel is None
        assert sum(heart.report.unmapped.values()) == 1000
        with pytest.raises(LowCoverageError, match="below its floor"):
            read_own_panel(manifold, shared / "data" / "tonsil_cillo2020_lr_genes.h5ad")

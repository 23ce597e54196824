"""The bundled cells are what their card says, and are drawn again bit for bit from the full file."""

from __future__ import annotations

import hashlib
import re

import anndata as ad
import numpy as np
import pytest

from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._panel import build_panel
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler
from manifoldzoo.manifolds.demo import demo_path
from manifoldzoo.manifolds.demo._make import MAX_PER_GROUP, draw, main

FOLDER = recipe_folder("hematopoietic")


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return ad.read_h5ad(demo_path())


@pytest.fixture(scope="module")
def data_card() -> str:
    return demo_path().with_name("DATA_CARD.md").read_text(encoding="utf-8")


def test_the_file_is_small_and_the_one_on_the_card(cells, data_card):
    content = demo_path().read_bytes()
    assert len(content) <= 4_000_000
    assert hashlib.sha256(content).hexdigest() in data_card
    assert f"{cells.n_obs} cells x {cells.n_vars} genes" in data_card


def test_the_cells_are_raw_counts_of_all_genes(cells):
    assert cells.X.format == "csr"
    assert cells.X.dtype == np.float32
    assert cells.X.min() >= 0
    assert (cells.X.data == np.rint(cells.X.data)).all()
    assert (np.asarray(cells.X.sum(axis=1)).ravel() > 0).all()
    assert cells.n_vars > 15_000
    assert cells.obs_names.is_unique
    assert cells.var_names.is_unique
    assert "Setty" in cells.uns["provenance"]["source"]


def test_groups_are_balanced_and_categories_minimal(cells):
    sizes = cells.obs.groupby(["donor", "cell_type"], observed=True).size()
    assert sizes.max() == MAX_PER_GROUP
    assert cells.obs["donor"].nunique() == 2
    for column in cells.obs.select_dtypes("category"):
        used = cells.obs[column].cat.categories
        assert list(used) == sorted(set(cells.obs[column]))


def test_every_label_has_a_stage_and_the_cells_make_a_panel(cells):
    labels, ruler = read_label_table(FOLDER / "labels.tsv"), read_stage_ruler(FOLDER)
    pairs = set(zip(cells.obs["dataset"].astype(str), cells.obs["cell_type"].astype(str), strict=True))
    stages = [labels.stage_of(*pair) for pair in sorted(pairs)]
    assert None not in stages
    panel = build_panel([demo_path()], genes=list(cells.var_names[:50]), labels=labels, ruler=ruler)
    assert len(panel.anchors) >= 20
    assert len(set(panel.stage)) >= 12
    assert set(panel.donor) == {"Run4", "Run5"}


def test_what_the_card_says_of_doubtful_labels_is_so(cells, data_card):
    flat = re.sub(r"\s+", " ", data_card)
    found = {
        (gene, name): (int((cells[members, gene].X.toarray() > 0).sum()), int(members.sum()))
        for gene, name in [
            ("DNTT", "Naïve B cells"),
            ("MS4A1", "Naïve B cells"),
            ("CD14", "Monocytes"),
            ("MPO", "Monocytes"),
            ("GNLY", "Mature NK cells_CD56- CD16- CD3-"),
        ]
        for members in [(cells.obs["cell_type"] == name).to_numpy()]
    }
    dntt, n_b = found["DNTT", "Naïve B cells"]
    assert f'of {n_b} "Naïve B cells" {dntt} express DNTT and {found["MS4A1", "Naïve B cells"][0]} MS4A1' in flat
    assert found["CD14", "Monocytes"] == (0, 34)
    assert found["MPO", "Monocytes"] == (34, 34)
    assert found["GNLY", "Mature NK cells_CD56- CD16- CD3-"] == (0, 5)


def made_source() -> ad.AnnData:
    rng = np.random.default_rng(3)
    n = 200
    cells = ad.AnnData(rng.poisson(0.5, (n, 6)).astype(np.float32))
    cells.obs_names = [f"c{i}" for i in rng.permutation(n)]
    cells.obs["donor"] = rng.choice(["a", "b"], n)
    cells.obs["cell_type"] = rng.choice(["common", "rare"], n, p=[0.95, 0.05])
    return cells


def test_drawing_caps_common_types_keeps_rare_ones_and_the_order():
    source = made_source()
    drawn = draw(source)
    before, after = source.obs.value_counts(["donor", "cell_type"]), drawn.obs.value_counts(["donor", "cell_type"])
    assert all(after[key] == min(n, MAX_PER_GROUP) for key, n in before.items())
    assert (np.diff(source.obs_names.get_indexer(drawn.obs_names)) > 0).all()
    assert (drawn.X.toarray() == source[drawn.obs_names].X).all()
    assert draw(source).obs_names.equals(drawn.obs_names)


@pytest.mark.shared
def test_the_cells_are_drawn_again_from_the_full_file(cells, data_card, shared, tmp_path, monkeypatch, capsys):
    source, target = shared / "data" / "marrow_setty2019.h5ad", tmp_path / "again.h5ad"
    assert hashlib.sha256(source.read_bytes()).hexdigest() in data_card
    monkeypatch.setattr("sys.argv", ["_make", str(source), str(target)])
    main()
    assert f"{cells.n_obs} cells" in capsys.readouterr().out
    again = ad.read_h5ad(target)
    assert again.obs.equals(cells.obs)
    assert again.var.equals(cells.var)
    assert (again.X != cells.X).nnz == 0
    assert again.uns["provenance"] == cells.uns["provenance"]

"""Which files an extraction is fitted to, and how each is read."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import BadInputError, NotFoundError, PanelError
from manifoldzoo.extractors._extract import make_job
from manifoldzoo.extractors._extraction_files import extraction_files
from manifoldzoo.extractors._prepare import prepare
from manifoldzoo.manifolds._count_file import PLAIN
from manifoldzoo.manifolds._labels import LabelTable, read_label_table
from manifoldzoo.manifolds._panel_spec import read_panel_set

SPEC = """
[[panels]]
name = "plain"
role = "extraction"
files = ["first.h5ad"]
labels = "labels.tsv"

[[panels]]
name = "renamed"
role = "extraction"
files = ["second.h5ad"]
labels = "labels.tsv"
columns = { cell_type = "state", donor = "person" }

[[panels]]
name = "other"
role = "external"
files = ["third.h5ad"]
labels = "labels.tsv"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs as two files; in the second the columns have other names, and the usual ones mislead."""
    folder = tmp_path_factory.mktemp("files")
    cells = ad.read_h5ad(write_small_cells(folder / "all.h5ad"))
    first, second = sorted(cells.obs["donor"].astype(str).unique())
    cells[cells.obs["donor"] == first].copy().write_h5ad(folder / "first.h5ad")
    renamed = cells[cells.obs["donor"] == second].copy()
    renamed.obs["state"], renamed.obs["person"] = renamed.obs["cell_type"], renamed.obs["donor"]
    renamed.obs["cell_type"], renamed.obs["donor"] = "a cell", "a person"
    renamed.write_h5ad(folder / "second.h5ad")
    write_small_recipe(folder / "recipe", 'kind = "distilled"')
    (folder / "recipe" / "panels.toml").write_text(SPEC)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return write_tiny_scgpt(folder / "model", genes=common_genes(folder / "all.h5ad"))


def files(folder, cells=None, *, spec=SPEC, min_cells=5, labels=None):
    (folder / "recipe" / "given.toml").write_text(spec)
    panels = read_panel_set(folder / "recipe" / "given.toml")
    own = read_label_table(folder / "recipe" / "labels.tsv")
    return extraction_files(cells, panels, folder, labels=labels or own, min_cells=min_cells)


def test_extraction_panels_are_fitted_to_with_their_own_columns(folder, model):
    job = make_job(folder / "recipe", checkpoint=model, panels=folder / "recipe" / "panels.toml", data=folder)
    assert [path.name for path in job.cells] == ["first.h5ad", "second.h5ad"]
    whole = make_job(folder / "recipe", checkpoint=model, cells=[folder / "all.h5ad"])
    assert whole.reading is PLAIN
    job = make_job(folder / "recipe", checkpoint=model, panels=write_fitted(folder), data=folder)
    got, want = (prepare(one, np.random.default_rng(0)) for one in (job, whole))
    order = [list(zip(panel.donor, panel.cell_type, strict=True)) for panel in (got.panel, want.panel)]
    assert sorted(order[0]) == sorted(order[1])
    place = [order[1].index(key) for key in order[0]]
    assert np.allclose(got.panel.anchors, want.panel.anchors[place], atol=1e-6)
    assert sorted(got.cells.donor_ids) == sorted(want.cells.donor_ids)


def write_fitted(folder):
    """The specification without the panel that no file is there for."""
    path = folder / "recipe" / "fitted.toml"
    path.write_text(SPEC[: SPEC.index('[[panels]]\nname = "other"')])
    return path


def test_files_that_are_named_are_read_as_the_specification_says(folder):
    paths, reading = files(folder, [folder / "second.h5ad"])
    assert paths == (folder / "second.h5ad",)
    assert reading.of(paths[0]).columns == {"cell_type": "state", "donor": "person"}
    # nothing to say of a file that no extraction panel names
    assert files(folder, [folder / "first.h5ad"])[1] is PLAIN
    assert files(folder, [folder / "all.h5ad"])[1] is PLAIN


def test_what_a_specification_says_twice_or_otherwise_than_the_recipe_is_refused(folder):
    with pytest.raises(PanelError, match=r"name the file 'first\.h5ad' twice"):
        files(folder, spec=SPEC.replace("second.h5ad", "first.h5ad"))
    with pytest.raises(PanelError, match="'plain' asks for groups of 5 cells, the recipe for 4"):
        files(folder, min_cells=4)
    with pytest.raises(PanelError, match=r"'plain' names the labels 'labels\.tsv', which are not those"):
        files(folder, labels=LabelTable({("a", "b"): "hsc"}))
    with pytest.raises(PanelError, match=r"no file 'fourth\.h5ad'"):
        files(folder, spec=SPEC.replace("second.h5ad", "fourth.h5ad"))


def test_without_files_there_is_nothing_to_fit_to(folder, model):
    with pytest.raises(BadInputError, match="No cells were given"):
        make_job(folder / "recipe", checkpoint=model)
    with pytest.raises(BadInputError, match="No cells were given"):
        files(folder, spec=SPEC.replace('"extraction"', '"external"'))
    with pytest.raises(BadInputError, match="No cells were given"):
        files(folder, [])
    with pytest.raises(BadInputError, match="single path"):
        files(folder, str(folder / "first.h5ad"))
    with pytest.raises(NotFoundError, match="no file"):
        files(folder, [folder / "fifth.h5ad"])

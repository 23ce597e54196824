"""The folder that a specification makes: what is in it, what is said of it, and that there is all of it or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy import sparse
from tiny import tiny_ruler

from manifoldzoo.cards._card import PanelManifest
from manifoldzoo.cards._errors import BadInputError, FormatError, NotFoundError, PanelError, StoreError
from manifoldzoo.manifolds import _panel_folder
from manifoldzoo.manifolds._panel_file import panel_header, panel_manifest, read_panel
from manifoldzoo.manifolds._panel_folder import find_ruler, write_panels
from manifoldzoo.manifolds._panel_spec import PanelSet, PanelSpec, build_panels, read_panel_set
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

TYPES = {"alpha": "stem", "beta": "left_1", "gamma": "left_2"}
SPEC = """
[[panels]]
name = "own"
role = "extraction"
files = ["one.h5ad", "two.h5ad"]
labels = "labels.tsv"

[[panels]]
name = "later"
role = "zero-shot"
files = ["three.h5ad"]
labels = "labels.tsv"

[[panels]]
name = "strangers"
role = "negative"
files = ["four.h5ad"]
constants = { dataset = "elsewhere" }
columns = { dataset = "nothing", cell_type = "kind" }
min_cells = 2
"""


def write_cells(path: Path, dataset: str, donors: list[str], genes: range, *, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(1.5, (120, len(genes))).astype(np.float32)))
    cells.var_names = [f"G{i:02}" for i in genes]
    cells.obs_names = ["".join(letters) for letters in rng.choice(list("ACGT"), (120, 16))]
    cells.obs["dataset"], cells.obs["tissue"] = dataset, "blood"
    cells.obs["donor"] = rng.choice(donors, 120)
    cells.obs["cell_type"] = rng.choice(list(TYPES), 120)
    cells.obs["kind"] = [f"kind {index % 12}" for index in range(120)]
    cells.write_h5ad(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A specification with its label table, and files whose genes and donors overlap."""
    data = tmp_path / "data"
    data.mkdir()
    write_cells(data / "one.h5ad", "study", ["d1", "d2"], range(12), seed=0)
    write_cells(data / "two.h5ad", "study", ["d3"], range(2, 14), seed=1)
    write_cells(data / "three.h5ad", "study", ["d3", "d4"], range(1, 11), seed=2)
    write_cells(data / "four.h5ad", "study", ["d3"], range(0, 14), seed=3)
    rows = [f"study\t{name}\t{stage}\t" for name, stage in TYPES.items()]
    (tmp_path / "labels.tsv").write_text("\n".join(["dataset\tcell_type\tstage\tnote", *rows, ""]))
    (tmp_path / "panels.toml").write_text(SPEC)
    return tmp_path


def write(folder: Path, target: str = "out", **options):
    spec = read_panel_set(folder / "panels.toml")
    return write_panels(spec, folder / target, **({"data": folder / "data", "ruler": tiny_ruler()} | options))


def test_every_panel_is_there_with_what_it_says_of_itself(folder):
    told = []
    summary = write(folder, progress=lambda *call: told.append(call))
    names = ("own", "later", "strangers")
    assert {path.name for path in (folder / "out").iterdir()} == {f"{n}.{s}" for n in names for s in ("h5ad", "json")}
    assert {path.name for path in folder.iterdir()} - {"home"} == {"data", "labels.tsv", "panels.toml", "out"}
    spec = read_panel_set(folder / "panels.toml")
    built = build_panels(spec, data=folder / "data", genes=None, ruler=tiny_ruler())
    for one in summary:
        panel = read_panel(folder / "out" / f"{one.name}.h5ad")
        said = json.loads((folder / "out" / f"{one.name}.json").read_text(encoding="utf-8"))
        assert said == panel_header(built[one.name]).model_dump(mode="json")
        assert said == panel_header(panel).model_dump(mode="json")
        manifest = PanelManifest.model_validate(said["manifest"])
        assert manifest == panel_manifest(built[one.name].panel, built[one.name].spec.min_cells)
        assert manifest.digest == one.digest
        assert [file.name for file in manifest.files] == list(one.files)
        assert (one.n_anchors, one.n_genes) == panel.panel.anchors.shape
        assert one.n_stages == len(set(panel.panel.stage))
    assert [label.split(":")[0] for label, done, total in told if done == total] == ["own", "own", "later", "strangers"]


def test_without_names_the_genes_are_those_of_all_files(folder):
    write(folder)
    # G00 to G11, G02 to G13 and G01 to G10
    assert read_panel(folder / "out" / "later.h5ad").panel.genes == tuple(f"G{i:02}" for i in range(2, 11))
    header = json.loads((folder / "out" / "own.json").read_text())
    assert header["missing_genes"] == [[], []]
    write(folder, "named", genes=("G13", "G04"))
    assert read_panel(folder / "named" / "later.h5ad").panel.genes == ("G13", "G04")
    assert json.loads((folder / "named" / "later.json").read_text())["missing_genes"] == [["G13"]]


def test_files_without_a_common_gene_are_refused(folder):
    write_cells(folder / "data" / "three.h5ad", "study", ["d3"], range(30, 40), seed=2)
    with pytest.raises(PanelError, match="4 files of the panels share no gene"):
        write(folder)
    assert not (folder / "out").exists()


def test_what_is_shared_with_the_extraction_panel_is_counted_by_id(folder):
    own, later, strangers = write(folder)
    assert (own.n_shared_cells, own.n_shared_donors) == (None, None)
    # the donor d3 of one study is in both, and a donor of that name in another study
    assert (later.n_shared_cells, later.n_shared_donors) == (0, 1)
    assert (strangers.n_shared_cells, strangers.n_shared_donors) == (0, 0)
    assert (own.n_donors, own.n_cells, later.n_cells) == (3, 240, 120)
    (folder / "panels.toml").write_text(SPEC.replace('"extraction"', '"zero-shot"'))
    assert {(one.n_shared_cells, one.n_shared_donors) for one in write(folder, "again")} == {(None, None)}


def test_overlap_is_refused_before_a_count_is_read_and_nothing_is_left(folder, monkeypatch):
    (folder / "panels.toml").write_text(SPEC.replace('"zero-shot"', '"external"'))
    monkeypatch.setattr("manifoldzoo.manifolds._panel_spec.build_panel", None)
    before = sorted(folder.iterdir())
    with pytest.raises(PanelError, match=r"share 1 donors \(study:d3\)"):
        write(folder)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(28, "No space left on device"), RuntimeError("bug")])
def test_a_folder_that_cannot_be_finished_is_not_begun(folder, monkeypatch, trouble):
    real = _panel_folder.write_panel

    def second_fails(panel, path):
        if panel.name == "later":
            raise trouble
        real(panel, path)
        assert path.exists()

    monkeypatch.setattr(_panel_folder, "write_panel", second_fails)
    before = sorted(folder.iterdir())
    expected = StoreError if isinstance(trouble, OSError) else type(trouble)
    with pytest.raises(expected, match="No space" if isinstance(trouble, OSError) else None):
        write(folder)
    assert sorted(folder.iterdir()) == before


def test_an_empty_folder_is_filled_and_no_other_is(folder):
    (folder / "out").mkdir()
    write(folder)
    assert len(list((folder / "out").iterdir())) == 6
    for target in ("out", "panels.toml"):
        with pytest.raises(BadInputError, match="not an empty folder"):
            write(folder, target)
    write(folder, "new/and/deep")
    assert len(list((folder / "new" / "and" / "deep").iterdir())) == 6
    same = [(folder / "out" / "own.h5ad").read_bytes(), (folder / "new" / "and" / "deep" / "own.h5ad").read_bytes()]
    assert same[0] == same[1]


def one_panel(*labels: str) -> PanelSet:
    return PanelSet(
        panels=tuple(
            PanelSpec(name=f"p{i}", role="zero-shot", files=("a.h5ad",), labels=name) for i, name in enumerate(labels)
        )
    )


class TestFindRuler:
    def test_beside_the_specification(self, folder):
        stages = "# name: mine\n# version: 3\nid\tlabel\tontology_id\tbranch\na\tA\t\tx\nb\tB\t\ty\n"
        (folder / "stages.tsv").write_text(stages)
        (folder / "edges.tsv").write_text("child\tparent\tsource\nb\ta\tmade\n")
        # also where the labels are those of a bundled recipe
        (folder / "panels.toml").write_text(SPEC.replace('"labels.tsv"', '"hematopoietic"'))
        assert find_ruler(read_panel_set(folder / "panels.toml")).name == "mine"

    def test_of_the_recipe_whose_labels_are_named(self, folder):
        (folder / "panels.toml").write_text(SPEC.replace('"labels.tsv"', '"hematopoietic"'))
        blood = read_stage_ruler(recipe_folder("hematopoietic"))
        assert find_ruler(read_panel_set(folder / "panels.toml")).digest == blood.digest
        assert find_ruler(one_panel("hematopoietic", "own.tsv")).digest == blood.digest

    def test_none_or_several_are_refused(self, folder):
        with pytest.raises(PanelError, match=r"name no bundled recipe's.*no stages\.tsv") as caught:
            find_ruler(read_panel_set(folder / "panels.toml"))
        assert "--like" in caught.value.hint
        with pytest.raises(PanelError, match="hematology and hematopoietic"):
            find_ruler(one_panel("hematopoietic", "hematology"))
        with pytest.raises(NotFoundError, match="hematology"):
            find_ruler(one_panel("hematology"))


def test_a_bundled_specification_is_read_by_name(folder):
    bundled = read_panel_set("hematopoietic")
    assert bundled == read_panel_set(recipe_folder("hematopoietic") / "panels.toml")
    assert bundled.folder == recipe_folder("hematopoietic")
    assert read_panel_set(Path("hematopoietic")) == bundled
    # a recipe on top of another has its panels, labels and ruler
    assert read_panel_set("hematopoietic-raw") == bundled
    assert find_ruler(one_panel("hematopoietic-raw")).name == find_ruler(bundled).name == "hematopoietic-stages"
    with pytest.raises(NotFoundError, match="no recipe 'hematology'"):
        read_panel_set("hematology")
    # a path is never taken for a name
    with pytest.raises(FormatError, match="neither TOML nor YAML"):
        read_panel_set(str(folder / "hematopoietic"))

"""Panel specifications: what is written in a file is what is built, and every way it can be wrong."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from scipy import sparse
from tiny import tiny_ruler

from manifoldzoo.cards._errors import FormatError, NotFoundError, PanelError, ZooWarning
from manifoldzoo.manifolds import _panel_spec
from manifoldzoo.manifolds._count_file import COLUMNS, PanelReading
from manifoldzoo.manifolds._labels import LabelTable, assign_stages, read_label_table
from manifoldzoo.manifolds._panel import build_panel, gene_names
from manifoldzoo.manifolds._panel_overlap import check_overlap
from manifoldzoo.manifolds._panel_spec import Column, PanelSet, PanelSpec, build_panels, read_panel_set
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

GENES = ("G3", "G0", "ABSENT", "G7")
TYPES = {"alpha": "stem", "beta": "left_1", "gamma": "left_2", "noise": "-"}


def write_study(path: Path, name: str, *, seed: int = 0, kinds: tuple[str, ...] = tuple(TYPES), **renamed: str) -> Path:
    """Counts of 12 genes of 200 cells of two donors; ``renamed`` are columns under other names."""
    rng = np.random.default_rng(seed)
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(1.5, (200, 12)).astype(np.float32)))
    barcodes = rng.choice(list("ACGT"), (200, 16))
    cells.obs_names = ["".join(letters) + "-1" for letters in barcodes]
    cells.var_names = [f"G{i}" for i in range(12)]
    said = {"dataset": name, "donor": rng.choice(["d1", "d2"], 200), "tissue": "blood"}
    for column, values in (said | {"cell_type": rng.choice(kinds, 200)}).items():
        cells.obs[renamed.get(column, column)] = values
    cells.write_h5ad(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A specification, its label table, and its data in a folder of their own."""
    for number, name in enumerate(("one", "two", "three")):
        (tmp_path / "data").mkdir(exist_ok=True)
        write_study(tmp_path / "data" / f"{name}.h5ad", name, seed=number)
    kinds = ("fibroblast", "mural", "neural", "alpha")
    write_study(tmp_path / "data" / "heart.h5ad", "heart", seed=9, kinds=kinds, donor="patient", dataset="study")
    rows = [
        f"{study}\t{name}\t{stage}\t" for study in ("one", "two", "three", "heart") for name, stage in TYPES.items()
    ]
    (tmp_path / "labels.tsv").write_text("\n".join(["dataset\tcell_type\tstage\tnote", *rows, ""]))
    (tmp_path / "panels.toml").write_text(SPEC)
    return tmp_path


SPEC = """
[[panels]]
name = "extraction"
role = "extraction"
files = ["one.h5ad", "two.h5ad"]
labels = "labels.tsv"

[[panels]]
name = "external"
role = "external"
files = ["three.h5ad"]
labels = "labels.tsv"
min_cells = 9
exclude_donors = ["three:d2"]

[[panels]]
name = "negative"
role = "negative"
files = ["heart.h5ad"]
labels = "labels.tsv"
columns = { dataset = "study", donor = "patient", tissue = "organ" }
constants = { tissue = "heart" }
seed = 4
"""


def build(folder: Path, **options):
    given = {"data": folder / "data", "genes": GENES, "ruler": tiny_ruler()} | options
    return build_panels(read_panel_set(folder / "panels.toml"), **given)


def edited(folder: Path, old: str, new: str) -> Path:
    text = (folder / "panels.toml").read_text()
    assert old in text
    (folder / "panels.toml").write_text(text.replace(old, new))
    return folder


def same_panel(one, other) -> bool:
    columns = ("genes", "stage", "branch", "cell_type", "donor", "tissue", "study", "files")
    numbers = np.array_equal(one.anchors, other.anchors) and np.array_equal(one.n_cells, other.n_cells)
    return numbers and all(getattr(one, name) == getattr(other, name) for name in columns)


def test_panels_are_those_of_build_panel(folder):
    built = build(folder)
    assert [(name, panel.name, panel.role) for name, panel in built.items()] == [
        (name, name, name) for name in ("extraction", "external", "negative")
    ]
    common = {"genes": GENES, "ruler": tiny_ruler()}
    table, data = read_label_table(folder / "labels.tsv"), folder / "data"
    plain = build_panel([data / "one.h5ad", data / "two.h5ad"], labels=table, **common)
    assert same_panel(built["extraction"].panel, plain)
    reading = PanelReading(exclude_donors=("d2",))
    external = build_panel([data / "three.h5ad"], labels=table, min_cells=9, reading=reading, **common)
    assert same_panel(built["external"].panel, external)
    assert (built["external"].ruler, built["external"].ruler_digest) == ("tiny 1", tiny_ruler().digest)
    assert built["external"].labels.digest == table.digest


def test_members_are_all_labelled_cells_whatever_their_group(folder):
    obs = ad.read_h5ad(folder / "data" / "three.h5ad").obs
    used = obs[obs["cell_type"] != "noise"]
    sizes = used.astype(str).value_counts(["donor", "cell_type"])
    edited(folder, "min_cells = 9", f"min_cells = {sizes.min() + 1}")
    # three anchors are the fewest of a panel, so the other donor comes in
    built = build(edited(folder, 'exclude_donors = ["three:d2"]', ""))["external"]
    assert sorted(built.members.cell_ids) == sorted(f"three:{name}" for name in used.index)
    assert built.members.donors == {"three:d1", "three:d2"}
    assert sum(built.panel.n_cells) < len(used)


def test_a_negative_panel_has_drawn_stages_for_strangers_alone(folder):
    built = build(folder)["negative"]
    stages = [stage.id for stage in tiny_ruler().stages]
    strangers = [("heart", name) for name in ("fibroblast", "mural", "neural")]
    drawn = assign_stages(strangers, stages, rng=np.random.default_rng(4))
    assert set(built.panel.cell_type) == {"fibroblast", "mural", "neural"}
    assert [drawn.stage_of("heart", name) for name in built.panel.cell_type] == list(built.panel.stage)
    assert set(built.panel.tissue) == {"heart"}
    assert built.labels.stages["heart", "alpha"] == "-"
    assert list(built.panel.branch) == tiny_ruler().branch(built.panel.stage)
    others = {
        tuple(build(edited(folder, f"seed = {seed - 1}", f"seed = {seed}"))["negative"].panel.stage)
        for seed in range(5, 9)
    }
    assert len(others) > 1


def test_a_negative_panel_needs_no_label_table(folder):
    text = SPEC.split("[[panels]]")[-1].replace('labels = "labels.tsv"\n', "")
    (folder / "panels.toml").write_text("[[panels]]" + text)
    assert set(build(folder)["negative"].panel.cell_type) == {"fibroblast", "mural", "neural", "alpha"}


def test_yaml_and_python_say_the_same_as_toml(folder):
    toml = read_panel_set(folder / "panels.toml")
    document = toml.model_dump(mode="json")
    (folder / "panels.yaml").write_text(yaml.safe_dump(document))
    assert read_panel_set(folder / "panels.yaml") == toml
    external = PanelSpec(
        name="external",
        role="external",
        files=("three.h5ad",),
        labels="labels.tsv",
        min_cells=9,
        exclude_donors=("three:d2",),
    )
    assert external == toml.panels[1]
    assert external.digest == toml.panels[1].digest


def test_files_lie_in_the_data_folder_or_beside_the_specification(folder, monkeypatch):
    first = build(folder, names=["extraction"])["extraction"]
    write_study(folder / "one.h5ad", "one", seed=77)
    assert same_panel(build(folder, names=["extraction"])["extraction"].panel, first.panel)
    (folder / "one.h5ad").unlink()
    (folder / "data" / "two.h5ad").rename(folder / "two.h5ad")
    assert same_panel(build(folder, names=["extraction"])["extraction"].panel, first.panel)
    with pytest.raises(PanelError, match=r"no file 'one\.h5ad'") as caught:
        build(folder, data=None)
    assert "--data" in caught.value.hint
    for path in list((folder / "data").iterdir()):
        path.rename(folder / path.name)
    assert same_panel(build(folder, data=None)["extraction"].panel, first.panel)
    # a specification made in Python is read from the current folder
    monkeypatch.chdir(folder)
    spec = PanelSet(panels=read_panel_set(Path("panels.toml")).panels)
    built = build_panels(spec, genes=GENES, ruler=tiny_ruler())
    assert same_panel(built["extraction"].panel, first.panel)


def test_a_digest_says_what_was_asked_for_and_not_where(folder):
    spec = read_panel_set(folder / "panels.toml").panels[0]
    moved = spec.model_copy(
        update={"files": tuple(f"/elsewhere/{name}" for name in spec.files), "labels": "x/labels.tsv"}
    )
    assert moved.digest == spec.digest
    assert spec.model_copy(update={"min_cells": 6}).digest != spec.digest
    assert spec.model_copy(update={"files": spec.files[:1]}).digest != spec.digest
    assert spec.model_copy(update={"scale": "log1p"}).digest != spec.digest


def test_specifications_from_before_there_was_a_scale_keep_their_digest():
    spec = PanelSpec(name="external", role="external", files=("a.h5ad",), labels="labels.tsv")
    # written down when the field was added
    assert spec.digest == "c9589e90ff1f8c8683067900e85e0e582186f4db321cfd244e430968b494c62e"
    assert spec.reading.scale == "counts"


def test_only_the_panels_named_are_read_but_all_are_checked(folder):
    seen = []
    built = build(folder, names=["external"], progress=lambda *told: seen.append(told))
    assert list(built) == ["external"]
    assert [told[0] for told in seen] == ["external: three.h5ad"]
    assert seen[-1][1] == seen[-1][2] == sum(built["external"].panel.n_cells)
    # the counts of the other panel's file may be gone, its cells are shared all the same
    edited(
        folder,
        'files = ["three.h5ad"]\nlabels = "labels.tsv"\nmin_cells = 9\nexclude_donors = ["three:d2"]',
        'files = ["one.h5ad"]\nlabels = "labels.tsv"',
    )
    with pytest.raises(PanelError, match=r"'extraction' \(extraction\) and 'external' \(external\) share"):
        build(folder, names=["negative"])
    with pytest.raises(PanelError, match="no panel 'extern'") as caught:
        build(folder, names=["extern"])
    assert "external" in caught.value.hint


@pytest.mark.parametrize("donor", ["d1", "d2"])
def test_donors_of_one_study_may_be_divided_between_panels(folder, donor):
    text = f"""
[[panels]]
name = "extraction"
role = "extraction"
files = ["one.h5ad", "two.h5ad"]
labels = "labels.tsv"
donors = ["one:d1", "two:d1", "two:d2"]

[[panels]]
name = "external"
role = "external"
files = ["one.h5ad"]
labels = "labels.tsv"
donors = ["{donor}"]
"""
    (folder / "panels.toml").write_text(text)
    if donor == "d1":
        with pytest.raises(PanelError, match="one:d1"):
            build(folder)
    else:
        built = build(folder)
        assert check_overlap(list(built.values())).verdict == "clear"
        assert not built["extraction"].members.donors & built["external"].members.donors


def test_a_copy_of_a_study_is_warned_about(folder):
    copied = ad.read_h5ad(folder / "data" / "one.h5ad")
    copied.obs["dataset"] = "three"
    copied.obs_names = [name.replace("-1", "_x") for name in copied.obs_names]
    copied.write_h5ad(folder / "data" / "three.h5ad")
    with pytest.warns(ZooWarning, match="barcodes of one and three"):
        build(folder)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('role = "external"', 'role = "validation"', r"panels\.1\.role"),
        ('name = "external"', 'name = "extraction"', "names must differ"),
        ('name = "external"', 'name = "My panel"', r"panels\.1\.name"),
        ("min_cells = 9", "min_cells = 0", r"panels\.1\.min_cells"),
        ("min_cells = 9", "min_cell = 9", r"panels\.1\.min_cell'"),
        ("min_cells = 9", 'stages = "assigned"', "'external' does not go with stages 'assigned'"),
        ("seed = 4", 'stages = "labels"', "'negative' does not go with stages 'labels'"),
        ("seed = 4", "seed = -1", r"panels\.2\.seed"),
        ('files = ["three.h5ad"]\nlabels = "labels.tsv"', 'files = ["three.h5ad"]', "needs labels"),
        ('files = ["three.h5ad"]', "files = []", r"panels\.1\.files"),
        ('files = ["three.h5ad"]', 'files = ["three.h5ad", "three.h5ad"]', "names a file twice"),
        ('donor = "patient"', 'patient = "donor"', r"panels\.2\.columns\.patient"),
        ('tissue = "heart"', 'tissue = ""', r"panels\.2\.constants\.tissue"),
        ("min_cells = 9", "donors = [1]", r"panels\.1\.donors\.0"),
        ("min_cells = 9", 'donors = ["three:d2"]', "'three:d2' is both in donors and in exclude_donors"),
        ("[[panels]]", "[[panel]]", "'panels'"),
        ("[[panels]]", "[[panels]", "not TOML"),
    ],
)
def test_a_fault_in_a_specification_is_named(folder, old, new, match):
    edited(folder, old, new)
    with pytest.raises(FormatError, match=match):
        read_panel_set(folder / "panels.toml")


def test_what_is_no_specification_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"no panel specification .*none\.toml"):
        read_panel_set(tmp_path / "none.toml")
    (tmp_path / "panels.json").write_text("{}")
    with pytest.raises(FormatError, match="neither TOML nor YAML"):
        read_panel_set(tmp_path / "panels.json")
    (tmp_path / "panels.yaml").write_text("panels: [")
    with pytest.raises(FormatError, match="not YAML"):
        read_panel_set(tmp_path / "panels.yaml")
    (tmp_path / "panels.yml").write_text("- 1")
    with pytest.raises(FormatError, match=r"panels\.yml fails at"):
        read_panel_set(tmp_path / "panels.yml")
    (tmp_path / "panels.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(FormatError, match="not TOML"):
        read_panel_set(tmp_path / "panels.toml")


def test_a_specification_made_in_python_is_closed_and_fixed():
    spec = PanelSpec(name="a", role="negative", files=("a.h5ad",))
    assert spec.stages == "assigned"
    with pytest.raises(ValidationError):
        spec.name = "b"
    with pytest.raises(ValidationError):
        PanelSpec(name="a", role="extraction", files=("a.h5ad",))
    assert PanelSet(panels=(spec,)).folder == Path()
    assert Column.__args__ == COLUMNS


def test_a_missing_label_table_is_named(folder):
    with pytest.raises(PanelError, match=r"no file 'stages\.tsv'"):
        build(edited(folder, 'labels = "labels.tsv"\nmin_cells', 'labels = "stages.tsv"\nmin_cells'))
    with pytest.raises(NotFoundError, match="no recipe 'hematology'"):
        build(edited(folder, 'labels = "stages.tsv"\nmin_cells', 'labels = "hematology"\nmin_cells'))


def test_the_labels_of_a_bundled_recipe_may_be_named():
    table = _panel_spec._read_labels("hematopoietic", [None])
    assert isinstance(table, LabelTable)
    assert table.stage_of("blood_kang2018", "NK") == "cd56dim_nk"


REAL = """
[[panels]]
name = "extraction"
role = "extraction"
files = ["marrow_setty2019.h5ad", "blood_zheng2017.h5ad", "kidney_stewart2019.h5ad"]
labels = "hematopoietic"

[[panels]]
name = "external"
role = "external"
files = ["blood_kang2018.h5ad"]
labels = "hematopoietic"

[[panels]]
name = "zero-shot"
role = "zero-shot"
files = ["blood_hao2021.h5ad"]
labels = "hematopoietic"

[[panels]]
name = "negative"
role = "negative"
files = ["heart_kanemaru2023.h5ad"]
labels = "hematopoietic"
exclude_cell_types = ["myeloid cell", "lymphocyte"]
"""


@pytest.mark.shared
def test_real_files_make_the_four_panels_of_a_validation(shared, tmp_path):
    (tmp_path / "panels.toml").write_text(REAL)
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))
    genes = gene_names(shared / "data" / "blood_kang2018.h5ad")[::60]
    built = build_panels(read_panel_set(tmp_path / "panels.toml"), data=shared / "data", genes=genes, ruler=ruler)
    shape = {
        name: (len(panel.panel.anchors), len(set(panel.panel.stage)), len(panel.members.donors), len(panel.members.ids))
        for name, panel in built.items()
    }
    assert shape == {
        "extraction": (88, 26, 16, 8984),
        "external": (24, 13, 2, 2000),
        "zero-shot": (85, 8, 13, 1036),
        "negative": (6, 6, 1, 860),
    }
    assert check_overlap(list(built.values())).verdict == "clear"
    assert not {"myeloid cell", "lymphocyte"} & set(built["negative"].panel.cell_type)
    # part of the extraction panel again as an external one
    labels = ad.read_h5ad(shared / "data" / "kidney_stewart2019.h5ad", backed="r").obs["cell_type"]
    (tmp_path / "panels.toml").write_text(REAL.replace("blood_kang2018", "kidney_stewart2019"))
    with pytest.raises(PanelError, match=f"share {(labels != 'NKT cell').sum()} cells"):
        build_panels(read_panel_set(tmp_path / "panels.toml"), data=shared / "data", genes=genes, ruler=ruler)

"""Panel files: read back exactly, equal bytes for equal panels, and every change noticed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import tiny_ruler

from manifoldzoo.cards._card import PanelManifest
from manifoldzoo.cards._errors import FormatError, FutureFormatError, IntegrityError, StoreError
from manifoldzoo.cards._names import canonical_json, sha256_bytes
from manifoldzoo.manifolds._digests import anchors_digest
from manifoldzoo.manifolds._labels import LabelTable
from manifoldzoo.manifolds._panel import Panel, PanelFile
from manifoldzoo.manifolds._panel_file import KEY, panel_manifest, read_panel, write_panel
from manifoldzoo.manifolds._panel_overlap import PanelMembers
from manifoldzoo.manifolds._panel_spec import BuiltPanel, PanelSpec

TEXT = ("study", "donor", "tissue", "cell_type", "stage", "branch")


def built(n_anchors: int = 7, n_genes: int = 5, *, seed: int = 0, word: str = "Naïve 'B' / 1") -> BuiltPanel:
    """A panel of two files, with names that are hard to spell."""
    rng = np.random.default_rng(seed)
    stages = rng.choice([stage.id for stage in tiny_ruler().stages], n_anchors).tolist()
    panel = Panel(
        genes=tuple(f"G{number}" for number in range(n_genes)),
        anchors=rng.gamma(1.0, size=(n_anchors, n_genes)).astype(np.float32),
        stage=tuple(stages),
        branch=tuple(tiny_ruler().branch(stages)),
        cell_type=tuple(f"{word} {number}" for number in range(n_anchors)),
        donor=tuple(rng.choice(["1", "01", "NA"], n_anchors).tolist()),
        tissue=("blood",) * n_anchors,
        study=tuple(rng.choice(["one", "two"], n_anchors).tolist()),
        n_cells=rng.integers(5, 900, n_anchors),
        files=(
            PanelFile("a.h5ad", "a" * 64, 900, "b" * 64, ("G1", "G4"), "made up"),
            PanelFile("b.h5ad", "c" * 64, 0, "d" * 64, (), ""),
        ),
    )
    spec = PanelSpec(
        name="external", role="external", files=("/data/of/ann/a.h5ad", "b.h5ad"), labels="tables/l.tsv", min_cells=6
    )
    table = LabelTable(
        {("one", word): "stem", ("two", "x"): "-"}, "/home/ann/tables/l.tsv", {("one", word): "CL:0000037"}
    )
    members = PanelMembers(("one", "one", "two"), ("1", "01", "NA"), ("AAAC-1", "CCC-1", "AAAC-1"))
    return BuiltPanel(spec, panel, members, "tiny 1", tiny_ruler().digest, table)


def same(one: BuiltPanel, other: BuiltPanel) -> bool:
    mine, theirs = one.panel, other.panel
    return (
        mine.anchors.tobytes() == theirs.anchors.tobytes()
        and mine.anchors.dtype == theirs.anchors.dtype
        and mine.n_cells.tolist() == theirs.n_cells.tolist()
        and mine.n_cells.dtype == theirs.n_cells.dtype
        and all(getattr(mine, name) == getattr(theirs, name) for name in (*TEXT, "genes", "files"))
        and all(getattr(one.members, name) == getattr(other.members, name) for name in ("study", "donor", "ids"))
        and one.spec.portable == other.spec.portable
        and (one.ruler, one.ruler_digest) == (other.ruler, other.ruler_digest)
        and (one.labels.stages, one.labels.ontology) == (other.labels.stages, other.labels.ontology)
    )


def test_a_panel_is_read_back_exactly(tmp_path):
    panel = built()
    write_panel(panel, tmp_path / "panel.h5ad")
    again = read_panel(tmp_path / "panel.h5ad")
    assert same(again, panel)
    assert (again.name, again.role, again.spec.digest) == ("external", "external", panel.spec.digest)
    assert [path.name for path in tmp_path.glob("panel*")] == ["panel.h5ad"]
    assert not list(tmp_path.glob(".panel*"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n_anchors=st.integers(3, 12),
    n_genes=st.integers(1, 6),
    word=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=9),
    layout=st.sampled_from(["C", "F", "strided"]),
)
def test_any_panel_is_read_back_exactly(tmp_path, n_anchors, n_genes, word, layout):
    panel = built(n_anchors, n_genes, word=word)
    values = panel.panel.anchors
    laid = {"C": values, "F": np.asfortranarray(values), "strided": np.repeat(values, 2, axis=1)[:, ::2]}[layout]
    write_panel(replace(panel, panel=replace(panel.panel, anchors=laid)), tmp_path / "panel.h5ad")
    assert same(read_panel(tmp_path / "panel.h5ad"), panel)


def test_equal_panels_make_equal_bytes_and_reading_and_writing_changes_none(tmp_path):
    for name in ("one", "two"):
        write_panel(built(), tmp_path / f"{name}.h5ad")
    write_panel(read_panel(tmp_path / "one.h5ad"), tmp_path / "three.h5ad")
    first = (tmp_path / "one.h5ad").read_bytes()
    assert (tmp_path / "two.h5ad").read_bytes() == first
    assert (tmp_path / "three.h5ad").read_bytes() == first


def test_the_file_is_a_table_for_anybody(tmp_path):
    panel = built().panel
    write_panel(built(), tmp_path / "panel.h5ad")
    table = ad.read_h5ad(tmp_path / "panel.h5ad")
    assert np.array_equal(table.X, panel.anchors)
    assert tuple(table.var_names) == panel.genes
    assert table.obs["stage"].tolist() == list(panel.stage)
    assert table.obs["n_cells"].tolist() == panel.n_cells.tolist()
    header = json.loads(table.uns[KEY]["header"])
    assert PanelManifest.model_validate(header["manifest"]) == panel_manifest(panel, 6)
    assert header["manifest"]["files"][0]["sha256"] == "a" * 64
    assert (header["spec_digest"], header["ruler_digest"]) == (built().spec.digest, tiny_ruler().digest)
    assert "ann" not in table.uns[KEY]["header"]


def test_the_manifest_is_that_of_a_card():
    panel = built().panel
    manifest = panel_manifest(panel, 6)
    entries = [entry.model_dump(mode="json") for entry in manifest.anchors]
    assert manifest.digest == anchors_digest(panel.anchors, entries, panel.genes)
    assert [(e["study"], e["donor"], e["n_cells"]) for e in entries] == list(
        zip(panel.study, panel.donor, panel.n_cells.tolist(), strict=True)
    )
    assert [file.n_missing_genes for file in manifest.files] == [2, 0]


def nudge(values: np.ndarray) -> np.ndarray:
    """One number, by the smallest step there is."""
    changed = values.copy()
    changed[2, 3] = np.nextafter(changed[2, 3], np.float32(9))
    return changed


def change_x(table: ad.AnnData) -> None:
    table.X = nudge(np.asarray(table.X))


def change_stage(table: ad.AnnData) -> None:
    table.obs["stage"] = table.obs["stage"].astype(str).tolist()[::-1]


def change_donor(table: ad.AnnData) -> None:
    table.obs["donor"] = ["somebody", *table.obs["donor"].astype(str)[1:]]


def change_size(table: ad.AnnData) -> None:
    table.obs["n_cells"] = table.obs["n_cells"].to_numpy() + 1


def change_genes(table: ad.AnnData) -> None:
    table.var_names = list(table.var_names[::-1])


def change_cells(table: ad.AnnData) -> None:
    table.uns[KEY]["cells"] = table.uns[KEY]["cells"].iloc[1:]


def change_cell_donor(table: ad.AnnData) -> None:
    cells = table.uns[KEY]["cells"]
    cells["donor"] = cells["donor"].astype(str).tolist()[::-1]


def change_header(table: ad.AnnData) -> None:
    table.uns[KEY]["header"] = table.uns[KEY]["header"].replace('"role":"external"', '"role":"negative"')


def change_order(table: ad.AnnData) -> ad.AnnData:
    return table[::-1].copy()


def without_x(table: ad.AnnData) -> None:
    table.X = None


CHANGES = [
    (change_x, "anchors"),
    (without_x, "anchors"),
    (change_stage, "anchors"),
    (change_donor, "anchors"),
    (change_size, "anchors"),
    (change_genes, "anchors"),
    (change_order, "anchors"),
    (change_cells, "cells"),
    (change_cell_donor, "cells"),
    (change_header, "header"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES, ids=[change.__name__ for change, _ in CHANGES])
def test_every_change_is_noticed(tmp_path, change, what):
    write_panel(built(), tmp_path / "panel.h5ad")
    table = ad.read_h5ad(tmp_path / "panel.h5ad")
    changed = change(table)
    (table if changed is None else changed).write_h5ad(tmp_path / "panel.h5ad")
    with pytest.raises(IntegrityError, match=rf"panel\.h5ad' was changed .* its {what} have") as caught:
        read_panel(tmp_path / "panel.h5ad")
    assert caught.value.files == ("panel.h5ad",)


def rewrite_header(path: Path, change) -> None:
    """Edit the header and give it the digest it then has, as a careful forger would."""
    with h5py.File(path, "r+") as file:
        kept = file[f"uns/{KEY}"]
        document = json.loads(kept["header"][()].decode())
        change(document)
        said = canonical_json(document)
        for name, value in (("header", said.decode()), ("sha256", sha256_bytes(said))):
            kept[name][()] = value


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda said: said.update(format_version=2), FutureFormatError, "panel format 2"),
        (lambda said: said.update(format_version="1"), FormatError, "fails at 'format_version'"),
        (lambda said: said.pop("format_version"), FormatError, "header that is not one"),
        (lambda said: said["spec"].update(role="extraction"), IntegrityError, "its specification have"),
        (lambda said: said["labels"][0].__setitem__(2, "left_1"), IntegrityError, "its labels have"),
        (lambda said: said["manifest"].update(digest="0" * 64), IntegrityError, "its anchors have"),
        (lambda said: said["missing_genes"].pop(), FormatError, "missing_genes"),
        (lambda said: said["manifest"].update(min_cells=0), FormatError, r"manifest\.min_cells"),
        (lambda said: said.update(note="me"), FormatError, "fails at 'note'"),
    ],
    ids=["newer", "version", "no version", "role", "label", "digest", "missing genes", "min_cells", "extra"],
)
def test_a_header_with_a_digest_of_its_own_must_still_fit(tmp_path, change, error, match):
    write_panel(built(), tmp_path / "panel.h5ad")
    rewrite_header(tmp_path / "panel.h5ad", change)
    with pytest.raises(error, match=match):
        read_panel(tmp_path / "panel.h5ad")


def without(key: str):
    def change(table: ad.AnnData) -> None:
        del table.uns[KEY][key]

    return change


def without_anything(table: ad.AnnData) -> None:
    table.uns = {}


def without_column(table: ad.AnnData) -> None:
    del table.obs["branch"]


def with_empty_group(table: ad.AnnData) -> None:
    table.obs["n_cells"] = 0


def without_donors(table: ad.AnnData) -> None:
    del table.uns[KEY]["cells"]["donor"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (without("cells"), "not a panel: it lacks uns"),
        (without("sha256"), "not a panel: it lacks uns"),
        (without_anything, "not a panel: it lacks uns"),
        (without_column, "not a panel any more: 'branch'"),
        (with_empty_group, "not a panel any more: .*n_cells"),
        (without_donors, "not a panel any more: 'donor'"),
    ],
)
def test_what_is_no_panel_is_refused(tmp_path, change, match):
    write_panel(built(), tmp_path / "panel.h5ad")
    table = ad.read_h5ad(tmp_path / "panel.h5ad")
    change(table)
    table.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(FormatError, match=match):
        read_panel(tmp_path / "other.h5ad")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"none\.h5ad"):
        read_panel(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("no")
    with pytest.raises(FormatError, match=r"text\.h5ad"):
        read_panel(tmp_path / "text.h5ad")
    write_panel(built(), tmp_path / "panel.h5ad")
    content = (tmp_path / "panel.h5ad").read_bytes()
    (tmp_path / "half.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"half\.h5ad"):
        read_panel(tmp_path / "half.h5ad")


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_panel(built(), tmp_path / "panel.h5ad")
    before = (tmp_path / "panel.h5ad").read_bytes()

    def broken(*_arguments, **_options):
        raise OSError("disk full")

    monkeypatch.setattr(ad.AnnData, "write_h5ad", broken)
    with pytest.raises(StoreError, match="disk full"):
        write_panel(built(seed=1), tmp_path / "panel.h5ad")
    assert (tmp_path / "panel.h5ad").read_bytes() == before
    assert not list(tmp_path.glob(".panel*"))

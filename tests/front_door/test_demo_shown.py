"""What the demo shows of each manifold: those at hand, their classes, nearest groups and figures."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from artifacts import passing_run
from rich.console import Console
from tiny import tiny_anchors, tiny_genes, tiny_manifold, tiny_manifold_with_tasks
from tiny_interaction import tiny_interaction

mpl.use("Agg")

from manifoldzoo import _demo_shown
from manifoldzoo._demo_shown import NAMES, Shown, draw, extremes, names_at_hand, render, stages_to_draw, told
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.registry._evidence_files import add_evidence
from manifoldzoo.registry._folders import local_store
from manifoldzoo.registry._resolve import load


@pytest.fixture
def cells() -> ad.AnnData:
    made = ad.AnnData(tiny_anchors()[0], var=pd.DataFrame(index=list(tiny_genes().symbols)))
    made.obs["cell_type"] = ["many"] * 10 + ["others"] * 11 + ["few"] * 3
    made.obs["dataset"] = "made"
    return made


def test_manifolds_of_this_machine_are_shown_in_order(
    tmp_path: Path, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names_at_hand()[0] == "hematopoietic"
    monkeypatch.setattr(_demo_shown, "NAMES", ("tiny", "nowhere", "hematopoietic"))
    assert names_at_hand() == ["hematopoietic"]
    local_store().put(artifact, "tiny", "0.1.0")
    assert names_at_hand() == ["tiny", "hematopoietic"]
    assert "communication" in NAMES


def test_both_kinds_of_ruler_are_told_and_drawn(tmp_path: Path, cells: ad.AnnData) -> None:
    folder = local_store().put(tiny_interaction().save(tmp_path / "talk"), "tiny", "0.1.0")
    talk = Shown(load("tiny"))
    add_evidence(folder, passing_run(talk.manifold, rung=2))
    graph = Shown(tiny_manifold_with_tasks())
    documents = []
    for shown, kind, figures in (
        (graph, "stage-graph", ["tiny.png"]),
        (talk, "interaction", ["tiny_interaction_map.png", "tiny_sender_receiver.png"]),
    ):
        shown.manifold.transform(cells, scale="log1p", groupby="cell_type")
        draw(shown, cells, tmp_path / "out")
        assert [path.name for path in shown.figures] == figures
        assert all(path.read_bytes().startswith(b"\x89PNG") for path in shown.figures)
        document = told(shown, cells)
        documents.append(document)
        assert (document["reference"], document["ruler"]) == ("tiny@0.1.0", kind)
        assert document["coordinates"] == {"key": "X_tiny", "n_components": 3}
        assert document["stages"] == cells.obs["tiny_stage"].value_counts(sort=False).to_dict()
        assert document["groups"]["names"] == ["few", "many", "others"]
        assert document["groups"]["sizes"] == [3, 10, 11]
        assert np.allclose(document["groups"]["distances"], cells.uns["tiny"]["group_distances"], atol=1e-4)
    assert [document["stored_rung"] for document in documents] == [0, 2]
    text = StringIO()
    render(documents, Console(file=text, width=160))
    said = text.getvalue()
    for word in ("interaction", "stage-graph", "2 of 6", "X_tiny, 3", "nearest", "farthest", "many", "others"):
        assert word in said
    assert "few " not in said


def test_stages_are_annotated_by_the_table_of_the_recipe(cells: ad.AnnData) -> None:
    tiny = tiny_manifold_with_tasks()
    tiny.transform(cells, scale="log1p")
    assert stages_to_draw(tiny, cells) == (cells.obs["tiny_stage"].tolist(), "most probable")
    manifold = load("hematopoietic")
    cells.obs["dataset"], cells.obs["cell_type"] = "marrow_setty2019", "Plasmacytoid Dendritic Cells"
    table = read_label_table(recipe_folder("hematopoietic") / "labels.tsv")
    expected = table.stage_of("marrow_setty2019", "Plasmacytoid Dendritic Cells") or ""
    assert stages_to_draw(manifold, cells) == ([expected] * 24, "annotated")


def test_the_nearest_and_farthest_of_large_groups() -> None:
    distances = [[0, 1, 5, 2], [1, 0, 3, 9], [5, 3, 0, 4], [2, 9, 4, 0]]
    groups = {"names": list("abcd"), "sizes": [20, 3, 30, 10], "distances": distances}
    assert extremes(groups) == [("nearest", "a", "d", 2.0), ("farthest", "a", "c", 5.0)]
    assert extremes(groups, fewest=1) == [("nearest", "a", "b", 1.0), ("farthest", "b", "d", 9.0)]
    assert extremes(groups, fewest=25) == []


def test_a_manifold_without_a_stage_readout_has_no_classes_to_tell(cells: ad.AnnData) -> None:
    shown = Shown(tiny_manifold())
    shown.manifold.transform(cells, scale="log1p", groupby="cell_type")
    assert told(shown, cells)["stages"] == {}

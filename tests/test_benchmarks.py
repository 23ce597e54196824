"""Benchmarks are programs of this project too: what they import is there, and each says what it measures."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import anndata as ad
import numpy as np
import pytest
from interactions import GENES, talking_cells, write_tables
from scipy.stats import spearmanr
from small import write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler
from manifoldzoo.manifolds.demo import demo_path

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


def load(script: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a benchmark; those that it imports are found beside it."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"tried_{script.stem}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_starts_and_says_what_it_measures(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(script, monkeypatch)
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.split()) > 20


@pytest.fixture
def small_studies(tmp_path: Path) -> Path:
    """Two runs of the bundled cells as two studies, both in one file, and other cells of the same."""
    both = ad.read_h5ad(write_small_cells(tmp_path / "both.h5ad", per_group=5))
    for run in ("Run4", "Run5"):
        both[both.obs["donor"] == run].copy().write_h5ad(tmp_path / f"{run}.h5ad")
    every = ad.read_h5ad(demo_path())
    groups = every.obs.groupby(["donor", "cell_type"], observed=True).indices.values()
    rows = np.sort(np.concatenate([rows[5:10] for rows in groups if len(rows) >= 10]))
    every[rows].copy().write_h5ad(tmp_path / "others.h5ad")
    write_small_recipe(tmp_path / "recipe", 'kind = "token_qk"')
    return tmp_path


def test_every_head_is_scored_on_every_study_that_is_left_out(
    small_studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(FOLDER / "leave_one_study_out.py", monkeypatch)
    told = small_studies / "told.json"
    arguments = (
        f"--cells {small_studies}/Run4.h5ad --external {small_studies}/Run5.h5ad --recipe {small_studies}/recipe"
    )
    # the only study that is fitted to when the external one is placed is the other
    arguments = arguments.replace("Run4.h5ad", f"Run4.h5ad {small_studies}/others.h5ad")
    settings = f"--kinds token_qk --untrained 1 --starts 1 --cell-starts 1 --epochs 1 --json {told}"
    settings += " --adaptors isomap:5 --components 6"
    monkeypatch.setattr(sys, "argv", ["leave_one_study_out.py", *arguments.split(), *settings.split()])
    module.main()
    printed = capsys.readouterr().out
    figures = json.loads(told.read_text(encoding="utf-8"))
    assert list(figures) == ["Run4", "others", "Run5"]
    assert printed.startswith("Ruler, the same for every study: hematopoietic-stages ")
    heads = ["anchor", "isomap, k = 5", "cell", "hybrid", "anchor, relabelled", "cell, relabelled"]
    for study in figures.values():
        rows = study["rows"]
        assert [row for row in rows if row.startswith("token_qk |")] == [f"token_qk | {head}" for head in heads]
        assert rows["PCA-10 | anchor"] != rows["PCA-10 | cell"]
        assert rows["token_qk | cell"] != rows["token_qk | cell, relabelled"]
        assert all(-1 <= row[key][0] <= 1 for row in rows.values() for key in ("anchors", "cells", "trust", "depth"))
        assert rows["token_qk | isomap, k = 5"]["anchors"] != rows["token_qk | anchor"]["anchors"]
        for size in (2, 6):
            # the same components whatever the head
            beside = [rows[f"token_qk | {head}"]["anchors"][0] for head in heads]
            over = [rows[f"token_qk | {head}"][f"over PCA-{size}"][0] for head in heads]
            assert np.ptp(np.subtract(beside, over)) < 1e-9
    # what is printed over studies is made of what was printed for each
    mean = np.mean([study["rows"]["token_qk | hybrid"]["cells"][0] for study in figures.values()])
    summary = printed.split("**Mean over 3 studies**")[1].split("\n\n")[1].splitlines()
    column = summary[0].split(" | ").index("cells (3)")
    (line,) = [line for line in summary if line.startswith("| token_qk | hybrid |")]
    assert line.split(" | ")[column].startswith(f"{mean:.2f} [")
    assert "mono/macro" not in summary[0]


def test_studies_are_left_out_of_a_ruler_of_interactions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(FOLDER / "leave_one_study_out.py", monkeypatch)
    (write_tables(tmp_path / "recipe") / "recipe.toml").write_text(TALK)
    for seed, study in enumerate(("one", "two")):
        talking_cells(study, donors=["d1", "d2", "d3"], seed=seed).write_h5ad(tmp_path / f"{study}.h5ad")
    write_tiny_scgpt(tmp_path / "model", genes=GENES)
    where = f"--cells {tmp_path}/one.h5ad {tmp_path}/two.h5ad --recipe {tmp_path}/recipe --data {tmp_path}"
    settings = f"--checkpoint {tmp_path}/model --kinds token_qk --untrained 0 --starts 2 --cell-starts 0 --components 2"
    told = tmp_path / "told.json"
    monkeypatch.setattr(sys, "argv", ["leave_one_study_out.py", *f"{where} {settings} --json {told}".split()])
    module.main()
    printed = capsys.readouterr().out
    assert "talk 0.1.0, digest" in printed and "computed from pairs.csv and one.h5ad" in printed
    for study in json.loads(told.read_text(encoding="utf-8")).values():
        rows = study["rows"]
        assert {name.split(" | ")[1] for name in rows} == {"anchor", "isomap, k = 3", "anchor, relabelled"}
        # three nulls travel with the ruler, and the first two are fitted to
        assert rows["token_qk | anchor"]["anchors"] != rows["token_qk | anchor, relabelled"]["anchors"]
        for row in rows.values():
            assert all(np.isfinite(row[key][0]) for key in ("anchors", "over PCA-2", "cells", "branch", "stage"))
            assert np.isnan(row["depth"][0])


TALK = """
name = "talk"
version = "0.1.0"
title = "Talk"
description = "For tests."
licence = "MIT"
ruler_licence = "CC0-1.0"
extractor = "operator-let"
coverage_floor = 0.3
intended_use = "Tests."
limits = ["Means nothing."]
[ruler]
kind = "interaction"
resource = "pairs.csv"
files = ["one.h5ad"]
n_nulls = 3
[panel]
max_cells_per_stage = 12
[operator]
kind = "expression"
[choice]
n_components = [2, 3]
adaptors = [{kind = "let-anchor"}, {kind = "isomap", n_neighbours = 3}]
[[readouts]]
task = "cell_type"
[[readouts]]
task = "broad_class"
label = "branch"
[[citations]]
key = "none"
text = "Nobody (2026)."
"""


def test_the_interval_over_studies_is_that_of_all_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    load(FOLDER / "leave_one_study_out.py", monkeypatch)
    module = importlib.import_module("left_out.tables")
    # of two studies the four draws have the means 0, 1/2, 1/2, 1
    assert module.over_studies([0.0, 1.0, np.nan]) == pytest.approx((0.5, 0.0375, 0.9625))
    mean, low, high = module.over_studies([np.nan, 0.3])
    assert mean == 0.3
    assert np.isnan([low, high]).all()
    assert np.isnan(module.over_studies([np.nan])).all()


def test_a_cell_that_was_drawn_twice_is_no_pair_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(FOLDER / "leave_one_study_out.py", monkeypatch)
    pairs = module.pairs_apart(np.array([4, 7, 4]))
    assert list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == [(0, 1), (1, 2)]


@pytest.mark.slow
def test_the_marrow_is_ordered_in_every_way(
    small_studies: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load(FOLDER / "marrow_order.py", monkeypatch)
    told = small_studies / "told.json"
    arguments = (
        f"--marrow {small_studies}/both.h5ad --others {small_studies}/others.h5ad --recipe {small_studies}/recipe"
    )
    settings = f"--kind token_qk --untrained 1 --starts 1 --cell-starts 1 --epochs 1 --draws 3 --json {told}"
    monkeypatch.setattr(sys, "argv", ["marrow_order.py", *arguments.split(), *settings.split()])
    module.main()
    printed = capsys.readouterr().out
    out, within = json.loads(told.read_text(encoding="utf-8")).values()
    # each run is left out in turn
    assert [len(table["token_qk | anchor"]["angle"]) for table in (out, within)] == [1, 2]
    for row in out.values():
        assert list(row) == ["depth", "angle", "diffusion"]
        assert len({run["order"] for way in row.values() for run in way}) == 3
    best = max(abs(way[0]["order"]) for row in out.values() for way in row.values())
    said = re.findall(
        r"The largest of these (\d+) correlations with the order is ([0-9.]+),.* is (missed|reached)\.", printed
    )
    assert said[0] == (str(3 * len(out)), f"{best:.3f}", "reached" if best > 0.85 else "missed")
    assert "| DPT, root of highest CD34 |" in printed


def test_orderings_are_scored_as_scipy_and_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(FOLDER / "marrow_order.py", monkeypatch)
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))
    rng = np.random.default_rng(0)
    left, right = rng.integers(5, size=60), rng.integers(4, size=60)
    assert module.spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)
    assert np.isnan(module.spearman(left, np.ones(60)))
    stage = np.repeat(["hsc", "cmp", "mep", "gmp", "monoblast", "cdc2", "pdc", "polychromatic_erythroblast"], 4)
    depth = ruler.depth(stage.tolist())
    truth = module.Truth.of(stage, depth, ruler, 2)
    assert truth.levels.tolist() == [0] * 4 + [1] * 12 + [2] * 16
    # an order without ties that follows the depth reaches the ceiling, and all pairs
    ordering = depth + np.linspace(0, 0.1, len(stage))
    scored = module.figures(ordering, truth, ruler)
    assert scored["order"][0] == pytest.approx(module.ceiling(truth.levels))
    assert [scored[f"{arm}, pairs"] for arm in module.ARMS] == [[1.0]] * 3
    backwards = module.figures(-ordering, truth, ruler)
    assert backwards["order"][0] == pytest.approx(-scored["order"][0])
    assert [backwards[f"{arm}, pairs"] for arm in module.ARMS] == [[0.0]] * 3
    assert module.figures(-ordering, truth, ruler, turn=True)["order"] == pytest.approx(scored["order"])
    # an arm is what lies on the way to its ends: no megakaryocyte, and of two ends neither is the other's ancestor
    assert module.arm_stages(ruler, module.ARMS["dendritic"], set(stage)) == ["hsc", "cmp", "gmp", "pdc", "cdc2"]
    assert not module.is_ancestor(ruler, "pdc", "cdc2")
    assert module.is_ancestor(ruler, "gmp", "cdc2")


def test_diffusion_follows_a_line_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(FOLDER / "marrow_order.py", monkeypatch)
    along = np.random.default_rng(0).permutation(200)
    bent = np.column_stack([np.cos(along / 80), np.sin(along / 80)])
    found = module.diffusion(bent, int(along.argmin()))
    assert spearmanr(found, along).statistic > 0.999
    assert spearmanr(module.diffusion(bent, int(along.argmax())), along).statistic < -0.999

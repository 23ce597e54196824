"""LIANA's ranking by pairs of cell types, and agreement with it, against loops and other libraries; without LIANA."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.spatial.distance import correlation, euclidean
from scipy.stats import pearsonr, spearmanr

from manifoldzoo.cards._errors import LowCoverageError
from manifoldzoo.gates import mantel
from manifoldzoo.manifolds._interaction_ruler import InteractionRuler
from manifoldzoo.manifolds._labels import LabelTable
from manifoldzoo.manifolds._ruler import Stage

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
TYPES = ["a", "b", "c", "d", "e", "f"]
GENES = [f"G{number}" for number in range(12)]


@pytest.fixture(autouse=True)
def _beside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts are found as they are when the script is run."""
    monkeypatch.syspath_prepend(str(FOLDER))


def part(name: str) -> ModuleType:
    return importlib.import_module(f"liana_pairs.{name}")


def study_of(
    rng: np.random.Generator, name: str = "one", sizes: tuple[int, ...] = (9, 12, 7, 8, 10, 11)
) -> tuple[ad.AnnData, LabelTable]:
    """Counts of six types and one of too few cells, labels as the authors' names, and the table that knows them."""
    names = [*TYPES, "few", "left out"]
    kind = np.repeat(names, [*sizes, 4, 6])
    rate = rng.gamma(0.5, 2.0, size=(len(names), len(GENES)))[np.repeat(np.arange(len(names)), [*sizes, 4, 6])]
    # the first gene is in every cell, so that none is empty
    counts = rng.poisson(rate + 0.05) + (np.arange(len(GENES)) == 0)
    cells = ad.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    cells.var_names, cells.obs_names = GENES, [f"cell{number}" for number in range(len(kind))]
    cells.obs["dataset"] = name
    cells.obs["cell_type"] = [f"authors' {each}" for each in kind]
    stages = {(name, f"authors' {each}"): each for each in [*TYPES, "few"]}
    return cells, LabelTable({**stages, (name, "authors' left out"): "-"})


def read(tmp_path: Path, rng: np.random.Generator) -> tuple[Any, Path, LabelTable]:
    cells, labels = study_of(rng)
    cells.write_h5ad(tmp_path / "one.h5ad")
    return part("studies").read_study(tmp_path / "one.h5ad", labels), tmp_path / "one.h5ad", labels


def ranking_of(rng: np.random.Generator, n_rows: int = 200) -> Any:
    rows = rng.choice(np.arange(36 * 20), size=n_rows, replace=False)
    table = pd.DataFrame(
        {
            "source": np.array(TYPES)[rows // 120],
            "target": np.array(TYPES)[rows // 20 % 6],
            "ligand_complex": [f"L{row % 20}" for row in rows],
            "receptor_complex": [f"R{row % 20}" for row in rows],
            "specificity_rank": rng.random(n_rows) ** 3,
            "magnitude_rank": rng.random(n_rows) ** 3,
        }
    )
    # at the level itself, and a pair without interactions
    table.loc[:9, ["specificity_rank", "magnitude_rank"]] = 0.05
    table = table[~((table["source"] == "a") & (table["target"] == "b"))]
    told = rng.integers(3, 30, size=(2, 6))
    return part("ranking").Ranking(TYPES, table, told[0], told[1], {"processor": 1.0, "elapsed": 2.0}, True)


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    matrix = rng.normal(size=(n, n))
    return matrix + matrix.T


def test_liana_is_not_imported_with_the_benchmark() -> None:
    code = "import sys, communication_liana; sys.exit(any(name.split('.')[0] == 'liana' for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_cells_get_the_types_of_the_table_on_the_scale_of_both(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    study, path, labels = read(tmp_path, rng)
    assert study.groups == TYPES
    assert study.sizes.tolist() == [9, 12, 7, 8, 10, 11]
    raw = ad.read_h5ad(path)
    counts = raw[study.cells.obs_names].X.toarray().astype(float)
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    np.testing.assert_allclose(study.cells.X.toarray(), expected, rtol=1e-5)
    # values that are logarithms stay as they are
    raw.X = raw.X.log1p()
    raw.write_h5ad(tmp_path / "log.h5ad")
    logged = part("studies").read_study(tmp_path / "log.h5ad", labels)
    np.testing.assert_allclose(logged.cells.X.toarray(), np.log1p(counts), rtol=1e-6)
    # the finer column counts where the table knows it as well
    raw.obs["cell_state"] = "authors' a"
    raw.write_h5ad(tmp_path / "state.h5ad")
    assert part("studies").read_study(tmp_path / "state.h5ad", labels).groups == ["a"]
    raw.obs["dataset"] = "another"
    raw.write_h5ad(tmp_path / "another.h5ad")
    assert part("studies").read_study(tmp_path / "another.h5ad", labels) is None


def test_means_shares_and_halves_are_those_of_the_cells(tmp_path: Path) -> None:
    study, _, _ = read(tmp_path, np.random.default_rng(1))
    values, kind = study.cells.X.toarray(), study.cells.obs[part("studies").GROUP].astype(str)
    for row, name in enumerate(TYPES):
        inside = values[(kind == name).to_numpy()]
        np.testing.assert_allclose(part("studies").means(study)[row], inside.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(part("studies").expressed_share(study)[row], (inside > 0).mean(axis=0))
    first, second = part("studies").halves(study, np.random.default_rng(0))
    # of 9, 7 and 8 cells one half has too few
    assert first.groups == ["b", "e", "f"]
    assert first.sizes.tolist() == [6, 5, 5]
    assert not set(first.cells.obs_names) & set(second.cells.obs_names)
    assert first.digest != study.digest != second.digest


def test_a_complex_is_expressed_where_all_its_subunits_are() -> None:
    share = {"A": np.array([0.1, 0.5, 0.0]), "B": np.array([0.2, 0.09, 0.9])}
    count = part("ranking").expressed
    assert count(["A", "B", "A_B", "A_C", "C"], share, 0.1).tolist() == [3, 1, 1]


def test_summaries_are_those_of_a_loop_over_pairs() -> None:
    ranked = ranking_of(np.random.default_rng(2))
    found = part("ranking").summaries(ranked)
    for (i, sender), (j, receiver) in itertools.product(enumerate(TYPES), repeat=2):
        rows = [row for row in ranked.table.itertuples() if row.source == sender and row.target == receiver]
        assert found["expressed"][i, j] == len(rows)
        assert found["specific"][i, j] == sum(row.specificity_rank <= 0.05 for row in rows)
        assert found["strong"][i, j] == sum(row.magnitude_rank <= 0.05 for row in rows)
        for name in ("specificity", "magnitude"):
            logs = [-np.log10(getattr(row, f"{name}_rank")) for row in rows]
            assert found[f"total {name}"][i, j] == pytest.approx(sum(logs), abs=1e-6)
            assert found[f"mean {name}"][i, j] == pytest.approx(np.mean(logs) if logs else 0, abs=1e-6)
    assert found["expressed"][0, 1] == 0


def test_a_ranking_is_read_again_unless_cells_or_settings_change(tmp_path: Path) -> None:
    study, _, _ = read(tmp_path, np.random.default_rng(3))
    settings, asked = part("ranking").Settings(), []
    resource = pd.DataFrame({"ligand": ["G0", "G1_G2", "G0"], "receptor": ["G3", "G4", "G5_ABSENT"]})

    def run(study: Any, settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
        asked.append(settings)
        table = ranking_of(np.random.default_rng(4)).table.assign(more=1)
        return table, resource, {"processor": 3.0, "elapsed": 4.0}

    def rank(study: Any, settings: Any, **options: Any) -> Any:
        return part("ranking").rank(study, settings, tmp_path / "kept", run=run, **options)

    first, again = rank(study, settings), rank(study, settings)
    assert (first.fresh, again.fresh, len(asked)) == (True, False, 1)
    pd.testing.assert_frame_equal(first.table, again.table)
    assert again.seconds == {"processor": 3.0, "elapsed": 4.0}
    share = dict(zip(GENES, part("studies").expressed_share(study).T, strict=True))
    ligands = (share["G0"] >= 0.1).astype(int) + ((share["G1"] >= 0.1) & (share["G2"] >= 0.1))
    np.testing.assert_array_equal(again.ligands, ligands)
    assert rank(study, settings, fresh=True).fresh
    assert rank(study, part("ranking").Settings(n_perms=10)).fresh
    assert rank(part("studies").halves(study, np.random.default_rng(0))[0], settings).fresh
    # a table without what was told about it was cut off
    (told,) = (path for path in (tmp_path / "kept").glob("*.json") if json.loads(path.read_text())["n_cells"][0] == 6)
    told.unlink()
    assert rank(part("studies").halves(study, np.random.default_rng(0))[0], settings).fresh


def test_correlations_over_drawn_types_are_those_of_scipy() -> None:
    rng = np.random.default_rng(5)
    closeness, target = np.stack([symmetric(rng, 6) for _ in range(3)]), symmetric(rng, 6)
    draws = part("agreement").draw_types(6, 40, rng=rng)
    assert draws.shape == (40, 6)
    assert min(len(set(draw)) for draw in draws.tolist()) >= 3
    found = part("agreement").over_draws(closeness, target, draws)
    for draw, row in zip(draws.tolist(), found, strict=True):
        pairs = [(i, j) for i, j in itertools.combinations(draw, 2) if i != j]
        for matrix, rho in zip(closeness, row, strict=True):
            other = spearmanr([matrix[pair] for pair in pairs], [target[pair] for pair in pairs]).statistic
            assert rho == pytest.approx(other, nan_ok=True)


def test_a_few_types_are_drawn_until_three_differ() -> None:
    draws = part("agreement").draw_types(3, 500, rng=np.random.default_rng(0))
    assert (np.sort(draws, axis=1) == [0, 1, 2]).all()


def test_agreement_is_that_of_the_mantel_test_and_nothing_where_a_side_does_not_vary() -> None:
    rng = np.random.default_rng(6)
    target = symmetric(rng, 7)
    closeness = {"same": target, "noise": symmetric(rng, 7), "flat": np.ones((7, 7))}
    draws = part("agreement").draw_types(7, 100, rng=rng)
    found, drawn = part("agreement").compare(
        closeness, target, draws=draws, n_permutations=999, rng=np.random.default_rng(0)
    )
    assert found["same"].rho == pytest.approx(1)
    assert found["same"].low == pytest.approx(1)
    assert found["same"].p < 0.01
    upper = np.triu_indices(7, 1)
    assert found["noise"].rho == pytest.approx(spearmanr(closeness["noise"][upper], target[upper]).statistic)
    assert (found["noise"].low, found["noise"].high) == pytest.approx(np.quantile(drawn[:, 1], [0.025, 0.975]))
    assert found["flat"] == part("agreement").Agreement(None)
    flat, _ = part("agreement").compare(
        {"noise": closeness["noise"]}, np.ones((7, 7)), draws=draws, n_permutations=99, rng=np.random.default_rng(0)
    )
    assert flat["noise"].rho is None


def test_what_hubs_explain_is_taken_out() -> None:
    rng = np.random.default_rng(7)
    known, own = symmetric(rng, 9), symmetric(rng, 9)
    options = {"n_permutations": 499, "rng": np.random.default_rng(0)}
    target = known + 0.5 * own
    found = part("agreement").beyond({"known, nearly": known + 1e-3 * own, "own": own}, target, known, **options)
    upper = np.triu_indices(9, 1)
    ranks = [pd.Series(matrix[upper]).rank().to_numpy() for matrix in (own, target, known)]
    rest = [values - np.polyval(np.polyfit(ranks[2], values, 1), ranks[2]) for values in ranks[:2]]
    assert found["own"].rho == pytest.approx(pearsonr(*rest).statistic)
    assert found["own"].p < 0.01
    assert part("agreement").beyond({"known": 2 * known + 1}, target, known, **options)["known"].rho is None
    flat = part("agreement").beyond({"own": own}, target, np.ones((9, 9)), **options)
    assert flat["own"].rho is None


def test_the_directed_test_is_the_mantel_test_of_symmetric_tables() -> None:
    rng = np.random.default_rng(8)
    x = symmetric(rng, 8)
    y = x + 1.5 * symmetric(rng, 8)
    ours = part("agreement").compare_directed(x, y, n_permutations=4999, rng=np.random.default_rng(0))
    theirs = mantel(x, y, method="spearman", n_permutations=4999, rng=np.random.default_rng(1))
    assert ours.rho == pytest.approx(theirs.statistic)
    assert ours.p == pytest.approx(theirs.p_value, abs=0.02)


def test_the_directed_test_is_that_of_all_arrangements() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(5, 5)), rng.normal(size=(5, 5))
    off = ~np.eye(5, dtype=bool)
    every = [spearmanr(x[np.ix_(order, order)][off], y[off]).statistic for order in itertools.permutations(range(5))]
    found = part("agreement").compare_directed(x, y, n_permutations=9999, rng=np.random.default_rng(0))
    assert found.rho == pytest.approx(every[0])
    assert found.p == pytest.approx(np.mean(np.array(every) >= every[0] - 1e-9), abs=0.02)
    # what does not turn with the direction says nothing of it
    assert part("agreement").compare_directed(np.ones((5, 5)), y, n_permutations=9, rng=rng).rho is None
    turned = part("agreement").direction(x)
    np.testing.assert_allclose(turned, -turned.T)
    np.testing.assert_allclose(turned + (x + x.T) / 2, x)


def test_the_shape_of_a_table_without_pairs_and_of_one_of_nothing_else() -> None:
    rng = np.random.default_rng(10)
    shape = part("agreement").shape
    hubs = np.add.outer(rng.normal(size=12), rng.normal(size=12))
    assert shape(hubs)["types alone"] == pytest.approx(1)
    assert shape(symmetric(rng, 12))["same both ways"] == pytest.approx(1)
    noise = rng.normal(size=(40, 40))
    # 78 of 1559 degrees of freedom
    assert shape(noise)["types alone"] == pytest.approx(78 / 1559, abs=0.03)
    assert shape(noise)["same both ways"] == pytest.approx(np.sqrt(0.5), abs=0.05)
    assert np.isnan(list(shape(np.ones((6, 6))).values())).all()


class Stub:
    """What the comparison asks of a manifold: two coordinates, a ruler with three nulls, and anchors."""

    name, version, reference, digest, n_components = "stub", "1.0.0", "", "0" * 64, 4

    def __init__(self, seen: str = "", covered: bool = True) -> None:
        rng = np.random.default_rng(11)
        self.covered = covered
        self.genes = SimpleNamespace(symbols=(*GENES[2:6], "UNMEASURED", *GENES[6:]))
        self.tensors = {"panel.anchors": rng.gamma(1.0, size=(8, 11)).astype(np.float32)}
        files = [SimpleNamespace(sha256=seen)]
        interaction = SimpleNamespace(files=[])
        self.card = SimpleNamespace(panel=SimpleNamespace(files=files), ruler=SimpleNamespace(interaction=interaction))
        stages = tuple(Stage(name, name, "", "all") for name in TYPES)
        tables = rng.uniform(1, 3, size=(4, 6, 6))
        self.ruler = InteractionRuler("stub", "1", stages, tables[0], tables[1:])

    def transform(self, cells: ad.AnnData, *, key_added: str, scale: str, groupby: str) -> None:
        if not self.covered:
            raise LowCoverageError("Genes of the input carry 10% of the manifold.", coverage=0.1, floor=0.5)
        assert scale == "log1p"
        order = [name for name in reversed(TYPES) if (cells.obs[groupby] == name).any()]
        means = np.stack([cells[cells.obs[groupby] == name].X[:, :2].toarray().mean(axis=0) for name in order])
        apart = np.array([[euclidean(x, y) for y in means] for x in means])
        cells.uns[key_added] = {"groups": np.array(order), "group_distances": apart}


def test_closeness_is_that_of_the_groups_in_their_order(tmp_path: Path) -> None:
    study, _, _ = read(tmp_path, np.random.default_rng(12))
    manifold, ranked = Stub(), ranking_of(np.random.default_rng(13))
    measures = part("measures")
    placed = measures.place(manifold, study)
    found = measures.symmetric(manifold, study, ranked, placed)
    assert all(np.array_equal(table, table.T) for table in found.values())
    profiles = part("studies").means(study)
    assert -found["manifold"][0, 4] == pytest.approx(euclidean(profiles[0, :2], profiles[4, :2]))
    assert -found["expression, correlation"][1, 5] == pytest.approx(correlation(profiles[1, 2:], profiles[5, 2:]))
    assert -found["expression, Euclidean"][1, 5] == pytest.approx(euclidean(profiles[1, 2:], profiles[5, 2:]))
    anchors = np.delete(manifold.tensors["panel.anchors"], 4, axis=1).astype(float)
    axes = np.linalg.svd(anchors - anchors.mean(axis=0), full_matrices=False)[2][:2]
    assert -found["PCA-2"][2, 3] == pytest.approx(np.linalg.norm(axes @ (profiles[2, 2:] - profiles[3, 2:])))
    assert [name for name in found if name.startswith("PCA")] == ["PCA-2", "PCA-4", "PCA-6"]
    np.testing.assert_allclose(found["ruler"], -manifold.ruler.distances(TYPES))
    product = ranked.ligands[0] * ranked.receptors[3] + ranked.ligands[3] * ranked.receptors[0]
    assert found["ligands and receptors, product"][0, 3] == pytest.approx(product / 2)
    total = ranked.ligands[0] + ranked.receptors[3] + ranked.ligands[3] + ranked.receptors[0]
    assert found["ligands and receptors, sum"][0, 3] == pytest.approx(total / 2)
    assert found["cells"][0, 1] == 9 * 12
    ordered = measures.directed(manifold, study, ranked, placed)
    np.testing.assert_array_equal(-ordered["ruler, directed"], manifold.ruler.directed)
    assert ordered["ligands and receptors, product"][0, 3] == ranked.ligands[0] * ranked.receptors[3]
    nulls = measures.ruler_nulls(manifold, TYPES[:4])
    assert len(nulls) == 3
    assert -nulls[1][0, 1] == pytest.approx(manifold.ruler.null_tables[1][[0, 1], [1, 0]].mean())


@pytest.fixture
def run_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the whole comparison of two studies, with a LIANA that counts genes."""
    rng = np.random.default_rng(14)
    (tmp_path / "data").mkdir()
    labels: dict[tuple[str, str], str] = {}
    for name, sizes in (("one", (10, 12, 14, 10, 16, 11)), ("two", (12, 10, 11, 13, 10, 0))):
        cells, table = study_of(rng, name, sizes)
        cells.write_h5ad(tmp_path / "data" / f"{name}.h5ad")
        labels |= table.stages
    small, table = study_of(rng, "three", (9, 9, 0, 0, 0, 0))
    small.write_h5ad(tmp_path / "data" / "three.h5ad")
    script, ranking = importlib.import_module("communication_liana"), part("ranking")
    told = LabelTable(labels | dict(table.stages))

    def fake(study: Any, settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
        share = dict(zip(GENES, part("studies").expressed_share(study).T, strict=True))
        rows = [
            (sender, receiver, ligand, receptor, 1 - share[ligand][i] * share[receptor][j], 0.5)
            for (i, sender), (j, receiver) in itertools.product(enumerate(study.groups), repeat=2)
            for ligand, receptor in zip(GENES[::2], GENES[1::2], strict=True)
        ]
        table = pd.DataFrame(rows, columns=[*ranking.KEYS, *ranking.RANKS])
        # ranks, so that some are below the level
        table["specificity_rank"] = table["specificity_rank"].rank(pct=True)
        resource = pd.DataFrame({"ligand": GENES[::2], "receptor": GENES[1::2]})
        return table, resource, {"processor": 5.0, "elapsed": 6.0}

    monkeypatch.setattr(ranking.rank, "__kwdefaults__", {"fresh": False, "run": fake})
    options = argparse.Namespace(
        data=tmp_path / "data", out=tmp_path / "out", liana_permutations=10, permutations=99, draws=50, seed=0
    )
    options.fresh = False

    def run(**changes: Any) -> dict[str, Any]:
        digest = part("studies").read_study(tmp_path / "data" / "one.h5ad", told).sha256
        manifold = Stub(seen=digest, covered=changes.pop("covered", True))
        chosen = argparse.Namespace(**{**vars(options), **changes})
        return script.run(manifold, changes.pop("labels", told), chosen)

    return run


def test_a_run_tells_each_study_and_means_over_those_seen_and_unseen(run_of: Any) -> None:
    told = run_of()
    assert list(told["studies"]) == ["one", "three", "two"]
    assert [study["seen"] for study in told["studies"].values()] == [True, False, False]
    assert "agreement" not in told["studies"]["three"]
    assert told["studies"]["three"]["cannot_decide"].startswith("2 cell types")
    one, two = told["studies"]["one"], told["studies"]["two"]
    for study in (one, two):
        agreed = study["agreement"]["specific"]
        upper = np.triu_indices(len(study["types"]), 1)
        table = np.array(study["liana_table"]["specific"])
        target = ((table + table.T) / 2)[upper]
        for name, closeness in study["closeness"].items():
            assert agreed[name]["rho"] == pytest.approx(spearmanr(np.array(closeness)[upper], target).statistic)
        apart = study["differences"]["PCA-2"]
        assert apart["value"] == pytest.approx(agreed["manifold"]["rho"] - agreed["PCA-2"]["rho"])
        assert apart["low"] <= apart["high"]
        nulls = Stub().ruler.null_tables[:, : len(study["types"]), : len(study["types"])]
        expected = [spearmanr(-(null + null.T)[upper], target).statistic for null in nulls]
        assert study["nulls"] == pytest.approx(expected)
        assert all(told["rho"] is not None for told in study["beyond_hubs"].values())
        # the manifold knows no direction
        assert list(study["direction"]) == [
            "ruler, directed",
            "ligands and receptors, product",
            "ligands and receptors, sum",
        ]
    assert told["means"]["unseen"]["ruler"]["value"] == two["agreement"]["specific"]["ruler"]["rho"]
    assert told["mean_differences"]["seen"]["ruler"]["value"] == one["differences"]["ruler"]["value"]
    assert -1 <= one["halves"] <= 1
    # over the five types of both
    tables = [np.array(study["liana_table"]["specific"])[:5, :5] for study in (one, two)]
    columns = [(table + table.T)[np.triu_indices(5, 1)] for table in tables]
    expected = {"rho": pytest.approx(spearmanr(*columns).statistic), "n_types": 5}
    assert told["across"] == {"one": {"two": expected}, "two": {"one": expected}}
    assert list(one["beyond_nulls"]) == list(one["closeness"])
    # a study's figures are its own
    again = run_of()
    assert not again["studies"]["two"]["liana_run_now"]
    assert again["studies"]["two"]["agreement"] == two["agreement"]
    json.dumps(told, allow_nan=False)


def test_differences_are_those_of_the_same_draws() -> None:
    script = importlib.import_module("communication_liana")
    agreed = {name: {"rho": rho} for name, rho in (("manifold", 0.5), ("ruler", 0.2), ("cells", None))}
    drawn = {"manifold": np.linspace(0, 1, 41), "ruler": np.linspace(0, 0.5, 41), "cells": np.full(41, np.nan)}
    found = script.differences(agreed, drawn)
    assert list(found) == ["ruler"]
    assert found["ruler"] == pytest.approx({"value": 0.3, "low": 0.0125, "high": 0.4875})


def test_a_study_that_cannot_be_placed_is_compared_without_the_manifold(run_of: Any) -> None:
    told = run_of(covered=False)
    one = told["studies"]["one"]
    assert not one["placed"]
    assert "10%" in one["not_placed"]
    assert "manifold" not in one["agreement"]["specific"]
    assert one["differences"] == told["mean_differences"]["seen"] == {}
    assert told["means"] == {"seen": {}, "unseen": {}}
    shown = part("tables").render(told)
    assert "\n| manifold | " not in shown
    assert "\n| ruler | " in shown
    assert "- one: not placed. Genes of the input carry 10% of the manifold." in shown


def test_tables_show_the_figures_of_the_document_and_go_between_the_marks(run_of: Any, tmp_path: Path) -> None:
    told = json.loads(json.dumps(run_of()))
    tables = part("tables")
    shown = tables.render(told)
    agreed = told["studies"]["one"]["agreement"]["specific"]["PCA-2"]
    cell = f"{agreed['rho']:.2f} [{agreed['low']:.2f}, {agreed['high']:.2f}], p {agreed['p']:.2g}"
    (line,) = [line for line in shown.splitlines() if line.startswith("| PCA-2 |") and "], p " in line]
    assert line.split(" | ")[1] == cell
    assert "| three | unseen | 18 | 2 | 1 |" in shown
    assert "- three: cannot decide, 2 cell types, expected 5 or more." in shown
    assert "one (seen) | two (unseen)" in shown
    page = tmp_path / "page.md"
    page.write_text(f"Before\n{tables.OPENED}\nold\n{tables.CLOSED}\nAfter\n", encoding="utf-8")
    for _ in range(2):
        tables.put_into(page, shown)
    assert page.read_text(encoding="utf-8") == f"Before\n{tables.OPENED}\n\n{shown}\n{tables.CLOSED}\nAfter\n"
    shipped = (FOLDER.parent / "docs" / "liana_comparison.md").read_text(encoding="utf-8")
    page.write_text(shipped, encoding="utf-8")
    tables.put_into(page, shown)
    assert shown in page.read_text(encoding="utf-8")
    page.write_text("Without marks\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="needs the line"):
        tables.put_into(page, shown)


def test_a_folder_without_known_studies_is_refused(run_of: Any) -> None:
    with pytest.raises(SystemExit, match=r"no \.h5ad file whose data set"):
        run_of(labels=LabelTable({("unknown", "x"): "a"}))


@pytest.mark.slow
def test_liana_itself_counts_what_both_types_express(tmp_path: Path) -> None:
    pytest.importorskip("liana")
    import liana as li

    resource = li.rs.select_resource("consensus")
    rng = np.random.default_rng(15)
    names = sorted({unit for side in ("ligand", "receptor") for name in resource[side] for unit in name.split("_")})
    kind = np.repeat(["a", "b", "c"], [20, 30, 25])
    rate = rng.gamma(0.2, 1.0, size=(3, len(names)))[np.repeat([0, 1, 2], [20, 30, 25])]
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)))
    cells.var_names, cells.obs_names = names, [f"cell{number}" for number in range(75)]
    studies, ranking = part("studies"), part("ranking")
    cells.X = studies.to_log(cells.X)
    study = studies.grouped("made", "0" * 64, cells, pd.Series(kind, index=cells.obs_names))
    ranked = ranking.rank(study, ranking.Settings(n_perms=5), tmp_path)
    count = ranking.summaries(ranked)["expressed"]
    share = pd.DataFrame(studies.expressed_share(study), index=study.groups, columns=names)
    # a file holds genes that no cell has; LIANA drops them, and interactions with them
    enough = share >= 0.1
    for (i, sender), (j, receiver) in itertools.product(enumerate(study.groups), repeat=2):
        both = [
            enough.loc[sender, ligand.split("_")].all() and enough.loc[receiver, receptor.split("_")].all()
            for ligand, receptor in zip(resource["ligand"], resource["receptor"], strict=True)
        ]
        assert count[i, j] == sum(both)
    assert set(ranked.table.columns) == {*ranking.KEYS, *ranking.RANKS}
    assert ranked.table["specificity_rank"].between(0, 1).all()
    again = ranking.rank(study, ranking.Settings(n_perms=5), tmp_path, fresh=True)
    pd.testing.assert_frame_equal(ranked.table, again.table)

"""``extract`` of a manifold with a ruler of interactions, as a real process: what is printed, and what is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from interactions import GENES, RECIPE, talking_cells, write_tables
from tiny_scgpt import write_tiny_scgpt


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> tuple[list[str], list[str]]:
    """Arguments that name recipe, cells and model; and those that name the data folder."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("job")
    (write_tables(folder / "recipe") / "recipe.toml").write_text(RECIPE)
    (folder / "data").mkdir()
    talking_cells("one", donors=["d1", "d2", "d3"]).write_h5ad(folder / "data" / "one.h5ad")
    write_tiny_scgpt(folder / "model", genes=GENES)
    cells = str(folder / "data" / "one.h5ad")
    return (
        [str(folder / "recipe"), "--cells", cells, "--checkpoint", str(folder / "model")],
        ["--data", str(folder / "data")],
    )


def zoo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "manifoldzoo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_extraction_tells_what_the_files_of_its_ruler_measure(job, tmp_path):
    recipe, data = job
    done = zoo("extract", *recipe, *data, "-o", tmp_path / "made")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "10 ligand-receptor pairs of pairs.csv" in said[0]
    assert said[1].split() == ["file", "groups", "ligands", "of", "8", "receptors", "of", "7"]
    assert said[2].split() == ["one.h5ad", "12", "8", "7"]
    card = json.loads((tmp_path / "made" / "card.json").read_text())
    curated = card["ruler"]["interaction"]["curated"]
    assert f"AUROC {curated['auroc']:.3f}" in said[3] and "1 not in the resource" in said[3]
    as_json = json.loads(zoo("extract", *recipe, *data, "-o", tmp_path / "again", "--json").stdout)
    assert as_json["ruler"] == card["ruler"]["interaction"]


def test_without_the_data_folder_it_is_asked_for(job, tmp_path):
    done = zoo("extract", *job[0], "-o", tmp_path / "made")
    assert done.returncode == 2
    assert "one.h5ad" in done.stderr and "--data DIR" in done.stderr
    assert not (tmp_path / "made").exists()

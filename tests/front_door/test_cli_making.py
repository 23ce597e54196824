"""``extract`` and ``screen`` as real processes, with a tiny model and real cells."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

pytestmark = pytest.mark.usefixtures("needs_torch")


@pytest.fixture(scope="module")
def needs_torch() -> None:
    pytest.importorskip("torch")


@pytest.fixture(scope="module")
def job(tmp_path_factory) -> list[str]:
    """Arguments that name recipe, cells and model."""
    folder = tmp_path_factory.mktemp("job")
    cells = write_small_cells(folder / "cells.h5ad")
    recipe = write_small_recipe(folder / "recipe", 'kind = "attention_mean"')
    model = write_tiny_scgpt(folder / "model", genes=common_genes(cells), n_layers=3, n_heads=2)
    return [str(recipe), "--cells", str(cells), "--checkpoint", str(model)]


def zoo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "manifoldzoo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_extract_with_a_control(job, tmp_path):
    done = zoo("extract", *job, "--control", "shuffled-weights", "--control-seed", 3, "-o", tmp_path / "made", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["reference"].startswith("hematopoietic-shuffled-weights@")
    card = json.loads((tmp_path / "made" / "card.json").read_text())
    assert card["extraction"]["control"] == {"kind": "shuffled-weights", "seed": 3}
    assert "shuffled-weights" in card["title"]
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"made"}


def test_extract_takes_its_cells_from_the_panels(job, tmp_path):
    recipe, _, cells, *model = job
    spec = tmp_path / "panels.toml"
    spec.write_text(
        f'[[panels]]\nname = "own"\nrole = "extraction"\nfiles = ["{Path(cells).name}"]\nlabels = "hematopoietic"\n'
    )
    done = zoo("extract", recipe, *model, "--panels", spec, "--data", Path(cells).parent, "-o", tmp_path / "made")
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / "made" / "card.json").read_text())
    assert [file["name"] for file in card["panel"]["files"]] == [Path(cells).name]
    unnamed = zoo("extract", recipe, *model, "-o", tmp_path / "none")
    assert unnamed.returncode == 2
    assert "No cells were given" in unnamed.stderr


def test_a_control_that_does_not_exist_is_bad_input(job, tmp_path):
    done = zoo("extract", *job, "--control", "magic", "-o", tmp_path / "made")
    assert done.returncode == 2
    assert "random-init" in done.stderr
    assert not (tmp_path / "made").exists()


def test_screen_writes_a_table_and_says_the_same_as_json(job, tmp_path):
    done = zoo("screen", *job, "--splits", 3, "-o", tmp_path / "atlas", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["schema"] == 1
    assert len(told["heads"]) == 6
    assert sorted(head["rank"] for head in told["heads"]) == [1, 2, 3, 4, 5, 6]
    assert {path.name for path in (tmp_path / "atlas").iterdir()} == {"heads.tsv", "heads.json", "heads.png"}
    written = json.loads((tmp_path / "atlas" / "heads.json").read_text())
    assert {key: told[key] for key in written} == written
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"atlas"}


def test_screen_prints_the_best_heads_for_people(job):
    done = zoo("screen", *job, "--splits", 2, "--top", 2, "--kind", "token_qk", "--control", "random-init")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["head", "rank"]
    assert len(lines) == 3
    assert [line.split()[1] for line in lines[1:]] == ["1", "2"]


def test_distilled_has_no_heads_to_screen(job, tmp_path):
    recipe = write_small_recipe(tmp_path / "recipe", 'kind = "distilled"')
    done = zoo("screen", recipe, *job[1:])
    assert done.returncode == 2
    assert "distilled" in done.stderr


@pytest.mark.slow
def test_an_extraction_that_was_interrupted_goes_on_where_it_stopped(tmp_path_factory, tmp_path):
    """A model slow enough to be interrupted: the bundled one."""
    cells = write_small_cells(tmp_path_factory.mktemp("cells") / "cells.h5ad")
    recipe = write_small_recipe(tmp_path / "recipe", 'kind = "attention_mean"', max_cells_per_stage="100")
    arguments = ["extract", str(recipe), "--cells", str(cells)]
    command = [sys.executable, "-m", "manifoldzoo", *arguments, "-o", str(tmp_path / "made")]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    work = tmp_path / "made.unfinished"
    # the state of the first half minute is written when the work is cut short, so any moment in the pass will do
    time.sleep(8)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert work.is_dir()
    assert str(work) in said[1]
    assert not (tmp_path / "made").exists()
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert not work.exists()
    whole = zoo(*arguments, "-o", tmp_path / "whole")
    assert whole.returncode == 0
    assert Path(tmp_path / "made" / "MANIFEST.json").read_bytes() == (tmp_path / "whole" / "MANIFEST.json").read_bytes()

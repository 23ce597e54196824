"""The example of a plugin, as its users have it: installed beside manifoldzoo, found by entry points alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

from manifoldzoo.cards._errors import PluginError, ZooWarning

ROOT = Path(__file__).resolve().parents[1]
PLUGIN, PAGE = ROOT / "docs" / "plugin", ROOT / "docs" / "plugins.md"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
OFFERS = {
    "manifoldzoo.checkpoints": "static-embedding",
    "manifoldzoo.extractors": "coexpression-let",
    "manifoldzoo.rulers": "toy-two-arms",
}
BROKEN = "raise RuntimeError('half installed')\n"


def blocks(page: Path, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def offer(site: Path, package: str, points: dict[str, dict[str, str]]) -> None:
    """Write the metadata of an installed package that offers entry points."""
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in offers.items()) for group, offers in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


def put_broken(site: Path) -> None:
    """Install a package that offers one thing of each kind and raises when it is imported."""
    offer(site, "zoo-halfway", {group: {f"broken-{at}": "zoo_halfway:thing"} for at, group in enumerate(OFFERS)})
    (site / "zoo_halfway.py").write_text(BROKEN)


class TestInThisProcess:
    """What can be seen without an installation."""

    @pytest.fixture(autouse=True)
    def on_the_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        pytest.importorskip("torch")
        points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
        assert {group: [*offers] for group, offers in points.items()} == {g: [name] for g, name in OFFERS.items()}
        offer(tmp_path / "site", "manifoldzoo-coexpression", points)
        for folder in (PLUGIN, PLUGIN / "src", tmp_path / "site"):
            monkeypatch.syspath_prepend(str(folder))
        yield
        for name in [
            name for name in sys.modules if name.split(".")[0] in ("manifoldzoo_coexpression", "make_example")
        ]:
            del sys.modules[name]

    @pytest.fixture
    def example(self, tmp_path: Path, on_the_path: None) -> Path:
        from make_example import write_cells, write_checkpoint

        cells = write_cells(tmp_path / "cells.h5ad", per_group=8)
        write_checkpoint(tmp_path / "model", cells, n_genes=40)
        return tmp_path

    def test_a_recipe_that_names_it_is_extracted_and_intact(self, example: Path) -> None:
        from manifoldzoo.extractors._extract import extract
        from manifoldzoo.gates.rungs._intact import reproduces, valid

        made = extract(PLUGIN / "recipe", cells=[example / "cells.h5ad"], checkpoint=example / "model")
        assert valid(made).status == reproduces(made).status == "pass"
        card = made.card
        assert card.extraction.extractor == "coexpression-let"
        assert card.extraction.operator.kind == "coexpression-let:gene_correlation"
        assert card.source_model.architecture.startswith("static-embedding layout, 1 layers x 2 heads")
        assert card.ruler.name == "toy-two-arms"
        assert "nothing of it was read from the source model" in card.limits[0]

    def test_a_control_keeps_what_the_extractor_says_of_its_limits(self, example: Path) -> None:
        from manifoldzoo.extractors._extract import extract

        given = {"cells": [example / "cells.h5ad"], "checkpoint": example / "model"}
        made = extract(PLUGIN / "recipe", **given, control="permuted-genes")
        assert "permuted-genes" in made.card.limits[0]
        assert "nothing of it was read from the source model" in made.card.limits[1]

    def test_a_broken_package_is_named_and_breaks_nothing_else(
        self, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from manifoldzoo.extractors._interface import find_extractor
        from manifoldzoo.extractors.checkpoints._families import read_checkpoint

        put_broken(tmp_path / "broken")
        monkeypatch.syspath_prepend(str(tmp_path / "broken"))
        with pytest.raises(PluginError, match=r"'broken-1' of zoo-halfway cannot be imported: RuntimeError: half inst"):
            find_extractor("broken-1")
        assert find_extractor("coexpression-let").name == "coexpression-let"
        with pytest.warns(ZooWarning, match="zoo-halfway"):
            assert read_checkpoint(example / "model").family == "static-embedding"
        assert read_checkpoint(example / "model", family="static-embedding").n_heads == 2


@pytest.mark.slow
class TestInstalled:
    """As users have it; every command is one of the page."""

    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A copy of the example, as the page asks for."""
        copy = tmp_path_factory.mktemp("plugin") / "copy"
        shutil.copytree(PLUGIN, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
        return copy

    @pytest.fixture(scope="class")
    def done(self, folder: Path) -> dict[str, subprocess.CompletedProcess[str]]:
        """All commands of the page, run in their order."""
        pytest.importorskip("torch")
        commands = [line for code in blocks(PAGE, "sh") for line in code.splitlines()]
        assert [shlex.split(line)[0] for line in commands] == ["pip", "python", "manifoldzoo", "manifoldzoo", "python"]
        assert commands == [line for code in blocks(PLUGIN / "README.md", "sh") for line in code.splitlines()]
        return {command: run(folder, command) for command in commands}

    def test_every_command_of_the_page_works(self, done: dict[str, subprocess.CompletedProcess[str]]) -> None:
        for command, process in done.items():
            assert process.returncode == 0, f"{command}: {process.stdout}{process.stderr}"
        passed = re.search(r"(\d+) passed", done["python -m pytest"].stdout)
        assert passed is not None
        assert int(passed[1]) > 20

    @pytest.mark.usefixtures("done")
    def test_what_was_extracted_says_what_it_is(self, folder: Path) -> None:
        card = json.loads((folder / "made" / "card.json").read_text(encoding="utf-8"))
        assert card["extraction"]["extractor"] == "coexpression-let"
        assert card["ruler"]["name"] == "toy-two-arms"
        assert card["source_model"]["name"] == "model"
        assert "coexpression-let:gene_correlation" in (folder / "made" / "README.md").read_text(encoding="utf-8")
        again = run(folder, "manifoldzoo validate ./made --through 2 --no-save --json")
        told = json.loads(again.stdout)
        assert [rung["status"] for rung in told["rungs"]] == ["pass", "pass"]
        assert told["rung_reached"] == 2

    @pytest.mark.usefixtures("done")
    def test_the_python_of_the_page_runs(self, folder: Path) -> None:
        (code,) = blocks(PAGE, "python")
        ran = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment(folder),
            check=False,
        )
        assert ran.returncode == 0, ran.stderr

    @pytest.mark.usefixtures("done")
    def test_entry_points_of_the_page_are_those_of_the_example(self) -> None:
        (shown,) = blocks(PAGE, "toml")
        real = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
        assert tomllib.loads(shown)["project"]["entry-points"] == real

    @pytest.mark.usefixtures("done")
    def test_a_control_that_it_does_not_know_is_one_clear_error(self, folder: Path) -> None:
        given = "./recipe --cells example/cells.h5ad --checkpoint example/model"
        refused = run(folder, f"manifoldzoo extract {given} --control random-init --output destroyed")
        assert refused.returncode == 2
        assert "'random-init' destroys the model" in " ".join(refused.stderr.split())
        assert not (folder / "destroyed").exists()

    @pytest.mark.usefixtures("done")
    def test_a_broken_package_is_one_clear_error_and_breaks_nothing_else(self, folder: Path) -> None:
        put_broken(folder / "broken")
        shutil.copytree(folder / "recipe", folder / "asking")
        text = (folder / "recipe" / "recipe.toml").read_text(encoding="utf-8")
        (folder / "asking" / "recipe.toml").write_text(text.replace('"coexpression-let"', '"broken-1"'))
        given = "--cells example/cells.h5ad --checkpoint example/model"
        refused = run(folder, f"manifoldzoo extract ./asking {given} --output none --json", "broken")
        assert refused.returncode == 2
        error = json.loads(refused.stdout)["error"]
        assert error["type"] == "PluginError"
        assert "zoo-halfway cannot be imported: RuntimeError: half installed" in error["message"]
        assert "Traceback" not in refused.stderr
        made = run(folder, f"manifoldzoo extract ./recipe {given} --output beside --json", "broken")
        assert made.returncode == 0, made.stderr
        first = json.loads((folder / "made" / "MANIFEST.json").read_text(encoding="utf-8"))
        assert json.loads((folder / "beside" / "MANIFEST.json").read_text(encoding="utf-8")) == first
        listed = run(folder, "manifoldzoo list --json", "broken")
        assert listed.returncode == 0, listed.stderr


def environment(folder: Path, *beside: str) -> dict[str, str]:
    """Without a network, with what is installed in the folder on the path."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PIP_"))}
    paths = [str(folder / name) for name in (*beside, "site")] + list(filter(None, [os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run(folder: Path, command: str, *beside: str) -> subprocess.CompletedProcess[str]:
    """Run a command of a page with this Python; what it installs goes to a folder on the path."""
    first, *rest = shlex.split(command)
    program = {"pip": ["-m", "pip"], "manifoldzoo": ["-m", "manifoldzoo"], "python": []}[first]
    if first == "pip":
        recent = find_spec("setuptools") is not None and Version(metadata.version("setuptools")) >= Version("77")
        here = ["--no-index", "--no-build-isolation"] if recent else []
        rest += ["--no-deps", "--target", str(folder / "site"), "--disable-pip-version-check", "--no-cache-dir", *here]
    return subprocess.run(
        [sys.executable, *program, *rest],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, *beside),
        check=False,
    )

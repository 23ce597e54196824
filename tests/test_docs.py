"""Every command and every line of Python in the README and the docs runs, offline, as a reader would run it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manifoldzoo.manifolds.demo import demo_path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(README) if found == language]


def test_python_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(713, 10)"
    assert f"```\n{run.stdout.strip()}\n```" in README


def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    commands = [line for code in blocks("sh") for line in code.splitlines() if line.startswith("manifoldzoo ")]
    assert len(commands) >= 12
    shutil.copy(demo_path(), tmp_path / "cells.h5ad")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for command in commands:
        arguments = command.split()[1:]
        run = subprocess.run(
            [sys.executable, "-m", "manifoldzoo", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert run.returncode == 0, f"{command}: {run.stderr}"
    assert (tmp_path / "placed.h5ad").exists()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/gates.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name
        for page in ("README.md", "CONTRIBUTING.md")
        for name in re.findall(r"`?make ([a-z-]+)", (ROOT / page).read_text())
    }
    assert {"demo", "test", "test-all"} <= named
    assert named <= targets


def test_command_line_reference_is_the_programs_own_help() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.render()

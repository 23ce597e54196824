"""``panel`` as a real process, on the bundled cells cut into panels by their runs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata as ad
import pytest
from small import write_small_cells

from manifoldzoo.manifolds._panel_file import read_panel

SPEC = """
[[panels]]
name = "own"
role = "extraction"
files = ["own.h5ad"]
labels = "hematopoietic"

[[panels]]
name = "other-run"
role = "external"
files = ["other.h5ad"]
labels = "hematopoietic"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two runs of the bundled cells as two files, and a specification."""
    folder = tmp_path_factory.mktemp("panels")
    cells = ad.read_h5ad(write_small_cells(folder / "all.h5ad"))
    first, second = sorted(cells.obs["donor"].astype(str).unique())
    cells[cells.obs["donor"] == first].copy().write_h5ad(folder / "own.h5ad")
    cells[cells.obs["donor"] == second].copy().write_h5ad(folder / "other.h5ad")
    (folder / "panels.toml").write_text(SPEC)
    (folder / "overlap.toml").write_text(SPEC.replace('"other.h5ad"', '"all.h5ad"'))
    return folder


def test_panels_for_people_and_as_json(run_cli, folder, tmp_path):
    done = run_cli("panel", folder / "panels.toml", "-o", tmp_path / "built", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert (told["schema"], told["folder"], told["like"]) == (1, str(tmp_path / "built"), None)
    own, other = told["panels"]
    assert (own["name"], own["role"], own["files"], own["n_shared_cells"]) == ("own", "extraction", ["own.h5ad"], None)
    assert (other["n_shared_cells"], other["n_shared_donors"], other["n_donors"]) == (0, 0, 1)
    assert {path.name for path in (tmp_path / "built").iterdir()} == {
        f"{name}.{suffix}" for name in ("own", "other-run") for suffix in ("h5ad", "json")
    }
    manifest = json.loads((tmp_path / "built" / "other-run.json").read_text())["manifest"]
    assert manifest["digest"] == other["digest"]
    plain = run_cli("panel", "panels.toml", "-o", tmp_path / "again", cwd=folder)
    assert plain.returncode == 0, plain.stderr
    assert "\x1b" not in plain.stdout
    header, *rows = plain.stdout.splitlines()
    assert header.split()[:3] == ["panel", "role", "genes"]
    assert [row.split()[:2] for row in rows] == [["own", "extraction"], ["other-run", "external"]]
    numbers = [str(other[key]) for key in ("n_genes", "n_anchors", "n_stages", "n_donors", "n_cells")]
    assert rows[1].split()[2:] == [*numbers, "0", "0", "other.h5ad"]
    for name in ("own", "other-run"):
        both = [(tmp_path / place / f"{name}.h5ad").read_bytes() for place in ("built", "again")]
        assert both[0] == both[1]


def test_like_a_manifold(run_cli, folder, tmp_path):
    done = run_cli(
        *("panel", folder / "panels.toml", "-o", tmp_path / "built", "--like", "hematopoietic", "--offline", "--json")
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["panels"][0]["n_genes"] == 1200
    genes = run_cli("info", "hematopoietic", "--json")
    assert json.loads(genes.stdout)["card"]["genes"]["n"] == 1200
    assert len(read_panel(tmp_path / "built" / "own.h5ad").panel.genes) == 1200


@pytest.mark.parametrize(
    ("spec", "options", "status", "kind", "match"),
    [
        ("overlap.toml", [], 2, "PanelError", "share"),
        ("nowhere.toml", [], 2, "FormatError", "nowhere.toml"),
        ("hematology", [], 3, "NotFoundError", "hematology"),
        ("hematopoietic", [], 2, "PanelError", "--data"),
        ("panels.toml", ["--like", "nothing-like-it"], 3, "NotFoundError", "nothing-like-it"),
    ],
)
def test_what_cannot_be_built_is_told_and_leaves_nothing(run_cli, folder, tmp_path, spec, options, status, kind, match):
    done = run_cli("panel", spec, "-o", tmp_path / "built", *options, "--json", cwd=folder)
    assert done.returncode == status, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["type"] == kind
    assert match in error["message"] + error["hint"]
    assert {path.name for path in tmp_path.iterdir()} <= {"home"}
    assert {path.suffix for path in folder.iterdir()} == {".h5ad", ".toml"}


def test_ctrl_c_between_two_panels_leaves_nothing(folder, tmp_path):
    # the first panel is written, then a marker, then nothing until the interrupt
    code = (
        "import pathlib, time; import manifoldzoo.manifolds._panel_folder as folder; real = folder.write_panel\n"
        "def slow(panel, path):\n"
        "    if panel.name == 'other-run':\n"
        f"        pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "        time.sleep(60)\n"
        "    real(panel, path)\n"
        "    assert path.exists()\n"
        "folder.write_panel = slow\n"
        "from manifoldzoo.__main__ import main; main()"
    )
    command = [sys.executable, "-c", code, "panel", str(folder / "panels.toml"), "-o", str(tmp_path / "built")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.startswith("error: Interrupted")
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {"begun"}

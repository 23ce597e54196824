"""The demo runs offline from anywhere, twice in a row, and tells what it did."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

from manifoldzoo._demo_shown import NAMES
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds.demo import demo_path
from manifoldzoo.registry._resolve import candidates, load

pytestmark = pytest.mark.slow
# loaded by Python itself when it starts: a demo that reached for the network would fail
GUARD = """
import socket
connect = socket.socket.connect
def guarded(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        raise OSError(f"the demo tried to reach {address}")
    connect(self, address)
socket.socket.connect = guarded
def resolved(*address, **_):
    raise OSError(f"the demo tried to resolve {address}")
socket.getaddrinfo = resolved
"""


def run(folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    guard = home / "guard"
    guard.mkdir(parents=True, exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD)
    own = {"MANIFOLDZOO_HOME": str(home / "zoo"), "HOME": str(home), "MPLCONFIGDIR": str(home / "mpl")}
    own |= {"PYTHONPATH": str(guard), "OMP_NUM_THREADS": "1", "XDG_DATA_HOME": str(home / "share")}
    return subprocess.run(
        [sys.executable, "-m", "manifoldzoo", "demo", "--json", "--output", "out"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **own},
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(place) -> list[subprocess.CompletedProcess[str]]:
    return [run(place, place / "home") for _ in range(2)]


@pytest.fixture(scope="module")
def told(done) -> dict[str, Any]:
    assert done[0].returncode == 0, done[0].stderr
    return json.loads(done[0].stdout)


def test_it_runs_twice_and_says_the_same(done, told):
    assert [process.returncode for process in done] == [0, 0], done[1].stderr
    again = json.loads(done[1].stdout)
    assert again["manifolds"] == told["manifolds"]
    assert [process.stderr for process in done] == ["", ""]


def test_both_manifolds_and_their_gates_are_told(told):
    assert told["schema"] == 1
    bundled, mine = told["manifolds"]
    assert bundled["reference"].startswith("hematopoietic@")
    assert mine["reference"] == "hematopoietic-marrow-demo@0.1.0"
    assert bundled["rung"] == 3
    assert mine["rung"] >= 2
    gates = {"trustworthiness", "random_holdout", "donor_holdout", "branch_holdout", "blocked_permutation"}
    for manifold in (bundled, mine):
        assert {gate["gate"].split()[1] for gate in manifold["gates"]} >= gates
        assert {gate["status"] for gate in manifold["gates"]} <= {"pass", "fail", "not run", "cannot decide"}
        assert all(gate["gate"][0] in "123" for gate in manifold["gates"])
    assert all(seconds >= 0 for seconds in told["seconds"].values())


def test_every_bundled_manifold_is_shown_on_the_same_cells(told):
    bundled = {found.name for found in candidates() if found.store == "bundled"}
    names = [shown["reference"].split("@")[0] for shown in told["shown"]]
    assert names == [name for name in NAMES if name in bundled]
    n_cells = ad.read_h5ad(demo_path(), backed="r").n_obs
    for shown in told["shown"]:
        manifold = load(shown["reference"])
        assert shown["digest"] == manifold.digest
        assert (shown["ruler"], shown["coordinates"]["n_components"]) == (
            manifold.card.ruler.kind,
            manifold.n_components,
        )
        groups = shown["groups"]
        assert groups["by"] == "cell_type"
        assert sum(groups["sizes"]) == sum(shown["stages"].values()) == n_cells
        distances = np.array(groups["distances"])
        assert distances.shape == (len(groups["names"]),) * 2
        assert np.array_equal(distances, distances.T) and not distances.diagonal().any()
    assert any("hematopoietic" in step for step in told["seconds"])


def test_the_figures_are_pngs(told, place):
    figures = [figure for shown in told["shown"] for figure in shown["figures"]]
    assert len(figures) == sum(2 if shown["ruler"] == "interaction" else 1 for shown in told["shown"])
    for figure in figures:
        content = (place / figure).read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        assert min(struct.unpack(">II", content[16:24])) > 400


def test_the_cells_are_placed(told, place):
    cells = ad.read_h5ad(place / told["cells"])
    for key in ("X_hematopoietic", "X_hematopoietic_marrow_demo"):
        assert cells.obsm[key].shape == (cells.n_obs, 10)
        assert np.isfinite(cells.obsm[key]).all()
    assert cells.n_obs == ad.read_h5ad(demo_path(), backed="r").n_obs
    assert cells.uns["hematopoietic"]["digest"] == told["manifolds"][0]["digest"]


def test_what_was_published_is_sound_and_the_users_own_store_untouched(told, place, monkeypatch):
    monkeypatch.setenv("MANIFOLDZOO_HOME", str(place / "out" / "zoo"))
    published = load("hematopoietic-marrow-demo")
    assert Path(told["manifolds"][1]["published"].split(" (")[0]) == published.path
    assert published.path.is_relative_to(place / "out" / "zoo")
    assert published.digest == told["manifolds"][1]["digest"]
    assert published.digest == Manifold.read(place / "out" / "hematopoietic-marrow-demo").digest
    assert valid(published).status == reproduces(published).status == "pass"
    assert published.card.extraction.recipe == "hematopoietic-marrow-demo"
    assert not (place / "home" / "zoo").exists()


def test_the_table_is_kept_as_text(place, told):
    text = (place / "out" / "demo.txt").read_text(encoding="utf-8")
    for manifold in told["manifolds"]:
        assert manifold["reference"] in text
        assert manifold["verdict"] in text

"""The demo runs offline, twice, and leaves what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pytest

from manifoldzoo.manifolds.demo import demo_path


@pytest.mark.slow
def test_the_demo_runs_offline_and_again(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    for _ in range(2):
        run = run_cli("demo", "--output", tmp_path / "out", "--json", HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
        assert run.returncode == 0, run.stderr
    document = json.loads(run.stdout)
    bundled, mine = document["manifolds"]
    assert (bundled["reference"], bundled["rung"]) == ("hematopoietic@0.1.0", 3)
    assert Path(mine["published"].split(" (")[0]).is_dir()
    assert {gate["gate"][0] for gate in bundled["gates"]} == {"1", "2", "3"}
    assert (tmp_path / "out" / "hematopoietic.png").read_bytes().startswith(b"\x89PNG")
    placed = ad.read_h5ad(tmp_path / "out" / "cells.h5ad")
    assert placed.obsm["X_hematopoietic"].shape == (ad.read_h5ad(demo_path(), backed="r").n_obs, 10)

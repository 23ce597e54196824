from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from artifacts import flip

import manifoldzoo as mz

HEAVY = (
    "torch",
    "numba",
    "transformers",
    "anndata",
    "sklearn",
    "scipy.stats",
    "pandas",
    "scanpy",
    "matplotlib",
    "huggingface_hub",
    "typer",
    "rich",
)


def test_public_names() -> None:
    assert len(mz.__all__) <= 25
    assert {"load", "validate", "publish", "verify", "lock", "Manifold", "Card", "ZooError"} <= set(mz.__all__)
    needs_torch = set() if find_spec("torch") else {"extract", "reproduce", "screen"}
    for name in set(mz.__all__) - needs_torch:
        assert getattr(mz, name).__doc__, name
    assert set(mz.__all__) <= set(dir(mz))
    with pytest.raises(AttributeError, match="nothing"):
        mz.nothing  # noqa: B018


def test_import_loads_nothing_heavy() -> None:
    code = f"import sys, manifoldzoo; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_whole_path(artifact: Path, tmp_path: Path) -> None:
    published = mz.publish(artifact, "local", allow_below="a test")
    manifold = mz.load("tiny")
    assert isinstance(manifold, mz.Manifold)
    assert manifold.digest == published.digest
    assert mz.validate(manifold, through=2).artifact_digest == manifold.digest
    assert [row["name"] for row in mz.list_manifolds("tiny")] == ["tiny"]
    assert mz.info("tiny")["rung"] == 2
    mz.lock(["tiny"], str(tmp_path / "zoo.lock"))
    assert mz.load("tiny", lockfile=str(tmp_path / "zoo.lock")).digest == manifold.digest
    assert mz.bundle(["tiny"], str(tmp_path / "zoo.tar")) == mz.unbundle(str(tmp_path / "zoo.tar")) == ["tiny@0.1.0"]
    assert mz.verify("tiny")["ok"]
    flip(Path(published.location) / "genes.tsv")
    assert not mz.verify("tiny")["ok"]
    with pytest.raises(mz.ZooError, match=r"genes\.tsv"):
        mz.load("tiny")

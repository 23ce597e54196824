"""Registered tests on the command line: the list that `validate --list` prints, for people and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from manifoldzoo.__main__ import run
from manifoldzoo.cards._evidence import RegisteredTest
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._registered import registered_tests
from manifoldzoo.manifolds._manifold import Manifold


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("valid", "reproduces", "published_gates", "specific", "transfers", "model_derived"):
        monkeypatch.setattr(_ladder, name, lambda *_, **__: pytest.fail("a rung ran"))


@pytest.mark.usefixtures("nothing_runs")
@pytest.mark.parametrize(("options", "through"), [([], 3), (["--through", "1"], 1), (["--through", "6"], 6)])
def test_json_is_what_validate_would_register(
    artifact: Path, capsys: pytest.CaptureFixture[str], options: list[str], through: int
) -> None:
    before = sorted(path.name for path in artifact.rglob("*"))
    assert run(["validate", str(artifact), "--list", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    manifold = Manifold.read(artifact)
    assert [RegisteredTest.model_validate(test) for test in told["registered"]] == registered_tests(
        manifold.card, through=through
    )
    assert (told["reference"], told["digest"]) == ("tiny@0.1.0", manifold.digest)
    assert told["plan"] == {
        "seed": int(manifold.digest[:8], 16),
        "through": through,
        "n_permutations": 1000,
        "n_branch_permutations": 999,
        "n_starts": 20,
        "fdr": "benjamini-hochberg",
    }
    assert sorted(path.name for path in artifact.rglob("*")) == before


@pytest.mark.usefixtures("nothing_runs")
def test_people_see_a_table(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(artifact), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["rung", "test", "needed", "family"]
    rows = [line.split() for line in lines[1:-1]]
    assert ["1", "digests"] in rows
    assert ["3", "random_holdout", ">=", "0.2"] in rows
    assert lines[-1].startswith(f"seed {int(Manifold.read(artifact).digest[:8], 16)}, 1000 permutations")


@pytest.mark.usefixtures("nothing_runs")
def test_own_cells_add_their_tests(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(artifact), "--list", "--panel", "mine.h5ad", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["plan"]["through"] == 5
    assert any(test["gate"].startswith("own_") for test in told["registered"])


def test_what_ran_is_what_was_listed(artifact: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = str(shutil.copytree(artifact, tmp_path / "tiny"))
    assert run(["validate", mine, "--list", "--through", "2", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert run(["validate", mine, "--through", "2", "--json"]) == 0
    (path,) = (tmp_path / "tiny" / "evidence").glob("*.json")
    stored = json.loads(path.read_bytes())
    assert stored["evidence_version"] == 2
    assert (stored["registered"], stored["plan"]) == (listed["registered"], listed["plan"])


@pytest.mark.usefixtures("nothing_runs")
def test_a_list_is_no_report(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(artifact), "--list", "--report", str(tmp_path / "x.html")]) == 2
    assert "--list" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()

"""``validate --report`` and ``report``: the page is written where it may be, and says where its numbers come from."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import contents, passing_run, write_tiny

from manifoldzoo.__main__ import run
from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._ladder import software
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._evidence_files import add_evidence, read_evidence

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def mine(artifact: Path, tmp_path: Path) -> Path:
    """An artifact folder of one's own."""
    return Path(shutil.copytree(artifact, tmp_path / "mine"))


def test_validate_writes_the_page_of_the_run_it_stored(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.html"
    assert run(["validate", str(mine), "--through", "2", "--report", str(target), "--json"]) == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told["report"] == str(target)
    assert "The report is in" in said.err
    page = target.read_text(encoding="utf-8")
    (stored,) = read_evidence(mine, told["digest"])
    assert "reached rung 2 of 6" in page
    assert stored.started.isoformat(sep=" ", timespec="seconds") in page
    for rung in told["rungs"]:
        for record in rung["records"]:
            assert record["gate"].replace("_", "_<wbr>") in page
    assert "data:image/svg+xml;base64," in page
    assert "As stored" not in page


def test_a_failed_gate_still_has_its_page(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def climb(manifold: Manifold, **options: object) -> EvidenceRun:
        passed = passing_run(manifold, rung=2)
        missed = conclude(3, [judge("made up", 0.1, ">=", 0.5)])
        return passed.model_copy(update={"rungs": [*passed.rungs, missed]})

    monkeypatch.setattr(_ladder, "validate", climb)
    target = tmp_path / "page.html"
    assert run(["validate", "tiny", "--through", "3", "--report", str(target), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rung_reached"] == 2
    assert "rung 3, gates, failed." in target.read_text(encoding="utf-8")
    # an artifact of the store keeps no evidence of it
    assert not (stored / "evidence").exists()


def test_without_a_report_json_says_so(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(mine), "--through", "1", "--no-save", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"] is None


def test_stored_evidence_that_does_not_come_out_again_stands_on_top(mine: Path, tmp_path: Path) -> None:
    manifold = Manifold.read(mine)
    add_evidence(mine, passing_run(manifold, rung=1).model_copy(update={"software": software()}))
    target = tmp_path / "page.html"
    assert run(["validate", str(mine), "--through", "1", "--report", str(target), "--no-save"]) == 1
    assert "does not come out again: rung 1" in target.read_text(encoding="utf-8").split("<main>")[0]


def test_what_is_bundled_can_be_reported_as_it_is_stored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    assert run(["report", "hematopoietic", "-o", str(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["reference"].startswith("hematopoietic@")
    assert told["report"] == str(target)
    page = target.read_text(encoding="utf-8")
    assert "As stored with the artifact" in page
    assert "not recomputed" in page
    assert told["digest"] in page
    assert f"reached rung {told['rung_reached']} of 6" in page
    assert run(["report", "hematopoietic", "-o", str(target)]) == 0
    assert "as stored, in" in capsys.readouterr().out


def test_of_several_runs_the_newest_that_reached_highest_is_told(mine: Path, tmp_path: Path) -> None:
    manifold = Manifold.read(mine)
    for rung in (3, 2, 1):
        add_evidence(mine, passing_run(manifold, rung=rung))
    before = contents(mine)
    assert run(["report", str(mine), "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "reached rung 3 of 6" in page
    assert "3 validation runs are stored" in page
    assert contents(mine) == before


def test_without_evidence_the_next_step_is_told(run_cli: Cli, mine: Path, tmp_path: Path) -> None:
    done = run_cli("report", mine, "-o", tmp_path / "page.html", "--json")
    assert done.returncode == 3, done.stderr
    error = json.loads(done.stdout)["error"]
    assert error["message"].startswith("No validation run travels with")
    assert "--report" in error["hint"]
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("command", ["validate", "report"])
@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("no/such/page.html", 3, "does not exist"),
        (".", 2, "is a folder"),
        ("page.json", 2, "does not end in .html"),
        ("mine/page.html", 2, "lies in the folder of the artifact"),
        ("mine/figures/../page.html", 2, "lies in the folder of the artifact"),
    ],
)
def test_where_no_page_may_be_written(
    command: str,
    target: str,
    status: int,
    said: str,
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (mine / "figures").mkdir()
    add_evidence(mine, passing_run(Manifold.read(mine)))
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    option = "--report" if command == "validate" else "-o"
    # nothing is computed first: the evidence stays as it was
    assert run([command, "./mine", option, target, "--json"]) == status
    assert said in json.loads(capsys.readouterr().out)["error"]["message"]
    assert contents(tmp_path) == before


def test_an_artifact_stays_one_that_loads(tmp_path: Path) -> None:
    mine = write_tiny(tmp_path / "mine")
    assert run(["validate", str(mine), "--through", "1", "--report", str(tmp_path / "page.html")]) == 0
    Manifold.read(mine)

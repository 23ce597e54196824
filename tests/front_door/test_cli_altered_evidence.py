"""Evidence that was edited by hand beside an artifact: `validate` says what does not come out again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from manifoldzoo.__main__ import run


def stored(artifact: Path) -> Path:
    """The one validation run beside an artifact."""
    (path,) = (artifact / "evidence").glob("*.json")
    return path


@pytest.fixture
def validated(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    copy = shutil.copytree(artifact, tmp_path / "tiny")
    shutil.rmtree(copy / "evidence", ignore_errors=True)
    assert run(["validate", str(copy), "--through", "2", "--json"]) == 0
    capsys.readouterr()
    return copy


def test_the_same_again_is_no_contradiction(validated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(validated), "--through", "2", "--no-save", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contradicted"] == {}


def test_an_edited_statistic_is_named_and_ends_with_status_1(
    validated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = stored(validated)
    document = json.loads(path.read_bytes())
    (record,) = (r for r in document["rungs"][1]["records"] if r["gate"] == "test_vectors_latent")
    record["statistic"] = 0.9
    path.write_text(json.dumps(document))
    assert run(["validate", str(validated), "--through", "2", "--no-save", "--json"]) == 1
    told = capsys.readouterr()
    (found,) = json.loads(told.out)["contradicted"][path.name]
    assert (found["rung"], found["gate"]) == (2, "test_vectors_latent")
    assert path.name in told.err and "0.9" in told.err


def test_a_threshold_that_was_moved_is_refused_on_reading(validated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = stored(validated)
    document = json.loads(path.read_bytes())
    (record,) = (r for r in document["rungs"][1]["records"] if r["gate"] == "test_vectors_latent")
    record["threshold"] = 2.0
    path.write_text(json.dumps(document))
    assert run(["validate", str(validated), "--through", "2", "--no-save"]) == 2
    assert path.name in capsys.readouterr().err

from __future__ import annotations

from pathlib import Path

import pytest
from artifacts import flip

from hub_server import LoopbackHub
from manifoldzoo.registry import _doctor
from manifoldzoo.registry._doctor import CORE, examine
from manifoldzoo.registry._folders import local_store
from manifoldzoo.registry._index import index_path


def found(what: str) -> dict[str, object]:
    (finding,) = [finding for finding in examine() if finding["what"] == what]
    return finding


def test_healthy(artifact: Path) -> None:
    local_store().put(artifact, "tiny", "0.1.0")
    findings = examine()
    assert all(finding["ok"] for finding in findings), findings
    whats = [finding["what"] for finding in findings]
    assert {"python", *CORE, "index", "local tiny@0.1.0", "HF_ENDPOINT"} <= set(whats)
    assert len(whats) == len(set(whats))


@pytest.mark.parametrize("name", ["genes.tsv", "MANIFEST.json"])
def test_a_damaged_artifact(artifact: Path, name: str) -> None:
    stored = local_store().put(artifact, "tiny", "0.1.0")
    flip(stored / name)
    finding = found("local tiny@0.1.0")
    assert not finding["ok"]
    assert name in str(finding["found"]) or name == "MANIFEST.json"


def test_a_damaged_index() -> None:
    index_path().parent.mkdir(parents=True)
    index_path().write_text("{")
    assert not found("index")["ok"]


@pytest.mark.parametrize(
    ("variable", "what"),
    [("MANIFOLDZOO_HOME", "zoo folder (MANIFOLDZOO_HOME)"), ("HF_HUB_CACHE", "Hub cache (HF_HUB_CACHE)")],
)
def test_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, what: str
) -> None:
    assert found(what)["ok"]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    finding = found(what)
    assert not finding["ok"]
    assert str(tmp_path / "file" / "below") in str(finding["found"])


def test_a_missing_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_doctor, "CORE", ("a-package-nobody-wrote",))
    finding = found("a-package-nobody-wrote")
    assert not finding["ok"]
    assert "missing" in str(finding["found"])


def test_settings_are_told(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert found("HF_ENDPOINT")["found"] == hub.url
    assert found("HF_HUB_OFFLINE")["found"] == "1"
    assert hub.requests == []

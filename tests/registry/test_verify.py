from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from artifacts import FILES, flip

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import FormatError, NotFoundError, UnsafeFileError
from manifoldzoo.registry._folders import local_store
from manifoldzoo.registry._resolve import load
from manifoldzoo.registry._verify import verify


@pytest.fixture
def mine(artifact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(artifact, tmp_path / "mine"))


def wrong(checked: dict[str, object]) -> list[tuple[str, str]]:
    return [(file["name"], file["status"]) for file in checked["files"] if file["status"] != "ok"]  # type: ignore[attr-defined]


def test_sound(artifact: Path) -> None:
    checked = verify(artifact)
    assert checked["ok"]
    assert checked["reference"] == str(artifact)
    assert checked["files"] == [
        {
            "name": name,
            "status": "ok",
            "size": (artifact / name).stat().st_size,
            "sha256": hashlib.sha256((artifact / name).read_bytes()).hexdigest(),
        }
        for name in FILES
    ]


@pytest.mark.parametrize("name", FILES[1:])
def test_changed(mine: Path, name: str) -> None:
    flip(mine / name)
    checked = verify(mine)
    assert not checked["ok"]
    assert wrong(checked) == [(name, "changed")]
    (found,) = (file for file in checked["files"] if file["name"] == name)
    assert found["sha256"] == hashlib.sha256((mine / name).read_bytes()).hexdigest()


def test_missing_and_changed_at_once(mine: Path) -> None:
    (mine / "genes.tsv").unlink()
    (mine / "card.json").write_bytes((mine / "card.json").read_bytes() + b" ")
    assert wrong(verify(mine)) == [("card.json", "changed"), ("genes.tsv", "missing")]


def test_by_name(artifact: Path) -> None:
    stored = local_store().put(artifact, "tiny", "0.1.0")
    assert verify("tiny")["reference"] == "tiny@0.1.0"
    flip(stored / "manifold.safetensors")
    assert wrong(verify("tiny")) == [("manifold.safetensors", "changed")]


def test_in_the_hub_cache_it_repairs_nothing(published: LoopbackHub, tmp_path: Path) -> None:
    assert verify("zoo/tiny@0.1.0")["ok"]
    load("zoo/tiny@0.1.0")
    (path,) = (tmp_path / "client").glob("hub/models--*/snapshots/*/genes.tsv")
    flip(path)
    for offline in (True, None):
        assert wrong(verify("zoo/tiny@0.1.0", offline=offline)) == [("genes.tsv", "changed")]


def test_what_is_no_artifact(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        verify(tmp_path / "nothing")
    (mine / "x.pkl").write_bytes(b"")
    with pytest.raises(UnsafeFileError, match=r"x\.pkl"):
        verify(mine)
    (mine / "x.pkl").unlink()
    (mine / "MANIFEST.json").write_bytes(b"{}")
    with pytest.raises(FormatError, match="MANIFEST"):
        verify(mine)

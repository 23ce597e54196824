from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from artifacts import flip, write_tiny

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import FormatError, IntegrityError, NotFoundError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._folders import local_store
from manifoldzoo.registry._hub_index import refresh_index
from manifoldzoo.registry._lock import lock, read_lockfile
from manifoldzoo.registry._publish import publish
from manifoldzoo.registry._resolve import load


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "manifoldzoo.lock"


def test_the_same_bytes_after_a_new_version(
    published: LoopbackHub, path: Path, tmp_path: Path, quick_gates: object
) -> None:
    refresh_index("zoo")
    lock(["tiny", "zoo/tiny"], path)
    digest = load("tiny").digest
    publish(write_tiny(tmp_path / "next", version="0.2.0"), "zoo/tiny")
    refresh_index("zoo")
    assert load("tiny").version == load("zoo/tiny").version == "0.2.0"
    for reference in ("tiny", "zoo/tiny"):
        locked = load(reference, lockfile=path)
        assert (locked.version, locked.digest) == ("0.1.0", digest)
    published.requests.clear()
    load("tiny", lockfile=path)
    load("zoo/tiny", lockfile=str(path), offline=True)
    assert published.requests == []


def test_a_moved_tag_does_not_matter(
    published: LoopbackHub, path: Path, tmp_path: Path, quick_gates: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (entry,) = lock(["zoo/tiny@0.1.0"], path).entries
    publish(write_tiny(tmp_path / "next", version="0.2.0"), "zoo/tiny")
    api = published.api()
    api.delete_tag("zoo/tiny", tag="v0.1.0")
    api.create_tag("zoo/tiny", tag="v0.1.0")
    published.patch_client(monkeypatch, tmp_path / "elsewhere")
    assert load("zoo/tiny@0.1.0").version == "0.2.0"
    assert load("zoo/tiny@0.1.0", lockfile=path).digest == entry.digest


def test_what_is_recorded(published: LoopbackHub, path: Path, artifact: Path) -> None:
    local_store().put(artifact, "tiny", "0.1.0")
    digest = Manifold.read(artifact).digest
    lock(["tiny", "zoo/tiny@0.1.0", str(artifact)], path)
    document = json.loads(path.read_text())
    assert document["schema"] == 1
    found = {entry["store"]: entry for entry in document["entries"]}
    shared = {"name": "tiny", "version": "0.1.0", "digest": digest}
    head = published.storage.repo("zoo/tiny").head
    assert found == {
        "local": {"reference": "tiny", "store": "local", "origin": "", "commit": "", **shared},
        "hub": {"reference": "zoo/tiny@0.1.0", "store": "hub", "origin": "zoo/tiny", "commit": head, **shared},
        "folder": {"reference": str(artifact), "store": "folder", "origin": str(artifact), "commit": "", **shared},
    }
    assert [entry["reference"] for entry in document["entries"]] == sorted(e["reference"] for e in document["entries"])


def test_other_entries_are_kept(path: Path, artifact: Path, tmp_path: Path) -> None:
    other = write_tiny(tmp_path / "other", name="other")
    lock([str(artifact)], path)
    first = path.read_bytes()
    assert {entry.name for entry in lock([str(other)], path).entries} == {"tiny", "other"}
    path.unlink()
    lock([str(artifact)], path)
    assert path.read_bytes() == first
    lock([str(artifact), str(artifact)], path)
    lock([str(artifact)], path)
    assert path.read_bytes() == first


def test_a_changed_folder(path: Path, artifact: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(artifact, tmp_path / "mine"))
    lock([str(folder)], path)
    assert load(str(folder), lockfile=path).name == "tiny"
    shutil.rmtree(folder)
    write_tiny(folder, title="Another")
    assert load(str(folder)).card.title == "Another"
    with pytest.raises(IntegrityError, match=Manifold.read(artifact).digest[:12]):
        load(str(folder), lockfile=path)
    flip(folder / "genes.tsv")
    with pytest.raises(IntegrityError, match=r"genes\.tsv"):
        load(str(folder), lockfile=path)


def test_a_store_that_was_changed_by_hand(path: Path, artifact: Path, tmp_path: Path) -> None:
    stored = local_store().put(artifact, "tiny", "0.1.0")
    lock(["tiny"], path)
    shutil.rmtree(stored)
    with pytest.raises(NotFoundError):
        load("tiny", lockfile=path)
    local_store().put(write_tiny(tmp_path / "other", title="Another"), "tiny", "0.1.0")
    with pytest.raises(IntegrityError, match="locked"):
        load("tiny", lockfile=path)


def test_a_digest_changed_in_the_lockfile(published: LoopbackHub, path: Path) -> None:
    (entry,) = lock(["zoo/tiny"], path).entries
    path.write_text(path.read_text().replace(entry.digest, "e" * 64))
    with pytest.raises(IntegrityError, match="eeeeeeeeeeee"):
        load("zoo/tiny", lockfile=path)


def test_not_locked(path: Path, artifact: Path) -> None:
    with pytest.raises(NotFoundError, match=r"manifoldzoo\.lock"):
        load("tiny", lockfile=path)
    lock([str(artifact)], path)
    with pytest.raises(NotFoundError, match="'tiny'") as caught:
        load("tiny", lockfile=path)
    assert "manifoldzoo lock tiny" in caught.value.hint


def test_a_reference_that_is_not_there_writes_nothing(path: Path, artifact: Path) -> None:
    with pytest.raises(NotFoundError):
        lock([str(artifact), "nobody"], path)
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "[" * 100_000, '{"schema": 2, "entries": []}', '{"schema": 1, "entries": [{}]}']
)
def test_damaged(path: Path, artifact: Path, content: str) -> None:
    path.write_text(content)
    for use in (lambda: read_lockfile(path), lambda: load("tiny", lockfile=path), lambda: lock([str(artifact)], path)):
        with pytest.raises(FormatError, match=r"manifoldzoo\.lock"):
            use()
    assert path.read_text() == content

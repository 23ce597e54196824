from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from artifacts import contents
from packaging.version import Version

from manifoldzoo.cards._errors import StoreError, VersionConflictError
from manifoldzoo.registry._folders import FolderStore, bundled_store, local_store


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore("local", tmp_path / "store")


def test_put_and_list(store: FolderStore, artifact: Path) -> None:
    assert store.entries() == {}
    stored = store.put(artifact, "tiny", "0.1.0")
    assert contents(stored) == contents(artifact)
    assert store.entries() == {("tiny", Version("0.1.0")): stored}


def test_versions_are_immutable(store: FolderStore, artifact: Path, tmp_path: Path) -> None:
    stored = store.put(artifact, "tiny", "0.1.0")
    before = contents(stored)
    with pytest.raises(VersionConflictError, match=r"tiny@0\.1\.0"):
        store.put(artifact, "tiny", "0.1.0")
    assert contents(stored) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_copy_leaves_nothing(
    store: FolderStore, artifact: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    copied = 0

    def fail(source: str, target: str, **options: object) -> None:
        nonlocal copied
        copied += 1
        shutil.copyfile(source, target)
        if copied == 2:
            raise error

    monkeypatch.setattr(
        "manifoldzoo.registry._folders.shutil.copytree",
        lambda source, target: (
            Path(target).mkdir(),
            [fail(str(p), str(Path(target) / p.name)) for p in Path(source).iterdir()],
        ),
    )
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else StoreError):
        store.put(artifact, "tiny", "0.1.0")
    assert copied == 2
    assert list((store.root / "tiny").iterdir()) == []


def test_a_version_that_appears_during_the_copy_wins(
    store: FolderStore, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree = shutil.copytree

    def overtaken(source: Path, target: Path) -> None:
        copytree(source, target)
        winner = store.root / "tiny" / "0.1.0"
        winner.mkdir()
        (winner / "MANIFEST.json").write_bytes(b"other")

    monkeypatch.setattr(shutil, "copytree", overtaken)
    with pytest.raises(VersionConflictError):
        store.put(artifact, "tiny", "0.1.0")
    assert contents(store.root) == {"tiny/0.1.0/MANIFEST.json": b"other"}


def test_a_store_below_a_file_cannot_be_written(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        FolderStore("local", tmp_path / "file" / "store").put(artifact, "tiny", "0.1.0")


@pytest.mark.parametrize("folder", ["Tiny/0.1.0", "tiny/latest", "tiny/1.0", "tiny/.0.1.0.part", "tiny"])
def test_other_folders_are_no_entries(store: FolderStore, folder: str) -> None:
    (store.root / folder).mkdir(parents=True)
    (store.root / folder / "MANIFEST.json").write_bytes(b"{}")
    assert store.entries() == {}


def test_places(own_folders: Path) -> None:
    assert local_store().root == own_folders / "zoo" / "store"
    assert bundled_store().label == "bundled"
    assert bundled_store().root.parts[-2:] == ("manifolds", "bundled")

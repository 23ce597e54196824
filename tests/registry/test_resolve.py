from __future__ import annotations

from pathlib import Path

import pytest
from artifacts import flip, write_tiny
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from manifoldzoo.cards._errors import FormatError, IntegrityError, NotFoundError, ReferenceSyntaxError, UnsafeFileError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry import _resolve
from manifoldzoo.registry._folders import FolderStore, local_store
from manifoldzoo.registry._reference import NamedReference
from manifoldzoo.registry._resolve import Candidate, Location, candidates, choose, load, locate, read_location

KNOWN = [
    Candidate("hematopoietic", Version(version), "local", Path(version))
    for version in ("0.9.0", "1.2.0", "1.2.3", "1.10.0", "2.0.0")
] + [Candidate("communication", Version("0.1.0"), "bundled", Path("c"))]


@pytest.mark.parametrize(
    ("wanted", "version"),
    [("", "2.0.0"), ("1", "1.10.0"), ("1.2", "1.2.3"), ("~1.2", "1.10.0"), ("~1.2.0", "1.2.3"), ("1.2.0", "1.2.0")],
)
def test_the_newest_that_fits(wanted: str, version: str) -> None:
    assert str(choose(NamedReference("hematopoietic", wanted), reversed(KNOWN)).version) == version


@given(st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=1, unique=True))
def test_newest_wins_by_number_not_by_text(parts: list[tuple[int, int, int]]) -> None:
    known = [Candidate("x", Version(".".join(map(str, part))), "local") for part in parts]
    assert choose(NamedReference("x"), known).version == Version(".".join(map(str, max(parts))))


@pytest.mark.parametrize(
    ("asked", "near"),
    [("hematopoetic", "hematopoietic"), ("haematopoietic", "hematopoietic"), ("comm", "communication")],
)
def test_unknown_names_offer_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(NotFoundError, match=near) as caught:
        choose(NamedReference(asked), KNOWN)
    assert repr(asked) in caught.value.message
    assert "manifoldzoo" in caught.value.hint


def test_unknown_names_far_from_all() -> None:
    with pytest.raises(NotFoundError, match="communication, hematopoietic"):
        choose(NamedReference("zzz"), KNOWN)
    with pytest.raises(NotFoundError, match="none"):
        choose(NamedReference("zzz"), [])


def test_unknown_versions_list_those_there_are() -> None:
    with pytest.raises(NotFoundError, match=r"'3'.*0\.9\.0, 1\.2\.0"):
        choose(NamedReference("hematopoietic", "3"), KNOWN)


class TestStores:
    def test_folder(self, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        digest = Manifold.read(artifact).digest
        assert load(artifact).digest == load(str(artifact)).digest == digest
        monkeypatch.chdir(artifact.parent)
        assert load("./tiny").digest == load(Path("tiny")).digest == digest
        monkeypatch.setenv("HOME", str(artifact.parent))
        assert load("~/tiny").digest == digest
        with pytest.raises(NotFoundError):
            load("tiny")

    def test_local_by_name(self, artifact: Path, tmp_path: Path) -> None:
        local_store().put(artifact, "tiny", "0.1.0")
        local_store().put(write_tiny(tmp_path / "next", version="0.10.0"), "tiny", "0.10.0")
        local_store().put(write_tiny(tmp_path / "middle", version="0.9.0"), "tiny", "0.9.0")
        assert load("tiny").reference == "tiny@0.10.0"
        assert load("tiny@0.1").reference == "tiny@0.1.0"
        assert [str(c.version) for c in candidates() if c.name == "tiny"] == ["0.1.0", "0.9.0", "0.10.0"]

    def test_bundled_comes_before_local(self, artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundled = FolderStore("bundled", tmp_path / "bundled")
        bundled.put(artifact, "tiny", "0.1.0")
        monkeypatch.setattr(_resolve, "bundled_store", lambda: bundled)
        local_store().put(write_tiny(tmp_path / "other", title="Another"), "tiny", "0.1.0")
        assert load("tiny").digest == Manifold.read(artifact).digest
        assert locate("tiny").store == "bundled"

    def test_damaged(self, artifact: Path) -> None:
        stored = local_store().put(artifact, "tiny", "0.1.0")
        flip(stored / "manifold.safetensors")
        with pytest.raises(IntegrityError, match=r"manifold\.safetensors") as caught:
            load("tiny")
        assert caught.value.files == ("manifold.safetensors",)

    def test_another_digest_than_recorded(self, artifact: Path) -> None:
        with pytest.raises(IntegrityError, match="dddddddddddd"):
            read_location(Location("tiny@0.1.0", "folder", artifact, digest="d" * 64))

    def test_not_an_artifact(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(FormatError, match="empty"):
            load(tmp_path / "empty")
        with pytest.raises(NotFoundError, match="nothing"):
            load(tmp_path / "nothing")
        with pytest.raises(NotFoundError):
            load(tmp_path / ("x" * 300))

    def test_links_are_refused_outside_the_hub_cache(self, artifact: Path, tmp_path: Path) -> None:
        (tmp_path / "linked").mkdir()
        for path in artifact.iterdir():
            (tmp_path / "linked" / path.name).symlink_to(path)
        with pytest.raises(UnsafeFileError):
            load(tmp_path / "linked")

    def test_malformed(self) -> None:
        with pytest.raises(ReferenceSyntaxError, match="a/b/c"):
            load("a/b/c")

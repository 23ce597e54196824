from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from artifacts import FILES, contents, flip, passing_run, write_tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import (
    FormatError,
    IntegrityError,
    NotFoundError,
    StoreError,
    UnsafeFileError,
    VersionConflictError,
    ZooError,
)
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry import _bundle
from manifoldzoo.registry._bundle import bundle, unbundle
from manifoldzoo.registry._evidence_files import add_evidence
from manifoldzoo.registry._folders import FolderStore, local_store
from manifoldzoo.registry._resolve import load


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return tmp_path / "zoo.tar"


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    made.size = len(content) if kind == tarfile.REGTYPE else 0
    return made, content


def members_of(folder: Path, name: str = "tiny", version: str = "0.1.0") -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(f"{name}/{version}/{inner}", content) for inner, content in sorted(contents(folder).items())]


class TestRoundTrip:
    def test_two_with_evidence(self, artifact: Path, tmp_path: Path, tar: Path, own_folders: Path) -> None:
        mine = Path(shutil.copytree(artifact, tmp_path / "mine"))
        add_evidence(mine, passing_run(Manifold.read(mine)))
        other = write_tiny(tmp_path / "other", name="other", version="1.2.3")
        assert bundle([str(other), str(mine)], tar) == ["other@1.2.3", "tiny@0.1.0"]
        assert unbundle(tar) == ["other@1.2.3", "tiny@0.1.0"]
        assert contents(own_folders / "zoo" / "store" / "tiny" / "0.1.0") == contents(mine)
        assert load("tiny").digest == Manifold.read(artifact).digest
        assert load("other@1").version == "1.2.3"
        assert unbundle(tar) == ["other@1.2.3", "tiny@0.1.0"]

    def test_from_the_hub_as_plain_files(self, published: LoopbackHub, artifact: Path, tar: Path) -> None:
        bundle(["zoo/tiny@0.1.0"], tar)
        published.stop()
        unbundle(tar)
        assert load("tiny").digest == Manifold.read(artifact).digest
        with tarfile.open(tar) as archive:
            assert all(found.isreg() for found in archive)
            names = {found.name for found in archive}
        assert {"tiny/0.1.0/README.md", *(f"tiny/0.1.0/{name}" for name in FILES)} < names

    def test_equal_input_gives_equal_bytes(self, artifact: Path, tmp_path: Path, tar: Path) -> None:
        bundle([str(artifact)], tar)
        first = tar.read_bytes()
        again = Path(shutil.copytree(artifact, tmp_path / "again"))
        for path in again.iterdir():
            path.chmod(0o600)
            path.touch()
        bundle([str(again), str(artifact)], tmp_path / "again.tar")
        assert (tmp_path / "again.tar").read_bytes() == first
        with tarfile.open(tar) as archive:
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in archive} == {(0, 0, 0, "", "")}

    def test_a_damaged_artifact_is_not_packed(self, artifact: Path, tmp_path: Path, tar: Path) -> None:
        mine = Path(shutil.copytree(artifact, tmp_path / "mine"))
        flip(mine / "genes.tsv")
        with pytest.raises(IntegrityError, match=r"genes\.tsv"):
            bundle([str(artifact), str(mine)], tar)
        with pytest.raises(NotFoundError):
            bundle([str(artifact), "nobody"], tar)
        assert not list(tmp_path.glob("*.tar*"))
        assert not list(tmp_path.glob(".*"))

    def test_a_place_that_cannot_be_written(self, artifact: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(StoreError, match="file"):
            bundle([str(artifact)], tmp_path / "file" / "zoo.tar")


class TestConflicts:
    @pytest.mark.parametrize("where", ["local", "bundled"])
    def test_other_bytes_of_the_same_version(
        self, artifact: Path, tmp_path: Path, tar: Path, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = local_store()
        if where == "bundled":
            store = FolderStore("bundled", tmp_path / "bundled")
            monkeypatch.setattr(_bundle, "bundled_store", lambda: store)
        stored = store.put(artifact, "tiny", "0.1.0")
        before = contents(stored)
        other = write_tiny(tmp_path / "other", title="Another")
        first = write_tiny(tmp_path / "first", name="a-first-one")
        bundle([str(first), str(other)], tar)
        with pytest.raises(VersionConflictError, match=r"tiny@0\.1\.0"):
            unbundle(tar)
        assert contents(stored) == before
        assert not (local_store().root / "a-first-one").exists()

    def test_the_same_bytes_in_the_bundled_store(
        self, artifact: Path, tmp_path: Path, tar: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bundled = FolderStore("bundled", tmp_path / "bundled")
        bundled.put(artifact, "tiny", "0.1.0")
        monkeypatch.setattr(_bundle, "bundled_store", lambda: bundled)
        bundle([str(artifact)], tar)
        assert unbundle(tar) == ["tiny@0.1.0"]
        assert not local_store().root.exists()


class TestHostile:
    @pytest.mark.parametrize(
        "bad",
        [
            member("../../escaped.json"),
            member("tiny/0.1.0/../../../escaped.json"),
            member("tiny/0.1.0/evidence/../../../escaped.json"),
            member("/tmp/escaped.json"),
            member("//tiny/0.1.0/card.json"),
            member("tiny/0.1.0/C:\\escaped.json"),
            member("tiny/0.1.0/card.json\n"),
            member("tiny/0.1.0/genes.tsv", kind=tarfile.SYMTYPE, link="/etc/passwd"),
            member("tiny/0.1.0/genes.tsv", kind=tarfile.LNKTYPE, link="tiny/0.1.0/card.json"),
            member("tiny/0.1.0/evidence", kind=tarfile.SYMTYPE, link="/tmp"),
            member("tiny/0.1.0/genes.tsv", kind=tarfile.CHRTYPE),
            member("tiny/0.1.0/genes.tsv", kind=tarfile.BLKTYPE),
            member("tiny/0.1.0/genes.tsv", kind=tarfile.FIFOTYPE),
            member("tiny/0.1.0/evidence", kind=tarfile.DIRTYPE),
            member("tiny/0.1.0/model.pkl", b"\x80\x04N."),
            member("tiny/0.1.0/setup.py"),
            member("card.json"),
            member("tiny/card.json"),
        ],
        ids=lambda bad: f"{bad[0].name}-{bad[0].type.decode()}".replace("\n", "newline"),
    )
    @pytest.mark.parametrize("last", [True, False])
    def test_nothing_leaves_the_folder(
        self, artifact: Path, tar: Path, own_folders: Path, bad: tuple[tarfile.TarInfo, bytes], last: bool
    ) -> None:
        good = members_of(artifact)
        write_tar(tar, *([*good, bad] if last else [bad, *good]))
        with pytest.raises(UnsafeFileError):
            unbundle(tar)
        assert not own_folders.exists()
        assert not Path("/tmp/escaped.json").exists()

    @pytest.mark.parametrize("name", ["Tiny/0.1.0", "tiny/latest", "tiny/0.1", ".hidden/0.1.0"])
    def test_names_and_versions(self, artifact: Path, tar: Path, own_folders: Path, name: str) -> None:
        folder, version = name.split("/")
        write_tar(tar, *members_of(artifact, folder, version))
        with pytest.raises(ZooError) as caught:
            unbundle(tar)
        assert caught.value.exit_code == 2
        assert not own_folders.exists()

    def test_a_header_that_promises_too_much(self, artifact: Path, tar: Path, own_folders: Path) -> None:
        write_tar(tar, *members_of(artifact))
        content = bytearray(tar.read_bytes())
        content[124:136] = b"77777777777\0"
        checksum = sum(content[:148]) + sum(content[156:512]) + 8 * ord(" ")
        content[148:156] = b"%06o\0 " % checksum
        tar.write_bytes(content)
        with pytest.raises(UnsafeFileError):
            unbundle(tar)
        assert not own_folders.exists()

    def test_a_sparse_member(self, artifact: Path, tar: Path, own_folders: Path) -> None:
        sparse = tarfile.TarInfo("tiny/0.1.0/genes.tsv")
        sparse.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.minor": "1",
            "GNU.sparse.size": str(2**30),
            "GNU.sparse.map": "0,1",
            "GNU.sparse.name": sparse.name,
        }
        sparse.size = 1
        with tarfile.open(tar, "w", format=tarfile.PAX_FORMAT) as archive:
            archive.addfile(sparse, io.BytesIO(b"x"))
        with pytest.raises(UnsafeFileError):
            unbundle(tar)
        assert not own_folders.exists()

    def test_truncated(self, artifact: Path, tar: Path, tmp_path: Path, own_folders: Path) -> None:
        bundle([str(artifact), str(write_tiny(tmp_path / "other", name="zother"))], tar)
        with tarfile.open(tar) as archive:
            starts = [found.offset for found in archive]
        whole = tar.read_bytes()
        for keep in (*starts, starts[1] + 100, starts[-1] + 512, starts[-1] + 600):
            tar.write_bytes(whole[:keep])
            with pytest.raises(FormatError, match=r"zoo\.tar"):
                unbundle(tar)
        assert not own_folders.exists()

    @pytest.mark.parametrize("content", [b"", b"not a tar file" * 100, b"\0" * 10_240, b"\x1f\x8b\x08\0" * 600])
    def test_not_a_bundle(self, tar: Path, content: bytes) -> None:
        tar.write_bytes(content)
        with pytest.raises(FormatError, match=r"zoo\.tar"):
            unbundle(tar)

    def test_no_file(self, tar: Path, tmp_path: Path) -> None:
        for path in (tar, tmp_path):
            with pytest.raises(NotFoundError):
                unbundle(path)

    def test_a_missing_file(self, artifact: Path, tar: Path, own_folders: Path) -> None:
        for name, error in (("MANIFEST.json", FormatError), ("genes.tsv", IntegrityError)):
            write_tar(tar, *(found for found in members_of(artifact) if not found[0].name.endswith(name)))
            with pytest.raises(error, match=name.replace(".", r"\.")):
                unbundle(tar)
        assert not own_folders.exists()

    def test_under_a_false_name(self, artifact: Path, tar: Path, own_folders: Path) -> None:
        for name, version in (("hematopoietic", "0.1.0"), ("tiny", "9.0.0")):
            write_tar(tar, *members_of(artifact, name, version))
            with pytest.raises(FormatError, match=r"tiny@0\.1\.0"):
                unbundle(tar)
        assert not own_folders.exists()

    def test_one_bad_artifact_keeps_the_good_one_out(
        self, artifact: Path, tar: Path, tmp_path: Path, own_folders: Path
    ) -> None:
        bad = write_tiny(tmp_path / "z", name="zzz")
        flip(bad / "genes.tsv")
        write_tar(tar, *members_of(artifact), *members_of(bad, "zzz"))
        with pytest.raises(IntegrityError, match=r"genes\.tsv"):
            unbundle(tar)
        assert not own_folders.exists()

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(at=st.integers(0, 2**31), bit=st.integers(0, 7), header=st.booleans())
    def test_any_flipped_bit_is_caught_or_harmless(
        self, artifact: Path, tmp_path: Path, at: int, bit: int, header: bool
    ) -> None:
        path = tmp_path / "fuzzed.tar"
        bundle([str(artifact)], path)
        content = bytearray(path.read_bytes())
        with tarfile.open(path) as archive:
            starts = [found.offset for found in archive]
        where = starts[at % len(starts)] + at % 512 if header else at % len(content)
        content[where] ^= 1 << bit
        path.write_bytes(content)
        shutil.rmtree(local_store().root, ignore_errors=True)
        try:
            unbundle(path)
        except ZooError:
            assert not local_store().root.exists()
        else:
            assert load("tiny@0.1.0").digest == Manifold.read(artifact).digest


def test_an_interrupted_unpacking_leaves_nothing(
    artifact: Path, tar: Path, own_folders: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle([str(artifact)], tar)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    read: Callable[..., Manifold] = Manifold.read

    def interrupted(*arguments: object, **named: object) -> Manifold:
        read(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(Manifold, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unbundle(tar)
    assert not own_folders.exists()
    assert not list((tmp_path / "temporary").iterdir())

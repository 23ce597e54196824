from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from artifacts import FILES, contents, flip

from hub_server import LoopbackHub
from manifoldzoo.cards._errors import BadInputError, IntegrityError, IntegrityWarning, StoreError
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry._pull import pull
from manifoldzoo.registry._resolve import load


def test_into_the_cache(published: LoopbackHub, artifact: Path) -> None:
    pulled = pull("zoo/tiny@0.1.0")
    assert pulled["reference"] == "tiny@0.1.0"
    assert pulled["store"] == "hub"
    assert pulled["digest"] == Manifold.read(artifact).digest
    published.stop()
    assert load("zoo/tiny@0.1.0").digest == pulled["digest"]


def test_to_a_folder_of_plain_files(published: LoopbackHub, tmp_path: Path, artifact: Path) -> None:
    target = tmp_path / "new" / "copy"
    assert pull("zoo/tiny@0.1.0", target)["folder"] == str(target)
    copied = contents(target)
    assert {name: copied[name] for name in FILES} == contents(artifact)
    assert {name.split("/")[0] for name in copied} == {*FILES, "README.md", "evidence"}
    assert not any(path.is_symlink() for path in target.rglob("*"))
    assert [path.name for path in target.parent.iterdir()] == ["copy"]
    assert load(target).digest == Manifold.read(artifact).digest


def test_a_folder_that_exists(published: LoopbackHub, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    with pytest.raises(BadInputError, match="copy"):
        pull("zoo/tiny@0.1.0", str(tmp_path / "copy"))
    assert not published.requests


def test_it_repairs(published: LoopbackHub, tmp_path: Path) -> None:
    pull("zoo/tiny@0.1.0")
    (path,) = (tmp_path / "client").glob("hub/models--*/snapshots/*/genes.tsv")
    flip(path)
    with pytest.warns(IntegrityWarning, match=r"genes\.tsv"):
        pull("zoo/tiny@0.1.0")


def test_a_damaged_artifact_is_not_copied(artifact: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(artifact, tmp_path / "mine"))
    flip(mine / "genes.tsv")
    with pytest.raises(IntegrityError, match=r"genes\.tsv"):
        pull(mine, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_copy_leaves_nothing(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    copyfile, copied = shutil.copyfile, []

    def fail(source: Path, target: Path) -> None:
        copied.append(copyfile(source, target))
        if len(copied) == 2:
            raise error

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else StoreError):
        pull(artifact, tmp_path / "new" / "copy")
    assert len(copied) == 2
    assert list((tmp_path / "new").iterdir()) == []


def test_below_a_file(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        pull(artifact, tmp_path / "file" / "copy")

"""Finding the reader for a folder."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from tiny_scgpt import write_tiny_scgpt
from tiny_transformers import write_tiny_cell2sentence, write_tiny_geneformer

from manifoldzoo.cards._errors import CheckpointError, NotFoundError, PluginError, ZooWarning
from manifoldzoo.extractors.checkpoints._families import FAMILIES, read_checkpoint

WRITERS = {
    "scgpt": write_tiny_scgpt,
    "geneformer": write_tiny_geneformer,
    "cell2sentence": write_tiny_cell2sentence,
}
READER = """
class Reader:
    name = {name!r}
    def recognises(self, folder):
        return (folder / {file!r}).exists()
    def read(self, folder):
        return ("read by", self.name, folder.name)
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package that offers a reader."""
    installed = []

    def put(package: str, name: str, *, file: str = "mine.txt", code: str | None = None) -> None:
        site = tmp_path / "site" / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}.py").write_text(READER.format(name=name, file=file) if code is None else code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{FAMILIES}]\n{name} = {package}:Reader\n")
        monkeypatch.syspath_prepend(str(site))
        installed.append(package)

    yield put
    for package in installed:
        sys.modules.pop(package, None)


def test_the_families_of_this_package_are_installed_under_their_names():
    points = {point.name: point for point in entry_points(group=FAMILIES)}
    assert set(WRITERS) <= set(points)
    for name in WRITERS:
        assert points[name].load()().name == name


@pytest.mark.parametrize("family", WRITERS)
def test_a_folder_is_read_by_the_family_that_recognises_it(tmp_path, family):
    folder = WRITERS[family](tmp_path / "model")
    seen, named = read_checkpoint(folder), read_checkpoint(str(folder), family=family)
    assert (seen.family, named.family) == (family, family)
    assert seen.digest == named.digest
    assert seen.name == "model"


@pytest.mark.parametrize("family", WRITERS)
@pytest.mark.parametrize("other", WRITERS)
def test_a_folder_of_another_family_is_refused(tmp_path, family, other):
    if family == other:
        return
    folder = WRITERS[family](tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"config\.json|args\.json|model_type"):
        read_checkpoint(folder, family=other)


def test_a_folder_that_nobody_recognises_is_described(tmp_path):
    with pytest.raises(CheckpointError, match=r"known family \(cell2sentence, geneformer, scgpt\); it holds nothing"):
        read_checkpoint(tmp_path)
    for index in range(10):
        (tmp_path / f"file{index}.txt").touch()
    with pytest.raises(CheckpointError, match=r"it holds file0\.txt, .*, file7\.txt and 2 more"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"its config\.json states model_type 'llama'"):
        read_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": ["llama"]')
    with pytest.raises(CheckpointError, match="it holds config"):
        read_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        read_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="is not a folder"):
        read_checkpoint(tmp_path / "config.json", family="scgpt")


def test_an_unknown_family_lists_those_there_are(tmp_path):
    with pytest.raises(NotFoundError, match=r"'scbert'; there are: cell2sentence, geneformer, scgpt"):
        read_checkpoint(tmp_path, family="scbert")


def test_a_family_of_another_package_is_read(tmp_path, install):
    install("zoo_mine", "mine")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "mine.txt").touch()
    assert read_checkpoint(folder) == ("read by", "mine", "model")
    assert read_checkpoint(folder, family="mine") == ("read by", "mine", "model")


def test_two_families_that_recognise_a_folder_are_named(tmp_path, install):
    install("zoo_mine", "mine", file="config.json")
    folder = write_tiny_geneformer(tmp_path / "model")
    with pytest.raises(CheckpointError, match="recognised by geneformer and mine") as caught:
        read_checkpoint(folder)
    assert "Name the family" in caught.value.hint
    assert read_checkpoint(folder, family="geneformer").family == "geneformer"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import not_there", "'broken' of zoo_broken cannot be imported: ModuleNotFoundError: .*not_there"),
        ("1 / 0", "ZeroDivisionError"),
        ("class Reader:\n    def __init__(self): raise OSError('full')", "'broken' cannot be used: OSError: full"),
        ("class Reader:\n    name = 'broken'", "'broken' cannot be used: AttributeError"),
        ("Reader = 3", "'broken' cannot be used: TypeError"),
        (READER.format(name="other", file="x"), "'broken' is no reader of that name"),
        (
            "class Reader:\n    name = 'broken'\n    read = recognises = lambda self, folder: 1 / 0",
            "'broken' failed to look at .*ZeroDivisionError",
        ),
    ],
)
def test_a_broken_package_is_named_and_keeps_nobody_from_reading(tmp_path, install, code, said):
    install("zoo_broken", "broken", code=code)
    folder = write_tiny_scgpt(tmp_path / "model")
    with pytest.warns(ZooWarning, match=said):
        assert read_checkpoint(folder).family == "scgpt"
    assert read_checkpoint(folder, family="scgpt").family == "scgpt"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CheckpointError, match="no checkpoint of a known family") as caught:
        read_checkpoint(empty)
    assert "broken" in caught.value.hint
    with pytest.raises((PluginError, ZeroDivisionError)):
        read_checkpoint(folder, family="broken")


def test_a_family_that_two_packages_offer_is_refused(tmp_path, install):
    install("zoo_first", "same")
    install("zoo_second", "same")
    folder = write_tiny_scgpt(tmp_path / "model")
    for family in (None, "same"):
        with pytest.raises(PluginError, match="'same' is offered by zoo_first, zoo_second"):
            read_checkpoint(folder, family=family)
    assert read_checkpoint(folder, family="scgpt").family == "scgpt"


def test_reading_scgpt_does_not_load_the_library_of_the_others(tmp_path):
    folder = write_tiny_scgpt(tmp_path / "model")
    code = (
        "import sys; from manifoldzoo.extractors.checkpoints._families import read_checkpoint; "
        f"read_checkpoint({str(folder)!r}); print('transformers' in sys.modules, 'tokenizers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]
    assert run.stderr == ""


def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch):
    from manifoldzoo.cards._errors import MissingExtraError

    folders: list[Path] = [write_tiny_geneformer(tmp_path / "a"), write_tiny_cell2sentence(tmp_path / "b")]
    monkeypatch.setitem(sys.modules, "transformers", None)
    for folder in folders:
        with pytest.raises(MissingExtraError, match=r"transformers.*manifoldzoo\[extract\]"):
            read_checkpoint(folder)

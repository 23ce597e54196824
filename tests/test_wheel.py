"""The wheel and the source distribution: what they carry, and that the wheel works away from the checkout."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.version import Version

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cards", "manifolds", "gates", "extractors", "registry")
LEFT_BEHIND = shutil.ignore_patterns(
    *(".git", ".venv", "build", "dist", "runs", "*.egg-info", "__pycache__", ".mypy_cache", ".ruff_cache"),
    *(".pytest_cache", ".hypothesis"),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git tracks, so that nothing untracked slips in; of all but rubbish where there is no git."""
    folder = tmp_path_factory.mktemp("source") / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, text=True, cwd=ROOT, check=False)
    if listed.returncode:
        return shutil.copytree(ROOT, folder, ignore=LEFT_BEHIND)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the wheel and the source distribution; isolated, over the network, only without a setuptools."""
    target = tmp_path_factory.mktemp("dist")
    here = [] if find_spec("setuptools") is None or Version(metadata.version("setuptools")) < Version("77") else ["-n"]
    command = [sys.executable, "-m", "build", *here, "--outdir", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=target)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the wheel, and everybody else's packages from here."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    interpreter = folder / "bin" / "python"
    paths = subprocess.run(
        [interpreter, "-c", "import site; print(site.getsitepackages()[0])"], capture_output=True, text=True, check=True
    )
    packages = Path(paths.stdout.strip())
    install = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--no-deps", "--no-index"]
    done = subprocess.run([*install, str(wheel)], capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    # a path in a .pth file is searched after the environment's own, and its .pth files, the editable one among
    # them, are not read
    (packages / "peers.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return interpreter


def test_the_wheel_carries_all_data(source: Path, names: set[str]) -> None:
    wanted = {
        path.relative_to(source).as_posix()
        for pattern in ("manifolds/bundled/**/*", "extractors/reference/*/*", "manifolds/demo/*", "cards/*.json")
        for path in source.glob(pattern)
        if path.is_file()
    }
    wanted |= {f"manifolds/hematopoietic/{name}" for name in ("recipe.toml", "stages.tsv", "edges.tsv", "labels.tsv")}
    wanted |= {"manifolds/hematopoietic/SOURCES.md", "registry/index.json"}
    assert len(wanted) > 20
    assert {f"manifoldzoo/{name}" for name in wanted} - names == set()
    assert "manifoldzoo/py.typed" in names


def test_the_wheel_carries_all_code_and_nothing_else(source: Path, names: set[str]) -> None:
    code = {f"manifoldzoo/{p.relative_to(source).as_posix()}" for room in ROOMS for p in (source / room).rglob("*.py")}
    code |= {path.relative_to(source).as_posix() for path in (source / "manifoldzoo").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == code
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"manifoldzoo"}
    assert not [name for name in names if "tests" in name.split("/") or name.endswith((".pyc", ".pt", ".pkl"))]


def test_the_wheel_is_small_and_licensed(wheel: Path, names: set[str]) -> None:
    assert wheel.stat().st_size < 40e6
    assert wheel.name.endswith("-py3-none-any.whl")
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)


def test_no_path_of_this_machine_is_in_it(wheel: Path) -> None:
    here = str(ROOT.parent).encode()
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if here + b"/" in archive.read(name)] == []


def test_the_source_distribution_makes_the_same_wheel(built: Path, names: set[str]) -> None:
    """``python -m build`` makes the wheel from the source distribution, so it holds all that the wheel needs."""
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        held = {name.split("/", 1)[1] for name in opened.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "manifoldzoo/py.typed"} <= held
    for name in names:
        if not name.split("/")[0].endswith(".dist-info"):
            stem = name.removeprefix("manifoldzoo/")
            assert (stem if stem.split("/")[0] in ROOMS else name) in held, name


SCRIPT = """
import json, pathlib
import manifoldzoo, manifoldzoo.cards, manifoldzoo.manifolds, manifoldzoo.gates, manifoldzoo.extractors
import manifoldzoo.registry, manifoldzoo.manifolds.demo
from manifoldzoo.registry._resolve import load
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.extractors._extract import reference_checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler
manifold = load("hematopoietic")
assert manifoldzoo.load("hematopoietic").digest == manifold.digest
import anndata
cells = anndata.read_h5ad(manifoldzoo.manifolds.demo.demo_path())
manifold.transform(cells, scale="counts")
print(json.dumps({
    "where": [str(pathlib.Path(m.__file__).parent) for m in (manifoldzoo, manifoldzoo.registry, manifoldzoo.manifolds)],
    "rungs": [valid(manifold).status, reproduces(manifold).status],
    "shape": list(cells.obsm["X_hematopoietic"].shape),
    "layers": read_scgpt(reference_checkpoint()).n_layers,
    "stages": len(read_stage_ruler(recipe_folder("hematopoietic")).stages),
    "recipe": read_recipe(recipe_folder("hematopoietic")).name,
}))
"""


def outside(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(python), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**clean, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_the_installed_wheel_works_away_from_the_checkout(python: Path, tmp_path: Path) -> None:
    done = outside(python, tmp_path, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    fresh = str(python.parents[1])
    assert all(place.startswith(fresh) for place in told["where"]), told["where"]
    assert told["rungs"] == ["pass", "pass"]
    assert told["shape"] == [713, 10]
    assert (told["layers"], told["stages"], told["recipe"]) == (6, 74, "hematopoietic")


def test_its_commands_work(python: Path, tmp_path: Path) -> None:
    script = python.with_name("manifoldzoo")
    assert script.is_file()
    listed = subprocess.run([str(script), "list", "--json"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)["manifolds"]
    assert [(row["name"], row["version"], row["rung"]) for row in rows] == [
        ("cell-cycle", "0.1.0", 2),
        ("communication", "1.0.0", 3),
        ("hematopoietic", "1.0.0", 3),
        ("hematopoietic", "1.1.0", 3),
        ("hematopoietic-raw", "1.0.0", 3),
        ("hematopoietic-raw", "1.1.0", 3),
    ]
    examined = outside(python, tmp_path, "-m", "manifoldzoo", "doctor", "--json")
    assert examined.returncode == 0, examined.stdout + examined.stderr
    assert json.loads(examined.stdout)["ok"] is True


def test_its_extractor_is_found(python: Path, tmp_path: Path) -> None:
    code = "from manifoldzoo.extractors._interface import find_extractor; print(find_extractor('operator-let').name)"
    done = outside(python, tmp_path, "-c", code)
    assert done.stdout.strip() == "operator-let", done.stderr

"""What a user installs: a wheel and an sdist built from the checkout, tried out in a clean virtual environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CARRIED = (
    "manifoldzoo/py.typed",
    "manifoldzoo/cards/card.schema.json",
    "manifoldzoo/registry/index.json",
    "manifoldzoo/manifolds/demo/marrow_setty2019.h5ad",
    "manifoldzoo/manifolds/hematopoietic/recipe.toml",
    "manifoldzoo/manifolds/hematopoietic/stages.tsv",
    "manifoldzoo/manifolds/hematopoietic/labels.tsv",
    "manifoldzoo/manifolds/bundled/hematopoietic/0.1.0/MANIFEST.json",
    "manifoldzoo/manifolds/bundled/hematopoietic/0.1.0/manifold.safetensors",
    "manifoldzoo/extractors/reference/immune-mini/model.safetensors",
    "manifoldzoo/extractors/reference/immune-mini/vocab.json",
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build both from a copy of what git tracks, so that nothing untracked can slip in."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", source], check=True)
    command = [sys.executable, "-m", "build", "--outdir", folder / "dist", source]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "dist"


@pytest.mark.slow
def test_the_wheel_carries_the_data_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert set(CARRIED) <= set(names)
    assert not [name for name in names if "tests" in name.split("/") or name.split("/")[0] in ("cards", "registry")]
    assert any(name.startswith("manifoldzoo/manifolds/bundled/hematopoietic/0.1.0/evidence/") for name in names)


@pytest.mark.slow
def test_the_sdist_builds_the_same_package(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"registry/_resolve.py", "manifolds/demo/marrow_setty2019.h5ad", "pyproject.toml", "LICENSE"} <= names


@pytest.mark.slow
def test_the_installed_wheel_works_outside_the_checkout(built: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    install = [python, "-m", "pip", "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True, capture_output=True)
    # the dependencies come from the environment of the tests, the package only from the wheel
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()];"
        "import manifoldzoo as mz, manifoldzoo.registry, manifoldzoo.manifolds, manifoldzoo.gates, manifoldzoo.cards;"
        "print(mz.__file__); print(mz.load('hematopoietic').n_components)"
    )
    run = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    where, n_components = run.stdout.split()
    assert Path(where).is_relative_to(tmp_path)
    assert n_components == "10"
    listed = subprocess.run(
        [tmp_path / "venv" / "bin" / "manifoldzoo", "list"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert "hematopoietic" in listed.stdout

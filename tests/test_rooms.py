"""The house: which room may import which, how, and how large a file may grow."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import manifoldzoo

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "cards": set(),
    "manifolds": {"cards"},
    "gates": {"cards", "manifolds"},
    "extractors": {"cards", "manifolds", "gates"},
    "registry": {"cards", "manifolds", "gates"},
    "manifoldzoo": {"cards", "manifolds", "gates", "extractors", "registry"},
}
# heavy ones that only some rooms may load when they are imported; elsewhere inside functions
AT_THE_TOP = {
    "torch": {"extractors"},
    "scanpy": {"extractors"},
    "huggingface_hub": {"registry"},
    "typer": {"manifoldzoo"},
}
FILES = sorted(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))


def module(path: Path) -> tuple[str, ...]:
    """Package that a file's relative imports start from: ``("manifoldzoo", "cards")``."""
    folder = path.relative_to(ROOT).parent.parts
    return folder if folder[0] == "manifoldzoo" else ("manifoldzoo", *folder)


def room(package: tuple[str, ...]) -> str:
    """Room of a package; the front door's for the top one."""
    return package[1] if len(package) > 1 and package[1] in MAY_IMPORT else "manifoldzoo"


def imported(path: Path) -> Iterator[tuple[int, bool, tuple[str, ...]]]:
    """Line, whether the import is relative, and absolute name of all that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, False, tuple(name.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            stem = tuple(node.module.split(".")) if node.module else ()
            package = module(path)
            start = package[: len(package) + 1 - node.level] if node.level else ()
            for name in node.names:
                yield node.lineno, bool(node.level), (*start, *stem, name.name)


def violations(path: Path) -> list[str]:
    """Imports of a file that the architecture forbids."""
    found, here = [], room(module(path))
    for line, relative, name in imported(path):
        if name[0] != "manifoldzoo":
            if relative or name[0] in MAY_IMPORT:
                found.append(f"{path.relative_to(ROOT)}:{line} leaves the package: {'.'.join(name)}")
            continue
        if not relative:
            found.append(f"{path.relative_to(ROOT)}:{line} imports {'.'.join(name)} by its absolute name")
        there = room(name[:2]) if len(name) > 1 else "manifoldzoo"
        # the version of the package is no part of the front door's code
        if there != here and there not in MAY_IMPORT[here] and name != ("manifoldzoo", "__version__"):
            found.append(f"{path.relative_to(ROOT)}:{line} {here} may not import {there}: {'.'.join(name)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards_and_are_relative(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize(
    ("place", "code", "n"),
    [
        ("cards/_x.py", "from ..manifolds._y import z", 1),
        ("cards/_x.py", "def f():\n    from ..registry import z", 1),
        ("gates/_x.py", "from ..extractors._y import z", 1),
        ("extractors/_x.py", "from ..registry._y import z", 1),
        ("registry/_x.py", "from ..extractors._y import z", 1),
        ("registry/_x.py", "from .. import extractors", 1),
        ("registry/_x.py", "from .._commands import app", 1),
        ("extractors/training/_x.py", "from ...registry._y import z", 1),
        ("registry/_x.py", "from manifoldzoo.cards import z", 1),
        ("registry/_x.py", "import manifoldzoo.cards", 1),
        ("registry/_x.py", "import cards", 1),
        ("registry/_x.py", "from gates._y import z", 1),
        ("registry/_x.py", "from ...cards import z", 1),
        ("registry/_x.py", "from ..cards._y import z\nfrom ._y import z\nimport numpy", 0),
        ("extractors/training/_x.py", "from ...cards._y import z\nfrom .._y import z", 0),
        ("manifoldzoo/_x.py", "from .registry._y import z\nfrom . import __version__", 0),
    ],
)
def test_the_rule_itself(place: str, code: str, n: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_rooms.ROOT" if __name__ == "tests.test_rooms" else f"{__name__}.ROOT", tmp_path)
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(code)
    assert len(violations(path)) == n


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    tops = [
        name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    ]
    heavy = {name.split(".")[0] for name in tops} & set(AT_THE_TOP)
    assert {name for name in heavy if room(module(path)) not in AT_THE_TOP[name]} == set()


def test_every_package_is_listed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    there = {".".join(module(path)) for path in FILES if path.name == "__init__.py"}
    assert there - set(settings["packages"]) == set()
    for package in settings["packages"]:
        stem = package.removeprefix("manifoldzoo.").split(".")
        if package != "manifoldzoo":
            assert f"manifoldzoo.{stem[0]}" in settings["package-dir"], package
    assert {path.parent for path in FILES} <= {path.parent for path in FILES if path.name == "__init__.py"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 420


def test_few_public_names() -> None:
    public = [name for name in manifoldzoo.__all__ if not name.startswith("_")]
    assert 10 <= len(public) <= 25
    source = ast.parse((ROOT / "manifoldzoo" / "__init__.py").read_text())
    for_types = {alias.name for node in ast.walk(source) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(public) == for_types - {"TYPE_CHECKING"}


def test_errors_have_the_statuses_of_the_design() -> None:
    from manifoldzoo.cards import _errors

    tree = [kind for kind in vars(_errors).values() if isinstance(kind, type) and issubclass(kind, _errors.ZooError)]
    assert len(tree) > 10
    assert {kind.exit_code for kind in tree} == {1, 2, 3}

"""Finding what installed packages offer, with real packages on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manifoldzoo.cards._errors import NotFoundError, PluginError
from manifoldzoo.extractors._extract import read_ruler
from manifoldzoo.extractors._plugins import find_plugin
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder

GROUP = "manifoldzoo.tests"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package: a module with some code, and one entry point."""
    installed = []

    def put(package: str, code: str, *, name: str, group: str = GROUP, attribute: str = "thing") -> None:
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {package}:{attribute}\n")
        monkeypatch.syspath_prepend(str(site))
        installed.append(package)

    yield put
    for package in installed:
        sys.modules.pop(package, None)


def test_what_a_package_offers_is_loaded(install):
    install("zoo_good", "thing = 42", name="answer")
    assert find_plugin(GROUP, "answer", "thing") == 42


def test_an_unknown_name_lists_those_there_are(install):
    with pytest.raises(NotFoundError, match=r"'answer'.*none"):
        find_plugin(GROUP, "answer", "thing")
    install("zoo_one", "thing = 1", name="one")
    install("zoo_two", "thing = 2", name="two")
    with pytest.raises(NotFoundError, match=r"'answer'.*one, two"):
        find_plugin(GROUP, "answer", "thing")


def test_a_name_that_two_packages_offer_is_refused_with_both(install):
    install("zoo_first", "thing = 1", name="same")
    install("zoo_second", "thing = 2", name="same")
    with pytest.raises(PluginError, match=r"zoo_first, zoo_second"):
        find_plugin(GROUP, "same", "thing")


@pytest.mark.parametrize(
    ("code", "said"), [("import not_there", "not_there"), ("1 / 0", "ZeroDivisionError"), ("", "thing")]
)
def test_a_package_that_cannot_be_imported_is_named_with_the_reason(install, code, said):
    install("zoo_broken", code, name="broken")
    with pytest.raises(PluginError, match=rf"zoo_broken.*{said}"):
        find_plugin(GROUP, "broken", "thing")


def test_a_broken_package_does_not_break_the_others(install):
    install("zoo_broken_too", "1 / 0", name="broken")
    install("zoo_fine", "thing = 5", name="fine")
    assert find_plugin(GROUP, "fine", "thing") == 5


def test_a_ruler_of_a_package_is_used_where_a_recipe_names_it(install):
    code = """
from manifoldzoo.manifolds import Edge, Stage, StageRuler

def thing():
    stages = (Stage("root", "root", "", "stem"), Stage("leaf", "leaf", "", "arm"))
    return StageRuler("toy", "1", stages, (Edge("leaf", "root", "made up"),), "root")

def nothing():
    return "no ruler"
"""
    install("zoo_ruler", code, name="toy", group="manifoldzoo.rulers")
    folder = recipe_folder("hematopoietic")
    recipe = read_recipe(folder)
    assert read_ruler(recipe, folder).name != "toy"
    assert read_ruler(recipe.model_copy(update={"ruler": "toy"}), folder).name == "toy"
    install("zoo_no_ruler", code, name="nothing", group="manifoldzoo.rulers", attribute="nothing")
    with pytest.raises(PluginError, match="str"):
        read_ruler(recipe.model_copy(update={"ruler": "nothing"}), Path("nowhere"))

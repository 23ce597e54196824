from __future__ import annotations

from pathlib import Path

import pytest

import manifoldzoo.manifolds
from manifoldzoo.cards._errors import FormatError, NotFoundError
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder

BUNDLED = sorted(path.parent.name for path in Path(manifoldzoo.manifolds.__path__[0]).glob("*/recipe.toml"))
RECIPE = """
name = "tiny"
version = "0.1.0"
title = "Tiny"
description = "For tests."
licence = "MIT"
ruler_licence = "CC0-1.0"
extractor = "operator-let"
coverage_floor = 0.3
intended_use = "Tests."
limits = ["Means nothing."]
[[readouts]]
task = "branch"
label = "branch"
[[citations]]
key = "none"
text = "Nobody (2026)."
"""


def write(folder, text):
    folder.mkdir(exist_ok=True)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_recipe_is_read_with_its_defaults(tmp_path):
    recipe = read_recipe(write(tmp_path, RECIPE))
    assert (recipe.name, recipe.seed, recipe.panel.min_cells, recipe.adaptor.n_components) == ("tiny", 0, 5, 10)
    assert [readout.task for readout in recipe.readouts] == ["branch"]


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_recipes_are_valid_and_found_by_name(name):
    assert read_recipe(recipe_folder(name)).name == name.replace("_", "-")


def test_there_is_a_bundled_recipe():
    assert "hematopoietic" in BUNDLED


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('name = "tiny"', 'name = "Tiny"', "name"),
        ('name = "tiny"', f'name = "{"a" * 65}"', "name"),
        ('version = "0.1.0"', 'version = "1"', "version"),
        ('licence = "MIT"', 'licence = "free"', "licence"),
        ("coverage_floor = 0.3", "coverage_floor = 2", "coverage_floor"),
        ("coverage_floor = 0.3", "coverage_flor = 0.3", "coverage_flo"),
        ('limits = ["Means nothing."]', "limits = []", "limits"),
        ('label = "branch"', 'label = "donor"', "readouts.0.label"),
        ('task = "branch"', 'task = "the-branch"', "readouts.0.task"),
        ("[[citations]]", "[adaptor]\nn_steps = 0\n[[citations]]", "adaptor.n_steps"),
        ("[[citations]]", "[operator]\nkind = 'other'\n[[citations]]", "operator.kind"),
        ("[[citations]]", "[panel]\nmin_cell = 3\n[[citations]]", "panel.min_cell"),
        ("[[citations]]", "[[readouts]]\ntask = 'branch'\nlabel = 'stage'\n[[citations]]", "branch"),
        ('key = "none"', 'key = ""', "citations.0.key"),
    ],
)
def test_a_field_at_fault_is_named(tmp_path, old, new, field):
    assert RECIPE.count(old) == 1 or old.startswith(("licence", "[[", "label"))
    with pytest.raises(FormatError) as caught:
        read_recipe(write(tmp_path, RECIPE.replace(f"\n{old}", f"\n{new}")))
    assert field in caught.value.message
    assert str(tmp_path / "recipe.toml") in caught.value.message


def test_what_is_not_toml_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"recipe\.toml"):
        read_recipe(write(tmp_path, "name = "))
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"recipe\.toml"):
        read_recipe(tmp_path)


def test_a_recipe_of_ones_own_is_named_as_a_path(tmp_path, monkeypatch):
    write(tmp_path / "mine", RECIPE)
    monkeypatch.chdir(tmp_path)
    assert read_recipe(recipe_folder("./mine")).name == "tiny"
    assert recipe_folder(tmp_path / "mine") == tmp_path / "mine"
    with pytest.raises(NotFoundError, match="mine"):
        recipe_folder("mine")


@pytest.mark.parametrize("name", ["nothing", "./nothing", "..", "/"])
def test_a_recipe_that_is_not_there_is_not_found_and_the_bundled_are_named(name):
    with pytest.raises(NotFoundError) as caught:
        recipe_folder(name)
    assert repr(name) in caught.value.message
    assert "hematopoietic" in caught.value.hint


def with_operator(lines):
    return RECIPE.replace("[[citations]]", f"[operator]\n{lines}\n[[citations]]")


@pytest.mark.parametrize(
    ("lines", "combination"),
    [
        ("", "drift"),
        ("kind = 'token_qk'", "drift"),
        ("kind = 'distilled'", "none"),
        ("kind = 'attention_value'\ncombination = 'mean'", "mean"),
        ("combination = 'single'\nlayer = 0\nhead = 5", "single"),
        ("combination = 'top_k'\nk = 3", "top_k"),
    ],
)
def test_an_operator_is_joined_as_it_says_or_as_its_kind_is(tmp_path, lines, combination):
    assert read_recipe(write(tmp_path, with_operator(lines))).operator.combination == combination


@pytest.mark.parametrize(
    "lines",
    [
        "kind = 'distilled'\ncombination = 'drift'",
        "kind = 'token_ov'\ncombination = 'none'",
        "combination = 'single'",
        "combination = 'single'\nlayer = 2",
        "combination = 'single'\nlayer = 2\nhead = -1",
        "combination = 'mean'\nlayer = 2\nhead = 1",
        "combination = 'top_k'",
        "combination = 'top_k'\nk = 0",
        "combination = 'drift'\nk = 2",
    ],
)
def test_an_operator_that_does_not_fit_together_is_refused(tmp_path, lines):
    with pytest.raises(FormatError, match="operator"):
        read_recipe(write(tmp_path, with_operator(lines)))


def test_the_ruler_of_a_package_is_named_and_else_lies_beside_the_recipe(tmp_path):
    assert read_recipe(write(tmp_path, RECIPE)).ruler is None
    named = RECIPE.replace('extractor = "operator-let"', 'extractor = "operator-let"\nruler = "toy"')
    assert read_recipe(write(tmp_path, named)).ruler == "toy"

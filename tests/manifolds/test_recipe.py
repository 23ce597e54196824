from __future__ import annotations

from pathlib import Path

import pytest

import manifoldzoo.manifolds
from manifoldzoo.cards._errors import FormatError, NotFoundError
from manifoldzoo.cards._evidence_plan import STANDARD_COMPARISONS, EvidencePlan
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._recipe import ADAPTORS, read_recipe, recipe_folder, table_folder

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


CHOICE = '\n[choice]\nn_components = [3, 6]\noperators = [{ kind = "attention_mean" }, { kind = "distilled" }]\n'


def test_operator_and_number_of_coordinates_can_be_left_open(tmp_path):
    recipe = read_recipe(write(tmp_path, RECIPE + CHOICE))
    assert recipe.choice.n_components == [3, 6]
    assert [(each.kind, each.combination) for each in recipe.choice.operators] == [
        ("attention_mean", "drift"),
        ("distilled", "none"),
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("\n[choice]\n", "nothing to choose"),
        ("\n[choice]\nn_components = [3]\n", "at least two"),
        ("\n[choice]\nn_components = [3, 6, 3]\n", "different"),
        ('\n[choice]\noperators = [{ kind = "token_qk" }, { kind = "token_qk" }]\n', "different"),
        ("\n[choice]\nn_components = [0, 3]\n", "n_components"),
        (CHOICE + '[operator]\nkind = "token_ov"\n', "drop one"),
        (CHOICE + "[adaptor]\nn_components = 3\n", "drop one"),
    ],
)
def test_a_choice_that_is_none_is_refused(tmp_path, more, said):
    with pytest.raises(FormatError, match=said):
        read_recipe(write(tmp_path, RECIPE + more))


def test_a_recipe_stands_on_its_base(tmp_path):
    below = read_recipe(recipe_folder("hematopoietic"))
    said = 'name = "mine"\nbase = "hematopoietic"\ntitle = "Mine"\n'
    recipe = read_recipe(write(tmp_path, said))
    assert recipe == below.model_copy(update={"name": "mine", "base": "hematopoietic", "title": "Mine"})
    assert table_folder(recipe, tmp_path) == recipe_folder("hematopoietic")
    assert table_folder(below, tmp_path) == tmp_path
    named = read_recipe(write(tmp_path, said + '[operator]\nkind = "token_ov"\n'))
    assert (named.operator.kind, named.choice) == ("token_ov", None)
    with pytest.raises(NotFoundError, match="nothing"):
        read_recipe(write(tmp_path, said.replace("hematopoietic", "nothing")))
    with pytest.raises(FormatError, match="base"):
        read_recipe(write(tmp_path, said.replace('"hematopoietic"', '"../etc"')))
    with pytest.raises(FormatError, match="base"):
        read_recipe(write(tmp_path, said.replace('"hematopoietic"', "3")))


def with_adaptor(lines):
    return RECIPE.replace("[[citations]]", f"[adaptor]\n{lines}\n[[citations]]")


def adaptor(folder, lines):
    return read_recipe(write(folder, with_adaptor(lines))).adaptor


def test_an_anchor_head_is_the_default_and_has_its_published_settings(tmp_path):
    assert adaptor(tmp_path, "").settings() == LetSettings()
    given = adaptor(tmp_path, "n_components = 3\nalpha = 0.001\nn_steps = 20\nlearning_rate = 0.5")
    assert given.settings() == LetSettings(n_components=3, alpha=0.001, n_steps=20, learning_rate=0.5)


@pytest.mark.parametrize("kind", sorted(ADAPTORS))
def test_parameters_are_those_of_the_kind_and_no_others(tmp_path, kind):
    recipe = adaptor(tmp_path, f"kind = '{kind}'\nn_components = 6")
    assert set(recipe.parameters()) == set(ADAPTORS[kind])
    others = set(type(recipe).model_fields) - set(ADAPTORS[kind]) - {"kind", "n_components"}
    assert others and {getattr(recipe, name) for name in others} == {None}
    assert recipe.settings().n_components == recipe.n_components == 6
    assert type(recipe).model_validate(recipe.model_dump()) == recipe


@pytest.mark.parametrize("kind", ["isomap", "geodesic-mds"])
def test_a_geodesic_head_has_its_neighbours(tmp_path, kind):
    assert adaptor(tmp_path, f"kind = '{kind}'").settings() == GeodesicSettings(kind, 10, 10)
    given = adaptor(tmp_path, f"kind = '{kind}'\nn_components = 3\nn_neighbours = 20")
    assert given.settings() == GeodesicSettings(kind, 3, 20)
    said = "learning_rate is a parameter of let-anchor, let-cell and let-hybrid, and the kind is"
    with pytest.raises(FormatError, match=said):
        adaptor(tmp_path, f"kind = '{kind}'\nlearning_rate = 0.1")


@pytest.mark.parametrize("kind", ["let-cell", "let-hybrid"])
def test_operators_are_screened_with_the_default_anchor_head_whatever_the_kind(tmp_path, kind):
    assert adaptor(tmp_path, f"kind = '{kind}'\nlearning_rate = 0.5").settings() == LetSettings()


@pytest.mark.parametrize("kind", sorted(ADAPTORS))
@pytest.mark.parametrize("name", ["alpha", "n_steps", "epochs", "patience", "topo", "compact"])
def test_a_parameter_of_another_kind_is_refused_by_name(tmp_path, kind, name):
    lines = f"kind = '{kind}'\n{name} = 1"
    if name in ADAPTORS[kind]:
        assert getattr(adaptor(tmp_path, lines), name) == 1
        return
    owners = " and ".join(other for other in ADAPTORS if name in ADAPTORS[other])
    with pytest.raises(FormatError, match=f"'adaptor'.*{name} is a parameter of {owners}, and the kind is '{kind}'"):
        adaptor(tmp_path, lines)


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ("kind = 'let-cells'", "adaptor.kind"),
        ("kind = ['let-cell']", "adaptor.kind"),
        ("kind = 'let-cell'\nepochs = 0", "adaptor.epochs"),
        ("kind = 'let-cell'\nbatch_size = 1", "adaptor.batch_size"),
        ("kind = 'let-cell'\ndtype = 'float16'", "adaptor.dtype"),
        ("kind = 'let-cell'\npatience = 0", "adaptor.patience"),
        ("kind = 'let-cell'\nvalidation = 1.0", "adaptor.validation"),
        ("kind = 'let-cell'\nlocal = inf", "adaptor.local"),
        ("kind = 'let-cell'\nstage = 0", "stage is 0"),
        ("kind = 'let-hybrid'\ntopo = 0", "adaptor.topo"),
        ("kind = 'let-hybrid'\nseed = 1", "adaptor.seed"),
    ],
)
def test_a_parameter_out_of_range_is_refused(tmp_path, lines, field):
    with pytest.raises(FormatError) as caught:
        adaptor(tmp_path, lines)
    assert field in caught.value.message


class TestEvidence:
    def written(self, folder, lines):
        return write(folder, RECIPE.replace("[[citations]]", f"[evidence]\n{lines}\n[[citations]]"))

    def test_a_recipe_without_a_plan_leaves_it_to_the_standard(self, tmp_path):
        assert read_recipe(write(tmp_path, RECIPE)).evidence is None

    def test_a_stricter_plan_is_read(self, tmp_path):
        plan = read_recipe(self.written(tmp_path, "n_permutations = 5000\nn_starts = 40")).evidence
        assert plan == EvidencePlan(n_permutations=5000, n_starts=40)

    @pytest.mark.parametrize(
        ("lines", "field", "value"),
        [
            ("n_permutations = 999", "n_permutations", "999"),
            ("n_branch_permutations = 99", "n_branch_permutations", "99"),
            ("n_starts = 3", "n_starts", "3"),
            ('comparisons = ["raw"]', "comparisons", "'z_scored'"),
            ('fdr = "none"', "fdr", "benjamini-hochberg"),
            ("seed = 7", "seed", "Extra inputs"),
        ],
    )
    def test_a_laxer_plan_is_refused_with_the_value(self, tmp_path, lines, field, value):
        with pytest.raises(FormatError, match=rf"'evidence\.{field}'.*{value}"):
            read_recipe(self.written(tmp_path, lines))

    @pytest.mark.parametrize("name", BUNDLED)
    def test_bundled_recipes_fix_the_family(self, name):
        plan = read_recipe(recipe_folder(name)).evidence
        assert plan == EvidencePlan(comparisons=[*STANDARD_COMPARISONS, "random_init"])

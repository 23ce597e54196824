"""What recipes say of labels."""

from __future__ import annotations

import subprocess
import sys

import pytest
from phases import PHASES, write_phases

from manifoldzoo.cards._errors import FormatError
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder


def test_a_table_beside_the_recipe_is_the_default():
    labels = read_recipe(recipe_folder("hematopoietic")).labels
    assert (labels.kind, labels.file) == ("table", "labels.tsv")
    assert labels.read(recipe_folder("hematopoietic") / labels.file).rows[0][2] == "hsc"


def test_programs_are_read_with_what_the_recipe_says(tmp_path):
    folder = write_phases(tmp_path / "recipe", labels="margin = 0.25\ncell_types = { one = ['round'] }")
    recipe = read_recipe(folder)
    labels = recipe.labels.read(folder / recipe.labels.file)
    assert [one.name for one in labels.programs] == list(PHASES)
    assert (labels.margin, labels.above, labels.exclude_genes, labels.seed) == (0.25, 2.0, True, 0)
    assert labels.cell_types == {"one": ["round"]}
    assert labels.path.endswith("programs.tsv")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("gene-scores", 'guesses"', "labels"),
        ("gene-scores", 'table"\nmargin = 1.0', "labels.table.margin"),
        ("gene-scores", 'gene-scores"\nmargin = -1', "labels.gene-scores.margin"),
        ("gene-scores", 'gene-scores"\ncell_types = { one = [] }', "labels.gene-scores.cell_types.one"),
    ],
)
def test_bad_labels_are_refused_by_field(tmp_path, old, new, said):
    folder = write_phases(tmp_path / "recipe")
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    (folder / "recipe.toml").write_text(text.replace(f'kind = "{old}"', f'kind = "{new}'), encoding="utf-8")
    with pytest.raises(FormatError, match=f"fails at '{said}"):
        read_recipe(folder)


def test_one_program_is_no_choice(tmp_path):
    folder = write_phases(tmp_path / "recipe")
    lines = (folder / "programs.tsv").read_text(encoding="utf-8").splitlines()
    (folder / "programs.tsv").write_text("\n".join(lines[:2]) + "\n", encoding="utf-8")
    with pytest.raises(FormatError, match=r"programs.tsv has 1 program, expected two or more"):
        read_recipe(folder).labels.read(folder / "programs.tsv")


def test_a_recipe_is_read_without_what_reads_cells(tmp_path):
    folder = write_phases(tmp_path / "recipe")
    code = (
        "import sys; from pathlib import Path; from manifoldzoo.manifolds._recipe import read_recipe;"
        f"read_recipe(Path({str(folder)!r})); print(sorted({{'anndata', 'pandas', 'scanpy'}} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"

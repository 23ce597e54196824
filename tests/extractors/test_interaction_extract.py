"""From a recipe with a ruler of interactions to an artifact, and what a recipe can say of one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from interactions import GENES, RECIPE, talking_cells, write_tables
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import BadInputError, FormatError, PanelError, ScaleError
from manifoldzoo.extractors import extract
from manifoldzoo.extractors._extract import compute_ruler, make_job, read_ruler
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds import InteractionRuler, Manifold, read_panel_set, read_recipe
from manifoldzoo.manifolds._panel_folder import find_ruler
from manifoldzoo.manifolds._recipe import Recipe


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A recipe folder, a data folder and a model that knows the genes."""
    folder = tmp_path_factory.mktemp("world")
    (write_tables(folder / "recipe") / "recipe.toml").write_text(RECIPE)
    (folder / "data").mkdir()
    talking_cells("one", donors=["d1", "d2", "d3"]).write_h5ad(folder / "data" / "one.h5ad")
    write_tiny_scgpt(folder / "model", genes=GENES)
    return folder


def options(world, **changes):
    given = {"cells": [world / "data" / "one.h5ad"], "checkpoint": world / "model", "data": world / "data"}
    return given | changes


@pytest.fixture(scope="module")
def made(world):
    told: list[str] = []
    manifold = extract(world / "recipe", **options(world, progress=lambda step, *_: told.append(step)))
    return manifold, told


def test_an_extraction_computes_its_ruler_and_the_artifact_holds_it(world, made, tmp_path):
    manifold, told = made
    again = Manifold.read(manifold.save(tmp_path / "saved"))
    computed = compute_ruler(read_recipe(world / "recipe"), world / "recipe", data=world / "data")
    assert isinstance(again.ruler, InteractionRuler)
    assert again.ruler.digest == computed.ruler.digest == again.card.ruler.digest
    card = again.card.ruler
    assert (card.kind, card.name, card.version, card.root, card.edges) == ("interaction", "talk", "0.1.0", None, [])
    assert card.interaction == computed.entry
    assert card.interaction.curated.n_paths == 5 and len(card.interaction.curated.null_auroc) == 3
    assert again.tensors["ruler.nulls"].shape == (3, 4, 4)
    assert {"ruler: one.h5ad", "ruler: paired nulls"} <= set(told)
    assert valid(again).status == reproduces(again).status == "pass"


def test_the_head_is_fitted_to_the_distances_of_the_ruler(made):
    manifold, _ = made
    anchors = manifold.project(manifold.tensors["panel.anchors"])
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
    target = manifold.ruler.distances(manifold.anchor_stages)
    apart = np.triu_indices(len(target), 1)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1))
    assert np.corrcoef(angles[apart], target[apart])[0, 1] > 0.5


def test_the_same_recipe_gives_the_same_bytes(world, made):
    assert extract(world / "recipe", **options(world)).digest == made[0].digest


def variant(world, tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The recipe folder with other lines."""
    text = RECIPE
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    (write_tables(tmp_path / "variant") / "recipe.toml").write_text(text)
    return tmp_path / "variant"


def test_a_file_is_looked_for_in_the_data_folder_and_beside_the_recipe(world, tmp_path):
    folder = variant(world, tmp_path)
    with pytest.raises(PanelError, match=r"no file 'one\.h5ad' in .*variant.*--data DIR"):
        make_job(folder, **options(world, data=None))
    (folder / "one.h5ad").write_bytes((world / "data" / "one.h5ad").read_bytes())
    assert make_job(folder, **options(world, data=None)).ruler.digest == make_job(folder, **options(world)).ruler.digest


def test_a_recipe_says_how_its_files_are_read(world, tmp_path):
    folder = variant(world, tmp_path, ('files = ["one.h5ad"]', 'files = [{ name = "one.h5ad", scale = "log1p" }]'))
    with pytest.raises(ScaleError, match=r"one\.h5ad does not hold log1p of counts per 10,000"):
        make_job(folder, **options(world))


def test_a_recipe_on_a_base_finds_its_own_table_of_pairs(world, tmp_path):
    folder = variant(world, tmp_path, ('resource = "pairs.csv"', 'resource = "mine.csv"'))
    recipe = read_recipe(folder)
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.csv").write_text((folder / "pairs.csv").read_text())
    built = compute_ruler(recipe, folder, data=world / "data", beside=own)
    assert built.entry.resource == "mine.csv"


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ('kind = "interaction"', 'kind = "network"', "ruler.table.kind"),
        ('files = ["one.h5ad"]', "files = []", "ruler.table.files"),
        ('files = ["one.h5ad"]', 'files = ["one.h5ad", "a/one.h5ad"]', "ruler.table"),
        ('files = ["one.h5ad"]', 'files = [{ name = "one.h5ad", scale = "cpm" }]', "ruler.table.files.0.scale"),
        ("n_nulls = 3", "n_nulls = 0", "ruler.table.n_nulls"),
        ("n_nulls = 3", "expressed = 0.0", "ruler.table.expressed"),
        ("n_nulls = 3", "expresed = 0.1", "ruler.table.expresed"),
    ],
)
def test_a_ruler_at_fault_is_named_by_its_field(world, tmp_path, old, new, field):
    with pytest.raises(FormatError, match=f"fails at '{field}'"):
        read_recipe(variant(world, tmp_path, (old, new)))


def test_files_twice_and_depth_without_a_root_are_refused(world, tmp_path):
    twice = ('files = ["one.h5ad"]', 'files = ["one.h5ad", "a/one.h5ad"]')
    with pytest.raises(FormatError, match=r"names the file 'one\.h5ad' twice"):
        read_recipe(variant(world, tmp_path, twice))
    depth = ("[[citations]]\n", '[[readouts]]\ntask = "age"\nlabel = "depth"\n[[citations]]\n')
    with pytest.raises(FormatError, match="the readout 'age' is of the depth, and a ruler of interactions has no root"):
        read_recipe(variant(world, tmp_path, depth))


def test_depth_is_refused_also_where_no_recipe_was_read(world):
    job = make_job(world / "recipe", **options(world))
    asked = {"task": "age", "label": "depth"}
    with pytest.raises(BadInputError, match="no root to count depth from"):
        job.ruler.depth([job.ruler.stages[0].id])
    with pytest.raises(ValueError, match="no root"):
        Recipe.model_validate(job.recipe.model_dump() | {"readouts": [{"task": "cell_type"}, asked]})


def test_a_ruler_that_is_computed_is_not_read(world, tmp_path):
    recipe = read_recipe(world / "recipe")
    with pytest.raises(BadInputError, match=r"'talk' is computed from files of expression.*`data`"):
        read_ruler(recipe, world / "recipe")
    with pytest.raises(BadInputError, match="describes no ruler of interactions"):
        compute_ruler(recipe.model_copy(update={"ruler": None}), world / "recipe")
    panels = world / "recipe" / "panels.toml"
    panels.write_text(
        '[[panels]]\nname = "extraction"\nrole = "extraction"\nfiles = ["one.h5ad"]\nlabels = "labels.tsv"\n'
    )
    with pytest.raises(PanelError, match=r"stages\.tsv has no edges\.tsv.*--like REF"):
        find_ruler(read_panel_set(panels))

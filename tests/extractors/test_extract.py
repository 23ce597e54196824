"""Extraction end to end on some of the bundled cells, with the bundled checkpoint."""

from __future__ import annotations

import shutil
from collections import Counter
from importlib import metadata
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from small import with_operator, without_grouped_tasks, write_small_cells

from manifoldzoo.cards._errors import (
    BadInputError,
    CheckpointError,
    FormatError,
    NotFoundError,
    PanelError,
    ReferenceSyntaxError,
    ScaleError,
)
from manifoldzoo.cards._names import sha256_file
from manifoldzoo.extractors import _operator
from manifoldzoo.extractors._extract import extract, reference_checkpoint
from manifoldzoo.extractors._fill_card import spdx
from manifoldzoo.extractors._interface import find_extractor
from manifoldzoo.extractors._operator_let import OperatorLet
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.extractors.operators._attention import attention_mean
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._cell_ids import CellIds, SharedCells, shared_with
from manifoldzoo.manifolds._labels import read_label_table
from manifoldzoo.manifolds._manifold import Manifold, encode
from manifoldzoo.manifolds._panel import PanelCells, build_panel, read_panel_cells
from manifoldzoo.manifolds._panel_overlap import PanelMembers, read_panel_members
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds._ruler import read_stage_ruler

SEED = 3
CELLS_PER_STAGE = 4


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    return write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad")


def copied(folder: Path, **changes: str) -> Path:
    """A copy of the bundled recipe with lines of ``recipe.toml`` changed."""
    shutil.copytree(recipe_folder("hematopoietic"), folder)
    text = with_operator((folder / "recipe.toml").read_text(encoding="utf-8"))
    lines = without_grouped_tasks(text).splitlines()
    changes = {"max_cells_per_stage": str(CELLS_PER_STAGE), "n_steps": "60"} | changes
    for key, value in changes.items():
        at = next(number for number, line in enumerate(lines) if line.split(" = ")[0] == key)
        lines[at] = f"{key} = {value}"
    (folder / "recipe.toml").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory) -> Path:
    return copied(tmp_path_factory.mktemp("recipe") / "small")


@pytest.fixture(scope="module")
def progress() -> list[tuple[str, int, int]]:
    return []


@pytest.fixture(scope="module")
def made(cells, recipe, progress) -> Manifold:
    return extract(
        recipe,
        cells=[cells],
        name="small",
        version="2.1.0",
        seed=SEED,
        progress=lambda *call: progress.append(call),
    )


@pytest.fixture(scope="module")
def balanced(cells, recipe, made) -> PanelCells:
    """The cells that the recipe and the seed draw."""
    return read_panel_cells(
        [cells],
        genes=made.genes.symbols,
        labels=read_label_table(recipe / "labels.tsv"),
        ruler=read_stage_ruler(recipe),
        max_per_stage=CELLS_PER_STAGE,
        rng=np.random.default_rng(SEED).spawn(2)[0],
    )


def same_parts(a: Manifold, b: Manifold) -> set[str]:
    return {name for name in a.tensors if np.array_equal(a.tensors[name], b.tensors[name])}


def test_the_same_seed_gives_the_same_bytes(made, cells, recipe, tmp_path):
    again = extract(recipe, cells=[str(cells)], name="small", version="2.1.0", seed=SEED)
    first, second = (manifold.save(tmp_path / name) for name, manifold in (("a", made), ("b", again)))
    files = {path.name for path in first.iterdir()}
    assert len(files) == 5
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in files)
    assert again.digest == made.digest


def test_another_seed_draws_other_cells_and_fits_another_head(made, cells, recipe):
    other = extract(recipe, cells=[cells], name="small", version="2.1.0", seed=SEED + 1)
    assert other.digest != made.digest
    # anchors are averages of all cells, who they are and depths are the files' and the ruler's: no seed can move them
    assert same_parts(made, other) == {"panel.anchors", "panel.cells", "panel.barcodes", "readout.depth.values"}
    assert other.card.extraction.operator.cells_digest != made.card.extraction.operator.cells_digest
    assert other.card.panel == made.card.panel


def test_the_plan_of_the_evidence_is_that_of_the_recipe(made, recipe):
    asked = read_recipe(recipe).evidence
    assert made.card.evidence == asked
    assert asked.comparisons[-1] == "random_init"


def test_who_is_in_the_panel_travels(made, cells, recipe):
    labels = read_label_table(recipe / "labels.tsv")
    members = read_panel_members([cells], labels=labels)
    stored = CellIds.read(made.tensors)
    assert len(stored.cells) == len(members.ids) == sum(file.n_cells for file in made.card.panel.files)
    assert shared_with(stored, members) == SharedCells(len(members.ids), ())
    # their own study under another name, with other suffixes
    copied = PanelMembers(("mine",) * 50, ("d",) * 50, tuple(f"x_{name}" for name in members.ids[:50]))
    found = shared_with(stored, copied)
    assert (found.n_cells, [one.study for one in found.copied]) == (0, ["mine"])


def test_what_it_is_called(made):
    assert (made.name, made.version, made.reference) == ("small", "2.1.0", "small@2.1.0")
    assert made.path is None
    assert made.card.extraction.recipe == "hematopoietic"


def test_the_card_tells_what_was_done(made, balanced, recipe, cells):
    extraction = made.card.extraction
    operator = extraction.operator
    assert (extraction.seed, extraction.extractor) == (SEED, "operator-let")
    assert (operator.kind, operator.combination, operator.n_blocks) == ("attention_mean", "drift", 2)
    assert operator.cells_digest == balanced.digest
    assert operator.n_cells + operator.n_skipped_cells == len(balanced.stage)
    assert operator.numerical_rank == [np.linalg.matrix_rank(block) for block in made.tensors["operator"]]
    expressed = (balanced.values > 0).astype(np.float64)
    assert operator.pairs_seen == pytest.approx(float(((expressed.T @ expressed).toarray() > 0).mean()))
    for package in ("manifoldzoo", "numba", "numpy", "scipy", "scikit-learn", "torch"):
        assert extraction.software[package] == metadata.version(package)
    assert extraction.adaptor.parameters == {
        "alpha": 0.01,
        "n_steps": 60,
        "learning_rate": 0.02,
        "scale_floor": 0.1,
        "schedule": "constant",
    }
    assert extraction.adaptor.n_components == made.n_components == 10
    assert [readout.n_cells for readout in extraction.readouts] == [len(balanced.stage)] * 3
    assert made.classes("branch") == sorted(set(balanced.branch))
    assert made.classes("stage") == sorted(set(balanced.stage))


def test_the_card_names_model_panel_and_ruler(made, recipe, cells):
    source = read_scgpt(reference_checkpoint())
    model = made.card.source_model
    assert (model.name, model.digest, model.licence) == (source.name, source.digest, "BSD-3-Clause")
    assert "6 layers x 8 heads" in model.architecture
    (file,) = made.card.panel.files
    everything = ad.read_h5ad(cells)
    absent = set(made.genes.symbols) - set(everything.var_names)
    assert (file.name, file.sha256, file.n_missing_genes) == (cells.name, sha256_file(cells), len(absent))
    assert file.n_cells == everything.n_obs
    sizes = everything.obs.value_counts(["donor", "cell_type"])
    assert {(a.donor, a.cell_type): a.n_cells for a in made.card.panel.anchors} == sizes[sizes >= 5].to_dict()
    assert made.ruler == read_stage_ruler(recipe)
    assert made.card.ruler.digest == made.ruler.digest
    # the bundled cells come without Ensembl ids
    assert made.card.genes.n_ensembl == sum(bool(identifier) for identifier in made.genes.ensembl) == 0
    assert (made.card.genes.n, made.genes.symbols) == (1200, source.genes)


def test_anchors_and_operator_are_those_of_the_rooms_they_come_from(made, balanced, recipe, cells):
    panel = build_panel(
        [cells],
        genes=made.genes.symbols,
        labels=read_label_table(recipe / "labels.tsv"),
        ruler=read_stage_ruler(recipe),
    )
    assert np.array_equal(made.tensors["panel.anchors"], panel.anchors)
    layers = attention_mean(read_scgpt(reference_checkpoint()), balanced.values, made.genes.symbols).layers
    early, middle, late = (layers[start : start + 2].mean(axis=0, dtype=np.float64) for start in (0, 2, 4))
    assert np.allclose(made.tensors["operator"], [early - middle, middle - late], atol=1e-7)
    assert np.abs(made.tensors["operator"]).max() > 1e-3


def test_the_fold_is_stage_one_then_stage_two(made):
    rng = np.random.default_rng(0)
    x = rng.exponential(size=(12, 1200)) * (rng.random((12, 1200)) < 0.2)
    tensors = {name: array.astype(np.float64) for name, array in made.tensors.items()}
    features = np.concatenate([x @ block for block in tensors["operator"]], axis=1)
    scaled = (features - tensors["adaptor.mean"]) / tensors["adaptor.scale"]
    latent = (scaled - tensors["adaptor.bias"]) @ tensors["adaptor.weights"].T
    assert np.allclose(made.project(x.astype(np.float32)), latent, rtol=1e-4, atol=1e-4)
    assert np.ptp(latent, axis=0).min() > 1e-2


def test_the_head_orders_the_anchors_it_was_fitted_on(made):
    """The latent angle follows the ruler in sample; this shows that the head was fitted, and proves nothing more."""
    latent = made.project(made.tensors["panel.anchors"]).astype(np.float64)
    unit = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    angle = np.arccos(np.clip(unit @ unit.T, -1, 1))
    distances = made.ruler.distances([anchor.stage for anchor in made.card.panel.anchors])
    upper = np.triu_indices(len(latent), 1)
    assert np.corrcoef(angle[upper], distances[upper])[0, 1] > 0.8


def test_readouts_know_their_training_cells(made, balanced):
    latent = made.project(balanced.values)
    for task, truth in (("branch", balanced.branch), ("stage", balanced.stage)):
        proba = made.read_out(latent, task)
        assert np.allclose(proba.sum(axis=1), 1, atol=1e-5)
        predicted = np.array(made.classes(task))[proba.argmax(axis=1)]
        n_classes = len(made.classes(task))
        assert n_classes == len(set(truth)) >= 5
        assert balanced_accuracy_score(truth, predicted) > max(0.6, 3 / n_classes)
        shuffled = np.random.default_rng(0).permutation(truth)
        assert balanced_accuracy_score(shuffled, predicted) < 0.4


def test_readouts_tell_erythroid_cells_that_they_were_not_fitted_on(made, cells, balanced):
    everything = ad.read_h5ad(cells)
    everything = everything[~everything.obs_names.isin([name.split(":", 1)[1] for name in balanced.cell_ids])].copy()
    made.transform(everything, scale="counts")
    erythroid = everything.obs["cell_type"].astype(str).str.startswith("Erythroid").to_numpy()
    said = (everything.obs["small_branch"] == "erythroid").to_numpy()
    assert said[erythroid].mean() > 0.7
    assert said[~erythroid].mean() < 0.25


def test_stages_are_balanced(balanced):
    assert max(Counter(balanced.stage).values()) == CELLS_PER_STAGE


def test_it_survives_saving_and_passes_the_first_rungs(made, tmp_path):
    loaded = Manifold.read(made.save(tmp_path / "artifact"))
    assert loaded.digest == made.digest
    assert loaded.card == made.card
    assert same_parts(made, loaded) == set(made.tensors)
    assert encode(loaded.card, loaded.genes, loaded.tensors, loaded.vectors) == encode(
        made.card, made.genes, made.tensors, made.vectors
    )
    assert valid(loaded).status == reproduces(loaded).status == "pass"


def test_the_vectors_hold_anchors_and_an_empty_cell(made):
    given = made.vectors["input"]
    assert not given[-1].any()
    assert len(given) == 17
    anchors = {row.tobytes() for row in made.tensors["panel.anchors"]}
    assert {row.tobytes() for row in given[:-1]} <= anchors
    assert set(made.vectors) == {"input", "latent", "proba.branch", "proba.stage", "value.depth"}


def test_progress_reaches_its_end(made, progress, balanced):
    labels, done, total = zip(*progress, strict=True)
    assert set(labels) == {"attention"}
    assert list(done) == sorted(done)
    assert done[-1] == len(balanced.stage) == set(total).pop()


def test_cells_are_placed_by_transform_as_by_hand(made, cells, balanced):
    everything = ad.read_h5ad(cells)
    made.transform(everything, scale="counts")
    names = [name.split(":", 1)[1] for name in balanced.cell_ids]
    placed = everything[names].obsm["X_small"]
    assert np.allclose(placed, made.project(balanced.values), atol=1e-3)


def test_the_mean_operator_is_one_block(cells, tmp_path):
    recipe = copied(tmp_path / "mean", combination='"mean"', max_cells_per_stage="1", n_steps="5")
    manifold = extract(recipe, cells=[cells], name="mean")
    assert manifold.tensors["operator"].shape == (1, 1200, 1200)
    assert manifold.card.extraction.operator.combination == "mean"
    assert manifold.version == "1.1.0"
    assert manifold.card.extraction.seed == 0
    assert valid(manifold).status == reproduces(manifold).status == "pass"


@pytest.mark.parametrize(
    ("stated", "spelled"),
    [
        ("mit", "MIT"),
        ("BSD-3-Clause", "BSD-3-Clause"),
        ("my own", "LicenseRef-not-stated"),
        ("", "LicenseRef-not-stated"),
    ],
)
def test_licences_of_checkpoints_are_spdx_or_not_stated(stated, spelled):
    assert spdx(stated) == spelled


def test_the_extractor_is_found_by_its_entry_point():
    assert isinstance(find_extractor("operator-let"), OperatorLet)
    with pytest.raises(NotFoundError, match=r"'nothing'.*operator-let"):
        find_extractor("nothing")


@pytest.fixture
def no_attention(monkeypatch):
    """What is wrong must be said before the minutes that attention takes."""
    monkeypatch.setattr(_operator, "attention_mean", lambda *_, **__: pytest.fail("the model was run"))


@pytest.mark.usefixtures("no_attention")
class TestErrors:
    def test_no_cells(self, recipe):
        with pytest.raises(BadInputError):
            extract(recipe, cells=[])

    def test_one_path_is_not_a_list_of_paths(self, recipe, cells):
        for one in (str(cells), cells):
            with pytest.raises(BadInputError, match=r"some\.h5ad"):
                extract(recipe, cells=one)

    def test_a_missing_file(self, recipe, tmp_path):
        with pytest.raises(NotFoundError, match=r"nowhere\.h5ad"):
            extract(recipe, cells=[tmp_path / "nowhere.h5ad"])
        (tmp_path / "folder").mkdir()
        with pytest.raises(NotFoundError, match="folder"):
            extract(recipe, cells=[tmp_path / "folder"])

    def test_an_unknown_recipe(self, cells, tmp_path):
        with pytest.raises(NotFoundError, match="'hematopoesis'") as caught:
            extract("hematopoesis", cells=[cells])
        assert "hematopoietic" in caught.value.hint
        with pytest.raises(NotFoundError, match="empty"):
            extract(tmp_path / "empty", cells=[cells])

    def test_an_unknown_extractor(self, cells, tmp_path):
        with pytest.raises(NotFoundError, match="'magic'"):
            extract(copied(tmp_path / "r", extractor='"magic"'), cells=[cells])

    def test_an_unknown_checkpoint(self, recipe, cells, tmp_path):
        with pytest.raises((NotFoundError, CheckpointError), match="no-model"):
            extract(recipe, cells=[cells], checkpoint=tmp_path / "no-model")
        (tmp_path / "empty").mkdir()
        with pytest.raises((NotFoundError, CheckpointError), match="empty"):
            extract(recipe, cells=[cells], checkpoint=tmp_path / "empty")

    def test_no_h5ad(self, recipe, tmp_path):
        (tmp_path / "cells.h5ad").write_text("no cells here")
        with pytest.raises(PanelError, match=r"cells\.h5ad"):
            extract(recipe, cells=[tmp_path / "cells.h5ad"])

    def test_a_label_that_no_table_knows(self, recipe, cells, tmp_path):
        strange = ad.read_h5ad(cells)
        strange.obs["cell_type"] = "Unheard of"
        strange.write_h5ad(tmp_path / "strange.h5ad")
        with pytest.raises(PanelError, match=r"Unheard of.*labels\.tsv"):
            extract(recipe, cells=[tmp_path / "strange.h5ad"])

    def test_a_column_that_is_not_there(self, recipe, cells, tmp_path):
        bare = ad.read_h5ad(cells)
        del bare.obs["donor"]
        bare.write_h5ad(tmp_path / "bare.h5ad")
        with pytest.raises(PanelError, match=r"bare\.h5ad.*donor"):
            extract(recipe, cells=[tmp_path / "bare.h5ad"])

    def test_the_same_file_twice(self, recipe, cells):
        with pytest.raises(PanelError, match="more than once"):
            extract(recipe, cells=[cells, cells])

    def test_a_bad_name_or_version(self, recipe, cells):
        for wrong in ({"name": "Not A Name"}, {"version": "1"}, {"name": "../up"}, {"name": ""}, {"version": ""}):
            with pytest.raises(ReferenceSyntaxError, match=repr(next(iter(wrong.values())))):
                extract(recipe, cells=[cells], **wrong)

    def test_logarithms_for_counts(self, recipe, cells, tmp_path):
        logged = ad.read_h5ad(cells)
        logged.X.data = np.log1p(logged.X.data)
        logged.write_h5ad(tmp_path / "logged.h5ad")
        with pytest.raises(ScaleError, match=r"logged\.h5ad"):
            extract(recipe, cells=[tmp_path / "logged.h5ad"])

    def test_too_few_cells_of_a_kind(self, recipe, cells, tmp_path):
        few = ad.read_h5ad(cells)[:4].copy()
        few.write_h5ad(tmp_path / "few.h5ad")
        with pytest.raises(PanelError, match="anchors"):
            extract(recipe, cells=[tmp_path / "few.h5ad"])

    @pytest.mark.parametrize("column", ["donor", "tissue", "cell_type", "dataset"])
    @pytest.mark.parametrize("nothing", ["", None])
    def test_cells_without_a_name_for_what_they_are(self, recipe, cells, tmp_path, column, nothing):
        nameless = ad.read_h5ad(cells)
        values = nameless.obs[column].astype(object)
        values.iloc[10:60] = nothing
        nameless.obs[column] = values.astype("category")
        nameless.write_h5ad(tmp_path / "nameless.h5ad")
        with pytest.raises(PanelError, match=rf"nameless\.h5ad.*{column}"):
            extract(recipe, cells=[tmp_path / "nameless.h5ad"])

    @pytest.mark.parametrize("gone", ["stages.tsv", "edges.tsv", "labels.tsv"])
    def test_a_recipe_without_its_tables(self, cells, tmp_path, gone):
        folder = copied(tmp_path / "r")
        (folder / gone).unlink()
        with pytest.raises(FormatError, match=gone):
            extract(folder, cells=[cells])

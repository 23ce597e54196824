"""Geodesic heads by recipe: whole extractions, saved, read, reproduced and used as any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import FormatError
from manifoldzoo.cards._readme import render_readme
from manifoldzoo.extractors._choose import choose
from manifoldzoo.extractors._extract import extract, make_job
from manifoldzoo.extractors._fit_head import heads_of
from manifoldzoo.extractors._fit_manifold import fit_manifold
from manifoldzoo.extractors._operator import read_operator
from manifoldzoo.extractors._prepare import prepare
from manifoldzoo.gates.refits._holdouts import group_folds, refit_holdouts
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._geodesic import GeodesicHead, GeodesicSettings, fit_geodesic
from manifoldzoo.manifolds._heads import latent_distances
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._manifold import Manifold

KINDS = ("isomap", "geodesic-mds")
ADAPTOR = "n_components = 3\nn_neighbours = 5"
pytestmark = pytest.mark.filterwarnings("ignore:The graph of .* nearest neighbours")


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    """Cells of two runs, each in two halves that stand for donors."""
    path = write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad", per_group=14)
    table = ad.read_h5ad(path)
    half = np.where(np.arange(table.n_obs) % 2, "a", "b")
    table.obs["donor"] = [f"{donor}{part}" for donor, part in zip(table.obs["donor"], half, strict=True)]
    table.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cells) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_tiny_scgpt(folder, genes=common_genes(cells), n_layers=3, n_heads=2, d_model=16)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    def write(adaptor: str, choice: str = "") -> Path:
        folder = write_small_recipe(tmp_path_factory.mktemp("recipe") / "small", 'kind = "token_qk"')
        text = (folder / "recipe.toml").read_text(encoding="utf-8")
        first, after = text.index("[adaptor]\n"), text.index("[[readouts]]")
        tables = f"[adaptor]\n{adaptor}\n\n{choice}\n\n"
        (folder / "recipe.toml").write_text(f"{text[:first]}{tables}{text[after:]}", encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="module")
def make(recipe, cells, checkpoint):
    def made(adaptor: str, choice: str = "", **options) -> Manifold:
        return extract(recipe(adaptor, choice), cells=[cells], checkpoint=checkpoint, **options)

    return made


@pytest.fixture(scope="module", params=KINDS)
def made(request, make) -> Manifold:
    return make(f'kind = "{request.param}"\n{ADAPTOR}')


@pytest.fixture(scope="module")
def job_of(recipe, cells, checkpoint):
    def job(adaptor: str, choice: str = ""):
        made = make_job(recipe(adaptor, choice), cells=[cells], checkpoint=checkpoint)
        prepared = prepare(made, np.random.default_rng(0))
        return made, prepared, np.eye(len(prepared.panel.genes), dtype=np.float32)[None]

    return job


def test_it_is_saved_and_read_and_reproduces(made, tmp_path):
    loaded = Manifold.read(made.save(tmp_path / "artifact"))
    assert loaded.digest == made.digest
    assert [valid(loaded).status, reproduces(loaded).status] == ["pass", "pass"]
    adaptor, n = loaded.card.extraction.adaptor, len(loaded.card.panel.anchors)
    assert loaded.n_components == adaptor.n_components == 3
    # an operator of low rank leaves fewer directions than anchors
    features = apply_operator(loaded.tensors["panel.anchors"], loaded.operator)
    assert adaptor.n_landmarks == n
    assert adaptor.n_reduced == np.linalg.matrix_rank(features - features.mean(axis=0), rtol=1e-6) < n
    assert adaptor.parameters["n_neighbours"] == 5
    assert adaptor.convergence is None
    assert np.linalg.matrix_rank(loaded.project(loaded.tensors["panel.anchors"])) == 3
    text = render_readme(loaded.card, loaded.digest, [])
    assert f"{n} anchors in {adaptor.n_reduced} reduced coordinates" in text
    assert ("fell into" in text) == (adaptor.n_pieces > 1)


def test_the_head_is_that_of_the_anchors_and_their_features(made):
    adaptor = made.card.extraction.adaptor
    features = apply_operator(made.tensors["panel.anchors"], made.operator)
    distances = made.ruler.distances(made.anchor_stages)
    head = fit_geodesic(features, distances, GeodesicSettings(adaptor.kind, 3, 5))
    assert (adaptor.loss, adaptor.beta) == (pytest.approx(head.loss), pytest.approx(head.beta))
    np.testing.assert_allclose(made.tensors["head.geodesics"], head.landmarks.geodesics, rtol=1e-5)
    size = np.abs(head.landmarks.coordinates).max()
    np.testing.assert_allclose(made.tensors["head.coordinates"], head.landmarks.coordinates, atol=1e-5 * size)
    # stages 1 and 2 are folded, and the landmarks follow
    placed = made.project(made.tensors["panel.anchors"])
    np.testing.assert_allclose(placed, head.latent(features), atol=1e-3 * size)


@pytest.mark.slow
def test_equal_input_gives_equal_bytes_and_chance_has_no_part_in_the_head(made, make, tmp_path):
    kind = made.card.extraction.adaptor.kind
    again, other = (make(f'kind = "{kind}"\n{ADAPTOR}', seed=seed) for seed in (0, 1))
    first, second = (manifold.save(tmp_path / name) for name, manifold in (("a", made), ("b", again)))
    assert all(path.read_bytes() == (second / path.name).read_bytes() for path in first.iterdir())
    assert np.array_equal(made.tensors["head.coordinates"], other.tensors["head.coordinates"])


def test_another_ruler_places_no_cell_elsewhere(job_of):
    job, prepared, _ = job_of(f'kind = "isomap"\n{ADAPTOR}')
    operator, entry = read_operator(job, prepared, np.random.default_rng(1))
    order = np.random.default_rng(2).permutation(len(prepared.distances))
    shuffled = replace(prepared, distances=prepared.distances[np.ix_(order, order)])
    found = [
        fit_manifold(job, each, operator, entry, extractor="made", rng=np.random.default_rng(3))
        for each in (prepared, shuffled)
    ]
    for name in ("projection", "offset", "head.landmarks", "head.geodesics", "head.coordinates"):
        np.testing.assert_array_equal(found[0].tensors[name], found[1].tensors[name])
    betas = [manifold.card.extraction.adaptor.beta for manifold in found]
    assert betas[0] != betas[1]


MATRICES = {
    "dense": np.asarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "backed-dense": np.asarray,
    "backed-csr": sparse.csr_matrix,
    "backed-csc": sparse.csc_matrix,
    "dask": lambda values: da.from_array(values, chunks=(50, -1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_cells_of_every_matrix_are_placed_and_read_out(made, cells, name, tmp_path):
    counts = ad.read_h5ad(cells)
    values = counts.X.toarray()
    logs = np.log1p(values / values.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    expected = made.project(logs[:, counts.var_names.get_indexer(made.genes.symbols)])
    adata = ad.AnnData(MATRICES[name](values), obs=counts.obs[["donor"]].copy(), var=counts.var.copy())
    if name.startswith("backed"):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    made.transform(adata, scale="counts")
    key = made.name.replace("-", "_")
    latent = adata.obsm[f"X_{key}"]
    assert latent.shape == (len(values), 3)
    np.testing.assert_allclose(latent, expected, atol=1e-3 * np.abs(expected).max())
    assert set(adata.obs[f"{key}_branch"].dropna()) <= set(made.classes("branch"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_refit_sees_nothing_of_the_donors_left_out(job_of, kind):
    job, prepared, operator = job_of(f'kind = "{kind}"\n{ADAPTOR}')
    donors = sorted(set(prepared.cells.donor_ids))
    refitted = heads_of(job, prepared, operator).refit(donors[:1], np.random.default_rng(0))
    rest = prepared.without_group(donors[0], study=False)
    alone = heads_of(job, rest, operator).refit([], np.random.default_rng(0))
    assert isinstance(refitted, GeodesicHead)
    assert np.array_equal(refitted.landmarks.coordinates, alone.landmarks.coordinates)
    assert heads_of(job, prepared, operator).refit(donors, np.random.default_rng(0)) is None
    # so few anchors that not all have as many neighbours
    n = len(prepared.panel.anchors)
    many, _, _ = job_of(f'kind = "{kind}"\nn_components = 3\nn_neighbours = {n - 1}')
    assert heads_of(many, prepared, operator).refit(donors[:1], np.random.default_rng(0)) is None


def test_readouts_are_tried_in_coordinates_of_refitted_heads(made):
    branch = next(told for told in made.card.extraction.readouts if told.task == "branch")
    assert branch.parameters["held_out_by"] == "donor"
    assert branch.parameters["held_out_balanced_accuracy"] > 0.4
    latent = made.project(made.tensors["panel.anchors"])
    told = np.array(made.classes("branch"))[made.read_out(latent, "branch").argmax(axis=1)]
    assert np.mean(told == np.array([anchor.branch for anchor in made.card.panel.anchors])) > 0.5


# --- open to choice ---

OPEN = """
[choice]
n_starts = 2
n_components = [2, 3]
adaptors = [
  { kind = "let-anchor", n_steps = 20 },
  { kind = "isomap", n_neighbours = 5 },
  { kind = "isomap", n_neighbours = 7 },
  { kind = "geodesic-mds", n_neighbours = 5 },
]
"""


def test_kinds_of_heads_are_scored_by_donors_held_out(job_of):
    job, prepared, _ = job_of("", OPEN)
    made = choose(job, job.recipe.choice, prepared, np.random.default_rng(1))
    choice = made.choice
    assert [(each.kind, each.adaptor, each.n_neighbours, each.n_components) for each in choice.candidates] == [
        ("token_qk", adaptor, k, n)
        for adaptor, k in (("let-anchor", None), ("isomap", 5), ("isomap", 7), ("geodesic-mds", 5))
        for n in (2, 3)
    ]
    rng = np.random.default_rng(1)
    _, starts = (int(child.integers(2**31)) for child in rng.spawn(2))
    features = apply_operator(prepared.panel.anchors, made.operator)
    asked = {
        0: LetSettings(n_components=2, n_steps=20),
        3: GeodesicSettings("isomap", 3, 5),
        4: GeodesicSettings("isomap", 2, 7),
        7: GeodesicSettings("geodesic-mds", 3, 5),
    }
    for place, settings in asked.items():
        folds = group_folds(prepared.panel.donor_ids)
        rng = np.random.default_rng(starts)
        result = refit_holdouts(features, prepared.distances, folds, settings, rng=rng, n_starts=2)
        assert choice.made.scores[place] == pytest.approx(result.touching, abs=1e-12)
    best = choice.candidates[choice.made.chosen]
    adaptor = made.job.recipe.adaptor
    assert (adaptor.kind, adaptor.n_components, adaptor.n_neighbours) == (
        best.adaptor,
        best.n_components,
        best.n_neighbours,
    )


@pytest.mark.slow
def test_an_extraction_takes_the_head_that_was_chosen(make):
    manifold = make("", OPEN)
    choice, adaptor = manifold.card.extraction.choice, manifold.card.extraction.adaptor
    best = choice.candidates[choice.made.chosen]
    assert (adaptor.kind, adaptor.n_components) == (best.adaptor, best.n_components)
    assert adaptor.parameters.get("n_neighbours") == best.n_neighbours
    text = render_readme(manifold.card, manifold.digest, [])
    assert "| token_qk, drift; isomap of 7 neighbours | 3 |" in text
    assert "| token_qk, drift; let-anchor | 2 |" in text


@pytest.mark.parametrize(
    ("adaptor", "choice", "said"),
    [
        ('kind = "isomap"', OPEN, "the head is named in"),
        ("learning_rate = 0.5", OPEN, "the head is named in"),
        ("n_components = 3", OPEN, "n_components is named in"),
        ("", '[choice]\nadaptors = [{ kind = "isomap" }]', "adaptors must name different candidates"),
        ("", '[choice]\nadaptors = [{ kind = "isomap" }, { kind = "isomap", n_neighbours = 10 }]', "different"),
        ("", '[choice]\nadaptors = [{ kind = "isomap" }, { kind = "let-cell" }]', "an adaptor is 'let-cell'"),
        ("", '[choice]\nadaptors = [{ kind = "isomap" }, { kind = "isomap", n_components = 2 }]', "shared by all"),
        ("", '[choice]\nadaptors = [{ kind = "isomap", alpha = 1 }, { kind = "let-anchor" }]', "alpha is a parameter"),
        ("", '[choice]\nadaptors = [{ kind = "let-anchor", n_neighbours = 5 }, { kind = "isomap" }]', "n_neighbours"),
    ],
)
def test_a_choice_that_does_not_fit_is_refused(recipe, cells, checkpoint, adaptor, choice, said):
    with pytest.raises(FormatError, match=said):
        make_job(recipe(adaptor, choice), cells=[cells], checkpoint=checkpoint)


def test_the_head_of_the_recipe_can_be_geodesic_where_operators_are_open(job_of):
    choice = "[choice]\nn_starts = 1\nn_components = [2, 3]\n"
    job, prepared, _ = job_of('kind = "isomap"\nn_neighbours = 5', choice)
    made = choose(job, job.recipe.choice, prepared, np.random.default_rng(1))
    assert {(each.adaptor, each.n_components) for each in made.choice.candidates} == {(None, 2), (None, 3)}
    assert (made.job.recipe.adaptor.kind, made.job.recipe.adaptor.n_neighbours) == ("isomap", 5)


def test_distances_between_latents_are_straight(made):
    latent = made.project(made.tensors["panel.anchors"])
    apart = latent_distances(latent, GeodesicSettings.of(made.card.extraction.adaptor))
    assert apart[0, 1] == pytest.approx(np.linalg.norm(latent[0] - latent[1]), rel=1e-5)

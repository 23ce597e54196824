"""Anchor, cell and hybrid heads by recipe: whole extractions from a tiny model and some of the bundled cells."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._evidence import rung_reached
from manifoldzoo.extractors import _fit_head
from manifoldzoo.extractors._extract import extract, make_job
from manifoldzoo.extractors._fit_head import heads_of
from manifoldzoo.extractors._prepare import prepare
from manifoldzoo.extractors.adaptors import HYBRID, CellSettings, fit_cells
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._let import fit_let
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._recipe import AdaptorRecipe

ON_CELLS = ["let-cell", "let-hybrid"]
QUICK = "epochs = 12\nn_neighbours = 5"


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    return write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cells) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_tiny_scgpt(folder, genes=common_genes(cells), n_layers=3, n_heads=2, d_model=16)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    def write(adaptor: str, operator: str = 'kind = "token_qk"') -> Path:
        folder = write_small_recipe(tmp_path_factory.mktemp("recipe") / "small", operator)
        text = (folder / "recipe.toml").read_text(encoding="utf-8")
        first, after = text.index("[adaptor]\n"), text.index("[[readouts]]")
        (folder / "recipe.toml").write_text(f"{text[:first]}[adaptor]\n{adaptor}\n\n{text[after:]}", encoding="utf-8")
        return folder

    return write


@pytest.fixture(scope="module")
def make(recipe, cells, checkpoint):
    def made(adaptor: str, operator: str = 'kind = "token_qk"', **options) -> Manifold:
        return extract(recipe(adaptor, operator), cells=[cells], checkpoint=checkpoint, **options)

    return made


@pytest.fixture(scope="module", params=ON_CELLS)
def made(request, make) -> Manifold:
    return make(f'kind = "{request.param}"\n{QUICK}')


# --- what recipes say is what is fitted ---


def test_the_defaults_of_recipes_are_those_of_the_heads():
    for kind, settings in (("let-cell", CellSettings()), ("let-hybrid", HYBRID)):
        assert CellSettings(**AdaptorRecipe(kind=kind).parameters()) == settings


@pytest.mark.parametrize("kind", ["let-anchor", *ON_CELLS])
@pytest.mark.parametrize("d", [3, 6, 10])
def test_every_kind_in_every_number_of_coordinates(make, kind, d, tmp_path):
    steps = "n_steps = 20" if kind == "let-anchor" else QUICK
    manifold = make(f'kind = "{kind}"\nn_components = {d}\n{steps}', 'kind = "token_qk"\ncombination = "drift"')
    loaded = Manifold.read(manifold.save(tmp_path / "artifact"))
    assert loaded.digest == manifold.digest
    assert valid(loaded).status == reproduces(loaded).status == "pass"
    adaptor = loaded.card.extraction.adaptor
    assert (adaptor.kind, adaptor.n_components, loaded.n_components) == (kind, d, d)
    assert loaded.tensors["adaptor.weights"].shape == (d, 80)
    assert np.linalg.matrix_rank(loaded.project(loaded.tensors["panel.anchors"])) == d
    assert (adaptor.convergence is None) == (kind == "let-anchor")


def test_equal_input_gives_equal_bytes_and_another_seed_another_head(made, make, tmp_path):
    kind = made.card.extraction.adaptor.kind
    again, other = (make(f'kind = "{kind}"\n{QUICK}', seed=seed) for seed in (0, 1))
    first, second = (manifold.save(tmp_path / name) for name, manifold in (("a", made), ("b", again)))
    assert all(path.read_bytes() == (second / path.name).read_bytes() for path in first.iterdir())
    assert not np.array_equal(made.tensors["adaptor.weights"], other.tensors["adaptor.weights"])
    assert other.card.extraction.seed == 1


def test_the_head_is_that_of_the_cells_and_their_features(made, recipe, cells, checkpoint):
    extraction = made.card.extraction
    folder = recipe(f'kind = "{extraction.adaptor.kind}"\n{QUICK}')
    job = make_job(folder, cells=[cells], checkpoint=checkpoint)
    cell_rng, head_rng, _ = np.random.default_rng(job.seed).spawn(3)
    drawn = prepare(job, cell_rng).cells
    stages = [stage.id for stage in made.ruler.stages]
    given = extraction.adaptor.parameters
    fit = fit_cells(
        apply_operator(drawn.values, made.operator).astype(np.float32),
        drawn.stage,
        made.ruler.distances(stages),
        CellSettings(n_components=extraction.adaptor.n_components, **given),
        stages=stages,
        rng=head_rng.spawn(3)[0],
    )
    for part in ("weights", "bias", "mean", "scale"):
        assert np.array_equal(made.tensors[f"adaptor.{part}"], getattr(fit.head, part).astype(np.float32)), part
    assert (extraction.adaptor.loss, extraction.adaptor.beta) == (fit.head.loss, fit.head.beta)
    # operator and head are folded into one projection, as of an anchor head
    features = apply_operator(drawn.values, made.operator)
    np.testing.assert_allclose(made.project(drawn.values), fit.head.latent(features), atol=2e-3)


def test_the_card_tells_settings_and_how_the_fit_went(made):
    adaptor = made.card.extraction.adaptor
    default = CellSettings() if adaptor.kind == "let-cell" else HYBRID
    expected = asdict(default) | {"epochs": 12, "n_neighbours": 5}
    del expected["n_components"]
    assert adaptor.parameters == expected
    told = adaptor.convergence
    weights = {name: adaptor.parameters[name] for name in told.terms}
    assert {"topo", "compact"} <= set(weights) if adaptor.kind == "let-hybrid" else "topo" not in weights
    assert sum(weights[name] * value for name, value in told.terms.items()) == pytest.approx(adaptor.loss)
    assert (told.n_epochs, told.best_epoch, told.stopped_early) == (12, 12, False)
    assert told.converged == (told.change <= 0.01)
    n_cells = next(readout.n_cells for readout in made.card.extraction.readouts if readout.task == "stage")
    assert (told.n_train_cells, told.n_validation_cells) == (n_cells, 0)
    assert (told.validation_by, told.validation_loss) == (None, None)


def test_precision_is_that_of_the_recipe(make):
    kinds = [make(f'kind = "let-cell"\n{QUICK}\ndtype = "{dtype}"') for dtype in ("float32", "float64")]
    single, double = (manifold.tensors["adaptor.weights"] for manifold in kinds)
    assert not np.array_equal(single, double)
    np.testing.assert_allclose(single, double, atol=1e-2)
    assert [manifold.card.extraction.adaptor.parameters["dtype"] for manifold in kinds] == ["float32", "float64"]


def test_a_hybrid_head_is_no_cell_head(make):
    cell, hybrid = (make(f'kind = "{kind}"\n{QUICK}') for kind in ON_CELLS)
    assert not np.array_equal(cell.tensors["adaptor.weights"], hybrid.tensors["adaptor.weights"])


def test_the_epochs_are_told(make):
    said: list[tuple[str, int, int]] = []
    make(f'kind = "let-cell"\n{QUICK}', progress=lambda *call: said.append(call))
    assert [call for call in said if call[0] == "epochs"] == [("epochs", done, 12) for done in range(1, 13)]


# --- stopping early ---


def test_it_stops_by_whole_donors_of_the_panel(make, monkeypatch):
    seen: list[set[str]] = []
    real = _fit_head.fit_cells

    def spied(*arguments, **options):
        seen.append(set(options["groups"] or []))
        return real(*arguments, **options)

    monkeypatch.setattr(_fit_head, "fit_cells", spied)
    manifold = make('kind = "let-cell"\nepochs = 60\nn_neighbours = 5\npatience = 2\nlearning_rate = 0.05')
    told = manifold.card.extraction.adaptor.convergence
    assert told.validation_by == "donor"
    panel = manifold.card.panel
    assert seen[0] == {f"{anchor.study}:{anchor.donor}" for anchor in panel.anchors}
    assert told.stopped_early and told.best_epoch == told.n_epochs - 2 < 58
    assert told.n_validation_cells > 0 and np.isfinite(told.validation_loss)


@pytest.fixture(scope="module")
def job_of(recipe, cells, checkpoint):
    def job(adaptor: str):
        made = make_job(recipe(adaptor), cells=[cells], checkpoint=checkpoint)
        prepared = prepare(made, np.random.default_rng(0))
        return made, prepared, np.eye(len(prepared.panel.genes), dtype=np.float32)[None]

    return job


def test_it_stops_by_cells_where_there_is_one_donor(job_of):
    job, prepared, operator = job_of(f'kind = "let-cell"\n{QUICK}\npatience = 3\nvalidation = 0.3')
    one = prepared.without_group(prepared.cells.donor_ids[0], study=False)
    assert len(set(one.cells.donor_ids)) == 1
    _, entry = heads_of(job, one, operator).fit(np.random.default_rng(0))
    assert entry.convergence.validation_by == "cell"
    assert 0 < entry.convergence.n_validation_cells < len(one.cells.stage) / 2


# --- heads without some donors, for what the card says of readouts ---


@pytest.mark.parametrize("kind", ["let-anchor", *ON_CELLS])
def test_a_refit_sees_nothing_of_the_donors_left_out(job_of, kind):
    steps = "n_steps = 20" if kind == "let-anchor" else QUICK
    job, prepared, operator = job_of(f'kind = "{kind}"\n{steps}')
    donors = sorted(set(prepared.cells.donor_ids))
    refitted = heads_of(job, prepared, operator).refit(donors[:1], np.random.default_rng(0))
    rest = prepared.without_group(donors[0], study=False)
    alone = heads_of(job, rest, operator).refit([], np.random.default_rng(0))
    assert np.array_equal(refitted.weights, alone.weights) and np.array_equal(refitted.mean, alone.mean)
    assert heads_of(job, prepared, operator).refit(donors, np.random.default_rng(0)) is None


def test_an_anchor_head_is_that_of_the_anchors(job_of):
    job, prepared, operator = job_of("n_steps = 20\nalpha = 0.1")
    head, entry = heads_of(job, prepared, operator).fit(np.random.default_rng(4))
    features = prepared.panel.anchors.astype(np.float64)
    expected = fit_let(features, prepared.distances, job.recipe.adaptor.settings(), rng=np.random.default_rng(4))
    assert np.array_equal(head.weights, expected.weights)
    assert (entry.loss, entry.parameters["alpha"], entry.parameters["n_steps"]) == (expected.loss, 0.1, 20)


def test_readouts_are_judged_by_heads_of_the_same_kind(make, monkeypatch):
    monkeypatch.setattr(_fit_head, "fit_head", lambda *_, **__: pytest.fail("an anchor head was fitted"))
    manifold = make(f'kind = "let-hybrid"\n{QUICK}')
    branch = next(told for told in manifold.card.extraction.readouts if told.task == "branch")
    assert branch.parameters["held_out_by"] == "donor"
    assert branch.parameters["n_held_out_cells"] > 0


# --- used as any other ---


def test_cells_are_placed_and_read_out(made, cells, tmp_path):
    loaded = Manifold.read(made.save(tmp_path / "artifact"))
    counts = ad.read_h5ad(cells)
    values = np.log1p(counts.X.toarray() / counts.X.sum(axis=1) * 1e4)
    expected = loaded.project(values[:, counts.var_names.get_indexer(loaded.genes.symbols)].astype(np.float32))
    loaded.transform(counts, scale="counts")
    key = loaded.name.replace("-", "_")
    np.testing.assert_allclose(counts.obsm[f"X_{key}"], expected, atol=1e-3)
    assert set(counts.obs[f"{key}_branch"].dropna()) <= set(loaded.classes("branch"))


def test_gates_that_refit_are_not_run(made):
    run = validate(made, through=4)
    assert [result.status for result in run.rungs[:2]] == ["pass", "pass"]
    assert rung_reached(run.rungs) == 2
    by_gate = {record.gate: record for record in run.rungs[2].records}
    assert by_gate["trustworthiness"].statistic is not None
    for gate in ("random_holdout", "donor_holdout", "branch_holdout", "blocked_permutation"):
        assert by_gate[gate].status == "not run" and "fitted on cells" in by_gate[gate].reason
    assert run.rungs[3].status == "not run"

"""Every kind of operator, every combination and every control, extracted from a tiny model and real cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import BadInputError, FormatError, NotFoundError, PluginError
from manifoldzoo.extractors._extract import extract
from manifoldzoo.extractors._interface import find_extractor
from manifoldzoo.gates._artifact_data import gate_data
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._manifold import Manifold

N_LAYERS, N_HEADS, D_MODEL = 3, 2, 16


@pytest.fixture(scope="module")
def cells(tmp_path_factory) -> Path:
    return write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cells) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    return write_tiny_scgpt(folder, genes=common_genes(cells), n_layers=N_LAYERS, n_heads=N_HEADS, d_model=D_MODEL)


@pytest.fixture
def recipe(tmp_path):
    def write(operator: str, **changes: str) -> Path:
        return write_small_recipe(tmp_path / f"recipe{len(list(tmp_path.iterdir()))}", operator, **changes)

    return write


KINDS = [
    ('kind = "attention_mean"', 2, 40),
    ('kind = "attention_mean"\ncombination = "mean"', 1, 40),
    ('kind = "attention_value"', 2, 40),
    ('kind = "attention_mean"\ncombination = "single"\nlayer = 2\nhead = 1', 1, 40),
    ('kind = "attention_mean"\ncombination = "top_k"\nk = 3', 1, 40),
    ('kind = "token_ov"', 2, 40),
    ('kind = "token_qk"\ncombination = "single"\nlayer = 0\nhead = 0', 1, 40),
    ('kind = "token_qk"\ncombination = "top_k"\nk = 1', 1, 40),
    ('kind = "distilled"', 1, D_MODEL),
]


@pytest.mark.parametrize(("operator", "n_blocks", "n_features"), KINDS)
def test_every_kind_makes_a_manifold_that_survives_its_checks(
    operator, n_blocks, n_features, recipe, cells, checkpoint, tmp_path
):
    made = extract(recipe(operator), cells=[cells], checkpoint=checkpoint)
    assert made.tensors["operator"].shape == (n_blocks, 40, n_features)
    loaded = Manifold.read(made.save(tmp_path / "artifact"))
    assert valid(loaded).status == reproduces(loaded).status == "pass"
    entry = loaded.card.extraction.operator
    assert entry.kind in operator
    assert entry.numerical_rank == [np.linalg.matrix_rank(block) for block in made.tensors["operator"]]
    assert (entry.n_features or 40) == n_features
    needs_cells = "token" not in operator
    assert (entry.n_cells > 0) == needs_cells == (entry.cells_digest is not None)
    assert (entry.pairs_seen is not None) == ("attention" in operator)
    chosen = "top_k" in operator or "single" in operator
    assert bool(entry.heads) == chosen == (entry.chosen_by is not None)
    again = extract(recipe(operator), cells=[cells], checkpoint=checkpoint)
    assert again.digest == made.digest


class TestExpression:
    """The comparator by name: the same head on expression as it is."""

    KIND = 'kind = "expression"'

    @pytest.fixture
    def made(self, recipe, cells, checkpoint):
        return extract(recipe(self.KIND), cells=[cells], checkpoint=checkpoint)

    def test_features_are_the_expression_and_no_operator_is_stored(self, made, tmp_path):
        assert "operator" not in made.tensors
        loaded = Manifold.read(made.save(tmp_path / "artifact"))
        assert valid(loaded).status == reproduces(loaded).status == "pass"
        assert np.array_equal(loaded.operator, np.eye(40, dtype=np.float32)[None])
        assert np.array_equal(gate_data(loaded).features, loaded.tensors["panel.anchors"].astype(np.float64))
        t = loaded.tensors
        standard = (t["panel.anchors"] - t["adaptor.mean"]) / t["adaptor.scale"] - t["adaptor.bias"]
        np.testing.assert_allclose(loaded.project(t["panel.anchors"]), standard @ t["adaptor.weights"].T, atol=2e-3)

    def test_the_card_says_that_no_model_was_read(self, made):
        entry, model = made.card.extraction.operator, made.card.source_model
        assert (entry.kind, entry.combination, entry.n_cells, entry.cells_digest) == ("expression", "none", 0, None)
        assert "genes" in model.note

    def test_an_operator_that_a_control_made_is_stored(self, recipe, cells, checkpoint):
        made = extract(recipe(self.KIND), cells=[cells], checkpoint=checkpoint, control="spectrum-matched")
        assert made.tensors["operator"].shape == (1, 40, 40)
        assert valid(made).status == "pass"

    @pytest.mark.parametrize(
        "given", [{"control": "random-init"}, {"control": "shuffled-weights"}, {"n_untrained": 2}], ids=str
    )
    def test_there_is_no_model_to_destroy(self, given, recipe, cells, checkpoint):
        with pytest.raises(BadInputError, match="'expression' reads none"):
            extract(recipe(self.KIND), cells=[cells], checkpoint=checkpoint, **given)


def test_heads_chosen_by_a_screen_are_named_with_their_scores(recipe, cells, checkpoint):
    made = extract(recipe('combination = "top_k"\nk = 3'), cells=[cells], checkpoint=checkpoint)
    heads = made.card.extraction.operator.heads
    assert len({(head.layer, head.head) for head in heads}) == 3
    scores = [head.score for head in heads]
    assert scores == sorted(scores, reverse=True)
    assert sum(head.weight for head in heads) == pytest.approx(1)
    assert made.card.extraction.operator.chosen_by == "screen of the panel"
    first = heads[0]
    alone = extract(
        recipe(f'combination = "single"\nlayer = {first.layer}\nhead = {first.head}'),
        cells=[cells],
        checkpoint=checkpoint,
    )
    top = extract(recipe('combination = "top_k"\nk = 1'), cells=[cells], checkpoint=checkpoint)
    assert np.allclose(top.tensors["operator"], alone.tensors["operator"])


def test_the_fit_of_a_distilled_operator_is_judged_on_donors_it_has_not_seen(recipe, cells, checkpoint):
    made = extract(recipe('kind = "distilled"'), cells=[cells], checkpoint=checkpoint)
    entry = made.card.extraction.operator
    assert entry.n_cells == entry.parameters["n_train_cells"] + entry.parameters["n_held_out_cells"]
    assert entry.parameters["n_held_out_cells"] > 0
    assert entry.parameters["r2_held_out"] < entry.parameters["r2_train"] <= 1
    assert entry.parameters["penalty"] > 0


CONTROLS = ["random-init", "shuffled-weights", "spectrum-matched", "permuted-genes"]


@pytest.mark.parametrize("operator", ['kind = "attention_mean"', 'kind = "token_qk"', 'kind = "distilled"'])
@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_one_flag_away_and_says_what_it_is(control, operator, recipe, cells, checkpoint, tmp_path):
    folder = recipe(operator)
    real = extract(folder, cells=[cells], checkpoint=checkpoint)
    made = extract(folder, cells=[cells], checkpoint=checkpoint, control=control)
    assert made.name == f"hematopoietic-{control}"
    assert (made.card.extraction.control.kind, made.card.extraction.control.seed) == (control, 0)
    assert control in made.card.title
    assert control in made.card.limits[0]
    assert made.card.panel == real.card.panel
    assert not np.allclose(made.tensors["operator"], real.tensors["operator"])
    of_the_model = control in ("random-init", "shuffled-weights")
    assert (made.card.source_model.digest != real.card.source_model.digest) == of_the_model
    assert valid(made).status == reproduces(made).status == "pass"
    other = extract(folder, cells=[cells], checkpoint=checkpoint, control=control, control_seed=1)
    assert not np.allclose(other.tensors["operator"], made.tensors["operator"])
    again = extract(folder, cells=[cells], checkpoint=checkpoint, control=control)
    assert again.digest == made.digest


def test_operators_of_controls_keep_what_they_say_they_keep(recipe, cells, checkpoint):
    folder = recipe('kind = "attention_mean"')
    made = {
        control: extract(folder, cells=[cells], checkpoint=checkpoint, control=control).tensors["operator"]
        for control in (None, "spectrum-matched", "permuted-genes")
    }
    spectra = {name: np.linalg.svd(stack, compute_uv=False) for name, stack in made.items()}
    assert np.allclose(spectra["spectrum-matched"], spectra[None], atol=1e-4)
    assert np.allclose(np.sort(made["permuted-genes"].ravel()), np.sort(made[None].ravel()))
    diagonals = {name: np.sort(np.diagonal(stack, axis1=1, axis2=2)) for name, stack in made.items()}
    assert np.allclose(diagonals["permuted-genes"], diagonals[None])


def test_an_extraction_that_was_interrupted_goes_on_to_the_same_bytes(recipe, cells, checkpoint, tmp_path):
    folder, work = recipe('kind = "attention_mean"'), tmp_path / "work"
    whole = extract(folder, cells=[cells], checkpoint=checkpoint)

    def stop(step, done, total):
        if step == "attention" and done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(folder, cells=[cells], checkpoint=checkpoint, work=work, progress=stop)
    assert any(work.iterdir())
    seen = []
    again = extract(folder, cells=[cells], checkpoint=checkpoint, work=work, progress=lambda *call: seen.append(call))
    assert again.digest == whole.digest
    attention = [done for step, done, _ in seen if step == "attention"]
    assert attention[0] > whole.card.extraction.operator.n_cells // 2


class TestErrors:
    def test_an_unknown_control(self, recipe, cells, checkpoint):
        with pytest.raises(BadInputError, match=r"'nothing'.*random-init"):
            extract(recipe(""), cells=[cells], checkpoint=checkpoint, control="nothing")

    @pytest.mark.parametrize("head", ["layer = 3\nhead = 0", "layer = 0\nhead = 2"])
    def test_a_head_that_the_model_lacks(self, recipe, cells, checkpoint, head):
        with pytest.raises(BadInputError, match="L"):
            extract(recipe(f'combination = "single"\n{head}'), cells=[cells], checkpoint=checkpoint)

    def test_more_heads_than_there_are(self, recipe, cells, checkpoint):
        with pytest.raises(BadInputError, match="7"):
            extract(recipe('combination = "top_k"\nk = 7'), cells=[cells], checkpoint=checkpoint)

    def test_a_kind_that_does_not_exist(self, recipe, cells, checkpoint):
        with pytest.raises(FormatError, match="kind"):
            extract(recipe('kind = "magic"'), cells=[cells], checkpoint=checkpoint)

    def test_a_ruler_that_no_package_offers(self, recipe, cells, checkpoint):
        with pytest.raises(NotFoundError, match="'nowhere'"):
            extract(recipe("", extractor='"operator-let"\nruler = "nowhere"'), cells=[cells], checkpoint=checkpoint)

    def test_a_family_that_no_package_offers(self, recipe, cells, checkpoint):
        with pytest.raises(NotFoundError, match=r"'magic'.*scgpt"):
            extract(recipe(""), cells=[cells], checkpoint=checkpoint, family="magic")

    def test_an_extractor_that_ignores_the_control(self, recipe, cells, checkpoint, monkeypatch):
        kind = type(find_extractor("operator-let"))
        honest = kind.extract

        def forgetful(self, job):
            made = honest(self, job)
            extraction = made.card.extraction.model_copy(update={"control": None})
            card = made.card.model_copy(update={"extraction": extraction})
            return Manifold.build(card, made.genes, made.tensors, made.vectors)

        monkeypatch.setattr(kind, "extract", forgetful)
        with pytest.raises(PluginError, match="random-init"):
            extract(recipe(""), cells=[cells], checkpoint=checkpoint, control="random-init")

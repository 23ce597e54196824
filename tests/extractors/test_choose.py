"""What a recipe leaves open is chosen by donors held out, and scored on a group that took no part."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._card import Choice, ChoiceRun
from manifoldzoo.cards._errors import PanelError
from manifoldzoo.extractors._choose import choose
from manifoldzoo.extractors._extract import extract, make_job
from manifoldzoo.extractors._operator import read_operator
from manifoldzoo.extractors._prepare import prepare
from manifoldzoo.gates.refits._holdouts import group_folds, refit_holdouts
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._manifold import Manifold

OPEN = """
[choice]
n_starts = 2
n_components = [2, 3]
operators = [{ kind = "attention_mean" }, { kind = "token_qk" }, { kind = "distilled" }, { kind = "expression" }]
"""


def write_recipe(folder, choice=OPEN):
    made = write_small_recipe(folder)
    text = (made / "recipe.toml").read_text(encoding="utf-8")
    text = text.replace("[operator]\n", choice.replace("\\", "")).replace("\nn_components = 10\n", "\n")
    (made / "recipe.toml").write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Cells of two runs, each in two halves that stand for donors."""
    path = write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad", per_group=14)
    table = ad.read_h5ad(path)
    half = np.where(np.arange(table.n_obs) % 2, "a", "b")
    table.obs["donor"] = [f"{donor}{part}" for donor, part in zip(table.obs["donor"], half, strict=True)]
    table.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, cells):
    return write_tiny_scgpt(tmp_path_factory.mktemp("model") / "tiny", genes=common_genes(cells))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe") / "open")


@pytest.fixture(scope="module")
def job(recipe, cells, checkpoint):
    return make_job(recipe, cells=[cells], checkpoint=checkpoint)


@pytest.fixture(scope="module")
def prepared(job):
    return prepare(job, np.random.default_rng(0))


@pytest.fixture(scope="module")
def chosen(job, prepared):
    return choose(job, job.recipe.choice, prepared, np.random.default_rng(1))


def test_the_best_candidate_is_named_in_the_recipe_and_read(job, chosen, prepared):
    choice = chosen.choice
    assert [(each.kind, each.n_components) for each in choice.candidates] == [
        (kind, n) for kind in ("attention_mean", "token_qk", "distilled", "expression") for n in (2, 3)
    ]
    best = choice.candidates[int(np.argmax(choice.made.scores))]
    assert choice.candidates[choice.made.chosen] == best
    assert chosen.job.recipe.adaptor.n_components == best.n_components
    assert chosen.job.recipe.operator.kind == chosen.entry.kind == best.kind
    alone, _ = read_operator(chosen.job, prepared, np.random.default_rng(0))
    assert best.kind != "distilled"
    np.testing.assert_array_equal(chosen.operator, alone)


def test_scores_are_those_of_the_donor_holdout(job, chosen, prepared):
    """Each score is repeated from its parts, with the starts that the rule gave to all."""
    rng = np.random.default_rng(1)
    _, starts = (int(child.integers(2**31)) for child in rng.spawn(2))
    for place, n_components in ((2, 2), (7, 3)):
        candidate = chosen.choice.candidates[place]
        asked = next(each for each in job.recipe.choice.operators if each.kind == candidate.kind)
        named = replace(job, recipe=job.recipe.model_copy(update={"operator": asked}))
        operator, _ = read_operator(named, prepared, np.random.default_rng(0))
        result = refit_holdouts(
            apply_operator(prepared.panel.anchors, operator),
            prepared.distances,
            group_folds(prepared.panel.donor_ids),
            replace(job.recipe.adaptor.settings(), n_components=n_components),
            rng=np.random.default_rng(starts),
            n_starts=2,
        )
        assert chosen.choice.made.scores[place] == pytest.approx(result.touching, abs=1e-12)


def test_every_donor_of_a_single_study_is_left_out_once(chosen, prepared):
    choice = chosen.choice
    assert choice.left_out_by == "donor"
    assert [run.left_out for run in choice.runs] == sorted(set(prepared.panel.donor_ids))
    told = [run.left_out_score for run in choice.runs]
    assert None not in told
    assert choice.left_out_score == pytest.approx(np.mean(told))


def test_what_is_left_out_changes_nothing_but_its_own_score(job, chosen, prepared):
    """Anchors and cells of a donor are replaced by noise: the rule must not see it."""
    left_out = sorted(set(prepared.panel.donor_ids))[1]
    rng = np.random.default_rng(5)
    mine = np.array([donor == left_out for donor in prepared.panel.donor_ids])
    anchors = prepared.panel.anchors.copy()
    anchors[mine] = rng.random(anchors[mine].shape, dtype=np.float32)
    values = prepared.cells.values.toarray()
    theirs = np.array([donor == left_out for donor in prepared.cells.donor_ids])
    values[theirs] = values[theirs][:, rng.permutation(values.shape[1])]
    spoilt = replace(
        prepared,
        panel=replace(prepared.panel, anchors=anchors),
        cells=replace(prepared.cells, values=type(prepared.cells.values)(values)),
    )
    again = choose(job, job.recipe.choice, spoilt, np.random.default_rng(1)).choice
    before, after = chosen.choice.runs[1], again.runs[1]
    assert before.left_out == after.left_out == left_out
    assert (before.scores, before.chosen) == (after.scores, after.chosen)
    assert before.left_out_score != after.left_out_score
    assert again.made.scores != chosen.choice.made.scores
    assert again.runs[0].scores != chosen.choice.runs[0].scores


def test_studies_are_left_out_where_there_are_several(job, prepared):
    other = tuple("first" if donor.endswith("a") else "second" for donor in prepared.panel.donor)
    cells = tuple("first" if donor.endswith("a") else "second" for donor in prepared.cells.donor)
    two = replace(prepared, panel=replace(prepared.panel, study=other), cells=replace(prepared.cells, study=cells))
    choice = choose(job, job.recipe.choice, two, np.random.default_rng(1)).choice
    assert choice.left_out_by == "study"
    assert [run.left_out for run in choice.runs] == ["first", "second"]


def test_a_group_left_out_leaves_no_trace(prepared):
    gone = sorted(set(prepared.panel.donor_ids))[0]
    rest = prepared.without_group(gone, study=False)
    assert set(rest.panel.donor_ids) == set(prepared.panel.donor_ids) - {gone}
    assert set(rest.cells.donor_ids) == set(prepared.cells.donor_ids) - {gone}
    kept = [row for row, donor in enumerate(prepared.panel.donor_ids) if donor != gone]
    np.testing.assert_array_equal(rest.panel.anchors, prepared.panel.anchors[kept])
    np.testing.assert_array_equal(rest.distances, prepared.distances[np.ix_(kept, kept)])
    assert rest.panel.n_cells.tolist() == prepared.panel.n_cells[kept].tolist()
    assert len(rest.cells.stage) == rest.cells.values.shape[0] == len(rest.cells.totals) == rest.inputs.shape[0]
    assert rest.panel.genes == prepared.panel.genes


def test_one_donor_is_too_few(job, prepared):
    only = replace(prepared.panel, donor=("a",) * len(prepared.panel.donor))
    with pytest.raises(PanelError, match="donors"):
        choose(job, job.recipe.choice, replace(prepared, panel=only), np.random.default_rng(1))


def test_two_donors_make_a_choice_that_nothing_could_be_left_out_of(job, prepared):
    donors = tuple(donor[:-1] for donor in prepared.panel.donor)
    cells = tuple(donor[:-1] for donor in prepared.cells.donor)
    two = replace(prepared, panel=replace(prepared.panel, donor=donors), cells=replace(prepared.cells, donor=cells))
    choice = choose(job, job.recipe.choice, two, np.random.default_rng(1)).choice
    assert choice.made.chosen is not None
    assert [run.chosen for run in choice.runs] == [None, None]
    assert choice.left_out_score is None


def test_an_extraction_says_how_it_was_chosen(recipe, cells, checkpoint, tmp_path):
    steps = []
    made = extract(
        recipe, cells=[cells], checkpoint=checkpoint, work=tmp_path / "work", progress=lambda *step: steps.append(step)
    )
    again = extract(recipe, cells=[cells], checkpoint=checkpoint)
    assert made.digest == again.digest
    loaded = Manifold.read(made.save(tmp_path / "made"))
    choice = loaded.card.extraction.choice
    best = choice.candidates[choice.made.chosen]
    assert loaded.card.extraction.operator.kind == best.kind
    assert loaded.card.extraction.adaptor.n_components == best.n_components
    assert loaded.tensors["projection"].shape[1] == best.n_components
    assert [step[1:] for step in steps if step[0] == "choosing"] == [(n, 5) for n in range(1, 6)]


def test_numbers_of_coordinates_alone_can_be_open(cells, checkpoint, tmp_path):
    recipe = write_recipe(
        tmp_path / "some", '\n[choice]\nn_starts = 1\nn_components = [2, 4]\n\n[operator]\nkind = "token_ov"\n'
    )
    choice = extract(recipe, cells=[cells], checkpoint=checkpoint).card.extraction.choice
    assert {(each.kind, each.n_components) for each in choice.candidates} == {("token_ov", 2), ("token_ov", 4)}


@pytest.mark.parametrize(
    "changes",
    [
        {"made": ChoiceRun(left_out=None, scores=[0.5], chosen=0)},
        {"made": ChoiceRun(left_out=None, scores=[0.5] * 8, chosen=None)},
        {"made": ChoiceRun(left_out=None, scores=[0.5] * 8, chosen=8)},
        {"runs": [ChoiceRun(left_out="d", scores=[0.5] * 7, chosen=0)]},
    ],
)
def test_a_card_refuses_a_choice_that_does_not_fit_its_candidates(chosen, changes):
    document = chosen.choice.model_dump()
    with pytest.raises(ValueError, match="candidate"):
        Choice.model_validate(document | {key: _plain(value) for key, value in changes.items()})


def _plain(value):
    return [each.model_dump() for each in value] if isinstance(value, list) else value.model_dump()

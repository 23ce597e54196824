"""Scores of gene programs: those of scanpy, number for number, and the rule by which one of them leads."""

from __future__ import annotations

import inspect
import logging

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.extractors.testing._cells import nothing_global_changes
from manifoldzoo.manifolds import _gene_scores
from manifoldzoo.manifolds._gene_scores import (
    NOT_EXPRESSED,
    UNCLEAR,
    ScoreWeights,
    control_genes,
    leading_program,
    standardise,
)


def normalised(n_cells: int = 60, n_genes: int = 1500, seed: int = 0) -> ad.AnnData:
    """``log1p`` of counts per 10,000, with genes that no cell has, and many of equal mean."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.3, 1.0, n_genes), (n_cells, n_genes)).astype(np.float32)
    cells = ad.AnnData(sparse.csr_matrix(counts))
    cells.var_names = [f"G{i}" for i in range(n_genes)]
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    return cells


@pytest.mark.parametrize(("n_controls", "n_bins", "seed"), [(50, 25, 0), (50, 25, 7), (10, 8, 0), (500, 4, 1)])
def test_scores_are_those_of_scanpy(n_controls, n_bins, seed, caplog):
    cells, rng = normalised(), np.random.default_rng(1)
    lists = [np.sort(rng.choice(cells.n_vars, n, replace=False)) for n in (5, 30, 90)]
    mean = np.asarray(cells.X.sum(axis=0, dtype=np.float64)).ravel() / cells.n_obs
    weights = ScoreWeights.of(mean, lists, n_controls=n_controls, n_bins=n_bins, seed=seed)
    scores, _ = weights.scores(weights.moments(cells.X))
    for place, genes in enumerate(lists):
        with caplog.at_level(logging.ERROR):
            sc.tl.score_genes(
                cells, cells.var_names[genes], ctrl_size=n_controls, n_bins=n_bins, random_state=seed, use_raw=False
            )
        assert np.allclose(scores[:, place], cells.obs["score"], rtol=0, atol=1e-6)
    assert np.abs(scores).max() > 0.1


def test_the_random_state_of_the_process_is_left_alone():
    with nothing_global_changes():
        control_genes(np.arange(500.0), np.arange(10), n_controls=3)


def test_control_genes_are_of_the_bins_of_the_program_and_not_of_the_program():
    mean = np.arange(100.0)
    # ten bins: ranks from 1, so that bin 0 holds nine genes
    found = control_genes(mean, np.array([20, 21, 55]), n_controls=100, n_bins=11)
    expected = [i for i in range(100) if (i + 1) // 10 in (2, 5) and i not in (20, 21, 55)]
    assert found.tolist() == expected
    assert len(control_genes(mean, np.array([20, 21, 55]), n_controls=4, n_bins=11)) <= 8


def test_a_program_that_is_all_there_is_has_no_controls():
    with pytest.raises(BadInputError, match="The 6 genes have none of like expression beside the 6 of the program"):
        control_genes(np.zeros(6), np.arange(6))


def test_the_error_is_that_of_means_of_control_genes():
    rng = np.random.default_rng(0)
    values = sparse.csr_matrix(rng.poisson(0.4, (4, 300)).astype(np.float32))
    program = np.arange(12)
    mean = np.asarray(values.mean(axis=0)).ravel()
    weights = ScoreWeights.of(mean, [program])
    score, error = weights.scores(weights.moments(values))
    controls = np.flatnonzero(weights.control[:, 0])
    dense = values.toarray().astype(np.float64)
    spread = dense[:, controls].std(axis=1)
    assert np.allclose(score[:, 0], dense[:, program].mean(axis=1) - dense[:, controls].mean(axis=1))
    assert np.allclose(error[:, 0], spread * np.sqrt(1 / len(program) + 1 / len(controls)))


def test_a_program_of_chance_is_rarely_two_errors_above_its_controls():
    cells = normalised(n_cells=400, seed=3)
    mean = np.asarray(cells.X.sum(axis=0, dtype=np.float64)).ravel() / cells.n_obs
    rng = np.random.default_rng(4)
    lists = [np.sort(rng.choice(cells.n_vars, 80, replace=False)) for _ in range(10)]
    weights = ScoreWeights.of(mean, lists)
    scores, errors = weights.scores(weights.moments(cells.X))
    assert 0.001 < (scores > 2 * errors).mean() < 0.07


def test_moments_of_parts_of_the_genes_add_up():
    cells = normalised(n_cells=10)
    mean = np.asarray(cells.X.mean(axis=0)).ravel()
    weights = ScoreWeights.of(mean, [np.arange(40), np.arange(40, 60)])
    parts = sum(
        ScoreWeights(weights.program[part], weights.control[part]).moments(cells.X[:, part])
        for part in (slice(0, 700), slice(700, None))
    )
    assert np.allclose(parts, weights.moments(cells.X))


def test_standardised_scores_have_mean_0_and_spread_1_and_flat_ones_are_0():
    scores = np.random.default_rng(0).normal(3, 5, (50, 3))
    scores[:, 1] = 0.1 + 0.2
    found = standardise(scores)
    assert np.allclose(found.mean(axis=0), 0)
    assert np.allclose(found.std(axis=0), [1, 0, 1])
    assert standardise(np.zeros((0, 2))).shape == (0, 2)


def lead(scores, *, errors=0.0, margin=0.0, above=0.0):
    scores = np.asarray(scores, dtype=float)
    return leading_program(scores, np.full(scores.shape, float(errors)), margin=margin, above=above).tolist()


class TestTheRule:
    SCORES = ((1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, 1.0))

    def test_the_highest_leads_and_ties_are_unclear(self):
        assert lead(self.SCORES) == [0, 1, NOT_EXPRESSED, UNCLEAR]

    def test_a_tie_is_unclear_without_a_margin_too(self):
        assert lead([[2.0, 2.0], [0.0, 0.0]]) == [UNCLEAR, NOT_EXPRESSED]

    def test_the_lead_is_counted_in_standard_deviations(self):
        scores = np.random.default_rng(0).normal(size=(200, 3)) * [1, 10, 100] + 500
        standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
        ordered = np.sort(standard, axis=1)
        for margin in (0.0, 0.4, 1.5):
            expected = np.where(ordered[:, -1] - ordered[:, -2] < margin, UNCLEAR, standard.argmax(axis=1))
            expected[ordered[:, -1] <= 0] = NOT_EXPRESSED
            assert lead(scores, margin=margin) == expected.tolist()

    def test_below_its_controls_no_program_leads(self):
        # the best standardised score of the first cell lies below its controls
        scores = np.array([[-0.1, -0.5], [-0.9, 0.5], [-1.0, 0.4]])
        assert standardise(scores)[0].argmax() == 0
        assert lead(scores) == [NOT_EXPRESSED, 1, 1]

    def test_it_must_be_so_many_errors_above_them(self):
        scores = np.array(self.SCORES)
        assert lead(scores, errors=0.5, above=2.0)[:2] == [0, 1]
        assert lead(scores, errors=0.51, above=2.0)[:2] == [NOT_EXPRESSED] * 2

    def test_of_one_cell_nothing_can_lead(self):
        assert lead([[3.0, 1.0]]) == [NOT_EXPRESSED]

    def test_no_cell(self):
        assert lead(np.zeros((0, 3))) == []

    @given(st.integers(0, 10_000))
    def test_neither_order_of_cells_nor_scale_of_a_program_matters(self, seed):
        rng = np.random.default_rng(seed)
        scores, errors = rng.normal(size=(30, 4)), rng.random((30, 4))
        found = leading_program(scores, errors, margin=0.3, above=0.5)
        order, scale = rng.permutation(30), rng.uniform(0.5, 20, 4)
        again = leading_program(scores[order] * scale, errors[order] * scale, margin=0.3, above=0.5)
        assert (again == found[order]).all()


def test_constants_are_those_of_scanpy():
    defaults = inspect.signature(sc.tl.score_genes).parameters
    assert defaults["ctrl_size"].default == _gene_scores.N_CONTROLS
    assert defaults["n_bins"].default == _gene_scores.N_BINS

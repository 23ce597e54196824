from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds._features import apply_operator, fold_projection


def parts(k, genes, d, seed, dtype=np.float64, width=None):
    rng = np.random.default_rng(seed)
    width = width or genes
    operator = rng.standard_normal((k, genes, width))
    weights = rng.standard_normal((d, k * width))
    bias, mean = rng.standard_normal((2, k * width))
    return [a.astype(dtype) for a in (operator, weights, bias, mean, rng.uniform(0.5, 2, k * width))]


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
def test_features_are_the_products_side_by_side(kind):
    values = np.random.default_rng(1).random((4, 5))
    for width in (5, 2, 7):
        operator = parts(3, 5, 1, 0, width=width)[0]
        found = apply_operator(kind(values), operator)
        assert found.shape == (4, 3 * width)
        assert found.dtype == np.float64
        for b in range(3):
            for i in range(4):
                for j in range(width):
                    expected = sum(values[i, g] * operator[b, g, j] for g in range(5))
                    assert found[i, width * b + j] == pytest.approx(expected)


@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 6), st.integers(0, 99))
def test_the_fold_is_operator_then_head(k, genes, d, width, seed):
    operator, weights, bias, mean, scale = parts(k, genes, d, seed, width=width)
    values = np.random.default_rng(seed).random((7, genes))
    standard = (apply_operator(values, operator) - mean) / scale
    expected = (standard - bias) @ weights.T
    projection, offset = fold_projection(operator, weights, bias, mean, scale)
    assert projection.shape == (genes, d)
    assert offset.shape == (d,)
    np.testing.assert_allclose(values @ projection + offset, expected, rtol=1e-9, atol=1e-9)


def test_the_fold_of_float32_parts_is_computed_in_float64():
    single = parts(2, 30, 3, 5, np.float32)
    projection, offset = fold_projection(*single)
    exact = fold_projection(*(a.astype(np.float64) for a in single))
    assert projection.dtype == offset.dtype == np.float64
    np.testing.assert_allclose(projection, exact[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(offset, exact[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 5), (5,), (1, 1, 5, 5)])
def test_an_operator_that_is_no_stack_is_refused(shape):
    with pytest.raises(BadInputError) as caught:
        apply_operator(np.ones((2, 5)), np.ones(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(2, 4), (5,), (5, 2)])
def test_values_of_other_genes_are_refused(shape):
    with pytest.raises(BadInputError) as caught:
        apply_operator(np.ones(shape), np.ones((1, 5, 5)))
    assert str(shape) in str(caught.value)

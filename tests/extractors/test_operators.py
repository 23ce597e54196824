from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.extractors._operators import drift, mean_operator, numerical_rank, single
from manifoldzoo.manifolds._features import apply_operator


def stack(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("n_layers", "blocks"),
    [
        (3, ([0], [1], [2])),
        (4, ([0, 1], [2], [3])),
        (5, ([0, 1], [2, 3], [4])),
        (6, ([0, 1], [2, 3], [4, 5])),
        (12, ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11])),
    ],
)
def test_drift_contrasts_three_blocks(n_layers: int, blocks: tuple[list[int], ...]) -> None:
    layers = stack(n_layers, 5, 5)
    early, middle, late = (sum(layers[i].astype(float) for i in block) / len(block) for block in blocks)
    operator = drift(layers)
    assert operator.dtype == np.float32
    np.testing.assert_allclose(operator, [early - middle, middle - late], atol=1e-6)


def test_mean_operator_and_single_head() -> None:
    heads = stack(4, 2, 5, 5)
    np.testing.assert_allclose(mean_operator(heads[:, 0]), heads[:, 0].mean(0, keepdims=True), atol=1e-6)
    assert np.array_equal(single(heads, layer=2, head=1), heads[2, 1][None])


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 6),
    n_genes=st.integers(1, 7),
    n_layers=st.integers(3, 7),
    seed=st.integers(0, 1000),
    kind=st.sampled_from([np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix]),
)
def test_drift_features_are_the_published_ones(n: int, n_genes: int, n_layers: int, seed: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.random((n, n_genes)) * (rng.random((n, n_genes)) < 0.5)).astype(np.float32)
    layers = stack(n_layers, n_genes, n_genes, seed=seed)
    early, middle, late = (block.mean(0) for block in np.array_split(layers.astype(float), 3))
    want = np.hstack([x @ early - x @ middle, x @ middle - x @ late])
    got = apply_operator(kind(x), drift(layers))
    assert isinstance(got, np.ndarray)
    assert got.shape == (n, 2 * n_genes)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_rows_of_the_operator_read_and_columns_write() -> None:
    operator = np.zeros((1, 3, 3), dtype=np.float32)
    operator[0, 0, 2] = 5
    assert apply_operator(np.array([[2, 0, 0]], dtype=np.float32), operator).tolist() == [[0, 0, 10]]


@pytest.mark.parametrize("rank", [0, 1, 3, 8])
def test_numerical_rank_sees_through_float32_rounding(rank: int) -> None:
    rng = np.random.default_rng(rank)
    matrix = (rng.normal(size=(8, rank)) @ rng.normal(size=(rank, 8))).astype(np.float32)
    assert numerical_rank(matrix) == rank


def test_a_low_rank_float32_matrix_is_full_rank_in_float64() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 60))).astype(np.float32)
    assert np.linalg.matrix_rank(matrix.astype(np.float64)) > 4
    assert numerical_rank(matrix) == 4


@pytest.mark.parametrize(
    "call",
    [
        lambda: drift(stack(2, 5, 5)),
        lambda: drift(stack(6, 2, 5, 5)),
        lambda: drift(stack(6, 5, 4)),
        lambda: mean_operator(stack(0, 5, 5)),
        lambda: single(stack(3, 5, 5), layer=0, head=0),
        lambda: single(stack(3, 2, 5, 5), layer=3, head=0),
        lambda: single(stack(3, 2, 5, 5), layer=0, head=-1),
    ],
)
def test_wrong_shapes_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(BadInputError):
        call()

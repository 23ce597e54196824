from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.extractors.operators._combine import drift, mean_operator, numerical_rank, single, top_k
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


def test_top_k_sums_the_best_heads_by_score() -> None:
    heads = stack(3, 4, 5, 5)
    scores = np.full((3, 4), 0.1)
    scores[2, 1], scores[0, 3], scores[1, 1] = 0.6, 0.4, 0.2
    operator, chosen = top_k(heads, scores, k=3)
    assert [(head.layer, head.head) for head in chosen] == [(2, 1), (0, 3), (1, 1)]
    np.testing.assert_allclose([head.weight for head in chosen], [0.5, 1 / 3, 1 / 6])
    want = heads[2, 1] / 2 + heads[0, 3] / 3 + heads[1, 1] / 6
    assert operator.dtype == np.float32
    np.testing.assert_allclose(operator, want[None], rtol=0, atol=1e-6)
    best, (only,) = top_k(heads, scores, k=1)
    assert np.array_equal(best, single(heads, layer=2, head=1))
    assert tuple(only) == (2, 1, 1.0)


def test_top_k_takes_the_earlier_of_equal_heads_and_gives_no_weight_to_bad_ones() -> None:
    heads = stack(2, 2, 3, 3)
    _, chosen = top_k(heads, np.array([[0.3, 0.5], [0.5, 0.3]]), k=3)
    assert [head[:2] for head in chosen] == [(0, 1), (1, 0), (0, 0)]
    operator, chosen = top_k(heads, np.array([[-0.3, 0.5], [-0.1, -0.4]]), k=2)
    assert [tuple(head) for head in chosen] == [(0, 1, 1.0), (1, 0, 0.0)]
    assert np.array_equal(operator[0], heads[0, 1])
    _, chosen = top_k(heads, np.array([[-0.3, 0.0], [-0.1, -0.4]]), k=2)
    assert [tuple(head) for head in chosen] == [(0, 1, 0.5), (1, 0, 0.5)]


@pytest.mark.parametrize("rank", [0, 1, 3, 8])
@pytest.mark.parametrize("shape", [(8, 8), (8, 13), (13, 8)])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_numerical_rank_sees_through_float32_rounding(rank: int, shape: tuple[int, int], scale: float) -> None:
    rng = np.random.default_rng(rank)
    matrix = (rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1])) * scale).astype(np.float32)
    assert numerical_rank(matrix) == rank


def test_a_low_rank_float32_matrix_is_full_rank_in_float64() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.normal(size=(60, 4)) @ rng.normal(size=(4, 60))).astype(np.float32)
    assert np.linalg.matrix_rank(matrix.astype(np.float64)) > 4
    assert numerical_rank(matrix) == 4


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), m=st.integers(1, 40), seed=st.integers(0, 10_000), decay=st.floats(0.5, 1.0))
def test_numerical_rank_is_that_of_the_singular_values(n: int, m: int, seed: int, decay: float) -> None:
    rng = np.random.default_rng(seed)
    k = min(n, m)
    left, right = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (n, m))
    matrix = ((left * decay ** np.arange(k)) @ right.T).astype(np.float32)
    singular = np.linalg.svd(matrix.astype(np.float64), compute_uv=False)
    bound = singular[0] * max(n, m) * np.finfo(np.float32).eps
    low, high = (int((singular > bound * factor).sum()) for factor in (1.001, 0.999))
    assert low <= numerical_rank(matrix) <= high


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
        lambda: top_k(stack(3, 2, 5, 5), np.ones((2, 3)), k=1),
        lambda: top_k(stack(3, 2, 5, 5), np.ones((3, 2)), k=0),
        lambda: top_k(stack(3, 2, 5, 5), np.ones((3, 2)), k=7),
        lambda: top_k(stack(3, 2, 5, 5), np.full((3, 2), np.nan), k=1),
        lambda: top_k(stack(3, 2, 5, 4), np.ones((3, 2)), k=1),
        lambda: top_k(stack(3, 5, 5), np.ones((3, 5)), k=1),
    ],
)
def test_wrong_shapes_are_refused(call: Callable[[], Any]) -> None:
    with pytest.raises(BadInputError):
        call()

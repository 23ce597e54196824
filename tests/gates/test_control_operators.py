from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates.controls._control_operators import gene_permuted, spectrum_matched


def stack(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 12, 12), (1, 12, 5), (1, 5, 12), (3, 1, 1)])
def test_the_spectrum_of_each_block_stays_and_nothing_else(shape: tuple[int, ...]) -> None:
    operator = stack(*shape) * np.arange(1, shape[0] + 1)[:, None, None].astype(np.float32)
    control = spectrum_matched(operator, seed=3)
    assert control.shape == operator.shape
    assert control.dtype == np.float32
    np.testing.assert_allclose(
        np.linalg.svd(control, compute_uv=False), np.linalg.svd(operator, compute_uv=False), rtol=1e-4, atol=1e-5
    )
    if operator[0].size > 20:
        overlap = np.corrcoef(control.ravel(), operator.ravel())[0, 1]
        assert abs(overlap) < 0.3
    assert spectrum_matched(operator, seed=3).tobytes() == control.tobytes()
    assert spectrum_matched(operator, seed=4).tobytes() != control.tobytes()


def test_blocks_are_drawn_apart() -> None:
    block = stack(1, 8, 8)
    control = spectrum_matched(np.concatenate([block, block]), seed=0)
    assert not np.allclose(control[0], control[1])


def test_directions_are_uniform() -> None:
    """A rank-one block becomes u v^T; an entry of u is then that of a uniform direction, of either sign."""
    operator = np.zeros((400, 3, 3), dtype=np.float32)
    operator[:, 0, 0] = 1
    control = spectrum_matched(operator, seed=0)
    left = np.linalg.svd(control)[0][:, :, 0] * np.sign(control[:, :1, 0])
    # by Archimedes, coordinates of uniform points of a sphere are uniform; the first one was made positive
    assert stats.kstest(np.abs(left[:, 0]), "uniform").pvalue > 1e-3
    assert stats.kstest(left[:, 1], "uniform", args=(-1, 2)).pvalue > 1e-3
    assert abs(np.mean(control[:, 0, 0] > 0) - 0.5) < 0.1


@pytest.mark.parametrize("n_features", [9, 4])
def test_genes_are_given_other_names(n_features: int) -> None:
    operator = stack(2, 9, n_features)
    control = gene_permuted(operator, seed=1)
    order = [int(np.flatnonzero((operator[0] == row[0]).any(1))[0]) for row in control[0]]
    assert sorted(order) == list(range(9)) and order != sorted(order)
    want = operator[:, order][:, :, order] if n_features == 9 else operator[:, order]
    assert np.array_equal(control, want)
    assert control.flags.c_contiguous and control.dtype == np.float32
    assert gene_permuted(operator, seed=1).tobytes() == control.tobytes()
    assert gene_permuted(operator, seed=2).tobytes() != control.tobytes()


@pytest.mark.parametrize("control", [spectrum_matched, gene_permuted])
@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4), (0, 4, 4), (1, 0, 4)])
def test_anything_but_a_stack_is_refused(control: Callable[..., Any], shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="stack"):
        control(np.ones(shape, dtype=np.float32), seed=0)

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from manifoldzoo.extractors.checkpoints._scgpt_values import bin_values, input_values


def scgpt_bins(row: np.ndarray, n_bins: int, u: Fraction) -> np.ndarray:
    """scGPT's rule for one cell with its random number given, value by value and without rounding."""
    ordered = sorted(Fraction(float(value)) for value in row if value > 0)
    edges = []
    for k in range(n_bins - 1) if ordered else ():
        place = Fraction(k, max(n_bins - 2, 1)) * (len(ordered) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        edges.append(low + (high - low) * (place - math.floor(place)))
    bins = []
    for value in row:
        below, up_to = sum(edge < float(value) for edge in edges), sum(edge <= float(value) for edge in edges)
        bins.append(math.ceil(u * (below - up_to) + up_to) if value > 0 else 0)
    return np.array(bins, dtype=np.float32)


CELLS = arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 40)),
    elements=st.one_of(st.just(0.0), st.integers(1, 6).map(float), st.floats(0.015625, 500, width=32)),
)


@settings(max_examples=80, deadline=None)
@given(values=CELLS, n_bins=st.sampled_from([2, 3, 5, 51]))
def test_bins_are_those_of_scgpt_with_its_random_number_at_one_half(values: np.ndarray, n_bins: int) -> None:
    got = bin_values(values, n_bins)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, [scgpt_bins(row, n_bins, Fraction(1, 2)) for row in values])
    lowest, highest = ([scgpt_bins(row, n_bins, u) for row in values] for u in (Fraction(999, 1000), Fraction(0)))
    assert ((lowest <= got) & (got <= highest)).all(), "a bin that scGPT never draws"
    assert (got[values > 0] >= 1).all()
    assert got.max() <= n_bins - 1


@settings(max_examples=60, deadline=None)
@given(counts=arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 60)), elements=st.integers(0, 30)))
def test_bins_of_log_values_are_those_of_the_counts(counts: np.ndarray) -> None:
    scaled = np.log1p(counts * (1e4 / 1234)).astype(np.float32)
    np.testing.assert_array_equal(bin_values(scaled, 51), bin_values(counts.astype(np.float32), 51))


def test_bins_by_hand() -> None:
    # edges 1, 2, 3, 4 for five bins
    np.testing.assert_array_equal(bin_values(np.float32([[4, 0, 2, 1, 3]]), 5), [[4, 0, 2, 1, 3]])
    # edges 1, 1, 1, 9: the ones lie between 0 edges below and 3 up to them, in the middle bin of 1, 2 and 3
    np.testing.assert_array_equal(bin_values(np.float32([[1, 1, 1, 1, 1, 1, 9, 0]]), 5), [[2] * 6 + [4, 0]])
    np.testing.assert_array_equal(bin_values(np.zeros((2, 3), np.float32), 5), np.zeros((2, 3)))


def test_without_ties_bins_are_numpys() -> None:
    values = np.random.default_rng(0).random((5, 700)).astype(np.float32)
    for row, got in zip(values, bin_values(values, 51), strict=True):
        np.testing.assert_array_equal(got, np.digitize(row, np.quantile(row, np.linspace(0, 1, 50))))


def test_a_cell_is_binned_by_itself() -> None:
    values = np.float32([[1, 2, 3, 0], [30, 10, 20, 40]])
    both = bin_values(values, 11)
    np.testing.assert_array_equal(both, np.concatenate([bin_values(row[None], 11) for row in values]))


@pytest.mark.parametrize("style", ["log1p", "counts"])
def test_values_that_are_read_as_they_are(style: str) -> None:
    values = np.float32([[0, 700, 3.5]])
    assert input_values(values, style, 0) is values  # type: ignore[arg-type]


def test_normed_raw_takes_the_logarithm_back() -> None:
    scaled = np.float32([[0, 1.5, 800]])
    np.testing.assert_allclose(input_values(np.log1p(scaled), "normed_raw", 0), scaled, rtol=1e-6)

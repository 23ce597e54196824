from __future__ import annotations

import math

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from manifoldzoo.cards._errors import ScaleError, ScaleWarning
from manifoldzoo.manifolds._scale import check_finite, decide_scale, log_normalise, summarise

KINDS = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


def counts(n=30, genes=50, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(0.5, 4.0, genes), (n, genes)).astype(dtype)


def logged(target=1e4, **options):
    values = counts(**options).astype(np.float64)
    return np.log1p(values / values.sum(axis=1, keepdims=True) * target).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32, np.uint16])
def test_log_normalise_is_scanpys(kind, dtype):
    values = counts(dtype=dtype)
    values[3] = 0
    theirs = ad.AnnData(sparse.csr_matrix(values.astype(np.float64)))
    with pytest.warns(UserWarning, match="zero counts"):
        sc.pp.normalize_total(theirs, target_sum=1e4)
    sc.pp.log1p(theirs)
    given_ = kind(values)
    ours = log_normalise(given_, values.sum(axis=1, dtype=np.float64))
    assert sparse.issparse(ours) == sparse.issparse(given_)
    assert ours.dtype == np.float32
    dense = ours.toarray() if sparse.issparse(ours) else ours
    np.testing.assert_allclose(dense, theirs.X.toarray(), rtol=1e-6, atol=1e-6)
    assert not dense[3].any()
    kept = given_.toarray() if sparse.issparse(given_) else given_
    np.testing.assert_array_equal(kept, values)


@given(hnp.arrays(np.int32, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.integers(0, 10_000)))
def test_normalised_cells_sum_to_ten_thousand(values):
    totals = values.sum(axis=1, dtype=np.float64)
    for kind in KINDS:
        ours = log_normalise(kind(values), totals)
        linear = np.expm1((ours.toarray() if sparse.issparse(ours) else ours).astype(np.float64)).sum(axis=1)
        np.testing.assert_allclose(linear, np.where(totals > 0, 1e4, 0), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["auto", "counts"])
def test_counts_are_recognised(kind, scale):
    summary = summarise(kind(counts()))
    assert summary.whole
    assert summary.maximum == counts().max()
    if scale == "auto":
        with pytest.warns(ScaleWarning, match="counts"):
            assert decide_scale(summary, scale, all_genes=True) == "counts"
    else:
        assert decide_scale(summary, scale, all_genes=True) == "counts"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["auto", "log1p"])
def test_logarithms_are_recognised(kind, scale):
    summary = summarise(kind(logged()))
    assert not summary.whole
    assert summary.cell_sum == pytest.approx(1e4, rel=1e-3)
    assert decide_scale(summary, scale, all_genes=True) == "log1p"


def test_cell_sum_is_the_median_over_cells():
    values = logged(n=5)
    values[0] = 0
    expected = np.median(np.expm1(values.astype(np.float64)).sum(axis=1))
    for kind in KINDS:
        assert summarise(kind(values)).cell_sum == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_counts_announced_as_logarithms_are_refused(kind):
    with pytest.raises(ScaleError, match=f"{counts().max():.4g}") as caught:
        decide_scale(summarise(kind(counts())), "log1p", all_genes=True)
    assert "scale='counts'" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_logarithms_announced_as_counts_are_refused(kind):
    with pytest.raises(ScaleError, match=f"{logged().max():.4g}") as caught:
        decide_scale(summarise(kind(logged())), "counts", all_genes=True)
    assert "scale='log1p'" in caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["auto", "log1p"])
def test_normalised_but_not_logged_is_refused(kind, scale):
    values = np.expm1(logged())
    with pytest.raises(ScaleError, match=f"{values.max():.4g}") as caught:
        decide_scale(summarise(kind(values)), scale, all_genes=True)
    assert "log1p" in caught.value.hint


@pytest.mark.parametrize("target", [1e3, 1e6])
def test_another_sum_before_the_logarithm_warns_where_it_can_be_seen(target):
    # the sum of 1e6 puts the highest values over the ceiling, so genes are many and low there
    values = np.log1p(np.full((4, 2000), target / 2000) * (1 + 0.1 * np.random.default_rng(0).random((4, 2000))))
    summary = summarise(values)
    with pytest.warns(ScaleWarning, match=f"{summary.cell_sum:.3g}".replace("+", r"\+")):
        assert decide_scale(summary, "auto", all_genes=True) == "log1p"
    assert decide_scale(summary, "auto", all_genes=False) == "log1p"
    assert decide_scale(summary, "log1p", all_genes=True) == "log1p"


@pytest.mark.parametrize("kind", KINDS)
def test_empty_cells_may_be_called_either(kind):
    summary = summarise(kind(np.zeros((3, 4), np.float32)))
    assert (summary.maximum, summary.whole, summary.cell_sum) == (0.0, True, 0.0)
    for scale in ("counts", "log1p"):
        assert decide_scale(summary, scale, all_genes=True) == scale
    assert decide_scale(summary, "auto", all_genes=False) == "log1p"


def test_zeros_and_ones_may_be_called_either():
    summary = summarise(np.eye(4, dtype=np.float32))
    assert decide_scale(summary, "log1p", all_genes=True) == "log1p"
    assert decide_scale(summary, "counts", all_genes=True) == "counts"


@pytest.mark.parametrize(
    ("bad", "word"), [(-0.5, "-0.5"), (-3, "-3"), (math.nan, "NaN"), (math.inf, "infinite"), (-math.inf, "infinite")]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_impossible_value_is_enough(bad, word, dtype):
    values = np.ones((5, 6), dtype)
    check_finite(values)
    values[3, 2] = bad
    with pytest.raises(ScaleError, match=word):
        check_finite(values)


def test_nan_beside_infinity_is_still_refused():
    with pytest.raises(ScaleError):
        check_finite(np.array([math.nan, math.inf, -1.0]))
    check_finite(np.zeros((0, 3)))
    check_finite(np.array([0, 1, 2], np.uint8))

"""Mantel tests: the same r as scikit-bio, the same null as plain loops, exact p by enumeration, and bad input."""

from __future__ import annotations

import doctest
import inspect
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import binom, chi2, rankdata, spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.gates import mantel, partial_mantel
from manifoldzoo.gates._gate_data import GateData
from manifoldzoo.gates.nulls import _mantel
from manifoldzoo.gates.nulls._mantel_kernel import draw_orders, permuted_products
from manifoldzoo.gates.rungs._mantel_records import mantel_records
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings


def euclidean(n, seed, d=3):
    """Distances of random points."""
    points = np.random.default_rng(seed).standard_normal((n, d))
    found = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    return (found + found.T) / 2


def ruler(n, seed, n_stages=5):
    """Distances of stages on a line."""
    stage = np.random.default_rng(seed).integers(n_stages, size=n)
    return np.abs(stage[:, None] - stage[None]).astype(float)


def drawn(blocks, count, seed):
    """The permutations that a test with this seed makes."""
    return np.concatenate(list(draw_orders(np.asarray(blocks), count, rng=np.random.default_rng(seed))))


def upper(matrix):
    return matrix[np.triu_indices(len(matrix), 1)]


def looped(x, y, orders, method="pearson"):
    """Correlation under each permutation, the plain way."""
    rank = rankdata if method == "spearman" else np.asarray
    return np.array([np.corrcoef(rank(upper(x[np.ix_(o, o)])), rank(upper(y)))[0, 1] for o in orders])


def looped_partial(x, y, z, orders, method="pearson", raw=False):
    """Partial correlation under each permutation, by least squares on all pairs."""
    rank = rankdata if method == "spearman" else np.asarray
    n = len(x)
    design = np.stack([np.ones(n * (n - 1) // 2), *(rank(upper(each)) for each in z)], axis=1)

    def rest(column):
        return column - design @ np.linalg.lstsq(design, column, rcond=None)[0]

    def square(column):
        matrix = np.zeros((n, n))
        matrix[np.triu_indices(n, 1)] = column
        return matrix + matrix.T

    moved = square(rank(upper(x)) if raw else rest(rank(upper(x))))
    of_y = rest(rank(upper(y)))
    found = []
    for order in orders:
        column = upper(moved[np.ix_(order, order)])
        found.append(np.corrcoef(rest(column) if raw else column, of_y)[0, 1])
    return np.array(found)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("n", [3, 4, 11, 40])
def test_same_r_as_scikit_bio_and_p_within_chance(method, n):
    skbio = pytest.importorskip("skbio.stats.distance")
    x, y = euclidean(n, 0), euclidean(n, 1) + 0.4 * euclidean(n, 0)
    # spares the compiling of its other engine
    engine = {"engine": "cython"} if "engine" in inspect.signature(skbio.mantel).parameters else {}
    for alternative in ("greater", "less", "two-sided"):
        ours = mantel(x, y, method=method, alternative=alternative, n_permutations=4000, rng=np.random.default_rng(2))
        r, p, size = skbio.mantel(x, y, method=method, permutations=4000, seed=3, alternative=alternative, **engine)
        assert ours.statistic == pytest.approx(r, abs=1e-12)
        assert ours.n == size
        # scikit-bio tells equal correlations apart by their rounding, and small matrices have many
        if n > 4:
            # four standard errors of the difference of two counts
            assert abs(ours.p_value - p) < 4 * np.sqrt(2 * p * (1 - p) / 4000) + 1e-9


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("n", [5, 6, 17])
@pytest.mark.parametrize("blocked", [False, True])
def test_same_null_as_a_loop_over_the_same_permutations(method, n, blocked):
    x, y = euclidean(n, 4), ruler(n, 5)
    blocks = np.arange(n) % 3 if blocked else np.zeros(n, dtype=int)
    result = mantel(x, y, blocks=blocks, method=method, n_permutations=31, rng=np.random.default_rng(6))
    expected = looped(x, y, drawn(blocks, 31, 6), method)
    np.testing.assert_allclose(result.null, expected, atol=1e-13, rtol=0)
    assert result.statistic == pytest.approx(looped(x, y, [np.arange(n)], method)[0], abs=1e-13)
    assert result.p_value == (1 + (expected >= result.statistic - 1e-12).sum()) / 32


@pytest.mark.parametrize("method", ["pearson", "spearman"])
@pytest.mark.parametrize("permute", ["residuals", "raw"])
@pytest.mark.parametrize("n_z", [1, 2])
def test_partial_null_is_that_of_least_squares(method, permute, n_z):
    n = 14
    z = [euclidean(n, 10), ruler(n, 11)][:n_z]
    x, y = euclidean(n, 12) + z[0], euclidean(n, 13) + z[0]
    blocks = np.arange(n) % 2
    options = {"blocks": blocks, "method": method, "permute": permute, "n_permutations": 29}
    for given_z in (z, np.stack(z)):
        result = partial_mantel(x, y, given_z, rng=np.random.default_rng(7), **options)
        expected = looped_partial(x, y, z, drawn(blocks, 29, 7), method, raw=permute == "raw")
        np.testing.assert_allclose(result.null, expected, atol=1e-12, rtol=0)
        own = looped_partial(x, y, z, [np.arange(n)], method)[0]
        assert result.statistic == pytest.approx(own, abs=1e-12)


def test_partial_correlation_of_three_by_the_formula():
    x, y, z = euclidean(9, 1), euclidean(9, 2), euclidean(9, 3)
    xy, xz, yz = (np.corrcoef(upper(a), upper(b))[0, 1] for a, b in ((x, y), (x, z), (y, z)))
    found = partial_mantel(x, y, z, n_permutations=1, rng=np.random.default_rng(0)).statistic
    assert found == pytest.approx((xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2)), abs=1e-13)
    assert partial_mantel(x, y, z.tolist(), n_permutations=1, rng=np.random.default_rng(0)).statistic == found


def test_what_z_explains_is_taken_away():
    z = euclidean(30, 0)
    x, y = z + 0.1 * euclidean(30, 1), z + 0.1 * euclidean(30, 2)
    rng = np.random.default_rng(0)
    assert mantel(x, y, n_permutations=999, rng=rng).p_value == 0.001
    assert partial_mantel(x, y, z, n_permutations=999, rng=rng).p_value > 0.05


def test_labels_that_blocks_keep_make_no_difference_to_what_is_permuted():
    n = 20
    donor = np.arange(n) % 4
    study = donor % 2
    z = [(label[:, None] != label[None]).astype(float) for label in (donor, study)]
    x, y = euclidean(n, 1) + z[0], ruler(n, 2) + z[1]
    for method in ("pearson", "spearman"):
        first, second = (
            partial_mantel(
                x, y, z, blocks=donor, method=method, permute=each, n_permutations=99, rng=np.random.default_rng(3)
            )
            for each in ("residuals", "raw")
        )
        np.testing.assert_allclose(first.null, second.null, atol=1e-12, rtol=0)


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("blocks", [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], ["a", "b", "a", "b", "a", "b"]])
def test_p_is_that_of_all_arrangements(alternative, blocks):
    x, y = euclidean(6, 21), ruler(6, 22, n_stages=4)
    labels = np.asarray(blocks)
    orders = [o for o in itertools.permutations(range(6)) if (labels[list(o)] == labels).all()]
    every = looped(x, y, np.array(orders))
    sign = {"greater": every, "less": -every, "two-sided": np.abs(every)}[alternative]
    exact = float((sign >= sign[orders.index(tuple(range(6)))] - 1e-12).mean())
    result = mantel(x, y, blocks=labels, alternative=alternative, n_permutations=20_000, rng=np.random.default_rng(1))
    count = round(result.p_value * 20_001) - 1
    assert binom.ppf(1e-5, 20_000, exact) <= count <= binom.ppf(1 - 1e-5, 20_000, exact)
    # as many different nulls as there are arrangements of what is not equal
    assert len(np.unique(np.round(every, 10))) <= round(10**result.log10_arrangements) <= len(orders)


@pytest.mark.parametrize("seed", range(8))
def test_correlations_that_differ_by_rounding_alone_are_equal(seed):
    x, y = euclidean(4, seed), euclidean(4, seed + 100)
    # ranks are whole numbers, so that sums of their products are exact
    first, second = (np.zeros((4, 4)) for _ in range(2))
    for ranks, matrix in ((first, x), (second, y)):
        ranks[np.triu_indices(4, 1)] = rankdata(upper(matrix))
        ranks += ranks.T
    sums = [(upper(first[np.ix_(o, o)]) * upper(second)).sum() for o in itertools.permutations(range(4))]
    exact = float((np.array(sums) >= sums[0]).mean())
    result = mantel(x, y, method="spearman", n_permutations=5000, rng=np.random.default_rng(0))
    count = round(result.p_value * 5001) - 1
    assert binom.ppf(1e-5, 5000, exact) <= count <= binom.ppf(1 - 1e-5, 5000, exact)


def test_equal_rows_are_one_arrangement():
    stage = np.array([0, 0, 0, 1, 1, 3])
    y = np.abs(stage[:, None] - stage[None]).astype(float)
    result = mantel(euclidean(6, 0), y, n_permutations=9, rng=np.random.default_rng(0))
    assert 10**result.log10_arrangements == pytest.approx(60)
    # what stands on the diagonal is no distance
    marked = mantel(euclidean(6, 0), y + np.diag(stage + 1.0), n_permutations=9, rng=np.random.default_rng(0))
    assert marked.log10_arrangements == result.log10_arrangements
    blocks = [0, 0, 0, 0, 1, 1]
    blocked = mantel(euclidean(6, 0), y, blocks=blocks, n_permutations=9, rng=np.random.default_rng(0))
    assert 10**blocked.log10_arrangements == pytest.approx(4 * 2)
    assert "8 distinct arrangements" in blocked.undecidable(0.05)
    assert blocked.undecidable(1 / 8) == ""
    assert "9 permutations" in result.undecidable(0.05)
    assert (
        mantel(euclidean(9, 0), ruler(9, 0), n_permutations=999, rng=np.random.default_rng(0)).undecidable(0.001) == ""
    )


def test_blocks_of_one_leave_nothing_to_compare():
    result = mantel(euclidean(7, 0), euclidean(7, 0), blocks=range(7), n_permutations=50, rng=np.random.default_rng(0))
    assert result.statistic == pytest.approx(1) and result.p_value == 1
    assert "1 distinct arrangements" in result.undecidable(0.05)


def test_every_arrangement_has_the_same_chance():
    blocks = np.array([1, 0, 1, 0, 1, 2])
    orders = drawn(blocks, 12_000, 0)
    assert (blocks[orders] == blocks).all()
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 12
    assert ((counts - 1000) ** 2 / 1000).sum() < chi2.ppf(1 - 1e-4, 11)


def test_neither_rounds_nor_threads_change_a_result():
    blocks = np.arange(23) % 4
    whole = drawn(blocks, 100, 3)
    rounds = draw_orders(blocks, 100, rng=np.random.default_rng(3), round_size=7)
    np.testing.assert_array_equal(np.concatenate(list(rounds)), whole)
    x, y = euclidean(23, 0), euclidean(23, 1)
    many = drawn(blocks, 701, 4)
    one = permuted_products(x, y, many)
    np.testing.assert_allclose(one, [(upper(x[np.ix_(o, o)]) * upper(y)).sum() for o in many], rtol=1e-12)
    for threads in (2, 3, 8):
        assert permuted_products(x, y, many, n_threads=threads).tobytes() == one.tobytes()
    few, more = (
        mantel(x, y, blocks=blocks, n_permutations=count, rng=np.random.default_rng(3), n_threads=threads)
        for count, threads in ((51, 1), (2500, 2))
    )
    assert few.null.tobytes() == more.null[:51].tobytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 12), st.integers(1, 9), st.integers(0, 10**6))
def test_products_are_sums_over_pairs(n, count, seed):
    rng = np.random.default_rng(seed)
    x, y = (np.triu(rng.integers(-9, 9, size=(n, n)), 1).astype(float) for _ in range(2))
    x, y = x + x.T, y + y.T
    orders = np.stack([rng.permutation(n) for _ in range(count)]).astype(np.uint32)
    expected = [(upper(x[np.ix_(o, o)]) * upper(y)).sum() for o in orders]
    assert permuted_products(x, y, orders, n_threads=2).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 10), st.integers(0, 10**6), st.floats(0.01, 100))
def test_neither_scale_nor_shift_nor_diagonal_nor_side_matters(n, seed, scale):
    x, y = euclidean(n, seed), euclidean(n, seed + 1)
    first = mantel(x, y, n_permutations=20, rng=np.random.default_rng(0))
    second = mantel(scale * x + 3 * np.eye(n) + 1, y, n_permutations=20, rng=np.random.default_rng(0))
    np.testing.assert_allclose(second.null, first.null, atol=1e-9)
    turned = mantel(y, x, n_permutations=20, rng=np.random.default_rng(0))
    assert turned.statistic == pytest.approx(first.statistic, abs=1e-12)


def test_memory_does_not_grow_with_permutations_times_pairs():
    x = euclidean(200, 0)
    tracemalloc.start()
    mantel(x, x**2, n_permutations=6000, rng=np.random.default_rng(0), n_threads=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # 6000 permutations take 10 MB, as many matrices 2 GB
    assert peak < 9e6


def test_the_example_prints_what_it_says():
    assert doctest.testmod(_mantel).failed == 0 < doctest.testmod(_mantel).attempted


GOOD = {"x": euclidean(5, 0), "y": euclidean(5, 1)}


def broken(value):
    matrix = euclidean(5, 0)
    matrix[1, 2] = matrix[2, 1] = value
    return matrix


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": np.ones((4, 5))}, r"x has shape \(4, 5\)"),
        ({"y": np.ones(5)}, r"y has shape \(5,\)"),
        ({"x": np.zeros((2, 2))}, "x has 2 rows"),
        ({"x": broken(np.nan)}, "x holds 2 values that are not finite"),
        ({"y": broken(np.inf)}, "y holds 2 values that are not finite"),
        ({"x": np.arange(25.0).reshape(5, 5)}, "x is not symmetric: mirrored entries differ by up to 16"),
        ({"y": np.full((5, 5), 0.1)}, "y is 0.1 for every pair"),
        ({"x": np.eye(5)}, "x is 0 for every pair"),
        ({"y": euclidean(6, 0)}, "y has 6 rows and x 5"),
        ({"blocks": [1, 2]}, r"blocks have shape \(2,\)"),
        ({"method": "kendall"}, "method is 'kendall'"),
        ({"alternative": "more"}, "alternative is 'more'"),
        ({"n_permutations": 0}, "n_permutations is 0"),
    ],
)
def test_bad_arguments_are_named(change, match):
    arguments = {**GOOD, "rng": np.random.default_rng(0), "n_permutations": 5, **change}
    with pytest.raises(BadInputError, match=match):
        mantel(**arguments)
    with pytest.raises(BadInputError, match=match):
        partial_mantel(**arguments, z=euclidean(5, 7))


@pytest.mark.parametrize(
    ("z", "match"),
    [
        ([], "z holds 0 matrices"),
        (euclidean(5, 0), "z explains x"),
        (2 * euclidean(5, 1) + 1, "z explains y"),
        ([euclidean(5, 3), np.ones((5, 5))], r"z\[1\] is 1 for every pair"),
        ([euclidean(5, 3), euclidean(4, 3)], r"z\[1\] has 4 rows and x 5"),
    ],
)
def test_bad_z_is_named(z, match):
    for permute in ("residuals", "raw"):
        with pytest.raises(BadInputError, match=match):
            partial_mantel(**GOOD, z=z, permute=permute, n_permutations=5, rng=np.random.default_rng(0))
    with pytest.raises(BadInputError, match="permute is 'rows'"):
        partial_mantel(**GOOD, z=z, permute="rows", n_permutations=5, rng=np.random.default_rng(0))


def panel(n=30, latent_noise=0.2, donors=3):
    """A panel whose latents follow its ruler, but for noise, and differ between donors."""
    rng = np.random.default_rng(0)
    stage = rng.integers(6, size=n)
    donor = np.arange(n) % donors
    angle = stage / 6 * np.pi / 2
    latent = np.stack([np.cos(angle), np.sin(angle), 0.3 * donor], axis=1) + latent_noise * rng.standard_normal((n, 3))
    data = GateData(
        features=rng.standard_normal((n, 4)),
        expression=rng.standard_normal((n, 4)),
        stage=[str(each) for each in stage],
        distances=np.abs(stage[:, None] - stage[None]).astype(float),
        branch=["b"] * n,
        donor=[str(each) for each in donor],
        tissue=["blood"] * n,
        study=["s"] * n,
    )
    return data, latent


def test_records_warn_and_never_decide():
    data, latent = panel()
    simple, partial = mantel_records(data, latent, seed=5, n_permutations=1999)
    assert [record.gate for record in (simple, partial)] == ["mantel", "partial_mantel"]
    for record in (simple, partial):
        assert not record.decides and "not refitted" in str(record.details["warning"])
        assert record.status == "pass" and record.statistic == 1 / 2000 and record.threshold == 0.001
        assert record.null is not None and record.null.n == 1999 and record.seed == 5
    # study and tissue are the same for all
    assert partial.details["held_fixed"] == "donor"
    assert partial.details["observed"] > simple.details["observed"]
    assert mantel_records(data, latent, seed=5, n_permutations=1999) == [simple, partial]
    rotated = latent @ np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    assert mantel_records(data, rotated, seed=5, n_permutations=1999)[0].statistic == simple.statistic


def test_distances_of_a_geodesic_head_are_euclidean_and_no_labels_were_fitted():
    data, latent = panel()
    settings = GeodesicSettings(n_components=3)
    simple, _ = mantel_records(data, latent + 3, seed=5, n_permutations=199, settings=settings)
    upper = np.triu_indices(len(latent), 1)
    expected = spearmanr(cdist(latent, latent)[upper], np.asarray(data.distances)[upper]).statistic
    assert simple.details["observed"] == pytest.approx(expected)
    assert "nothing was fitted to these labels" in str(simple.details["warning"])
    enough, _ = mantel_records(data, latent, seed=5, n_permutations=1999, settings=settings)
    assert enough.null is not None and "distances permuted" in enough.null.kind


def test_records_that_cannot_decide_say_why():
    data, latent = panel(donors=30)
    simple, partial = mantel_records(data, latent, seed=5)
    assert simple.status == partial.status == "cannot decide"
    assert "1 distinct arrangements" in simple.reason
    # every anchor its own donor: whether donors differ is the same for every pair
    assert "for every pair of anchors" in partial.reason
    few, _ = mantel_records(*panel(), seed=5, n_permutations=99)
    assert few.status == "cannot decide" and "99 permutations" in few.reason and not few.decides

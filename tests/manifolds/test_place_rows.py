from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tiny import tiny_manifold, tiny_manifold_with_tasks

from manifoldzoo.cards._errors import ScaleError
from manifoldzoo.manifolds import _project
from manifoldzoo.manifolds._genes import GeneTable, align_genes
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._place_rows import PlacingTable, log_normalise_rows
from manifoldzoo.manifolds._project import Projection
from manifoldzoo.manifolds._scale import log_normalise
from manifoldzoo.manifolds._stored_rows import StoredRows
from manifoldzoo.manifolds._transform import transform

SCORED, PLAIN = tiny_manifold_with_tasks(), tiny_manifold()
SYMBOLS = list(PLAIN.genes.symbols)


def rows_of(n_columns, seed=0):
    """Rows of 0, 1, 2 ... stored values, in no order."""
    rng = np.random.default_rng(seed)
    lengths = np.arange(n_columns + 1)
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.concatenate([rng.permutation(n_columns)[:length] for length in lengths]).astype(np.int32)
    data = rng.gamma(2.0, 1.0, len(indices)).astype(np.float32)
    return sparse.csr_matrix((data, indices, pointers.astype(np.int32)), shape=(n_columns + 1, n_columns))


def projection_of(manifold, names):
    return Projection.of(manifold, align_genes(names, manifold.genes), len(names))


def one_by_one(made, projection):
    """Every product and every sum of a row rounded to float32, one after the other."""
    found = []
    for row in range(made.shape[0]):
        sums = np.zeros(projection.linear.shape[1] + projection.squares.shape[1], np.float32)
        for place in range(made.indptr[row], made.indptr[row + 1]):
            value, column = made.data[place], made.indices[place]
            parts = [value * projection.linear[column], value * value * projection.squares[column]]
            sums = sums + np.concatenate(parts)
        found.append(sums)
    return projection.finish(np.stack(found))


NAMES = {
    "every column known": SYMBOLS,
    "some unknown": [name for i, name in enumerate(SYMBOLS) for name in (name, *[f"OTHER{i}"] * (i % 3 == 0))],
}


@pytest.mark.parametrize("manifold", [SCORED, PLAIN], ids=["scored", "plain"])
@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize("index", [np.int32, np.int64])
def test_it_is_the_sum_of_products_one_after_the_other_to_the_last_bit(manifold, names, index):
    made, projection = rows_of(len(names)), projection_of(manifold, names)
    expected = one_by_one(made, projection)
    made.indices = made.indices.astype(index)
    rows = StoredRows.of(made).between(0, made.shape[0])
    table = PlacingTable.of(projection)
    got = table.place(rows, rows.data)
    assert got.dtype == np.float32
    assert got.shape == (made.shape[0], 5 if manifold is SCORED else 3)
    np.testing.assert_array_equal(got, expected)
    assert table.table.ctypes.data % 64 == 0
    assert table.table.shape[1] % 16 == 0


def test_scores_are_the_largest_cosines():
    made, projection = rows_of(40), projection_of(SCORED, SYMBOLS)
    rows = StoredRows.of(made).between(0, 41)
    got = PlacingTable.of(projection).place(rows, rows.data)[:, 3]
    x, anchors = made.toarray().astype(np.float64), SCORED.tensors["panel.anchors"].astype(np.float64)
    stage = np.array(SCORED.anchor_stages)
    centroids = np.stack([anchors[stage == name].mean(axis=0) for name in sorted(set(stage))])
    lengths = np.linalg.norm(x, axis=1, keepdims=True) * np.linalg.norm(centroids, axis=1)
    cosines = np.divide(x @ centroids.T, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    np.testing.assert_allclose(got, cosines.max(axis=1), atol=1e-6)
    assert got[0] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64, np.uint16])
def test_counts_become_logarithms_as_elsewhere_to_the_last_bit(dtype):
    made = rows_of(40)
    made.data = np.ceil(made.data).astype(dtype)
    rows = StoredRows.of(made).between(0, 41)
    expected = log_normalise(made, np.asarray(made.sum(axis=1, dtype=np.float64)).ravel())
    np.testing.assert_array_equal(log_normalise_rows(rows), expected.data)


def cells(matrix):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(matrix.shape[0])])
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=SYMBOLS))


def both_ways(matrix, monkeypatch, manifold=SCORED, **options):
    """Results with scipy's products, and compiled."""
    found = []
    for many in (10**9, 0):
        monkeypatch.setattr(_project, "_MANY", many)
        adata = matrix() if callable(matrix) else cells(matrix)
        manifold.transform(adata, **options)
        found.append(adata)
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("backed", [False, True], ids=["memory", "backed"])
def test_a_transform_is_the_same_compiled(dtype, backed, monkeypatch, tmp_path):
    monkeypatch.setattr(_project, "CHUNK", 8)
    made, scale = rows_of(40), "log1p"
    made.sort_indices()
    if dtype == np.int64:
        made.data, scale = np.ceil(made.data), "counts"
    adata = cells(made.astype(dtype))
    if backed:
        adata.write_h5ad(tmp_path / "in.h5ad")
    plain, compiled = both_ways(
        (lambda: ad.read_h5ad(tmp_path / "in.h5ad", backed="r")) if backed else made.astype(dtype),
        monkeypatch,
        scale=scale,
    )
    for key in plain.obsm:
        np.testing.assert_allclose(compiled.obsm[key], plain.obsm[key], rtol=1e-5, atol=1e-6)
    pd.testing.assert_frame_equal(compiled.obs, plain.obs, rtol=1e-5, atol=1e-6)
    assert len(plain.obs.columns) == 7


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_one_impossible_value_is_refused(bad, monkeypatch):
    monkeypatch.setattr(_project, "_MANY", 0)
    values = np.log1p(np.random.default_rng(0).poisson(2.0, (700, 40)).astype(np.float32))
    values[150, 3] = bad
    with pytest.raises(ScaleError):
        PLAIN.transform(cells(sparse.csr_matrix(values)))


def test_two_genes_on_one_column_are_left_to_other_products(monkeypatch):
    ensembl = (*SCORED.genes.ensembl[:2], SCORED.genes.ensembl[1], *SCORED.genes.ensembl[3:])
    manifold = Manifold.build(SCORED.card, GeneTable(SCORED.genes.symbols, ensembl), SCORED.tensors, SCORED.vectors)
    names = [name for name in dict.fromkeys(ensembl) if name]
    assert PlacingTable.of(projection_of(manifold, names)) is None
    monkeypatch.setattr(_project, "_MANY", 0)
    adata = ad.AnnData(np.abs(rows_of(len(names))))
    adata.var_names, adata.obs_names = names, [f"c{i}" for i in range(adata.n_obs)]
    with pytest.warns(Warning, match="genes"):
        manifold.transform(adata, scale="log1p")
    assert np.isfinite(adata.obsm["X_tiny"]).all()


@pytest.mark.parametrize("many", [0, 10**9], ids=["compiled", "scipy"])
def test_any_number_of_threads_finds_the_same_to_the_last_bit(many, monkeypatch):
    monkeypatch.setattr(_project, "_MANY", many)
    monkeypatch.setattr(_project, "CHUNK", 64)
    monkeypatch.setattr(_project, "_STORED", 700)
    values = sparse.csr_matrix(np.log1p(np.random.default_rng(0).poisson(1.0, (1500, 40)).astype(np.float32)))
    found = []
    for n in (1, 2, 5):
        monkeypatch.setattr(_project, "n_threads", lambda n=n: n)
        adata, done = cells(values), []
        transform(SCORED, adata, scale="log1p", progress=done.append)
        assert sum(done) == 1500
        assert len(done) > 20
        found.append(adata)
    for other in found[1:]:
        pd.testing.assert_frame_equal(found[0].obs, other.obs, check_exact=True)
        for key in found[0].obsm:
            np.testing.assert_array_equal(found[0].obsm[key], other.obsm[key])


def test_an_error_ends_the_work_on_what_is_left():
    asked = []

    def pieces():
        for piece in range(10_000):
            asked.append(piece)
            yield piece

    def work(piece):
        if piece == 3:
            raise ScaleError("bad")
        return 1

    with pytest.raises(ScaleError, match="bad"):
        _project._in_threads(work, pieces(), 10**9, None)
    assert len(asked) <= 4 + 3 * _project.n_threads()

from __future__ import annotations

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny import D, tiny_manifold

from manifoldzoo.cards._errors import (
    BadInputError,
    CoverageWarning,
    GeneError,
    LowCoverageError,
    ScaleError,
    ScaleWarning,
    ZooWarning,
)
from manifoldzoo.manifolds import _project, _transform
from manifoldzoo.manifolds._genes import GeneTable, align_genes
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._project import Projection
from manifoldzoo.manifolds._transform import transform

N_CELLS = 23
MANIFOLD = tiny_manifold()
SYMBOLS = list(MANIFOLD.genes.symbols)


def counts(n=N_CELLS, seed=0):
    """Counts of every gene of the manifold and of 15 others, columns shuffled; one cell is empty."""
    rng = np.random.default_rng(seed)
    names = SYMBOLS + [f"OTHER{i}" for i in range(15)]
    values = rng.poisson(rng.gamma(0.7, 5.0, len(names)), (n, len(names))).astype(np.float32)
    values[n // 2] = 0
    order = rng.permutation(len(names))
    return values[:, order], [names[i] for i in order]


def logged(n=N_CELLS, seed=0):
    values, names = counts(n, seed)
    totals = values.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.log1p(values * (1e4 / np.maximum(totals, 1))).astype(np.float32), names


def expected_latent(values, names, manifold=MANIFOLD):
    """Brute force: gene by gene, in float64."""
    latent = np.tile(manifold.tensors["offset"].astype(np.float64), (len(values), 1))
    for gene, row in zip(manifold.genes.symbols, manifold.tensors["projection"], strict=True):
        if gene in names:
            latent += np.outer(values[:, names.index(gene)].astype(np.float64), row.astype(np.float64))
    return latent


def cells(values, names, kind=np.asarray):
    matrix = kind(values)
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(values.shape[0])])
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=names))


def placed(adata, **options):
    assert MANIFOLD.transform(adata, **options) is None
    return adata.obsm["X_tiny"]


def close(latent, expected):
    np.testing.assert_allclose(latent, expected, rtol=1e-4, atol=2e-4)


def on_disk(kind):
    def make(values):
        return kind(values)

    make.backed = True
    return make


def dask_sparse(values):
    return da.from_array(values, chunks=(5, -1)).map_blocks(sparse.csr_matrix)


KINDS = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
    "backed-dense": on_disk(np.asarray),
    "backed-csr": on_disk(sparse.csr_matrix),
    "backed-csc": on_disk(sparse.csc_matrix),
    "dask-rows": lambda v: da.from_array(v, chunks=(7, -1)),
    "dask-both": lambda v: da.from_array(v, chunks=(7, 11)),
    "dask-csr": dask_sparse,
}


@pytest.fixture(params=KINDS)
def stored(request, tmp_path):
    """A function that stores values as one kind of matrix, in memory or on disk."""
    kind = KINDS[request.param]

    def store(values, names, **layers):
        adata = cells(values, names, kind)
        for name, layer in layers.items():
            adata.layers[name] = kind(layer)
        if not getattr(kind, "backed", False):
            return adata
        adata.write_h5ad(tmp_path / "cells.h5ad")
        return ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")

    return store


@pytest.fixture(params=[3, 8, 16_384], ids=lambda n: f"chunk{n}")
def chunk(request, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", request.param)
    monkeypatch.setattr(_project, "_WIDTH", 5)


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_in_any_storage_give_the_brute_force_latents(stored, dtype):
    values, names = logged()
    latent = placed(stored(values.astype(dtype), names))
    assert latent.dtype == np.float32
    assert latent.shape == (N_CELLS, D)
    close(latent, expected_latent(values, names))


@pytest.mark.usefixtures("chunk")
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_counts_in_any_storage_give_the_latents_of_their_logarithms(stored, dtype):
    values, names = counts()
    adata = stored(values.astype(dtype), names)
    latent = placed(adata, scale="counts")
    close(latent, expected_latent(*logged()))
    assert adata.uns["tiny"]["scale"] == "counts"


def test_counts_unasked_are_normalised_with_a_warning(stored):
    values, names = counts()
    with pytest.warns(ScaleWarning, match="counts") as caught:
        latent = placed(stored(values, names))
    close(latent, expected_latent(*logged()))
    assert len([warning for warning in caught if issubclass(warning.category, ScaleWarning)]) == 1


def test_raw_counts_announced_as_logarithms_are_refused(stored):
    values, names = counts()
    adata = stored(values, names)
    with pytest.raises(ScaleError, match=f"{values.max():g}"):
        MANIFOLD.transform(adata, scale="log1p")
    assert not adata.obsm
    assert "tiny" not in adata.uns


def test_logarithms_announced_as_counts_are_refused(stored):
    values, names = logged()
    adata = stored(values, names)
    with pytest.raises(ScaleError, match="counts"):
        MANIFOLD.transform(adata, scale="counts")
    assert not adata.obsm


def test_normalised_values_without_logarithm_are_refused(stored):
    values, names = logged()
    with pytest.raises(ScaleError, match=f"{np.expm1(values).max():.4g}"):
        MANIFOLD.transform(stored(np.expm1(values), names))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("gene", ["GENE7", "OTHER3"])
def test_one_impossible_value_anywhere_is_refused(stored, bad, gene, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", 4)
    monkeypatch.setattr(_transform, "_SAMPLE", 4)
    values, names = logged()
    values[-2, names.index(gene)] = bad
    adata = stored(values, names)
    with pytest.raises(ScaleError):
        MANIFOLD.transform(adata)
    assert not adata.obsm


def test_scale_is_recognised_where_the_first_columns_and_rows_are_empty(stored, monkeypatch):
    monkeypatch.setattr(_transform, "_SAMPLE", 8)
    values, names = counts()
    values[:3] = 0
    empty = np.zeros((N_CELLS, 300), np.float32)
    with pytest.warns(ScaleWarning, match="counts"):
        wide = placed(stored(np.hstack([empty, values]), [f"E{i}" for i in range(300)] + names))
    close(wide, expected_latent(np.log1p(values * (1e4 / np.maximum(values.sum(axis=1, keepdims=True), 1))), names))


def test_scale_is_recognised_where_the_first_values_are_whole(stored, monkeypatch):
    monkeypatch.setattr(_transform, "_STORED", 8)
    values, names = logged()
    latent = placed(stored(np.hstack([np.full((N_CELLS, 1), 2, np.float32), values]), ["E", *names]))
    close(latent, expected_latent(values, names))


def test_a_layer_is_read_instead_of_x(stored):
    values, names = logged()
    adata = stored(np.zeros_like(values), names, mine=values)
    close(placed(adata, layer="mine"), expected_latent(values, names))


def test_the_matrix_is_left_as_it_was():
    for kind in ("dense", "csr", "csc"):
        values, names = counts()
        adata = cells(values, names, KINDS[kind])
        placed(adata, scale="counts")
        found = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
        np.testing.assert_array_equal(found, counts()[0])


@settings(deadline=None, max_examples=40)
@given(
    st.data(),
    st.sampled_from(["dense", "csr", "csc", "dask-both"]),
    st.integers(1, 9),
    st.integers(1, 40),
    st.booleans(),
)
def test_any_order_any_extra_genes_any_chunk_any_number_of_cells(data, kind, chunk, n, raw):
    values, names = counts(n, seed=n) if raw else logged(n, seed=n)
    order = data.draw(st.permutations(range(len(names))))
    kept = [i for i in order if names[i] in SYMBOLS or data.draw(st.booleans())]
    # a total over other genes is another scale, so extra genes may come and go in logarithms only
    order = order if raw else kept
    adata = cells(values[:, order], [names[i] for i in order], KINDS[kind])
    before = _project.CHUNK
    try:
        _project.CHUNK = chunk
        latent = placed(adata, scale="counts" if raw else "log1p")
    finally:
        _project.CHUNK = before
    close(latent, expected_latent(*logged(n, seed=n)))


@pytest.mark.parametrize("size", [1, 128, 511, 512, 513, 1500])
@pytest.mark.parametrize("kind", ["csr", "dense", "dask-rows"])
def test_more_cells_than_are_sampled(size, kind):
    values, names = logged(size)
    close(placed(cells(values, names, KINDS[kind])), expected_latent(values, names))


def test_missing_genes_count_as_zero_and_are_reported(stored):
    values, names = logged()
    weight = np.linalg.norm(MANIFOLD.tensors["projection"], axis=1)
    light = [SYMBOLS[i] for i in np.argsort(weight)[:5]]
    kept = [i for i, name in enumerate(names) if name not in light]
    adata = stored(values[:, kept], [names[i] for i in kept])
    found = [s not in light for s in SYMBOLS]
    close(placed(adata), expected_latent(values[:, kept], [names[i] for i in kept]))
    said = adata.uns["tiny"]
    assert said["coverage"] == pytest.approx(weight[found].sum() / weight.sum(), rel=1e-6)
    assert said["n_genes_matched"] == 35


def test_coverage_between_floor_and_0_8_warns_in_the_users_file():
    values, names = logged()
    kept = [i for i, name in enumerate(names) if name not in SYMBOLS[:18]]
    with pytest.warns(CoverageWarning) as caught:
        placed(cells(values[:, kept], [names[i] for i in kept]))
    # `placed` above is the caller
    assert [w.filename for w in caught if issubclass(w.category, CoverageWarning)] == [__file__]


def test_every_warning_points_at_the_caller():
    values, names = counts()
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        adata = cells(np.hstack([values, values[:, :1]]), [*names, SYMBOLS[0]])
    with pytest.warns(ZooWarning) as caught:
        placed(adata)
    assert {w.category for w in caught} == {ScaleWarning, ZooWarning}
    assert {w.filename for w in caught} == {__file__}


def test_coverage_below_the_floor_is_refused_and_nothing_written():
    values, names = logged()
    kept = [i for i, name in enumerate(names) if name not in SYMBOLS[3:]]
    adata = cells(values[:, kept], [names[i] for i in kept])
    with pytest.raises(LowCoverageError) as caught:
        MANIFOLD.transform(adata)
    assert caught.value.coverage < caught.value.floor == 0.3
    assert not adata.obsm
    assert not adata.uns


def test_a_transposed_matrix_is_recognised():
    values, names = logged()
    with pytest.raises(GeneError) as caught:
        MANIFOLD.transform(cells(values, names).T)
    assert "adata.T" in caught.value.hint


@pytest.mark.parametrize("suffix", ["", ".7"])
def test_ensembl_ids_are_found_in_names_or_in_a_column(suffix):
    values, names = logged()
    ids = dict(zip(SYMBOLS, MANIFOLD.genes.ensembl, strict=True))
    column = [ids.get(name, "") and ids[name] + suffix for name in names]
    known = np.array([bool(c) for c in column])
    by_id = expected_latent(np.where(known, values, 0), names)
    adata = cells(values, [f"v{i}" for i in range(len(names))])
    adata.var["id"], adata.var["symbol"] = column, pd.Categorical(names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        close(placed(adata, gene_column="id"), by_id)
    assert adata.uns["tiny"]["genes_matched_by"] == "ensembl"
    assert adata.uns["tiny"]["n_genes_matched"] == 32
    close(placed(adata, gene_column="symbol"), expected_latent(values, names))
    assert adata.uns["tiny"]["genes_matched_by"] == "symbol"
    with pytest.raises(GeneError, match="v0"):
        MANIFOLD.transform(adata)


def test_two_genes_on_one_id_share_its_column():
    table = GeneTable(MANIFOLD.genes.symbols, (*MANIFOLD.genes.ensembl[:2], MANIFOLD.genes.ensembl[1], *[""] * 37))
    manifold = Manifold.build(MANIFOLD.card, table, MANIFOLD.tensors, MANIFOLD.vectors)
    found = Projection.of(manifold, align_genes([table.ensembl[1]], table), 1).linear
    np.testing.assert_allclose(found[0], MANIFOLD.tensors["projection"][[1, 2]].sum(axis=0), rtol=1e-6)


def test_every_field_is_written_as_documented():
    values, names = logged()
    adata = cells(values, names)
    placed(adata)
    proba = adata.obsm["tiny_branch_proba"]
    assert set(adata.obsm) == {"X_tiny", "tiny_branch_proba"}
    assert list(adata.obs) == ["tiny_branch"]
    assert list(adata.uns) == ["tiny"]
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    logits = adata.obsm["X_tiny"] @ MANIFOLD.tensors["readout.branch.weights"].T
    np.testing.assert_allclose(np.log(proba / proba[:, :1]), logits - logits[:, :1], rtol=1e-2, atol=1e-3)
    called = adata.obs["tiny_branch"]
    assert list(called.cat.categories) == ["left", "right", "stem"]
    assert called.tolist() == [["left", "right", "stem"][i] for i in logits.argmax(axis=1)]
    assert len(set(called)) > 1
    said = adata.uns["tiny"]
    assert (said["reference"], said["digest"]) == ("tiny@0.1.0", MANIFOLD.digest)
    assert (said["coverage"], said["n_genes_matched"], said["scale"]) == (1.0, 40, "log1p")
    assert list(said["classes"]["branch"]) == ["left", "right", "stem"]


def test_the_result_survives_a_file(stored, tmp_path):
    values, names = logged()
    adata = stored(values, names)
    adata = MANIFOLD.transform(adata, copy=True)
    if hasattr(adata.X, "dask"):
        adata.X = adata.X.compute()
    adata.write_h5ad(tmp_path / "out.h5ad")
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    for key in ("X_tiny", "tiny_branch_proba"):
        np.testing.assert_array_equal(back.obsm[key], adata.obsm[key])
        assert back.obsm[key].dtype == np.float32
    pd.testing.assert_frame_equal(back.obs, adata.obs)
    assert back.uns["tiny"]["digest"] == MANIFOLD.digest
    assert back.uns["tiny"]["coverage"] == 1.0
    assert list(back.uns["tiny"]["classes"]["branch"]) == MANIFOLD.classes("branch")


def test_copy_leaves_the_original_alone(stored):
    values, names = logged()
    adata = stored(values, names)
    changed = MANIFOLD.transform(adata, copy=True)
    assert changed is not adata
    assert not adata.obsm
    assert list(adata.obs) == []
    close(changed.obsm["X_tiny"], expected_latent(values, names))
    assert not changed.isbacked


def test_key_added_names_every_field():
    values, names = logged()
    adata = cells(values, names)
    MANIFOLD.transform(adata, key_added="run-2")
    assert set(adata.obsm) == {"X_run_2", "run_2_branch_proba"}
    assert list(adata.obs) == ["run_2_branch"]
    assert adata.uns["run_2"]["reference"] == "tiny@0.1.0"


@pytest.mark.parametrize("key", ["a/b", "a b", "é"])
def test_a_key_that_would_nest_is_refused_before_any_work(key):
    values, names = logged()
    adata = cells(values, names)
    with pytest.raises(BadInputError, match=key):
        MANIFOLD.transform(adata, key_added=key)
    assert not adata.obsm


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "dask-rows"])
@pytest.mark.parametrize("rows", [slice(3, 15), np.array([9, 2, 2, 5])], ids=["slice", "index"])
def test_views_are_placed_and_become_actual(kind, rows):
    values, names = logged()
    adata = cells(values, names, KINDS[kind])
    part = adata[rows, names[::-1]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        # picking a cell twice makes its name ambiguous
        warnings.filterwarnings("ignore", message="Observation names are not unique")
        latent = placed(part)
    close(latent, expected_latent(values[rows], names))
    assert not part.is_view
    assert not adata.obsm


@pytest.mark.parametrize("kind", ["backed-dense", "backed-csr"])
def test_a_view_of_a_backed_file_is_placed_as_a_copy_only(kind, tmp_path):
    values, names = logged()
    cells(values, names, KINDS[kind]).write_h5ad(tmp_path / "cells.h5ad")
    part = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[3:15]
    with pytest.raises(BadInputError, match="copy=True"):
        MANIFOLD.transform(part)
    close(MANIFOLD.transform(part, copy=True).obsm["X_tiny"], expected_latent(values[3:15], names))


@pytest.mark.parametrize("shape", [(0, 55), (5, 0), (0, 0)])
@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
def test_an_empty_input_is_refused_with_its_shape(shape, kind):
    values, names = logged()
    adata = cells(values[: shape[0], : shape[1]], names[: shape[1]], KINDS[kind])
    with pytest.raises(BadInputError, match=f"{shape[0]} cells x {shape[1]} genes"):
        MANIFOLD.transform(adata)


def test_an_unknown_layer_or_column_is_refused_and_the_known_are_named():
    values, names = logged()
    adata = cells(values, names)
    adata.layers["spliced"], adata.var["symbol"] = values, names
    with pytest.raises(BadInputError, match="counts") as caught:
        MANIFOLD.transform(adata, layer="counts")
    assert "spliced" in str(caught.value)
    with pytest.raises(BadInputError, match="gene_id") as caught:
        MANIFOLD.transform(adata, gene_column="gene_id")
    assert "symbol" in str(caught.value)


def test_an_input_without_x_needs_a_layer():
    values, names = logged()
    adata = cells(values, names)
    adata.layers["mine"] = values
    del adata.X
    with pytest.raises(BadInputError, match="X"):
        MANIFOLD.transform(adata)
    close(placed(adata, layer="mine"), expected_latent(values, names))


def test_all_zero_cells_are_placed_at_the_offset(stored):
    values, names = logged()
    latent = placed(stored(np.zeros_like(values), names), scale="counts")
    np.testing.assert_allclose(latent, np.tile(MANIFOLD.tensors["offset"], (N_CELLS, 1)), rtol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "backed-csr", "backed-csc"])
def test_progress_adds_up_to_the_cells(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", 5)
    values, names = logged()
    adata = cells(values, names, KINDS[kind])
    if kind.startswith("backed"):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    done = []
    transform(MANIFOLD, adata, progress=done.append)
    assert sum(done) == N_CELLS


def test_a_second_transform_replaces_the_first():
    values, names = logged()
    adata = cells(values, names)
    first = placed(adata).copy()
    adata.X = values[::-1].copy()
    close(placed(adata), first[::-1])
    assert list(adata.obs) == ["tiny_branch"]


def test_the_shipped_vectors_are_reproduced_through_anndata():
    adata = cells(MANIFOLD.vectors["input"], SYMBOLS, sparse.csr_matrix)
    close(placed(adata), MANIFOLD.vectors["latent"])
    np.testing.assert_allclose(adata.obsm["tiny_branch_proba"], MANIFOLD.vectors["proba.branch"], rtol=1e-3, atol=1e-4)

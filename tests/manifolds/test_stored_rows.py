from __future__ import annotations

import threading

import anndata as ad
import h5py
import numpy as np
import pytest
from anndata.io import sparse_dataset, write_elem
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny import tiny_manifold

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds import _stored_rows
from manifoldzoo.manifolds._stored_rows import StoredRows
from manifoldzoo.manifolds._transform_file import transform_file

N_ROWS, N_COLUMNS = 60, 11


def matrix(dtype=np.float32, index=np.int32):
    """Rows of very different lengths, the first, the last and some between them empty."""
    rng = np.random.default_rng(0)
    dense = rng.poisson(rng.choice([0.0, 0.1, 3.0], (N_ROWS, 1)), (N_ROWS, N_COLUMNS)).astype(dtype)
    dense[[0, 20, 21, -1]] = 0
    made = sparse.csr_matrix(dense)
    made.indices, made.indptr = made.indices.astype(index), made.indptr.astype(index)
    return made


@pytest.fixture(params=["memory", "array", "plain", "gzip", "wide"])
def stored(request, tmp_path):
    """The rows of one matrix, kept in one of many ways."""
    index = np.int64 if request.param == "wide" else np.int32
    made = matrix(np.float64 if request.param == "wide" else np.float32, index)
    if request.param in ("memory", "array"):
        yield StoredRows.of(sparse.csr_array(made) if request.param == "array" else made)
        return
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_elem(file, "X", made, dataset_kwargs={"compression": "gzip"} if request.param == "gzip" else {})
        yield StoredRows.of(sparse_dataset(file["X"]))


@pytest.mark.parametrize("held", [1, 7, 100])
@pytest.mark.parametrize("limits", [(1, 1), (4, 1000), (1000, 9), (1000, 10**6)])
def test_pieces_are_the_rows_in_order(stored, held, limits, monkeypatch):
    monkeypatch.setattr(_stored_rows, "_POINTERS", held)
    whole, seen = matrix().toarray(), 0
    for start, pointers in stored.pieces(*limits):
        rows = stored.read(start, pointers)
        assert rows.start == start == seen
        np.testing.assert_array_equal(rows.matrix().toarray(), whole[start : start + len(rows)])
        seen += len(rows)
    assert seen == N_ROWS


@pytest.mark.parametrize(("start", "stop"), [(0, 60), (5, 9), (0, 1), (59, 60), (20, 22)])
def test_rows_between_are_those_of_a_slice(stored, start, stop):
    np.testing.assert_array_equal(stored.between(start, stop).matrix().toarray(), matrix()[start:stop].toarray())


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=50), st.integers(1, 8), st.integers(1, 30))
def test_pieces_hold_as_much_as_they_may(lengths, max_rows, max_values):
    pointers = np.concatenate([[0], np.cumsum(lengths)])
    stored = StoredRows(np.zeros(pointers[-1]), np.zeros(pointers[-1], np.int32), pointers, (len(lengths), 1))
    sizes = [len(found) - 1 for _, found in stored.pieces(max_rows, max_values)]
    assert sum(sizes) == len(lengths)
    at = 0
    for size in sizes:
        assert 1 <= size <= max_rows
        held = pointers[at + size] - pointers[at]
        assert held <= max_values or size == 1
        # one row more would have been too much
        if at + size < len(lengths) and size < max_rows:
            assert pointers[at + size + 1] - pointers[at] > max_values
        at += size


def test_a_file_is_read_into_the_same_memory_by_one_thread_and_into_other_memory_by_another(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write_elem(file, "X", matrix())
        stored = StoredRows.of(sparse_dataset(file["X"]))
        first, again = stored.between(0, 60), stored.between(0, 30)
        assert np.shares_memory(first.data, again.data)
        assert np.shares_memory(first.indices, again.indices)
        other = []
        thread = threading.Thread(target=lambda: other.append(stored.between(0, 30)))
        thread.start()
        thread.join()
        assert not np.shares_memory(first.data, other[0].data)


def read_all(stored):
    for piece in stored.pieces(16, 1000):
        stored.read(*piece)


def spoil(group, how):
    if how == "column":
        group["indices"][5] = N_COLUMNS
    elif how == "negative":
        group["indices"][5] = -1
    elif how == "order":
        group["indptr"][3] = group["indptr"][-1]
    elif how == "below":
        group["indptr"][0] = -4
    else:
        name = {"values": "data", "places": "indices", "rows": "indptr"}[how]
        kept = group[name][:-3]
        del group[name]
        group[name] = kept


DAMAGE = {
    "column": "column 11 of 11",
    "negative": "column -1 of 11",
    "order": "ends before it begins",
    "below": "ends before it begins",
    "values": "are there",
    "places": "are there",
    "rows": "of 60 rows 57 are there",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_matrix_is_refused_and_its_file_named(how, tmp_path):
    with h5py.File(tmp_path / "broken.h5", "w") as file:
        write_elem(file, "X", matrix())
        spoil(file["X"], how)
        stored = StoredRows.of(sparse_dataset(file["X"]))
        with pytest.raises(BadInputError, match=DAMAGE[how]) as caught:
            read_all(stored)
    assert "broken.h5" in str(caught.value)


@pytest.mark.parametrize("how", ["column", "order", "values"])
def test_a_damaged_file_is_refused_by_a_transform(how, tmp_path):
    manifold = tiny_manifold()
    cells = ad.AnnData(sparse.csr_matrix(np.log1p(np.random.default_rng(0).poisson(2.0, (700, 40)).astype("f4"))))
    cells.var_names, cells.obs_names = list(manifold.genes.symbols), [f"c{i}" for i in range(700)]
    cells.write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        if how == "column":
            # beyond the cells that are looked at to recognise the scale
            file["X/indices"][file["X/indptr"][150]] = 40
        else:
            spoil(file["X"], how)
    with pytest.raises(BadInputError, match=r"in\.h5ad"):
        transform_file(manifold, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert not (tmp_path / "out.h5ad").exists()

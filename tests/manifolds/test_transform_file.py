from __future__ import annotations

import os
import shutil
import tracemalloc

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tiny import tiny_manifold

from manifoldzoo.cards._errors import BadInputError, GeneError, NotFoundError, ScaleError, ScaleWarning, StoreError
from manifoldzoo.manifolds import _project, _transform_file
from manifoldzoo.manifolds._transform_file import FileTransform, transform_file

N_CELLS = 17
MANIFOLD = tiny_manifold()
SYMBOLS = list(MANIFOLD.genes.symbols)
KINDS = {"dense": np.asarray, "csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def values(seed=0, raw=False):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.7, 5.0, 50), (N_CELLS, 50)).astype(np.float32)
    if raw:
        return counts
    return np.log1p(counts * (1e4 / counts.sum(axis=1, keepdims=True))).astype(np.float32)


def rich(kind=np.asarray, raw=False):
    """Cells with something in every corner of the file."""
    rng = np.random.default_rng(5)
    names = [f"cell{i}" for i in range(N_CELLS)]
    adata = ad.AnnData(
        kind(values(raw=raw)),
        obs=pd.DataFrame(
            {
                "batch": pd.Categorical(rng.choice(["b", "a"], N_CELLS), categories=["b", "a", "unused"]),
                "depth": rng.random(N_CELLS),
                "note": [f"é{i}" for i in range(N_CELLS)],
                "flag": rng.random(N_CELLS) > 0.5,
            },
            index=names,
        ),
        var=pd.DataFrame(
            {"symbol": SYMBOLS + [f"OTHER{i}" for i in range(10)]}, index=SYMBOLS + [f"O{i}" for i in range(10)]
        ),
    )
    adata.layers["mine"], adata.layers["dense"] = kind(values(seed=1)), values(seed=2)
    adata.obsm["X_pca"] = rng.random((N_CELLS, 4))
    adata.obsm["table"] = pd.DataFrame({"a": rng.random(N_CELLS)}, index=names)
    adata.varm["loads"] = rng.random((50, 2))
    adata.obsp["near"] = sparse.random(N_CELLS, N_CELLS, 0.2, format="csr", rng=rng)
    adata.uns["deep"] = {"a": {"b": np.arange(3), "c": "text"}, "n": 1.5}
    adata.raw = adata.copy()
    return adata


@pytest.fixture(params=KINDS)
def source(request, tmp_path):
    rich(KINDS[request.param]).write_h5ad(tmp_path / "in.h5ad", compression="gzip")
    return tmp_path / "in.h5ad"


@pytest.fixture
def plain(tmp_path):
    rich(sparse.csr_matrix).write_h5ad(tmp_path / "in.h5ad")
    return tmp_path / "in.h5ad"


def contents(path):
    """Every dataset and attribute of a file by name, to the byte."""
    found = {}

    def visit(name, item):
        attributes = {
            key: (str(np.asarray(value).dtype), np.asarray(value).tolist()) for key, value in item.attrs.items()
        }
        data = (
            (str(item.dtype), item.shape, repr(np.asarray(item[()]).tolist()))
            if isinstance(item, h5py.Dataset)
            else None
        )
        found[name] = (attributes, data)

    with h5py.File(path) as file:
        visit("", file)
        file.visititems(visit)
    return found


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "home")


@pytest.mark.parametrize("layer", [None, "mine", "dense"])
def test_a_file_is_placed_as_its_cells_in_memory_are(source, tmp_path, layer, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", 5)
    told = transform_file(MANIFOLD, source, tmp_path / "out.h5ad", layer=layer)
    memory = ad.read_h5ad(source)
    MANIFOLD.transform(memory, layer=layer)
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    for key in ("X_tiny", "tiny_branch_proba"):
        assert back.obsm[key].dtype == np.float32
        np.testing.assert_allclose(back.obsm[key], memory.obsm[key], rtol=1e-5, atol=1e-5)
    pd.testing.assert_series_equal(back.obs["tiny_branch"], memory.obs["tiny_branch"])
    assert list(back.obs) == list(memory.obs)
    assert set(back.uns["tiny"]) == set(memory.uns["tiny"])
    assert (back.uns["tiny"]["digest"], back.uns["tiny"]["coverage"]) == (MANIFOLD.digest, 1.0)
    assert isinstance(told, FileTransform)
    assert (told.n_cells, told.obs, sorted(told.obsm)) == (N_CELLS, ["tiny_branch"], ["X_tiny", "tiny_branch_proba"])
    assert told.provenance["digest"] == MANIFOLD.digest
    assert isinstance(back.obs["tiny_branch"].dtype, pd.CategoricalDtype)
    assert list(back.obs["tiny_branch"].cat.categories) == ["left", "right", "stem"]


def test_what_was_there_is_kept_to_the_byte(source, tmp_path):
    before, original = contents(source), source.read_bytes()
    transform_file(MANIFOLD, source, tmp_path / "out.h5ad")
    after = contents(tmp_path / "out.h5ad")
    new = {name for name in after if name not in before}
    assert {name.split("/")[1] for name in new} == {"X_tiny", "tiny_branch_proba", "tiny_branch", "tiny"}
    order = before["obs"][0].pop("column-order"), after["obs"][0].pop("column-order")
    assert order[1][1] == [*order[0][1], "tiny_branch"]
    assert {name: after[name] for name in before} == before
    assert source.read_bytes() == original


def test_raw_counts_are_recognised_in_a_file(tmp_path):
    for kind in KINDS.values():
        rich(kind, raw=True).write_h5ad(tmp_path / "in.h5ad")
        with pytest.warns(ScaleWarning) as caught:
            transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
        assert caught[0].filename == __file__
        told = transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "again.h5ad", scale="counts")
        assert told.provenance["scale"] == "counts"
        one, two = (ad.read_h5ad(tmp_path / name).obsm["X_tiny"] for name in ("out.h5ad", "again.h5ad"))
        np.testing.assert_array_equal(one, two)
        np.testing.assert_allclose(one, MANIFOLD.project(values()[:, :40]), rtol=1e-4, atol=2e-4)


def test_options_reach_the_transform(plain, tmp_path):
    done = []
    told = transform_file(
        MANIFOLD, str(plain), str(tmp_path / "out.h5ad"), key_added="mine-2", gene_column="symbol", progress=done.append
    )
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    assert told.obsm == ["X_mine_2", "mine_2_branch_proba"]
    assert set(told.obsm) <= set(back.obsm)
    assert "mine_2_branch" in back.obs
    assert "mine_2" in back.uns
    assert sum(done) == N_CELLS


def test_a_second_run_on_its_own_output_replaces_the_first(plain, tmp_path):
    first, second = tmp_path / "first.h5ad", tmp_path / "second.h5ad"
    transform_file(MANIFOLD, plain, first)
    transform_file(MANIFOLD, first, second, layer="mine")
    transform_file(MANIFOLD, plain, tmp_path / "direct.h5ad", layer="mine")
    assert contents(second) == contents(tmp_path / "direct.h5ad")
    assert not np.allclose(ad.read_h5ad(first).obsm["X_tiny"], ad.read_h5ad(second).obsm["X_tiny"])
    # in place of an older output
    transform_file(MANIFOLD, plain, first, layer="mine")
    assert contents(first) == contents(second)


def test_foreign_values_under_our_keys_are_replaced(tmp_path):
    adata = rich()
    adata.obs["tiny_branch"] = 1.0
    adata.obs["last"] = 2
    adata.obsm["X_tiny"] = pd.DataFrame({"a": np.zeros(N_CELLS)}, index=adata.obs_names)
    adata.uns["tiny"] = "text"
    adata.write_h5ad(tmp_path / "in.h5ad")
    transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    assert list(back.obs) == list(adata.obs)
    assert back.obsm["X_tiny"].shape == (N_CELLS, 3)
    assert back.uns["tiny"]["digest"] == MANIFOLD.digest
    assert set(back.obs["tiny_branch"]) <= {"left", "right", "stem"}


def test_a_key_that_holds_the_names_of_the_cells_is_refused(tmp_path):
    adata = rich()
    adata.obs_names.name = "tiny_branch"
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(BadInputError, match="tiny_branch"):
        transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert names(tmp_path) == ["in.h5ad"]
    transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad", key_added="other")
    assert list(ad.read_h5ad(tmp_path / "out.h5ad").obs_names) == list(adata.obs_names)


@pytest.mark.parametrize("gone", [["obsm"], ["uns"], ["obsm", "uns", "layers", "varm", "obsp", "varp", "raw"]])
def test_a_sparing_file_is_completed(plain, tmp_path, gone):
    with h5py.File(plain, "r+") as file:
        for name in gone:
            del file[name]
    transform_file(MANIFOLD, plain, tmp_path / "out.h5ad")
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["obsm"].attrs["encoding-type"] == file["uns"].attrs["encoding-type"] == "dict"
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    assert back.obsm["X_tiny"].shape == (N_CELLS, 3)
    assert back.uns["tiny"]["digest"] == MANIFOLD.digest


def test_a_file_without_columns_is_completed(tmp_path):
    cells = ad.AnnData(values()[:, :40], var=pd.DataFrame(index=SYMBOLS))
    cells.write_h5ad(tmp_path / "in.h5ad")
    transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    assert list(ad.read_h5ad(tmp_path / "out.h5ad").obs) == ["tiny_branch"]


def test_the_output_may_not_be_the_input(plain, tmp_path, monkeypatch):
    before = plain.read_bytes()
    os.link(plain, tmp_path / "hard.h5ad")
    (tmp_path / "soft.h5ad").symlink_to(plain)
    monkeypatch.chdir(tmp_path)
    for target in (
        plain,
        "in.h5ad",
        tmp_path / "home" / ".." / "in.h5ad",
        tmp_path / "hard.h5ad",
        tmp_path / "soft.h5ad",
    ):
        (tmp_path / "home").mkdir(exist_ok=True)
        with pytest.raises(BadInputError, match=r"\.h5ad"):
            transform_file(MANIFOLD, plain, target)
    assert plain.read_bytes() == before


def damaged(tmp_path, plain):
    """Files that are no readable ``.h5ad``, by name."""
    whole = plain.read_bytes()
    (tmp_path / "empty.h5ad").write_bytes(b"")
    (tmp_path / "text.h5ad").write_text("a,b\n1,2\n")
    (tmp_path / "zip.h5ad").write_bytes(b"PK\x03\x04" + bytes(100))
    for share in (0.1, 0.5, 0.99):
        (tmp_path / f"truncated{share}.h5ad").write_bytes(whole[: int(len(whole) * share)])
    with h5py.File(tmp_path / "bare.h5ad", "w"):
        pass
    with h5py.File(tmp_path / "tenx.h5ad", "w") as file:
        file.create_group("matrix")["data"] = np.arange(3)
    for name in ("obs", "var", "X/indptr", "obs/cell"):
        path = tmp_path / f"without-{name.replace('/', '-')}.h5ad"
        shutil.copy(plain, path)
        with h5py.File(path, "r+") as file:
            if name == "obs/cell":
                del file["obs"].attrs["_index"]
            else:
                del file[name]
    shutil.copy(plain, tmp_path / "old.h5ad")
    with h5py.File(tmp_path / "old.h5ad", "r+") as file:
        del file["obs"]
        file["obs"] = np.array([(b"a", 1.0)], dtype=[("index", "S1"), ("n", "f8")])
    shutil.copy(plain, tmp_path / "short.h5ad")
    with h5py.File(tmp_path / "short.h5ad", "r+") as file:
        del file["X"]
        file["X"] = np.zeros((3, 50), np.float32)
    with h5py.File(tmp_path / "chunk.h5ad", "w") as file:
        for name in ("obs", "var"):
            with h5py.File(plain) as other:
                other.copy(name, file)
        file.create_dataset("X", data=values(), compression="gzip", chunks=(N_CELLS, 50))
        at = file["X"].id.get_chunk_info(0).byte_offset
    with (tmp_path / "chunk.h5ad").open("r+b") as stream:
        stream.seek(at + 20)
        stream.write(bytes(30))
    plain.unlink()
    return sorted(tmp_path.glob("*.h5ad"))


def test_what_is_no_readable_h5ad_is_refused_by_name(plain, tmp_path):
    paths = damaged(tmp_path, plain)
    assert len(paths) == 15
    before = names(tmp_path)
    for path in paths:
        with pytest.raises(BadInputError) as caught:
            transform_file(MANIFOLD, path, tmp_path / "out.h5ad")
        assert path.name in str(caught.value)
    assert names(tmp_path) == before


def test_no_input_is_not_found(tmp_path):
    for path in (tmp_path / "nowhere.h5ad", tmp_path):
        with pytest.raises(NotFoundError, match=path.name):
            transform_file(MANIFOLD, path, tmp_path / "out.h5ad")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"layer": "absent"}, BadInputError),
        ({"gene_column": "absent"}, BadInputError),
        ({"key_added": "a/b"}, BadInputError),
        ({"gene_column": "batch"}, GeneError),
        ({"scale": "counts"}, ScaleError),
    ],
)
def test_a_failure_leaves_nothing_behind(plain, tmp_path, options, error):
    with h5py.File(plain, "r+") as file:
        ad.io.write_elem(file["var"], "batch", np.array(["x"] * 50))
        file["var"].attrs["column-order"] = ["symbol", "batch"]
    (tmp_path / "out.h5ad").write_bytes(b"older")
    with pytest.raises(error):
        transform_file(MANIFOLD, plain, tmp_path / "out.h5ad", **options)
    assert names(tmp_path) == ["in.h5ad", "out.h5ad"]
    assert (tmp_path / "out.h5ad").read_bytes() == b"older"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RuntimeError("x")])
@pytest.mark.parametrize("after", ["copy", "obsm/X_tiny", "uns/tiny"])
def test_a_failure_while_writing_leaves_nothing_behind(plain, tmp_path, monkeypatch, error, after):
    put = _transform_file._put

    def fail(file, key, value):
        put(file, key, value)
        if key == after:
            raise error

    def full(*_):
        raise error

    if after == "copy":
        monkeypatch.setattr(_transform_file.shutil, "copyfile", full)
    else:
        monkeypatch.setattr(_transform_file, "_put", fail)
    (tmp_path / "out.h5ad").write_bytes(b"older")
    with pytest.raises(StoreError if isinstance(error, OSError) else type(error)):
        transform_file(MANIFOLD, plain, tmp_path / "out.h5ad")
    assert names(tmp_path) == ["in.h5ad", "out.h5ad"]
    assert (tmp_path / "out.h5ad").read_bytes() == b"older"


def peak(folder, kind, n, layers):
    """Most memory in use at a time while ``n`` cells of 800 genes in a file are placed, in bytes."""
    matrix = np.tile(values(), (n // N_CELLS + 1, 16))[:n]
    adata = ad.AnnData(KINDS[kind](matrix), var=pd.DataFrame(index=SYMBOLS + [f"O{i}" for i in range(760)]))
    adata.obs_names = [str(i) for i in range(n)]
    for i in range(layers):
        adata.layers[f"l{i}"] = adata.X
    adata.write_h5ad(folder / "in.h5ad")
    tracemalloc.start()
    transform_file(MANIFOLD, folder / "in.h5ad", folder / "out.h5ad", layer="l0" if layers else None)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_other_layers_are_not_read(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", 128)
    peak(tmp_path, kind, 100, 0)
    assert peak(tmp_path, kind, 1000, 3) < 1.2 * peak(tmp_path, kind, 1000, 0)


@pytest.mark.parametrize("kind", ["csr", "csc", "dense"])
def test_memory_does_not_grow_with_the_matrix(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(_project, "CHUNK", 128)
    peak(tmp_path, kind, 100, 0)
    grown = peak(tmp_path, kind, 3000, 0) - peak(tmp_path, kind, 1000, 0)
    # names, coordinates and probabilities grow; 2000 cells of the matrix would be 6.4 MB
    assert grown < 0.25 * 2000 * 800 * 4


def test_memory_does_not_grow_with_the_matrix_where_it_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(_project, "_MANY", 0)
    monkeypatch.setattr(_project, "_STORED", 50_000)
    peak(tmp_path, "csr", 100, 0)
    grown = peak(tmp_path, "csr", 3000, 0) - peak(tmp_path, "csr", 1000, 0)
    assert grown < 0.25 * 2000 * 800 * 4

"""Predicted distances between groups: by hand, in any kind of matrix, and what is refused."""

from __future__ import annotations

import tracemalloc

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny import tiny_anchors, tiny_genes, tiny_manifold, tiny_manifold_with_tasks

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds import _group_distances
from manifoldzoo.manifolds._group_distances import checked_column, group_distances, head_distance, read_groups
from manifoldzoo.manifolds._readouts import stage_readout
from manifoldzoo.manifolds._transform_file import transform_file

MANIFOLD = tiny_manifold()
STRAIGHT = head_distance("isomap")
Z = np.array([[0.0, 0.0], [2.0, 0.0], [4.0, 4.0], [9.0, 9.0]])


def told(groups, latent=Z, distance=STRAIGHT, beta=2.0):
    return group_distances(latent, groups, distance, beta)


def test_three_four_five_by_hand():
    found = told(["b", "b", "a", None])
    assert found.groups == ["a", "b"]
    assert found.sizes.tolist() == [1, 2]
    # means (4, 4) and (1, 0) lie 5 apart
    assert found.distances.tolist() == [[0.0, 10.0], [10.0, 0.0]]
    frame = found.to_frame()
    assert list(frame.index) == list(frame.columns) == ["a", "b"]
    assert frame.loc["a", "b"] == 10.0


def test_let_heads_measure_angles_and_others_lengths():
    latent = np.array([[3.0, 0.0], [0.0, 0.5]])
    for kind in ("let-anchor", "let-cell", "let-hybrid"):
        assert told(list("ab"), latent, head_distance(kind)).distances[0, 1] == pytest.approx(np.pi)
    for kind in ("isomap", "geodesic-mds"):
        assert told(list("ab"), latent, head_distance(kind)).distances[0, 1] == pytest.approx(2 * np.hypot(3, 0.5))


def test_categories_keep_their_order_and_those_without_cells_are_left_out():
    column = pd.Series(pd.Categorical(["x", "m", "x", None], categories=["x", "unused", "m"]))
    found = told(column)
    assert (found.groups, found.sizes.tolist()) == (["x", "m"], [2, 1])


@pytest.mark.parametrize(
    ("column", "groups"),
    [
        (["10", "9", "10", ""], ["10", "9"]),
        (np.array([10, 9, 10, 9]), ["9", "10"]),
        (pd.array([2, None, 2, 1], dtype="Int64"), ["1", "2"]),
        (np.array([0.5, np.nan, 0.5, 2.0]), ["0.5", "2.0"]),
        (np.array([True, False, True, True]), ["False", "True"]),
        (["a/b", " ", "é", np.nan], [" ", "a/b", "é"]),
    ],
)
def test_groups_of_any_type_are_read(column, groups):
    assert told(column).groups == groups


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 6), st.integers(1, 5))
def test_it_is_the_loop_over_groups(seed, n, n_groups, d):
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, d)).astype(np.float32)
    labels = [f"g{rng.integers(n_groups)}" if rng.random() > 0.2 else None for _ in range(n)]
    labels[0] = "g0"
    found = told(labels, latent, beta=0.7)
    names = sorted({label for label in labels if label is not None})
    assert found.groups == names
    members = [np.flatnonzero([label == name for label in labels]) for name in names]
    assert found.sizes.tolist() == [len(rows) for rows in members]
    means = [latent[rows].astype(np.float64).mean(axis=0) for rows in members]
    expected = [[0.7 * np.linalg.norm(a - b) for b in means] for a in means]
    assert np.allclose(found.distances, expected, atol=1e-9)
    order = rng.permutation(n)
    again = told([labels[i] for i in order], latent[order], beta=0.7)
    assert again.groups == names and np.allclose(again.distances, found.distances, atol=1e-9)


def test_many_cells_take_little_more_than_their_codes():
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((200_000, 10)).astype(np.float32)
    groups = pd.Categorical.from_codes(rng.integers(0, 30, 200_000), categories=[f"g{i}" for i in range(30)])
    tracemalloc.start()
    told(groups, latent)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # far below a copy of the coordinates in float64, which takes 16 MB
    assert peak < 8e6


@pytest.mark.parametrize(
    ("groups", "latent", "said"),
    [
        (["a", "b"], Z, "2 groups for 4 cells"),
        ([None, "", np.nan, None], Z, "No cell has a group"),
        (list("abab"), np.where(Z == 2, np.nan, Z), "not finite"),
        (pd.Categorical([1, "1", 1, "1"]), Z, "Two groups are called '1'"),
        ([], Z[:0], "No cell has a group"),
    ],
)
def test_what_are_no_groups_is_refused(groups, latent, said):
    with pytest.raises(BadInputError, match=said):
        told(groups, latent)


def test_too_many_groups_are_refused(monkeypatch):
    monkeypatch.setattr(_group_distances, "MOST_GROUPS", 3)
    assert told(list("abca")).groups == ["a", "b", "c"]
    with pytest.raises(BadInputError, match="in 4 groups, expected at most 3"):
        told(list("abcd"))
    # unused categories are no groups
    read_groups(pd.Categorical(["a", "b"], categories=list("abcdef")))


def test_a_mean_without_a_direction_is_refused():
    with pytest.raises(BadInputError, match="directions"):
        told(["a", "a", "b"], np.array([[1.0, 0], [-1, 0], [0, 1]]), head_distance("let-anchor"))


def test_a_missing_column_is_told_with_the_nearest():
    assert checked_column("leiden", ["leiden", "x"]) == "leiden"
    for asked, hint in (("cell_typ", "cell_type"), ("type", "cell_type"), ("zzz", "Its columns are cell_type, donor")):
        with pytest.raises(BadInputError, match=f"no column '{asked}'") as error:
            checked_column(asked, ["cell_type", "donor"])
        assert hint in error.value.hint


# --- in AnnData


def cells(kind=np.asarray, n=24):
    values = tiny_anchors()[0][:n]
    obs = pd.DataFrame({"mine": pd.Categorical(["b", "a"] * (n // 2), categories=["b", "c", "a"])})
    obs.index = [f"cell{i}" for i in range(n)]
    return ad.AnnData(kind(values), obs=obs, var=pd.DataFrame(index=list(tiny_genes().symbols)))


def lazily(values):
    return da.from_array(values, chunks=(5, -1))


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, lazily])
def test_transform_tells_groups_of_a_column(kind):
    adata = cells(kind)
    MANIFOLD.transform(adata, scale="log1p", groupby="mine")
    held = adata.uns["tiny"]
    assert held["groupby"] == "mine"
    assert held["groups"].tolist() == ["b", "a"]
    assert held["group_sizes"].tolist() == [12, 12]
    latent = np.asarray(adata.obsm["X_tiny"], dtype=np.float64)
    u, v = latent[0::2].mean(axis=0), latent[1::2].mean(axis=0)
    angle = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
    beta = MANIFOLD.card.extraction.adaptor.beta
    assert held["group_distances"] == pytest.approx(np.array([[0, angle], [angle, 0]]) * beta, abs=1e-9)
    same = MANIFOLD.predicted_distances(adata.obsm["X_tiny"], adata.obs["mine"])
    assert np.array_equal(same.distances, held["group_distances"])


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_a_backed_file_and_the_file_transform_tell_the_same(kind, tmp_path):
    adata = cells(kind)
    adata.write_h5ad(tmp_path / "in.h5ad")
    MANIFOLD.transform(adata, scale="log1p", groupby="mine")
    backed = ad.read_h5ad(tmp_path / "in.h5ad", backed="r")
    MANIFOLD.transform(backed, scale="log1p", groupby="mine")
    result = transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad", scale="log1p", groupby="mine")
    back = ad.read_h5ad(tmp_path / "out.h5ad")
    for held in (backed.uns["tiny"], result.provenance, back.uns["tiny"]):
        assert held["groups"].tolist() == ["b", "a"]
        assert held["group_sizes"].tolist() == [12, 12]
        assert np.allclose(held["group_distances"], adata.uns["tiny"]["group_distances"], atol=1e-6)


def test_a_column_that_the_transform_writes_can_be_named_before():
    manifold, adata = tiny_manifold_with_tasks(), cells()
    manifold.transform(adata, scale="log1p", groupby="tiny_stage")
    assert set(adata.uns["tiny"]["groups"]) == set(adata.obs["tiny_stage"].dropna())
    manifold.transform(adata, scale="log1p", key_added="k", groupby="k_side")
    assert adata.uns["k"]["group_sizes"].sum() == adata.obs["k_side"].notna().sum()


def test_nothing_is_computed_before_a_column_is_refused(monkeypatch):
    adata = cells()
    adata.obs["empty"] = pd.Categorical([None] * 24, categories=["a"])
    for column, said in (("mne", "no column 'mne'"), ("empty", "No cell has a group")):
        with pytest.raises(BadInputError, match=said):
            MANIFOLD.transform(adata, scale="log1p", groupby=column)
    assert "X_tiny" not in adata.obsm and "tiny" not in adata.uns


def test_without_groups_nothing_is_told_of_them_and_older_ones_go():
    adata = cells()
    MANIFOLD.transform(adata, scale="log1p", groupby="mine")
    MANIFOLD.transform(adata, scale="log1p")
    assert not [key for key in adata.uns["tiny"] if "group" in key]


def test_the_readout_of_all_stages_is_found():
    assert stage_readout(tiny_manifold_with_tasks().card).task == "stage"
    assert stage_readout(MANIFOLD.card) is None

from __future__ import annotations

import anndata as ad
import h5py
import numpy as np
import pytest
from scipy import sparse
from scipy.special import softmax
from tiny import tiny_manifold, tiny_manifold_with_tasks

from manifoldzoo.cards._errors import BadInputError, FormatError
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._familiarity import familiarity
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._transform_file import transform_file

MANIFOLD = tiny_manifold_with_tasks()
ANCHORS = MANIFOLD.tensors["panel.anchors"]


def cells(values=ANCHORS, kind=np.asarray) -> ad.AnnData:
    adata = ad.AnnData(kind(values))
    adata.var_names = list(MANIFOLD.genes.symbols)
    adata.obs_names = [f"cell{i}" for i in range(adata.n_obs)]
    return adata


def test_every_kind_is_its_formula():
    z, t = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32), MANIFOLD.tensors
    linear = softmax(z @ t["readout.side.weights"].T + t["readout.side.bias"], axis=1)
    np.testing.assert_allclose(MANIFOLD.read_out(z, "side"), linear, rtol=1e-4)
    hidden = np.maximum(0, z @ t["readout.branch.hidden.weights"].T + t["readout.branch.hidden.bias"])
    mlp = softmax(hidden @ t["readout.branch.weights"].T + t["readout.branch.bias"], axis=1)
    np.testing.assert_allclose(MANIFOLD.read_out(z, "branch"), mlp, rtol=1e-4)
    depth = MANIFOLD.ruler.depth(MANIFOLD.classes("stage"))
    expected = MANIFOLD.read_out(z, "stage") @ depth
    np.testing.assert_allclose(MANIFOLD.read_out(z, "depth"), expected, rtol=1e-4, atol=1e-6)
    assert MANIFOLD.classes("depth") == []
    with pytest.raises(BadInputError, match="depht"):
        MANIFOLD.read_out(z, "depht")


def test_it_is_intact_and_survives_the_disk(tmp_path):
    again = Manifold.read(MANIFOLD.save(tmp_path / "made"))
    assert valid(again).status == reproduces(again).status == "pass"
    assert {record.gate for record in reproduces(again).records} >= {"test_vectors_depth", "test_vectors_branch"}


@pytest.mark.parametrize("name", ["readout.branch.hidden.bias", "readout.depth.values"])
def test_a_tensor_that_is_missing_or_misshapen_is_refused(name):
    without = {key: array for key, array in MANIFOLD.tensors.items() if key != name}
    with pytest.raises(FormatError, match=name):
        Manifold.build(MANIFOLD.card, MANIFOLD.genes, without, MANIFOLD.vectors)
    with pytest.raises(FormatError, match=name):
        Manifold.build(MANIFOLD.card, MANIFOLD.genes, without | {name: np.zeros((9, 9), "f4")}, MANIFOLD.vectors)


STORAGES = [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array]


@pytest.mark.parametrize("kind", STORAGES)
def test_all_that_is_documented_is_written(kind):
    adata = cells(kind=kind)
    MANIFOLD.transform(adata)
    tasks = ["tiny_stage", "tiny_side", "tiny_branch", "tiny_depth"]
    assert list(adata.obs) == [*tasks, "tiny_familiarity", "tiny_familiarity_scaled", "tiny_unfamiliar"]
    assert set(adata.obsm) == {"X_tiny", "tiny_stage_proba", "tiny_side_proba", "tiny_branch_proba"}
    assert adata.obsm["X_tiny"].shape == (24, 3)
    assert adata.obs["tiny_depth"].dtype == np.float32
    np.testing.assert_allclose(adata.obs["tiny_depth"], MANIFOLD.read_out(adata.obsm["X_tiny"], "depth"), rtol=1e-5)
    assert adata.uns["tiny"]["unfamiliar"]["threshold"] == 0.9
    assert set(adata.uns["tiny"]["classes"]) == {"stage", "side", "branch"}


@pytest.mark.parametrize("kind", STORAGES)
def test_familiarity_is_the_cosine_whatever_the_storage(kind):
    values = np.concatenate([ANCHORS, np.flip(ANCHORS, axis=1), np.zeros((1, 40), np.float32)])
    adata = cells(values, kind)
    MANIFOLD.transform(adata, scale="log1p")
    scores = familiarity(ANCHORS, MANIFOLD.anchor_stages)
    expected = scores.scores(scores.products(values))
    np.testing.assert_allclose(adata.obs["tiny_familiarity"], expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(adata.obs["tiny_familiarity_scaled"], expected[:, 1], atol=1e-4)
    assert (adata.obs["tiny_unfamiliar"] == (expected[:, 0] < 0.9)).all()
    assert not adata.obs["tiny_unfamiliar"][:24].any()
    assert adata.obs["tiny_unfamiliar"].iloc[-1]


def test_genes_that_the_cells_lack_do_not_make_them_unfamiliar():
    adata = cells()[:, :25].copy()
    with pytest.warns(Warning, match="genes"):
        MANIFOLD.transform(adata, scale="log1p")
    scores = familiarity(ANCHORS[:, :25], MANIFOLD.anchor_stages)
    expected = scores.scores(scores.products(ANCHORS[:, :25]))
    np.testing.assert_allclose(adata.obs["tiny_familiarity"], expected[:, 0], atol=1e-5)
    assert (adata.obs["tiny_familiarity"] > 0.99).all()


def test_dask_and_a_file_on_disk_say_the_same(tmp_path):
    dask = pytest.importorskip("dask.array")
    plain = cells(kind=sparse.csr_matrix)
    MANIFOLD.transform(plain)
    lazy = cells()
    lazy.X = dask.from_array(ANCHORS, chunks=(7, 40))
    MANIFOLD.transform(lazy)
    cells(kind=sparse.csr_matrix).write_h5ad(tmp_path / "in.h5ad")
    told = transform_file(MANIFOLD, tmp_path / "in.h5ad", tmp_path / "out.h5ad")
    again = ad.read_h5ad(tmp_path / "out.h5ad")
    assert set(told.obs) == set(again.obs) == set(plain.obs)
    assert set(told.obsm) == set(again.obsm) == set(plain.obsm)
    for other in (lazy, again):
        for column in plain.obs:
            left, right = plain.obs[column], other.obs[column]
            if left.dtype == np.float32:
                np.testing.assert_allclose(left, right, atol=1e-5)
            else:
                assert left.astype(str).tolist() == right.astype(str).tolist()
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["obs/tiny_unfamiliar"].dtype == bool


def test_a_task_about_some_stages_has_no_class_for_cells_of_others():
    adata = cells()
    MANIFOLD.transform(adata)
    stage = np.array(MANIFOLD.anchor_stages)
    assert (adata.obs["tiny_stage"].astype(str) == stage).mean() > 0.9
    said = adata.obs["tiny_stage"].astype(str).to_numpy()
    mass = adata.obsm["tiny_stage_proba"][:, [MANIFOLD.classes("stage").index("stem")]][:, 0]
    assert (adata.obs["tiny_side"].isna().to_numpy() == (mass > 0.5)).all()
    assert adata.obs["tiny_side"].isna()[said == "stem"].all()
    assert adata.obs["tiny_side"].notna().any()
    assert not np.isnan(adata.obsm["tiny_side_proba"]).any()


def test_a_manifold_without_thresholds_says_nothing_of_familiarity():
    adata = cells()
    tiny_manifold().transform(adata)
    assert list(adata.obs) == ["tiny_branch"]
    assert "unfamiliar" not in adata.uns["tiny"]

"""A geodesic head as any other: saved, read, and cells of any kind of matrix placed as by ``project``."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tiny import N_GENES, STAGES, D, tiny_anchors, tiny_manifold, tiny_ruler
from tiny_geodesic import N_NEIGHBOURS, tiny_geodesic

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import FormatError
from manifoldzoo.gates.rungs._intact import gates_of, reproduces, valid
from manifoldzoo.manifolds import _project
from manifoldzoo.manifolds._landmarks import place_by_landmarks
from manifoldzoo.manifolds._manifold import Manifold, expected_shapes
from manifoldzoo.manifolds._transform_file import transform_file

KINDS = ("isomap", "geodesic-mds")


@pytest.fixture(scope="module", params=KINDS)
def manifold(request):
    return tiny_geodesic(request.param)


def cells(n=60, seed=0):
    """Cells between anchors, genes of the manifold and others shuffled, one without any count; log1p."""
    rng = np.random.default_rng(seed)
    anchors, _ = tiny_anchors()
    pairs = rng.integers(len(anchors), size=(2, n))
    part = rng.random((n, 1))
    values = part * anchors[pairs[0]] + (1 - part) * anchors[pairs[1]] + 0.2 * rng.random((n, N_GENES))
    values = np.where(rng.random(values.shape) < 0.1, 0, values).astype(np.float32)
    values[n // 2] = 0
    names = [f"GENE{i}" for i in range(N_GENES)] + [f"OTHER{i}" for i in range(9)]
    wide = np.hstack([values, rng.random((n, 9), dtype=np.float32)])
    order = rng.permutation(len(names))
    return values, wide[:, order], [names[i] for i in order]


def table(matrix, names):
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(matrix.shape[0])])
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=names))


MATRICES = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "backed-dense": np.asarray,
    "backed-csr": sparse.csr_matrix,
    "backed-csc": sparse.csc_matrix,
    "dask-rows": lambda v: da.from_array(v, chunks=(7, -1)),
    "dask-both": lambda v: da.from_array(v, chunks=(7, 11)),
    "dask-csr": lambda v: da.from_array(v, chunks=(5, -1)).map_blocks(sparse.csr_matrix),
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("chunk", [8, 16_384], ids=lambda n: f"chunk{n}")
@pytest.mark.parametrize("many", [0, 10**9], ids=["compiled", "products"])
def test_every_matrix_is_placed_as_by_project(manifold, name, chunk, many, monkeypatch, tmp_path):
    monkeypatch.setattr(_project, "CHUNK", chunk)
    monkeypatch.setattr(_project, "_MANY", many)
    own, wide, names = cells()
    adata = table(MATRICES[name](wide), names)
    if name.startswith("backed"):
        adata.write_h5ad(tmp_path / "cells.h5ad")
        adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    manifold.transform(adata, scale="log1p")
    expected = manifold.project(own)
    latent = adata.obsm["X_tiny"]
    assert latent.shape == (len(own), D)
    assert latent.dtype == np.float32
    size = np.abs(expected).max()
    np.testing.assert_allclose(latent, expected, atol=2e-5 * size)
    # what is read out and scored of a cell is of the same coordinates
    np.testing.assert_allclose(adata.obsm["tiny_stage_proba"], manifold.read_out(expected, "stage"), atol=1e-2)
    assert {"tiny_familiarity", "tiny_familiarity_scaled", "tiny_unfamiliar"} <= set(adata.obs)
    assert adata.obs["tiny_familiarity"].to_numpy()[0] > 0.9
    assert adata.obs["tiny_familiarity"].to_numpy()[len(own) // 2] == 0


def test_counts_are_normalised_before(manifold):
    rng = np.random.default_rng(1)
    counts = rng.poisson(3, (20, N_GENES)).astype(np.float32)
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    expected = manifold.project(logs)
    for kind in (np.asarray, sparse.csr_matrix, sparse.csc_matrix):
        adata = table(kind(counts), list(manifold.genes.symbols))
        manifold.transform(adata, scale="counts")
        np.testing.assert_allclose(adata.obsm["X_tiny"], expected, atol=1e-4 * np.abs(expected).max())


def test_project_is_the_pure_function_on_the_stored_tensors(manifold):
    own, _, _ = cells()
    tensors = manifold.tensors
    reduced = own @ tensors["projection"] + tensors["offset"]
    stored = [tensors[f"head.{part}"] for part in ("landmarks", "geodesics", "coordinates")]
    n_steps = manifold.card.extraction.adaptor.parameters.get("placing_steps", 0)
    expected = place_by_landmarks(reduced, *stored, N_NEIGHBOURS, n_steps=n_steps)
    np.testing.assert_array_equal(manifold.project(own), expected.astype(np.float32))
    np.testing.assert_allclose(manifold.project(sparse.csr_matrix(own)), expected, atol=1e-5 * np.abs(expected).max())


def test_a_file_is_transformed(manifold, tmp_path):
    own, wide, names = cells()
    table(sparse.csr_matrix(wide), names).write_h5ad(tmp_path / "in.h5ad")
    transform_file(manifold, tmp_path / "in.h5ad", tmp_path / "out.h5ad", scale="log1p")
    placed = ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_tiny"]
    expected = manifold.project(own)
    np.testing.assert_allclose(placed, expected, atol=2e-5 * np.abs(expected).max())


def test_anchors_come_back_to_their_coordinates_and_beta_scales_their_distances_to_the_ruler(manifold):
    values, stage = tiny_anchors()
    latent, coordinates = manifold.project(values).astype(np.float64), manifold.tensors["head.coordinates"]
    size = np.sqrt((coordinates**2).sum(axis=1).mean())
    off = np.sqrt(((latent - coordinates) ** 2).sum(axis=1)) / size
    assert off.max() < (1e-3 if manifold.card.extraction.adaptor.kind == "isomap" else 0.25)
    upper = np.triu_indices(len(stage), 1)
    apart = np.linalg.norm(latent[:, None] - latent[None], axis=2)[upper]
    asked = tiny_ruler().distances(stage)[upper]
    beta = manifold.card.extraction.adaptor.beta
    assert beta == pytest.approx((apart @ asked) / (apart @ apart), rel=1e-3)


def test_it_is_saved_and_read_and_gives_the_same_numbers(manifold, tmp_path):
    loaded = Manifold.read(manifold.save(tmp_path / "artifact"))
    assert loaded.digest == manifold.digest
    assert loaded.n_components == D == loaded.project(tiny_anchors()[0]).shape[1]
    assert loaded.tensors["projection"].shape == (N_GENES, loaded.card.extraction.adaptor.n_reduced)
    assert [valid(loaded).status, reproduces(loaded).status] == ["pass", "pass"]
    assert f"-> {D} coordinates" in repr(loaded)


def test_landmarks_that_are_no_anchors_are_seen_by_rung_1(manifold):
    (told,) = [record for record in valid(manifold).records if record.gate == "landmarks_are_anchors"]
    assert (told.status, told.n) == ("pass", 24)
    assert told.statistic < 1e-5 < told.threshold
    assert [record.gate for record in valid(manifold).records] == [gate for gate, _, _ in gates_of(manifold.card)]
    places = manifold.tensors["head.landmarks"].copy()
    places[3] += 0.01 * np.abs(places).max()
    tensors = manifold.tensors | {"head.landmarks": places}
    moved = Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors)
    failed = [record.gate for record in valid(moved).records if record.status != "pass"]
    assert failed == ["landmarks_are_anchors"]
    assert "landmarks_are_anchors" not in [gate for gate, _, _ in gates_of(tiny_manifold().card)]


@pytest.mark.parametrize("name", ["head.landmarks", "head.geodesics", "head.coordinates", "offset"])
def test_other_numbers_are_seen_by_the_test_vectors(manifold, name):
    rng = np.random.default_rng(0)
    moved = manifold.tensors[name] * (1 + 0.2 * rng.random(manifold.tensors[name].shape))
    if name == "head.geodesics":
        moved = (moved + moved.T) / 2
    tensors = manifold.tensors | {name: moved.astype(np.float32)}
    assert reproduces(Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors)).status == "fail"


def test_shapes_that_the_card_does_not_imply_are_refused(manifold):
    shapes = expected_shapes(manifold.card)
    m, r = len(STAGES) * 4, manifold.card.extraction.adaptor.n_reduced
    assert {name: shape for name, shape in shapes.items() if name.startswith("head.")} == {
        "head.landmarks": (m, r),
        "head.geodesics": (m, m),
        "head.coordinates": (m, D),
    }
    assert shapes["adaptor.weights"] == (r, N_GENES)
    for name in ("head.landmarks", "head.geodesics", "head.coordinates"):
        cut = manifold.tensors | {name: manifold.tensors[name][1:]}
        gone = {other: array for other, array in manifold.tensors.items() if other != name}
        for tensors in (cut, gone):
            with pytest.raises(FormatError, match=name):
                Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors)


@pytest.mark.parametrize("spoil", ["negative", "lopsided", "from itself"])
def test_path_lengths_that_are_no_distances_are_refused_on_loading(manifold, spoil):
    geodesics = manifold.tensors["head.geodesics"].copy()
    geodesics[(0, 1) if spoil != "from itself" else (0, 0)] *= -1 if spoil == "negative" else 1
    geodesics[(0, 1) if spoil != "from itself" else (0, 0)] += 0 if spoil == "negative" else 1
    tensors = manifold.tensors | {"head.geodesics": geodesics}
    with pytest.raises(FormatError, match=r"head\.geodesics is not symmetric and positive"):
        Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"n_neighbours": 0}, "n_neighbours is 0"),
        ({"n_neighbours": 25}, "n_neighbours is 25, expected 1 to 24"),
        ({"n_neighbours": "some"}, "n_neighbours 'some'"),
    ],
)
def test_parameters_that_cannot_place_cells_are_refused_on_loading(parameters, said):
    with pytest.raises(FormatError, match=said):
        tiny_geodesic(**parameters)


def test_a_card_tells_of_landmarks_for_geodesic_heads_and_no_others(manifold):
    document = manifold.card.model_dump(mode="json")
    for name in ("n_reduced", "n_landmarks", "n_pieces"):
        spoilt = manifold.card.model_dump(mode="json")
        spoilt["extraction"]["adaptor"][name] = None
        with pytest.raises(FormatError, match="landmarks are of geodesic heads"):
            parse_card(spoilt)
    document["extraction"]["adaptor"]["kind"] = "let-anchor"
    with pytest.raises(FormatError, match="landmarks are of geodesic heads"):
        parse_card(document)

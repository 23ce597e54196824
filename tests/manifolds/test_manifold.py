from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save
from scipy import sparse
from tiny import N_GENES, D, tiny_genes, tiny_manifold, tiny_ruler

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, FormatError, StoreError
from manifoldzoo.cards._names import sha256_bytes
from manifoldzoo.manifolds import _manifold
from manifoldzoo.manifolds._files import encode_tensors
from manifoldzoo.manifolds._format import CARD, CRITICAL, MANIFEST, VECTORS, Manifest
from manifoldzoo.manifolds._genes import GeneTable
from manifoldzoo.manifolds._manifold import Manifold, encode, expected_shapes


@pytest.fixture(scope="module")
def manifold():
    return tiny_manifold()


def cells(n=9, seed=3):
    return np.random.default_rng(seed).random((n, N_GENES)).astype(np.float32)


def test_saving_and_reading_gives_the_same_manifold(manifold, tmp_path):
    folder = manifold.save(tmp_path / "new" / "tiny")
    again = Manifold.read(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, *CRITICAL])
    assert again.digest == manifold.digest == sha256_bytes((folder / MANIFEST).read_bytes())
    assert again.card == manifold.card
    assert again.genes == manifold.genes
    for mine, theirs in ((manifold.tensors, again.tensors), (manifold.vectors, again.vectors)):
        assert set(mine) == set(theirs)
        for name in mine:
            assert mine[name].dtype == theirs[name].dtype
            np.testing.assert_array_equal(mine[name], theirs[name])
    assert (again.path, again.reference) == (folder, "tiny@0.1.0")
    assert Manifold.read(folder, reference="owner/tiny").reference == "owner/tiny"


def test_what_was_read_saves_to_the_same_bytes(manifold, tmp_path):
    first = manifold.save(tmp_path / "a")
    second = Manifold.read(first).save(tmp_path / "b")
    for name in (MANIFEST, *CRITICAL):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_memory_layout_does_not_change_the_identity(manifold):
    tensors = {name: np.asfortranarray(array) for name, array in reversed(manifold.tensors.items())}
    assert Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors).digest == manifold.digest


def test_any_change_changes_the_identity(manifold):
    digests = {manifold.digest, tiny_manifold(title="Other").digest, tiny_manifold(version="0.1.1").digest}
    table = GeneTable(manifold.genes.symbols, ("ENSG99999999999", *manifold.genes.ensembl[1:]))
    digests.add(Manifold.build(manifold.card, table, manifold.tensors, manifold.vectors).digest)
    for name in manifold.tensors:
        changed = {n: a + np.float32(n == name) * 1e-3 for n, a in manifold.tensors.items()}
        digests.add(Manifold.build(manifold.card, manifold.genes, changed, manifold.vectors).digest)
    assert len(digests) == 4 + len(manifold.tensors)


def test_saving_over_something_is_refused(manifold, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        with pytest.raises(BadInputError, match=name):
            manifold.save(tmp_path / name)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["x"]
    (tmp_path / "empty").mkdir()
    assert Manifold.read(manifold.save(tmp_path / "empty")).digest == manifold.digest


def test_a_save_that_fails_leaves_no_manifest(manifold, tmp_path, monkeypatch):
    folder = tmp_path / "tiny"

    def full(target, content):
        if target.name == VECTORS:
            raise StoreError("no space")
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)

    monkeypatch.setattr(_manifold, "write_bytes", full)
    with pytest.raises(StoreError):
        manifold.save(folder)
    assert not (folder / MANIFEST).exists()
    with pytest.raises(FormatError, match=MANIFEST):
        Manifold.read(folder)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_projection_is_x_p_plus_o(manifold, kind, dtype):
    values = cells().astype(dtype)
    found = manifold.project(kind(values))
    expected = np.zeros((9, D))
    for i in range(9):
        for c in range(D):
            terms = values[i].astype(np.float64) * manifold.tensors["projection"][:, c]
            expected[i, c] = terms.sum() + manifold.tensors["offset"][c]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_projection_is_operator_then_head(manifold):
    t = {name: array.astype(np.float64) for name, array in manifold.tensors.items()}
    values = cells()
    standard = (values @ t["operator"][0] - t["adaptor.mean"]) / t["adaptor.scale"]
    expected = (standard - t["adaptor.bias"]) @ t["adaptor.weights"].T
    np.testing.assert_allclose(manifold.project(values), expected, rtol=1e-3, atol=1e-3)


def test_values_of_other_genes_are_refused(manifold):
    with pytest.raises(BadInputError, match="39"):
        manifold.project(cells()[:, :39])


def test_readouts_are_a_softmax(manifold):
    latent = manifold.project(cells())
    kept = latent.copy()
    proba = manifold.read_out(latent, "branch")
    weights, bias = manifold.tensors["readout.branch.weights"], manifold.tensors["readout.branch.bias"]
    raised = np.exp(latent.astype(np.float64) @ weights.T + bias)
    np.testing.assert_allclose(proba, raised / raised.sum(axis=1, keepdims=True), rtol=1e-5, atol=1e-6)
    assert proba.dtype == np.float32
    assert proba.shape == (9, 3)
    np.testing.assert_array_equal(latent, kept)


def test_readouts_of_far_away_cells_stay_finite(manifold):
    proba = manifold.read_out(np.array([[1e6, -1e6, 1e6], [0, 0, 0]], np.float32), "branch")
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)


def test_an_unknown_task_is_refused_and_the_known_are_named(manifold):
    for ask in (manifold.classes, lambda task: manifold.read_out(np.zeros((1, D), np.float32), task)):
        with pytest.raises(BadInputError, match="phase") as caught:
            ask("phase")
        assert "branch" in caught.value.hint


def test_what_a_manifold_says_of_itself(manifold):
    assert (manifold.name, manifold.version, manifold.n_components) == ("tiny", "0.1.0", D)
    assert (manifold.tasks, manifold.classes("branch")) == (("branch",), ["left", "right", "stem"])
    assert manifold.ruler == tiny_ruler()
    assert manifold.ruler.digest == manifold.card.ruler.digest
    for part in ("tiny@0.1.0", "40", "branch", manifold.digest[:12]):
        assert part in repr(manifold)


@pytest.mark.parametrize("name", sorted(expected_shapes(parse_card(tiny_manifold().card.model_dump(mode="json")))))
def test_every_tensor_is_held_against_the_card(manifold, name):
    def build(tensors):
        return Manifold(manifold.card, manifold.genes, tensors, manifold.vectors, "0" * 64)

    whole = dict(manifold.tensors)
    array = whole.pop(name)
    with pytest.raises(FormatError, match=name):
        build(whole)
    infinite = array.copy()
    infinite.flat[-1] = np.inf
    for bad in (array[..., None], array[:-1], array.ravel()[:1], np.ones(array.shape, np.int32), infinite):
        with pytest.raises(FormatError, match=name):
            build(whole | {name: bad})
    assert build(whole | {name: array.astype(np.float64)}).n_components == D


@pytest.mark.parametrize("name", ["input", "latent", "proba.branch"])
def test_every_test_vector_is_held_against_the_card(manifold, name):
    whole = dict(manifold.vectors)
    array = whole.pop(name)
    for vectors in (whole, whole | {name: array[:, :-1]}, whole | {name: array[0]}, whole | {name: np.float32(1)[()]}):
        with pytest.raises(FormatError, match="test_vectors"):
            Manifold(manifold.card, manifold.genes, manifold.tensors, vectors, "0" * 64)
    with pytest.raises(FormatError, match="test_vectors"):
        Manifold(manifold.card, manifold.genes, manifold.tensors, whole | {name: array[:-1]}, "0" * 64)


def test_unknown_tensors_are_refused(manifold):
    with pytest.raises(FormatError, match="extra"):
        Manifold(manifold.card, manifold.genes, {**manifold.tensors, "extra": np.ones(3)}, manifold.vectors, "0" * 64)


def test_an_artifact_without_test_vectors_is_refused(manifold, tmp_path):
    empty = {name: array[:0] for name, array in manifold.vectors.items()}
    with pytest.raises(FormatError):
        Manifold.build(manifold.card, manifold.genes, manifold.tensors, empty)
    folder = manifold.save(tmp_path / "tiny")
    (folder / VECTORS).write_bytes(save(empty))
    contents = {name: (folder / name).read_bytes() for name in CRITICAL}
    (folder / MANIFEST).write_bytes(Manifest.of(contents).to_bytes())
    with pytest.raises(FormatError, match="test_vectors"):
        Manifold.read(folder)


def test_genes_are_held_against_the_card(manifold):
    table = GeneTable(tiny_genes().symbols[:39], tiny_genes().ensembl[:39])
    with pytest.raises(FormatError, match="39"):
        Manifold(manifold.card, table, manifold.tensors, manifold.vectors, "0" * 64)


def test_the_card_is_written_for_people_too(manifold):
    contents = encode(manifold.card, manifold.genes, manifold.tensors, manifold.vectors)
    assert contents[CARD].endswith(b"}\n")
    assert contents[CARD].count(b"\n") > 50
    assert json.loads(contents[CARD]) == manifold.card.model_dump(mode="json")
    assert contents[VECTORS] == encode_tensors(manifold.vectors)


def test_a_manifold_cannot_be_changed_in_place(manifold):
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifold.digest = "x"

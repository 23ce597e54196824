"""What a manifold is compared with: each made as it says, and from a draw of its own."""

from __future__ import annotations

import numpy as np
import pytest
from planted_tree import planted_panel
from sklearn.decomposition import PCA, TruncatedSVD

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._evidence_plan import STANDARD_COMPARISONS
from manifoldzoo.gates.controls._comparators import COMPARED, N_COMPONENTS, N_DRAWS, comparators, label_lookup
from manifoldzoo.manifolds._let_many import feature_coordinates

DATA = planted_panel(np.random.default_rng(0), n_donors=2)
N, N_GENES = np.asarray(DATA.expression).shape
OPERATOR = np.random.default_rng(1).standard_normal((2, N_GENES, N_GENES)).astype(np.float32)


def made(seed: int = 0, data=DATA, operator=OPERATOR, untrained=None):
    found = comparators(data, operator, untrained or {}, rng=np.random.default_rng(seed))
    return {other.name: other for other in found}


def between(rows: np.ndarray) -> np.ndarray:
    """Inner products of centred rows, which say all of them that a head can use."""
    centred = rows - rows.mean(axis=0)
    return centred @ centred.T


@pytest.fixture(scope="module")
def all_of_them():
    return made()


def test_names_and_families_are_those_that_are_registered(all_of_them):
    assert tuple(all_of_them) == tuple(COMPARED) == STANDARD_COMPARISONS
    assert {name: other.family for name, other in all_of_them.items()} == COMPARED
    assert {name for name, family in COMPARED.items() if family == "expression"} == {"raw", "z_scored", "pca", "svd"}


def test_shapes_and_draws(all_of_them):
    drawn = {name: len(other.coordinates) for name, other in all_of_them.items()}
    assert drawn == dict.fromkeys(COMPARED, 1) | {"spectrum_matched": N_DRAWS, "gene_permuted": N_DRAWS}
    assert N_DRAWS >= 5
    for other in all_of_them.values():
        assert other.coordinates.shape[1:] == (N, N)
        assert other.coordinates.dtype == np.float32
        assert np.isfinite(other.coordinates).all()


def test_untrained_ones_come_last_as_they_travel():
    sets = [np.full((N, N), value, dtype=np.float32) for value in range(3)]
    others = made(untrained={"random-init": sets, "shuffled-weights": []})
    assert list(others)[-1] == "random-init"
    assert others["random-init"].family == "untrained"
    assert np.array_equal(others["random-init"].coordinates, np.stack(sets))


def test_pca_and_svd_are_scikit_learns_up_to_one_scale(all_of_them):
    x = np.asarray(DATA.expression, dtype=np.float64)
    pca = PCA(N_COMPONENTS, svd_solver="full").fit_transform(x)
    svd = TruncatedSVD(N_COMPONENTS, algorithm="arpack").fit_transform(x)
    for name, scores in (("pca", pca), ("svd", svd)):
        placed = all_of_them[name].coordinates[0].astype(np.float64)
        assert np.linalg.matrix_rank(placed, tol=1e-3) == N_COMPONENTS
        expected = between(scores) / scores.var(axis=0).mean()
        assert np.allclose(between(placed), expected, atol=1e-4 * np.abs(expected).max())
    assert not np.allclose(all_of_them["pca"].coordinates, all_of_them["svd"].coordinates, atol=0.1)


def test_svd_does_not_centre():
    """A level that all anchors share takes the first component of the uncentred decomposition."""
    raised = type(DATA)(**{**vars(DATA), "expression": np.asarray(DATA.expression) + 100.0})
    others = made(data=raised)
    pca, svd = (others[name].coordinates[0][:, :N_COMPONENTS].astype(np.float64) for name in ("pca", "svd"))
    assert np.allclose(pca.mean(axis=0), 0, atol=1e-5)
    assert abs(svd[:, 0].mean()) > 20 * svd[:, 0].std()


def test_gene_permuted_reads_the_same_operator_with_wrong_names(all_of_them):
    """Undoing one permutation on the genes of the expression gives the features of the manifold itself."""
    drawn = all_of_them["gene_permuted"].coordinates
    own = feature_coordinates(np.hstack([DATA.expression @ block for block in OPERATOR]), scale_floor=0.1)
    for one in drawn:
        assert not np.allclose(between(one), between(own), rtol=0.05, atol=0.05 * np.abs(between(own)).max())
    assert len({one.tobytes() for one in drawn}) == N_DRAWS


def test_gene_permuted_is_blind_to_which_gene_is_which():
    """Genes that all have the same values are the same under any permutation: nothing else is changed."""
    alike = np.repeat(np.random.default_rng(3).random((N, 1)), N_GENES, axis=1)
    data = type(DATA)(**{**vars(DATA), "expression": alike})
    operator = np.abs(OPERATOR)
    own = feature_coordinates(np.hstack([alike @ block for block in operator]), scale_floor=0.1)
    found = made(data=data, operator=operator)["gene_permuted"].coordinates
    assert all(np.allclose(between(one), between(own), rtol=1e-3, atol=1e-2) for one in found)


def test_seeds_decide_and_what_was_drawn_before_does_not(all_of_them):
    again, other = made(), made(seed=1)
    for name in COMPARED:
        assert np.array_equal(again[name].coordinates, all_of_them[name].coordinates)
        drawn = name in ("spectrum_matched", "gene_permuted")
        assert np.array_equal(other[name].coordinates, all_of_them[name].coordinates) is not drawn
    used = np.random.default_rng(0)
    used.spawn(3)
    found = {one.name: one for one in comparators(DATA, OPERATOR, {}, rng=used)}
    for name in ("spectrum_matched", "gene_permuted"):
        assert np.array_equal(found[name].coordinates, all_of_them[name].coordinates)


def test_label_lookup_knows_the_stage_and_nothing_else():
    placed = label_lookup(DATA.stage).astype(np.float64)
    stage = np.array(DATA.stage)
    apart = np.linalg.norm(placed[:, None] - placed[None], axis=2)
    assert ((apart < 1e-4) == (stage[:, None] == stage)).all()
    # every stage has as many anchors here, so that none is nearer to one than to another
    others = apart[stage[:, None] != stage]
    assert others.min() == pytest.approx(others.max(), rel=1e-4)
    with pytest.raises(BadInputError):
        label_lookup(["one"] * 5)

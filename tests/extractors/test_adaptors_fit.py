"""The cell head and the hybrid head: planted geometry, exact losses, balanced batches, stopping, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors

from manifoldzoo.cards._errors import BadInputError, PanelError
from manifoldzoo.extractors.adaptors import HYBRID, CellSettings, fit_cells
from manifoldzoo.extractors.adaptors._cells import (
    Standardised,
    balanced_batches,
    held_out_cells,
    nearest_training_cells,
    standardise,
)
from manifoldzoo.extractors.adaptors._fit import _Objective
from manifoldzoo.extractors.adaptors._report import make_report, relative_change
from manifoldzoo.extractors.adaptors._settings import TERMS
from manifoldzoo.manifolds._let import LetHead, LetSettings, row_space
from manifoldzoo.manifolds._let_kernel import COSINE_BOUND

QUICK = CellSettings(epochs=15, batch_size=128, n_neighbours=5)
PARENTS = [0, 0, 1, 1, 0, 4, 4, 6]
NAMES = [f"s{i}" for i in range(len(PARENTS))]


class Tree:
    """A tree of stages: each edge is a direction of its own, turned into 50 features with noise."""

    def __init__(self, per_stage=40, noise=0.3, p=50, seed=0):
        rng = np.random.default_rng(seed)
        n = len(PARENTS)
        path = np.zeros((n, n))
        for stage in range(1, n):
            path[stage] = path[PARENTS[stage]]
            path[stage, stage] = 1
        self.distances = np.abs(path[:, None] - path[None]).sum(axis=2)
        turn = np.linalg.qr(rng.standard_normal((p, n)))[0]
        self.index = np.repeat(np.arange(n), per_stage)
        self.stage = [NAMES[i] for i in self.index]
        self.cells, self.unseen = (
            path[self.index] @ turn.T + noise * rng.standard_normal((len(self.index), p)) for _ in range(2)
        )

    def fit(self, chosen=QUICK, seed=0, **changes):
        arguments = {"features": self.cells, "stage": self.stage, "distances": self.distances} | changes
        names = arguments.pop("stages", NAMES)
        return fit_cells(**arguments, settings=chosen, stages=names, rng=np.random.default_rng(seed))

    def score(self, head):
        """Spearman of latent and true distances of pairs of cells that were not fitted on."""
        pairs = np.triu_indices(len(self.index), 1)
        latent = head.beta * angles(head.latent(self.unseen))
        return spearmanr(latent[pairs], self.distances[self.index][:, self.index][pairs]).statistic


@pytest.fixture(scope="module")
def tree():
    return Tree()


def angles(z, other=None):
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (z, z if other is None else other)]
    return np.arccos((1 - COSINE_BOUND) * np.clip(units[0] @ units[1].T, -1, 1))


def same(first, second):
    assert all(np.array_equal(getattr(first.head, name), getattr(second.head, name)) for name in vars(first.head))
    np.testing.assert_equal(vars(first.report), vars(second.report))


# --- what a head learns ---


@pytest.mark.parametrize("chosen", [QUICK, replace(HYBRID, epochs=15, batch_size=128, n_neighbours=5)])
def test_planted_tree_is_recovered_for_unseen_cells(tree, chosen):
    assert tree.score(tree.fit(chosen).head) > 0.75
    shuffled = [tree.stage[i] for i in np.random.default_rng(5).permutation(len(tree.stage))]
    assert tree.score(tree.fit(chosen, stage=shuffled).head) < 0.65


@pytest.mark.parametrize("d", [3, 6, 10])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dimensions_and_precisions(tree, d, dtype):
    fit = tree.fit(replace(QUICK, n_components=d, dtype=dtype))
    assert isinstance(fit.head, LetHead)
    assert fit.head.weights.shape == (d, 50) and fit.head.latent(tree.cells).shape == (len(tree.index), d)
    assert {getattr(fit.head, name).dtype for name in ("weights", "bias", "mean", "scale")} == {np.dtype("float64")}
    assert np.array_equal(fit.head.weights, fit.head.weights.astype(np.float32)) == (dtype == "float32")
    assert tree.score(fit.head) > 0.6


def test_precisions_agree(tree):
    short = replace(QUICK, epochs=3)
    first, second = (tree.fit(replace(short, dtype=dtype)) for dtype in ("float32", "float64"))
    np.testing.assert_allclose(first.report.losses, second.report.losses, rtol=1e-3)


def test_topo_brings_centroids_to_the_ruler(tree):
    def error(head):
        z = head.latent(tree.cells)
        mu = np.stack([z[tree.index == s].mean(axis=0) for s in range(len(NAMES))])
        pairs = np.triu_indices(len(NAMES), 1)
        return ((head.beta * angles(mu) - tree.distances)[pairs] ** 2).mean()

    # in three dimensions the tree does not fit, so that terms compete
    without, with_topo = (tree.fit(replace(QUICK, topo=weight, n_components=3)) for weight in (0, 3.0))
    assert error(with_topo.head) < 0.8 * error(without.head)


def test_compact_draws_cells_to_their_centroids(tree):
    def spread(head):
        z = head.latent(tree.unseen)
        mu = np.stack([z[tree.index == s].mean(axis=0) for s in range(len(NAMES))])
        return np.take_along_axis(angles(z, mu), tree.index[:, None], axis=1).mean()

    without, with_compact = (tree.fit(replace(QUICK, compact=weight)) for weight in (0, 1.0))
    assert spread(with_compact.head) < 0.9 * spread(without.head)


def test_local_keeps_neighbours(tree):
    # two halves that the ruler knows nothing of, far apart in features
    sign = np.random.default_rng(1).choice([-1, 1], len(tree.index))
    cells = np.hstack([tree.cells, sign[:, None] * np.ones((1, 10)) * 2])

    def kept(weight):
        head = tree.fit(replace(QUICK, local=weight), features=cells).head
        within = sign[:, None] == sign[None]
        both = tree.index[:, None] == tree.index[None]
        apart = angles(head.latent(cells))
        return apart[both & ~within].mean() - apart[both & within].mean()

    assert kept(1.0) > kept(0) + 0.2


# --- the losses that are told ---


@pytest.mark.parametrize("term", ["stage", "recon", "topo", "compact"])
def test_loss_of_the_head_is_that_of_its_latents(tree, term):
    weights = dict.fromkeys(TERMS, 0.0) | {"stage": 0.5, term: 0.9}
    # one batch an epoch, each cell once
    chosen = replace(QUICK, **weights, epochs=4, batch_size=len(tree.index), dtype="float64")
    head = tree.fit(chosen).head
    expected = 0.5 * exact(tree, head, "stage") if term != "stage" else 0
    np.testing.assert_allclose(head.loss, expected + 0.9 * exact(tree, head, term), rtol=1e-9)


@pytest.mark.parametrize("chosen", [QUICK, replace(HYBRID, epochs=5, batch_size=128, n_neighbours=5, local=0)])
def test_terms_of_the_head_add_up_to_its_loss(tree, chosen):
    fit = tree.fit(replace(chosen, dtype="float64"))
    assert list(fit.terms) == [name for name in TERMS if getattr(chosen, name)]
    assert sum(getattr(chosen, name) * value for name, value in fit.terms.items()) == pytest.approx(fit.head.loss)


def exact(tree, head, term, cells=None, index=None):
    """One term over all cells, stages of equal size, from what a head does with features."""
    cells, index = (tree.cells, tree.index) if cells is None else (cells, index)
    z, d = head.latent(cells), tree.distances
    mu = np.stack([z[index == s].mean(axis=0) for s in range(len(NAMES))])
    stages, pairs = np.triu_indices(len(NAMES), 1), np.triu_indices(len(z), 1)
    if term == "stage":
        error = head.beta * angles(z) - d[index][:, index]
        return (error[pairs] ** 2).mean() / d[stages].mean() ** 2
    if term == "recon":
        x = (cells - head.mean) / head.scale
        return ((z @ head.weights + head.bias - x) ** 2).mean()
    if term == "topo":
        return ((head.beta * angles(mu) - d)[stages] ** 2).mean()
    return np.take_along_axis(angles(z, mu), index[:, None], axis=1).mean()


def test_terms_of_weight_zero_are_not_computed(tree):
    fit = tree.fit(replace(QUICK, epochs=2, local=0, recon=0, cls=0))
    computed = np.isfinite(fit.report.losses)
    assert fit.report.terms == TERMS
    assert computed[:, 0].all() and not computed[:, 1:].any()
    np.testing.assert_allclose(fit.report.total, fit.report.losses[:, 0])


def test_report_of_a_plain_fit(tree):
    told = []
    fit = tree.fit(replace(QUICK, epochs=4))
    report = fit.report
    assert report.losses.shape == (4, len(TERMS)) and report.losses.dtype == np.float64
    np.testing.assert_allclose(report.total, report.losses[:, :4] @ [1.0, 0.1, 0.08, 0.4], rtol=1e-12)
    assert (report.n_epochs, report.best_epoch, report.stopped_early, report.reason) == (4, 3, False, "epochs")
    assert report.validation.size == 0 and (report.n_train, report.n_validation) == (len(tree.index), 0)
    assert report.total[-1] < report.total[0]
    tree.fit(replace(QUICK, epochs=4), progress=told.append)
    assert told == [1] * 4


def test_relative_change():
    falling = np.concatenate([np.linspace(9, 2, 16), [2.0, 2.0], [1.5, 1.5]])
    assert relative_change(falling) == pytest.approx(0.25)
    assert relative_change(np.array([4.0, 3.0])) == pytest.approx(0.25)
    assert relative_change(np.array([3.0])) == np.inf


@pytest.mark.parametrize(("last", "converged"), [(0.995, True), (0.98, False)])
def test_converged(last, converged):
    report = make_report(
        [np.array([value]) for value in [1.0] * 9 + [last]],
        [1.0],
        [],
        best_epoch=9,
        epochs=10,
        n_train=9,
        n_validation=0,
    )
    assert report.converged is converged


# --- stopping early ---


@pytest.fixture(scope="module")
def noisy():
    """Few cells and many features of noise: the validation loss soon rises."""
    return Tree(per_stage=20, noise=1.5, p=300, seed=1)


STOPPING = replace(
    QUICK, epochs=60, patience=3, validation=0.25, learning_rate=0.05, local=0, cls=0, dtype="float64", batch_size=200
)


def test_stops_and_returns_the_best_epoch(noisy):
    fit = noisy.fit(STOPPING)
    report = fit.report
    assert report.stopped_early and report.reason == "patience"
    assert report.n_epochs == report.best_epoch + 3 + 1 < 60
    assert report.best_epoch == report.validation.argmin()
    assert report.validation[-1] > report.validation.min()
    assert (report.n_train, report.n_validation) == (120, 40)
    # the head's own loss on the cells held out: one batch, five cells of each stage
    held = held_out_cells(noisy.index, 0.25, None, np.random.default_rng(0).spawn(1)[0])
    cells, index = noisy.cells[held], noisy.index[held]
    terms = [exact(noisy, fit.head, term, cells, index) for term in ("stage", "recon")]
    np.testing.assert_allclose(np.dot(terms, [1.0, 0.08]), report.validation.min(), rtol=1e-9)


def test_patience_that_is_never_used_up(noisy):
    report = noisy.fit(replace(STOPPING, epochs=6, patience=6)).report
    assert (report.n_epochs, report.reason, report.stopped_early) == (6, "epochs", False)


def test_cells_held_out_teach_nothing(noisy):
    """Other features of the cells held out change neither head nor training losses, where all epochs are run."""
    chosen = replace(STOPPING, epochs=3, patience=3, local=0.1, cls=0.4)
    held = held_out_cells(noisy.index, 0.25, None, np.random.default_rng(0).spawn(1)[0])
    changed = noisy.cells.copy()
    changed[held] *= 1.001
    first, second = noisy.fit(chosen), noisy.fit(chosen, features=changed)
    np.testing.assert_equal(first.report.losses, second.report.losses)
    assert not np.array_equal(first.report.validation, second.report.validation)
    assert np.array_equal(first.head.weights, second.head.weights)


def test_groups_are_held_out_whole():
    stage, groups = np.tile(np.arange(4), 30), np.repeat([f"g{i}" for i in range(10)], 12)
    held = held_out_cells(stage, 0.25, groups, np.random.default_rng(0))
    out = set(groups[held])
    assert len(out) == 3 and not out & set(np.delete(groups, held))
    fit = Tree(per_stage=20)
    grouped = fit.fit(replace(QUICK, epochs=2, patience=1), groups=[f"g{i % 5}" for i in range(160)])
    assert grouped.report.n_validation == 32


def test_a_group_that_has_a_stage_alone_is_never_held_out():
    stage = np.append(np.tile([0, 1], 20), [2, 2, 2])
    groups = np.append(np.repeat(["a", "b", "c", "d"], 10), ["only"] * 3)
    for seed in range(20):
        assert not (held_out_cells(stage, 0.2, groups, np.random.default_rng(seed)) >= 40).any()


def test_a_group_of_most_cells_is_never_held_out():
    stage, groups = np.tile([0, 1], 30), np.repeat(["most", "b", "c", "d"], [36, 8, 8, 8])
    for seed in range(20):
        held = held_out_cells(stage, 0.3, groups, np.random.default_rng(seed))
        assert held.min() >= 36 and len(held) == 24


@given(
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=6),
    fraction=st.floats(0.05, 0.95),
    seed=st.integers(0, 99),
)
@settings(max_examples=50, deadline=None)
def test_cells_are_held_out_stage_by_stage(sizes, fraction, seed):
    stage = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    expected = [min(size - 1, round(fraction * size)) for size in sizes]
    if sum(n > 0 for n in expected) < 2:
        with pytest.raises(PanelError, match="can be held out"):
            held_out_cells(stage, fraction, None, np.random.default_rng(seed))
        return
    held = held_out_cells(stage, fraction, None, np.random.default_rng(seed))
    assert np.bincount(stage[held], minlength=len(sizes)).tolist() == expected
    assert len(set(held)) == len(held)


# --- cells, batches, neighbours ---


@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=7),
    n_batches=st.integers(1, 5),
    batch_size=st.integers(2, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_batches_are_balanced(sizes, n_batches, batch_size, seed):
    stage = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    drawn = balanced_batches(stage, n_batches, batch_size, np.random.default_rng(seed))
    assert drawn.shape == (n_batches, batch_size)
    for batch in drawn:
        counts = np.bincount(stage[batch], minlength=len(sizes))
        assert counts.max() - counts.min() <= 1
    times = np.bincount(drawn.ravel(), minlength=len(stage))
    for index in range(len(sizes)):
        # a stage is used up before a cell of it comes again
        assert np.ptp(times[stage == index]) <= 1


def test_batches_differ_and_cells_come_in_random_order():
    stage = np.repeat([0, 1], 50)
    drawn = balanced_batches(stage, 2, 50, np.random.default_rng(0))
    assert not np.array_equal(drawn[0], drawn[1])
    assert (np.diff(drawn[0, :25]) < 0).any()


@pytest.mark.parametrize("with_neighbours", [True, False])
def test_an_epoch_goes_through_all_cells(with_neighbours):
    index, rows = np.repeat([0, 1, 2], 20), np.random.default_rng(0).standard_normal((60, 4))
    cells = Standardised(rows, np.zeros(4), np.ones(4))
    near = np.arange(60)[:, None] // 10 * 10 + np.arange(10) if with_neighbours else None
    objective = _Objective(cells, index, 1 - np.eye(3), near, replace(QUICK, batch_size=12))
    batches = objective.epoch(slice(0, 60), np.random.default_rng(0))
    assert sorted(np.concatenate([batch for batch, _ in batches])) == list(range(60))
    partners = [partner for _, partner in batches]
    if not with_neighbours:
        assert partners == [None] * 5
        return
    assert all((batch // 10 == partner // 10).all() for batch, partner in batches)
    assert len(set(np.concatenate(partners) % 10)) == 10
    # of the cells held out alone
    assert set(np.concatenate([batch for batch, _ in objective.epoch(slice(40, 60), np.random.default_rng(0))])) == set(
        range(40, 60)
    )


def test_standardised_as_the_anchor_head():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1200, 7)) * [1, 2, 3, 1e-3, 0, 5, 1] + 3
    order = rng.permutation(1200)
    space = row_space(x, LetSettings(), rng=rng, train=order[:700])
    found = standardise(x, order, 700, floor=0.1, dtype="float64")
    np.testing.assert_allclose(found.mean, space.mean, rtol=1e-12)
    np.testing.assert_allclose(found.scale, space.scale, rtol=1e-12)
    np.testing.assert_allclose(found.rows, (x[order] - space.mean) / space.scale, atol=1e-12)


def test_neighbours_are_training_cells_and_the_nearest():
    x = np.random.default_rng(0).standard_normal((90, 8))
    x[1] = x[0]
    x -= x[:70].mean(axis=0)
    found = nearest_training_cells(x, 70, 4, np.random.default_rng(0))
    apart = np.linalg.norm(x[:, None] - x[None, :70], axis=2)
    apart[np.arange(70), np.arange(70)] = np.inf
    # distances, as the two equal cells may stand for each other
    np.testing.assert_allclose(np.take_along_axis(apart, found, axis=1), np.sort(apart, axis=1)[:, :4], rtol=1e-9)
    assert found[0, 0] == 1 and found[1, 0] == 0


def test_neighbours_in_principal_components():
    # 60 features of which 5 matter: neighbours are those in the 5, whatever small noise says
    rng = np.random.default_rng(0)
    core = rng.standard_normal((200, 5)) * 10
    x = core @ np.linalg.qr(rng.standard_normal((60, 5)))[0].T + 1e-3 * rng.standard_normal((200, 60))
    found = nearest_training_cells(x - x.mean(axis=0), 200, 3, rng)
    expected = NearestNeighbors(n_neighbors=3).fit(core).kneighbors(return_distance=False)
    assert (found == expected).mean() > 0.98


# --- the same input, the same output ---


def test_equal_rng_equal_fit_and_global_state_untouched(tree):
    short = replace(HYBRID, epochs=3, batch_size=100, n_neighbours=5, patience=2)
    before, plain = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = tree.fit(short)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], plain)  # noqa: NPY002
    torch.rand(3)
    same(first, tree.fit(short))
    assert not np.array_equal(first.head.weights, tree.fit(short, seed=1).head.weights)


@pytest.mark.parametrize("form", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix, np.asfortranarray])
def test_every_layout_gives_the_same(tree, form):
    short = replace(QUICK, epochs=2)
    same(tree.fit(short), tree.fit(short, features=form(tree.cells)))


def test_stages_without_cells_and_order_of_names(tree):
    short = replace(HYBRID, epochs=2, batch_size=100, n_neighbours=5)
    wider = np.pad(tree.distances, (0, 1), constant_values=7.0)
    wider[-1, -1] = 0
    same(tree.fit(short), tree.fit(short, distances=wider, stages=[*NAMES, "nobody"]))


def test_units_of_features_and_ruler_do_not_matter(tree):
    short = replace(QUICK, epochs=5, dtype="float64")
    plain = tree.fit(short)
    scaled = tree.fit(short, features=tree.cells * 8 + 1, distances=tree.distances * 4)
    np.testing.assert_allclose(scaled.head.latent(tree.unseen * 8 + 1), plain.head.latent(tree.unseen), rtol=1e-6)
    assert scaled.head.beta == pytest.approx(4 * plain.head.beta)


def test_input_is_left_as_it_is(tree):
    cells, distances = tree.cells.copy(), tree.distances.copy()
    tree.fit(replace(QUICK, epochs=1), features=cells, distances=distances)
    assert np.array_equal(cells, tree.cells) and np.array_equal(distances, tree.distances)


# --- bad input ---


def with_nan(tree):
    cells = tree.cells.copy()
    cells[3, 4] = np.nan
    return cells


BAD = {
    "not finite": (lambda t: {"features": with_nan(t)}, BadInputError, "1 values that are not finite"),
    "sparse": (lambda t: {"features": sparse.csr_matrix(with_nan(t))}, BadInputError, "1 values that are not finite"),
    "flat": (lambda t: {"features": t.cells[0]}, BadInputError, r"shape \(50,\)"),
    "constant": (lambda t: {"features": np.ones_like(t.cells)}, BadInputError, "None of the 50 features varies"),
    "one stage": (lambda t: {"stage": ["s1"] * len(t.stage)}, PanelError, "of the stage 's1'"),
    "too short": (lambda t: {"stage": t.stage[1:]}, BadInputError, "319 stages were named for 320 cells"),
    "groups": (lambda t: {"groups": ["a"]}, BadInputError, "1 groups were named for 320 cells"),
    "unknown": (lambda t: {"stage": ["s11", *t.stage[1:]]}, BadInputError, "the stage 's11'. Did you mean s1"),
    "strange": (lambda t: {"stage": ["blast", *t.stage[1:]]}, BadInputError, "'blast'. The stages are s0, s1"),
    "shape": (lambda t: {"distances": t.distances[1:]}, BadInputError, r"shape \(7, 8\) were given for 8 stages"),
    "names": (lambda t: {"stages": ["s0", *NAMES[:-1]]}, BadInputError, "8 stages, 7 of them different"),
    "negative": (lambda t: {"distances": -t.distances}, BadInputError, "finite values of at least 0"),
    "skew": (lambda t: {"distances": np.triu(t.distances)}, BadInputError, "not symmetric"),
    "all zero": (lambda t: {"distances": t.distances * 0}, BadInputError, "all distances are 0"),
    "few": (lambda t: {"features": t.cells[38:43], "stage": t.stage[38:43]}, PanelError, "5 cells are left to fit on"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tree, case):
    change, error, match = BAD[case]
    with pytest.raises(error, match=match):
        tree.fit(**change(tree))


def test_a_single_group_cannot_be_held_out(tree):
    with pytest.raises(PanelError, match="0 cells of 0 stages can be held out"):
        tree.fit(replace(QUICK, patience=2), groups=["a"] * len(tree.stage))


@pytest.mark.parametrize(("epochs", "batch_size"), [(15, 128), (1, 320)])
def test_a_step_too_large_is_named(tree, epochs, batch_size):
    with pytest.raises(BadInputError, match=r"epoch 1, expected a finite number. Set a smaller learning_rate"):
        tree.fit(replace(QUICK, learning_rate=1e30, epochs=epochs, batch_size=batch_size))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 0),
        ("epochs", 0),
        ("batch_size", 1),
        ("n_neighbours", 0),
        ("patience", 0),
        ("learning_rate", 0),
        ("temperature", 0),
        ("scale_floor", np.nan),
        ("stage", -1),
        ("topo", np.inf),
        ("validation", 1.0),
        ("dtype", "float16"),
    ],
)
def test_bad_settings(name, value):
    with pytest.raises(BadInputError, match=f"{name} is '?{value}"):
        CellSettings(**{name: value})


def test_a_loss_without_the_ruler_is_refused():
    with pytest.raises(BadInputError, match="no other term reads the ruler"):
        CellSettings(stage=0)
    assert CellSettings(stage=0, topo=0.1).weights == (0, 0.1, 0.08, 0.4, 0.1, 0)


def test_presets_are_those_published():
    assert CellSettings().weights == (1.0, 0.1, 0.08, 0.4, 0.0, 0.0)
    assert (CellSettings().epochs, CellSettings().batch_size, CellSettings().n_components) == (120, 896, 10)
    assert 0.005 <= HYBRID.topo <= 0.18 and HYBRID.compact == 0.015
    assert replace(HYBRID, topo=0.0, compact=0.0) == CellSettings()

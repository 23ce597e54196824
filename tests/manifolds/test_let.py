"""The LET adaptor: loss and gradient against plain code, recovery of planted geometry, batches against single fits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._let import (
    LetSettings,
    fit_in_row_space,
    fit_let,
    fit_let_batch,
    row_space,
)
from manifoldzoo.manifolds._let_kernel import (
    COSINE_BOUND,
    PairLayout,
    let_gradient,
    let_loss,
)
from manifoldzoo.registry._resolve import load

SHORT = LetSettings(n_components=4, n_steps=20)


def problem(n=13, r=7, d=3, count=2, seed=0):
    """Draw rows that are not centred, distances, and parameters, all float64."""
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 5, (count, n, n))
    targets = targets + targets.transpose(0, 2, 1)
    targets[:, np.arange(n), np.arange(n)] = 0
    return (
        rng.standard_normal((n, r)) + 0.3,
        targets,
        rng.standard_normal((count, d, r)),
        rng.standard_normal((count, r)),
        rng.standard_normal(count) * 0.3,
    )


def brute_force_loss(x, target, w, b, log_beta, alpha):
    """Add the loss up pair by pair, straight from the published formula."""
    z = [w @ (row - b) for row in x]
    total = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            cosine = z[i] @ z[j] / np.sqrt((z[i] @ z[i]) * (z[j] @ z[j])) * (1 - COSINE_BOUND)
            total += (np.exp(log_beta) * np.arccos(cosine) - target[i, j]) ** 2
        total += alpha * np.sum((w.T @ z[i] + b - x[i]) ** 2)
    return total


def sphere(n=80, p=60, noise=0.1, seed=0):
    """Place points on a sphere, rotate them into p dimensions with noise; distances are great circles."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    distances = 4 * np.arccos(np.clip(points @ points.T, -1, 1))
    np.fill_diagonal(distances, 0)
    axes, _ = np.linalg.qr(rng.standard_normal((p, 3)))
    return points @ axes.T * np.sqrt(p) + noise * rng.standard_normal((n, p)), distances


def rank_agreement(latent, distances, rows):
    """Correlate latent angles with distances over the pairs that touch some rows."""
    unit = latent / np.linalg.norm(latent, axis=1, keepdims=True)
    angles = np.arccos(np.clip(unit @ unit.T, -1, 1))
    i, j = np.triu_indices(len(latent), 1)
    touching = np.isin(i, rows) | np.isin(j, rows)
    return spearmanr(angles[i[touching], j[touching]], distances[i[touching], j[touching]])[0]


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.7])
def test_loss_is_the_published_sum(alpha):
    x, targets, w, b, log_beta = problem()
    expected = [brute_force_loss(x, targets[k], w[k], b[k], log_beta[k], alpha) for k in range(2)]
    np.testing.assert_allclose(let_loss(x, targets, w, b, log_beta, alpha), expected, rtol=1e-11)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
@pytest.mark.parametrize("strip_rows", [1000, 4])
def test_gradient_equals_finite_differences(alpha, strip_rows):
    x, targets, *parameters = problem()
    layout = PairLayout.of(targets, strip_rows=strip_rows)
    assert len(layout.diagonal) == (1 if strip_rows == 1000 else 3)
    found = tuple(np.empty_like(value) for value in parameters)
    let_gradient(x, np.ascontiguousarray(x.T), layout, *parameters, alpha, out=found)
    step = 1e-6
    for value, gradient in zip(parameters, found, strict=True):
        for index in np.ndindex(value.shape):
            kept = value[index]
            value[index] = kept + step
            above = let_loss(x, targets, *parameters, alpha)[index[0]]
            value[index] = kept - step
            below = let_loss(x, targets, *parameters, alpha)[index[0]]
            value[index] = kept
            assert gradient[index] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-3)


def test_gradient_equals_autograd():
    torch = pytest.importorskip("torch")
    x, targets, *parameters = problem(n=40, r=20, d=5)
    found = tuple(np.empty_like(value) for value in parameters)
    let_gradient(x, np.ascontiguousarray(x.T), PairLayout.of(targets, strip_rows=16), *parameters, 0.05, out=found)
    w, b, log_beta = (torch.tensor(value, requires_grad=True) for value in parameters)
    rows = torch.tensor(x)
    z = torch.einsum("kdr,knr->knd", w, rows[None] - b[:, None])
    unit = z / z.norm(dim=2, keepdim=True)
    off = ~torch.eye(len(x), dtype=torch.bool)
    angles = torch.arccos(unit @ unit.transpose(1, 2) * (1 - COSINE_BOUND))[:, off]
    pairs = ((log_beta.exp()[:, None] * angles - torch.tensor(targets)[:, off]) ** 2).sum()
    floor = np.arccos(1 - COSINE_BOUND)
    diagonal = (len(x) * (log_beta.exp() * floor) ** 2).sum()
    rebuilt = ((z @ w + b[:, None] - rows[None]) ** 2).sum()
    (pairs + diagonal + 0.05 * rebuilt).backward()
    for gradient, leaf in zip(found, (w, b, log_beta), strict=True):
        np.testing.assert_allclose(gradient, leaf.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_identical_rows_keep_the_gradient_finite_in_float32():
    x, targets, *parameters = (value.astype(np.float32) for value in problem())
    x[1] = x[0]
    x[2] = -x[0]
    parameters[1][:] = 0
    found = tuple(np.empty_like(value) for value in parameters)
    let_gradient(x, np.ascontiguousarray(x.T), PairLayout.of(targets), *parameters, 0.01, out=found)
    assert all(np.isfinite(gradient).all() for gradient in found)


def test_planted_sphere_is_recovered_on_rows_held_out():
    x, distances = sphere()
    train, held = np.arange(60), np.arange(60, 80)
    head = fit_let(x[train], distances[:60, :60], LetSettings(), rng=np.random.default_rng(1))
    assert rank_agreement(head.latent(x), distances, held) > 0.95
    shuffled = np.random.default_rng(2).permutation(60)
    wrong = fit_let(
        x[train],
        distances[np.ix_(shuffled, shuffled)],
        LetSettings(),
        rng=np.random.default_rng(1),
    )
    assert rank_agreement(wrong.latent(x), distances, held) < 0.6


@pytest.mark.parametrize(("n", "p"), [(12, 40), (40, 12), (20, 20)])
def test_more_steps_lower_the_loss_for_every_shape(n, p):
    x, distances = sphere(n=n, p=p)
    losses = [
        fit_let(
            x,
            distances,
            LetSettings(n_components=3, n_steps=steps),
            rng=np.random.default_rng(5),
        ).loss
        for steps in (1, 200)
    ]
    assert losses[1] < 0.2 * losses[0]


def test_head_reports_the_loss_of_its_own_parameters():
    x, distances = sphere(n=20, p=9)
    head = fit_let(x, distances, SHORT, rng=np.random.default_rng(0))
    standard = (x - head.mean) / head.scale
    expected = brute_force_loss(standard, distances, head.weights, head.bias, np.log(head.beta), SHORT.alpha)
    assert head.loss == pytest.approx(expected, rel=1e-4)
    assert head.beta > 0


def test_head_ignores_what_the_training_rows_do_not_span():
    x, distances = sphere(n=10, p=40)
    head = fit_let(x, distances, SHORT, rng=np.random.default_rng(0))
    standard = (x - head.mean) / head.scale
    direction = np.random.default_rng(1).standard_normal(40)
    direction -= standard.T @ np.linalg.lstsq(standard.T, direction, rcond=None)[0]
    moved = x + 100 * direction * head.scale
    np.testing.assert_allclose(head.latent(moved), head.latent(x), atol=1e-5)


def test_batch_equals_single_fits_and_any_batch_size():
    x, distances = sphere(n=30, p=50)
    rng = np.random.default_rng(3)
    targets = np.stack([distances[np.ix_(order, order)] for order in (rng.permutation(30) for _ in range(5))])
    train = np.arange(24)
    found = [
        fit_let_batch(
            x,
            targets,
            SHORT,
            rng=np.random.default_rng(7),
            train=train,
            batch_size=size,
        )
        for size in (1, 2, 16)
    ]
    assert found[0].shape == (5, 30, 4)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-4, atol=1e-4)
    assert np.abs(found[0][0] - found[0][1]).max() > 0.1
    one = fit_let(x[train], targets[0][:24, :24], SHORT, rng=np.random.default_rng(7))
    np.testing.assert_allclose(one.latent(x), found[0][0], rtol=1e-3, atol=1e-3)


def test_training_rows_may_differ_per_problem():
    x, distances = sphere(n=30, p=50)
    train = np.stack([np.arange(20), np.arange(10, 30)])
    found = fit_let_batch(x, np.stack([distances] * 2), SHORT, rng=np.random.default_rng(7), train=train)
    rng = np.random.default_rng(7)
    rng.spawn(1)
    for rows, child, latents in zip(train, rng.spawn(2), found, strict=True):
        head = fit_let(x[rows], distances[np.ix_(rows, rows)], SHORT, rng=child)
        np.testing.assert_allclose(head.latent(x), latents)


def test_held_out_rows_and_distances_cannot_touch_the_fit():
    x, distances = sphere(n=30, p=20)
    train = np.arange(20)
    other_x, other_d = x.copy(), distances.copy()
    other_x[20:] += 100
    other_d[20:, :20] *= 3
    other_d[:20, 20:] *= 3
    first = fit_let_batch(x, distances[None], SHORT, rng=np.random.default_rng(0), train=train)
    second = fit_let_batch(other_x, other_d[None], SHORT, rng=np.random.default_rng(0), train=train)
    np.testing.assert_array_equal(first[:, :20], second[:, :20])


def test_same_seed_same_bytes_and_other_seed_other_head():
    x, distances = sphere(n=20, p=30)
    heads = [fit_let(x, distances, SHORT, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert heads[0].weights.tobytes() == heads[1].weights.tobytes()
    assert heads[0].weights.tobytes() != heads[2].weights.tobytes()


def test_scale_is_floored_and_constant_features_carry_no_weight():
    x, distances = sphere(n=20, p=11)
    x[:, 3] = 7.0
    x[:, 4] = x[:, 4] * 1e-6
    head = fit_let(x, distances, SHORT, rng=np.random.default_rng(0))
    spread = x.std(axis=0)
    floor = 0.1 * np.median(np.delete(spread, 3))
    np.testing.assert_allclose(head.scale, np.maximum(spread, floor))
    np.testing.assert_allclose(head.weights[:, 3], 0, atol=1e-12)


def test_row_space_keeps_the_geometry_of_the_training_rows():
    x, _ = sphere(n=15, p=40)
    space = row_space(x, SHORT, rng=np.random.default_rng(0), train=np.arange(12))
    assert space.rows.shape == (15, 11)
    np.testing.assert_allclose(space.basis @ space.basis.T, np.eye(11), atol=1e-10)
    standard = ((x - space.mean) / space.scale)[:12]
    np.testing.assert_allclose(space.rows[:12] @ space.rows[:12].T, standard @ standard.T, rtol=1e-4, atol=1e-3)
    # principal axes would make the columns uncorrelated, and the same for every generator
    correlation = np.corrcoef(space.rows[:12].T)[np.triu_indices(11, 1)]
    assert np.abs(correlation).max() > 0.1
    other = row_space(x, SHORT, rng=np.random.default_rng(1), train=np.arange(12))
    assert np.abs(other.rows - space.rows).max() > 0.1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x, d: (x[0], d), r"\(30,\)"),
        (lambda x, d: (np.where(np.arange(30) == 4, np.nan, x), d), "20 values"),
        (lambda x, d: (np.ones_like(x), d), "30 features"),
        (lambda x, d: (x[:2], d[:2, :2]), "2 training rows"),
        (lambda x, d: (x, d[:, :5]), r"\(20, 5\)"),
        (lambda x, d: (x, d - 1), "-1"),
        (lambda x, d: (x, d + np.triu(d)), "symmetric"),
        (lambda x, d: (x, d + np.eye(20)), "diagonal"),
        (lambda x, d: (x, d * 0), "all distances"),
    ],
)
def test_bad_input_is_named(change, match):
    x, distances = sphere(n=20, p=30)
    features, target = change(x, distances)
    with pytest.raises(BadInputError, match=match):
        fit_let(features, target, SHORT, rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    "values",
    [
        {"n_components": 0},
        {"n_steps": 0},
        {"alpha": -1.0},
        {"learning_rate": 0.0},
        {"scale_floor": np.nan},
        {"schedule": "linear"},
    ],
)
def test_bad_settings_are_named(values):
    (name,) = values
    with pytest.raises(BadInputError, match=name):
        LetSettings(**values)


def test_latent_refuses_another_width_and_batches_another_count():
    x, distances = sphere(n=20, p=30)
    head = fit_let(x, distances, SHORT, rng=np.random.default_rng(0))
    with pytest.raises(BadInputError, match="29"):
        head.latent(x[:, 1:])
    with pytest.raises(BadInputError, match=r"\(20, 20\)"):
        fit_let_batch(x, distances, SHORT, rng=np.random.default_rng(0))
    with pytest.raises(BadInputError, match="3 index rows"):
        fit_let_batch(
            x,
            distances[None],
            SHORT,
            rng=np.random.default_rng(0),
            train=np.zeros((3, 9), dtype=int),
        )
    space = row_space(x, SHORT, rng=np.random.default_rng(0))
    with pytest.raises(BadInputError, match=r"\(2, 20, 20\)"):
        fit_in_row_space(space, distances[None], SHORT, rngs=np.random.default_rng(0).spawn(2))


def test_step_sizes_are_constant_or_fall_as_half_a_cosine():
    steady = LetSettings(n_steps=4, learning_rate=0.5)
    np.testing.assert_array_equal(steady.rates(), [0.5] * 4)
    falling = LetSettings(n_steps=4, learning_rate=0.5, schedule="cosine").rates()
    np.testing.assert_allclose(falling, [0.5, 0.25 + 0.25 / np.sqrt(2), 0.25, 0.25 - 0.25 / np.sqrt(2)], rtol=1e-12)


def test_rounding_grows_less_where_step_sizes_fall():
    """On real anchors, of which many share a stage: their distance is 0, where the loss has a kink."""
    manifold = load("hematopoietic")
    features = apply_operator(manifold.tensors["panel.anchors"], manifold.operator)
    distances = manifold.ruler.distances(manifold.anchor_stages)
    nudged = features * (1 + 6e-7 * np.random.default_rng(1).standard_normal(features.shape))

    def moved(settings):
        found = []
        for start in range(4):
            one, other = (
                fit_let(each, distances, settings, rng=np.random.default_rng(start)).latent(each)
                for each in (features, nudged)
            )
            found.append(np.max(np.abs(one - other)) / np.max(np.abs(one)))
        return np.median(found)

    steady = moved(LetSettings(n_steps=150))
    falling = moved(LetSettings(n_steps=300, learning_rate=0.005, schedule="cosine"))
    assert falling < steady / 10

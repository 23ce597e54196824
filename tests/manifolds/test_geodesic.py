"""Geodesic heads: scikit-learn's Isomap and SMACOF on standardised anchors, and new rows placed without being seen."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist, squareform
from scipy.stats import pearsonr
from sklearn.manifold import Isomap, smacof

from manifoldzoo.cards._adaptor import Adaptor
from manifoldzoo.cards._errors import BadInputError, FormatError, ZooWarning
from manifoldzoo.manifolds._geodesic import GeodesicSettings, fit_geodesic, geodesic_latents

KINDS = ("isomap", "geodesic-mds")


def arc(n=60, p=40, seed=0, noise=0.01):
    """Features of points on half a circle, mixed into p genes of very different sizes; and where on it they are."""
    rng = np.random.default_rng(seed)
    t = np.linspace(0, np.pi, n)
    mixing = rng.standard_normal((2, p)) * 10 ** rng.uniform(-1, 1, p)
    x = np.c_[np.cos(t), np.sin(t)] @ mixing
    return x + noise * np.abs(x).mean(axis=0) * rng.standard_normal((n, p)) + 5, t


def standardised(x, rows=slice(None), floor=0.1):
    spread = x[rows].std(axis=0)
    return (x - x[rows].mean(axis=0)) / np.maximum(spread, floor * np.median(spread))


def ruler(n, seed=0):
    return squareform(pdist(np.random.default_rng(seed).random((n, 2))))


def up_to_sign(found, expected, **options):
    turned = found * np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(turned, expected, **options)


@pytest.mark.parametrize(("k", "d"), [(4, 1), (6, 3), (15, 2)])
def test_isomap_is_that_of_scikit_learn_on_standardised_features(k, d):
    x, _ = arc()
    isomap = Isomap(n_neighbors=k, n_components=d, eigen_solver="dense").fit(standardised(x))
    head = fit_geodesic(x, ruler(60), GeodesicSettings("isomap", n_components=d, n_neighbours=k))
    up_to_sign(head.latent(x), isomap.embedding_, atol=1e-4)
    np.testing.assert_allclose(head.landmarks.geodesics, isomap.dist_matrix_, atol=1e-6)
    paths, apart = squareform(head.landmarks.geodesics, checks=False), pdist(isomap.embedding_)
    assert head.loss == pytest.approx(1 - pearsonr(paths, apart).statistic ** 2)
    # new points that lie in the span of the anchors, where nothing is left out
    new = x[:7] * 0.3 + x[20:27] * 0.7
    up_to_sign(head.latent(new), isomap.transform((new - x.mean(axis=0)) / (head.scale)), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_circle_is_straightened(kind):
    x, t = arc(noise=0)
    head = fit_geodesic(x, ruler(60), GeodesicSettings(kind, n_components=1, n_neighbours=4))
    z = head.latent(x)[:, 0]
    assert abs(np.corrcoef(z, t)[0, 1]) > 0.98
    assert (np.diff(z) > 0).all() or (np.diff(z) < 0).all()
    # as no linear head could: the ends of the bow lie nearer each other than their way
    assert abs(z[-1] - z[0]) > 1.2 * np.linalg.norm(standardised(x)[0] - standardised(x)[-1])


def test_metric_mds_is_smacof_of_the_same_paths():
    x, _ = np.random.default_rng(0).standard_normal((50, 30)), None
    asked = {"n_components": 2, "n_neighbours": 8}
    classical = fit_geodesic(x, ruler(50), GeodesicSettings("isomap", **asked))
    metric = fit_geodesic(x, ruler(50), GeodesicSettings("geodesic-mds", **asked))
    np.testing.assert_array_equal(metric.landmarks.geodesics, classical.landmarks.geodesics)
    paths = metric.landmarks.geodesics
    placed, raw = smacof(
        (paths + paths.T) / 2,
        init=classical.landmarks.coordinates,
        n_init=1,
        n_components=2,
        max_iter=300,
        eps=1e-6,
        normalized_stress=False,
    )
    own = metric.landmarks.coordinates
    np.testing.assert_allclose(pdist(own), pdist(placed), atol=1e-9)
    assert metric.loss == pytest.approx(np.sqrt(raw / (pdist(own) ** 2).sum()))
    # centred and turned to its principal axes, the widest first
    np.testing.assert_allclose(own.mean(axis=0), 0, atol=1e-9)
    covariance = own.T @ own
    assert abs(covariance[0, 1]) < 1e-6 * covariance[0, 0]
    assert covariance[0, 0] > covariance[1, 1]

    def stress(z):
        apart = pdist(z)
        return np.sqrt(((apart - squareform(paths, checks=False)) ** 2).sum() / (apart**2).sum())

    # it fits the paths better than classical MDS, also where new rows would be placed
    assert stress(metric.latent(x)) < 1.05 * stress(own) < 0.8 * stress(classical.latent(x))


@pytest.mark.parametrize("kind", KINDS)
def test_the_ruler_sets_the_scale_of_distances_and_nothing_else(kind):
    x, _ = arc()
    settings = GeodesicSettings(kind, n_components=2)
    heads = [fit_geodesic(x, ruler(60, seed), settings) for seed in range(2)]
    np.testing.assert_array_equal(heads[0].latent(x), heads[1].latent(x))
    assert heads[0].beta != heads[1].beta
    apart, asked = cdist(heads[0].latent(x), heads[0].latent(x)), ruler(60, 0)
    # the slope of a regression through the origin
    slope = np.linalg.lstsq(apart.reshape(-1, 1), asked.ravel(), rcond=None)[0][0]
    assert heads[0].beta == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_span_of_the_anchors_is_enough(kind):
    x, _ = arc(30, 200)
    head = fit_geodesic(x, ruler(30), GeodesicSettings(kind, n_components=2, n_neighbours=5))
    assert head.weights.shape == (29, 200)
    np.testing.assert_allclose(head.weights @ head.weights.T, np.eye(29), atol=1e-9)
    assert not head.bias.any()
    np.testing.assert_allclose(pdist(head.landmarks.places), pdist(standardised(x)), rtol=1e-6)
    # what a new row has beside the span is left out
    beside = np.random.default_rng(1).standard_normal(200)
    beside -= head.weights.T @ (head.weights @ beside)
    np.testing.assert_allclose(head.latent(x[:3] + beside * head.scale), head.latent(x[:3]), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_held_out_are_placed_without_being_seen(kind):
    x, t = arc(80)
    settings, train = GeodesicSettings(kind, n_components=2), np.arange(0, 80, 2)
    placed = geodesic_latents(x, settings, train=train)
    alone = fit_geodesic(x[train], ruler(40), settings)
    np.testing.assert_allclose(placed, alone.latent(x), atol=1e-6)
    other = x.copy()
    other[1::2] = np.random.default_rng(1).random((40, 40))
    np.testing.assert_allclose(geodesic_latents(other, settings, train=train)[train], placed[train], atol=1e-9)
    held = np.setdiff1d(np.arange(80), train)
    assert abs(np.corrcoef(placed[held, 0], t[held])[0, 1]) > 0.97


def test_coordinates_that_are_standardised_already_are_taken_as_they_are():
    x, _ = arc()
    settings = GeodesicSettings(n_components=2)
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))
    rotated = standardised(x) @ turn
    once = geodesic_latents(rotated, settings, standardise=False)
    up_to_sign(once, geodesic_latents(x, settings), atol=1e-4)
    # a second time would change them
    assert not np.allclose(pdist(geodesic_latents(rotated, settings)), pdist(once), rtol=0.05)


def two_clouds(n=20):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * n, 6))
    x[n:] += 40
    return x


@pytest.mark.filterwarnings("ignore:Changing the sparsity structure")
@pytest.mark.parametrize("kind", KINDS)
def test_pieces_of_the_graph_are_joined_and_told(kind):
    x = two_clouds()
    settings = GeodesicSettings(kind, n_components=2, n_neighbours=4)
    with pytest.warns(ZooWarning, match="4 nearest neighbours of 40 anchors falls into 2 pieces") as caught:
        head = fit_geodesic(x, ruler(40), settings)
    assert len(caught) == 1
    assert head.n_pieces == 2
    with pytest.warns(UserWarning, match="connected components"):
        isomap = Isomap(n_neighbors=4, n_components=2, eigen_solver="dense").fit(standardised(x))
    np.testing.assert_allclose(head.landmarks.geodesics, isomap.dist_matrix_, atol=1e-6)
    bridge = cdist(standardised(x)[:20], standardised(x)[20:]).min()
    assert head.landmarks.geodesics[:20, 20:].min() == pytest.approx(bridge, rel=1e-6)
    # once for the head that is shipped is enough, and nothing of scikit-learn's own
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        geodesic_latents(x, settings)
        assert fit_geodesic(x, ruler(40), GeodesicSettings(kind, n_components=2, n_neighbours=21)).n_pieces == 1


def test_more_neighbours_or_dimensions_than_there_are_is_refused_with_the_remedy():
    x, _ = arc(12)
    with pytest.raises(BadInputError, match="n_neighbours is 12 for 12 anchors") as caught:
        fit_geodesic(x, ruler(12), GeodesicSettings(n_neighbours=12, n_components=2))
    assert "at most 11" in caught.value.hint
    assert fit_geodesic(x, ruler(12), GeodesicSettings(n_neighbours=11, n_components=2)).n_pieces == 1
    for d in (11, 12, 30):
        with pytest.raises(BadInputError, match=f"n_components is {d}, and the path lengths of 12 anchors") as caught:
            fit_geodesic(x, ruler(12), GeodesicSettings(n_neighbours=5, n_components=d))
        assert "fewer n_components" in caught.value.hint


def test_features_that_do_not_fit_are_refused():
    x, _ = arc()
    head = fit_geodesic(x, ruler(60), GeodesicSettings(n_components=2))
    with pytest.raises(BadInputError, match="39 columns, the head expects 40"):
        head.latent(x[:, :-1])
    with pytest.raises(BadInputError, match="not finite"):
        head.latent(np.full((1, 40), np.nan))
    with pytest.raises(BadInputError, match=r"\(59, 59\)"):
        fit_geodesic(x, ruler(59), GeodesicSettings(n_components=2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "umap"}, "kind is 'umap'"),
        ({"n_components": 0}, "n_components is 0"),
        ({"n_neighbours": 0}, "n_neighbours is 0"),
        ({"scale_floor": 0.0}, "scale_floor is 0"),
        ({"scale_floor": np.nan}, "scale_floor is nan"),
        ({"placing_steps": -1}, "placing_steps is -1"),
    ],
)
def test_settings_outside_their_range_are_refused(wrong, said):
    with pytest.raises(BadInputError, match=said):
        GeodesicSettings(**wrong)


def entry(kind="isomap", **parameters):
    told = {"n_neighbours": 7, "scale_floor": 0.2, "placing_steps": 3} | parameters
    kept = {name: value for name, value in told.items() if value is not None}
    landmarks = {"n_reduced": 5, "n_landmarks": 9, "n_pieces": 1} if kind != "let-anchor" else {}
    return Adaptor(kind=kind, n_components=2, loss=0.0, beta=1.0, parameters=kept, **landmarks)


def test_settings_are_read_from_the_card():
    assert GeodesicSettings.of(entry()) == GeodesicSettings("isomap", 2, 7, 0.2)
    assert GeodesicSettings.of(entry("geodesic-mds")) == GeodesicSettings("geodesic-mds", 2, 7, 0.2, 3)
    for kind in KINDS:
        settings = GeodesicSettings(kind, 3, 8, 0.3)
        told = settings.parameters()
        assert ("placing_steps" in told) == (kind == "geodesic-mds")
        again = Adaptor(
            kind=kind, n_components=3, loss=0.0, beta=1.0, parameters=told, n_reduced=5, n_landmarks=9, n_pieces=1
        )
        assert GeodesicSettings.of(again) == settings
    with pytest.raises(BadInputError, match="let-anchor"):
        GeodesicSettings.of(entry("let-anchor"))
    for name, value in (
        ("n_neighbours", None),
        ("n_neighbours", 2.5),
        ("scale_floor", "wide"),
        ("placing_steps", True),
    ):
        with pytest.raises(FormatError, match=name):
            GeodesicSettings.of(entry("geodesic-mds", **{name: value}))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_input_gives_equal_bytes(kind):
    x, _ = arc()
    first, second = (fit_geodesic(x, ruler(60), GeodesicSettings(kind, n_components=3)) for _ in range(2))
    assert first.latent(x).tobytes() == second.latent(x).tobytes()

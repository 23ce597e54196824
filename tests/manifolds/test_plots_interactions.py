"""Figures of communication: what is drawn where, and what is refused."""

from __future__ import annotations

import sys
import warnings
from itertools import combinations, permutations

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist
from scipy.stats import spearmanr
from tiny import tiny_anchors, tiny_genes, tiny_manifold
from tiny_geodesic import tiny_geodesic
from tiny_interaction import tiny_interaction, tiny_interactions

mpl.use("Agg")

from figures import assert_readable
from matplotlib import pyplot
from matplotlib.colors import same_color
from matplotlib.text import Text
from PIL import Image

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, MissingExtraError, ZooWarning
from manifoldzoo.manifolds._figure import draw_anchors, plane_of, stage_colours
from manifoldzoo.manifolds._interaction_ruler import InteractionRuler
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import Stage, read_stage_ruler
from manifoldzoo.manifolds.plots import embedding, interaction_map, sender_receiver, stage_graph
from manifoldzoo.manifolds.plots._artifact_figures import draw_artifact
from manifoldzoo.manifolds.plots._cell_types import by_branch, short_labels
from manifoldzoo.manifolds.plots._colours import branch_colours
from manifoldzoo.manifolds.plots._interaction_map import apart, classical_plane, shortest
from manifoldzoo.manifolds.plots._save import save_axes

with warnings.catch_warnings():
    # its graph falls into two pieces
    warnings.simplefilter("ignore", ZooWarning)
    PLAIN_GEODESIC = tiny_geodesic()
LET, GEODESIC = tiny_interaction(), tiny_interaction(PLAIN_GEODESIC)
RULER = tiny_interactions()
IDS = [stage.id for stage in RULER.stages]
LABELS = [stage.label for stage in RULER.stages]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def placed(manifold=LET, **options) -> ad.AnnData:
    cells = ad.AnnData(tiny_anchors()[0], var=pd.DataFrame(index=list(tiny_genes().symbols)))
    cells.obs["mine"] = ["x"] * 10 + ["left_3"] * 7 + ["stem"] * 7
    manifold.transform(cells, scale="log1p", **options)
    return cells


def shown(part) -> np.ma.MaskedArray:
    """The numbers of a heat map."""
    return part.images[0].get_array()


def ticks(part) -> tuple[list[str], list[str]]:
    return [t.get_text() for t in part.get_yticklabels()], [t.get_text() for t in part.get_xticklabels()]


# --- sender and receiver


def test_rows_send_and_columns_receive():
    (part,) = sender_receiver(RULER)
    assert np.array_equal(shown(part), RULER.directed)
    assert ticks(part) == (LABELS, LABELS)
    assert (part.get_ylabel(), part.get_xlabel()) == ("sender", "receiver")
    assert part.get_title(loc="left") == "talk 1: sender to receiver"
    (same,) = sender_receiver(LET)
    assert np.array_equal(shown(same), RULER.directed)
    assert_readable(part.figure.figure)


def test_cell_types_are_ordered_by_broad_class():
    order = [3, 0, 4, 1, 5, 2]
    mixed = InteractionRuler(
        "mixed", "1", tuple(RULER.stages[i] for i in order), RULER.directed[np.ix_(order, order)], RULER.null_tables
    )
    assert by_branch(mixed, ["what", "stem", "right_1", "left_3", "else", "left_1"]) == [
        *("left_3", "left_1", "stem", "right_1", "what", "else")
    ]
    (part,) = sender_receiver(mixed)
    # left came first, then stem, then right
    expected = ["left_3", "left_1", "left_2", "stem", "right_1", "right_2"]
    index = [IDS.index(name) for name in expected]
    assert ticks(part)[0] == [LABELS[i] for i in index]
    assert np.array_equal(shown(part), RULER.directed[np.ix_(index, index)])
    hues = branch_colours(mixed)
    strips = [patch.get_facecolor() for patch in part.patches[::2]]
    assert all(
        same_color(strip, (*hues[mixed.branch([name])[0]], 1)) for strip, name in zip(strips, expected, strict=True)
    )


def test_long_labels_are_shortened_and_stay_apart():
    labels = ("Mural cell (pericyte)", "CD8 T cell, effector", "CD8 T cell, memory", "x" * 40, "B cell", "(odd)")
    stages = tuple(Stage(f"s_{i}", label, "", "b") for i, label in enumerate(labels))
    found = short_labels(stages)
    assert list(found.values()) == [
        *("Mural cell", "CD8 T cell, effector", "CD8 T cell, memory", "s 3", "B cell", "(odd)")
    ]


def test_readouts_of_other_names_are_found_by_the_words_of_the_ruler():
    document = LET.card.model_dump(mode="json")
    for told, name in zip(document["extraction"]["readouts"], ("cell_type", "side", "broad_class"), strict=True):
        told["task"] = name
    names = {"stage": "cell_type", "branch": "broad_class", "side": "side"}
    moved = {name: array for name, array in LET.tensors.items() if not name.startswith("readout.")} | {
        f"readout.{names[name.split('.')[1]]}.{name.split('.', 2)[2]}": array
        for name, array in LET.tensors.items()
        if name.startswith("readout.")
    }
    vectors = {
        f"proba.{names[name[6:]]}" if name.startswith("proba.") else name: array for name, array in LET.vectors.items()
    }
    renamed = Manifold.build(parse_card(document), LET.genes, moved, vectors)
    cells = placed(renamed)
    assert cells.uns["tiny"]["groupby"] == "tiny_cell_type"
    for color, title in (("stage", "by stage"), ("branch", "by branch"), ("cell_type", "by cell type")):
        ax = embedding(cells, renamed, color=color)
        assert ax.get_title(loc="left").endswith(title)
        assert ax.get_legend().get_title().get_text() == "branch"


def test_predicted_distances_stand_beside_it_in_the_same_shades():
    cells = placed(groupby="mine")
    ruler, groups = sender_receiver(LET, cells)
    told = cells.uns["tiny"]
    assert told["groups"].tolist() == ["left_3", "stem", "x"]
    # stages of the ruler first, in its order
    assert ticks(groups)[0] == ["stem", "left 3", "x"]
    index = [1, 0, 2]
    expected = told["group_distances"][np.ix_(index, index)]
    table = shown(groups)
    assert table.mask.tolist() == np.eye(3, dtype=bool).tolist()
    off = ~table.mask
    assert np.allclose(table[off], expected[off])
    assert ruler.images[0].get_clim() == groups.images[0].get_clim()
    low, high = ruler.images[0].get_clim()
    assert low == min(RULER.directed.min(), expected[off].min())
    assert high == max(RULER.directed.max(), expected[off].max())
    # two classes have a strip, the group that is no stage has none
    assert len(groups.patches) == 4
    assert_readable(groups.figure.figure)


def test_the_stages_of_the_readout_are_the_groups_by_default():
    for manifold in (LET, GEODESIC):
        cells = placed(manifold)
        assert cells.uns["tiny"]["groupby"] == "tiny_stage"
        _, groups = sender_receiver(manifold, cells)
        label = dict(zip(IDS, LABELS, strict=True))
        assert ticks(groups)[0] == [label[name] for name in IDS if name in set(cells.obs["tiny_stage"])]
    again = placed(key_added="k")
    sender_receiver(LET, again, key="k")


def test_axes_of_the_caller_are_shared_and_keep_their_size():
    figure, ax = pyplot.subplots(figsize=(9, 4))
    parts = sender_receiver(LET, placed(), ax=ax)
    assert figure.get_size_inches().tolist() == [9, 4]
    assert {part.figure for part in parts} == {figure}
    assert len(pyplot.get_fignums()) == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BadInputError, match="'tiny' has no directed distances"):
        sender_receiver(tiny_manifold())
    with pytest.raises(BadInputError, match="alone predicts nothing"):
        sender_receiver(RULER, placed())
    with pytest.raises(BadInputError, match="`uns` has no 'tiny'") as error:
        sender_receiver(LET, ad.AnnData(np.ones((2, 2))))
    assert "groupby" in error.value.hint
    with pytest.raises(BadInputError, match="of another artifact"):
        sender_receiver(GEODESIC, placed(LET))
    with pytest.raises(BadInputError, match="no graph of stages"):
        stage_graph(LET)
    assert pyplot.get_fignums() == []


# --- the map


def nodes(ax) -> np.ndarray:
    return np.asarray(ax.collections[1].get_offsets())


@pytest.mark.parametrize("manifold", [LET, GEODESIC])
def test_nodes_lie_in_the_middle_of_their_anchors(manifold):
    ax = interaction_map(manifold, n_edges=5)
    dots, at = np.asarray(ax.collections[0].get_offsets()), nodes(ax)
    stage = np.array(manifold.anchor_stages)
    names = {text.get_text(): text.xy for text in ax.texts if text.get_text()}
    assert list(names) == LABELS
    assert np.allclose(at, list(names.values()))
    size = ax.collections[1].get_sizes()
    assert len(set(size)) == 1  # four anchors each
    spread = np.ptp(dots, axis=0).max()
    for name, label in zip(IDS, LABELS, strict=True):
        assert np.linalg.norm(dots[stage == name].mean(axis=0) - names[label]) < 0.1 * spread
    # as far apart as the latents are, as well as a plane can show it
    latent = manifold.project(manifold.tensors["panel.anchors"]).astype(np.float64)
    if manifold is LET:
        unit = latent / np.linalg.norm(latent, axis=1, keepdims=True)
        told = np.arccos(np.clip(unit @ unit.T, -1, 1))[np.triu_indices(len(unit), 1)]
    else:
        told = pdist(latent)
    assert spearmanr(told, pdist(dots)).statistic > 0.8
    assert "classical scaling" in ax.get_xlabel()
    assert_readable(ax.figure)


def test_arrows_are_the_shortest_distances_from_sender_to_receiver():
    found = shortest(RULER, IDS, 7)
    everything = sorted(RULER.directed[a, b] for a, b in permutations(range(6), 2))
    assert [distance for *_, distance in found] == pytest.approx(everything[:7])
    assert all(RULER.directed[a, b] == pytest.approx(d) and a != b for a, b, d in found)
    assert len(shortest(RULER, IDS, 1000)) == 30
    ax = interaction_map(LET, n_edges=7)
    at = nodes(ax)
    arrows = [text for text in ax.texts if (text.get_gid() or "").startswith("edge")]
    drawn = {tuple(map(int, text.get_gid().split()[1:])): text for text in arrows}
    assert set(drawn) == {(a, b) for a, b, _ in found}
    for (sender, receiver), text in drawn.items():
        # an annotation points from its text to its place
        assert np.allclose(text.xy, at[receiver]) and np.allclose(text.xyann, at[sender])
    widths = [drawn[a, b].arrow_patch.get_linewidth() for a, b, _ in found]
    assert widths == sorted(widths, reverse=True) and widths[0] > widths[-1]
    assert "the 7 shortest" in ax.get_title(loc="left")
    assert not [text for text in interaction_map(LET, n_edges=0).texts if text.get_gid()]


def test_two_coordinates_are_drawn_as_they_are():
    plain = PLAIN_GEODESIC
    document = plain.card.model_dump(mode="json")
    document["extraction"]["adaptor"]["n_components"] = 2
    document["extraction"]["readouts"] = []
    document["extraction"]["familiarity"] = None
    tensors = {name: array for name, array in plain.tensors.items() if not name.startswith("readout.")}
    tensors["head.coordinates"] = np.ascontiguousarray(tensors["head.coordinates"][:, :2])
    vectors = {name: plain.vectors[name] for name in ("input", "latent")}
    vectors["latent"] = np.ascontiguousarray(vectors["latent"][:, :2])
    manifold = tiny_interaction(Manifold.build(parse_card(document), plain.genes, tensors, vectors))
    ax = interaction_map(manifold)
    drawn = np.asarray(ax.collections[0].get_offsets())
    assert np.allclose(drawn, manifold.project(manifold.tensors["panel.anchors"]))
    assert ax.get_xlabel() == "first coordinate"


@pytest.mark.parametrize("n_edges", [-1, 2.5, True, "3"])
def test_arrows_are_counted_in_whole_numbers(n_edges):
    with pytest.raises(BadInputError, match="n_edges is"):
        interaction_map(LET, n_edges=n_edges)
    with pytest.raises(BadInputError, match="no directed distances"):
        interaction_map(tiny_manifold())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12))
def test_points_of_a_plane_come_back_and_others_among_them(seed, n):
    rng = np.random.default_rng(seed)
    points, more = rng.standard_normal((n, 2)), rng.standard_normal((5, 2))
    found, others, shares = classical_plane(cdist(points, points), cdist(more, points))
    assert np.allclose(pdist(np.vstack([found, others])), pdist(np.vstack([points, more])), atol=1e-5)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] >= shares[1]


def test_scaling_is_that_of_scikit_bio_and_of_a_line():
    skbio = pytest.importorskip("skbio.stats.ordination")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((20, 6))
    found, _, shares = classical_plane(cdist(x, x), cdist(x, x))
    other = skbio.pcoa(__import__("skbio").DistanceMatrix(cdist(x, x)), number_of_dimensions=19)
    assert np.allclose(pdist(found), pdist(other.samples.to_numpy()[:, :2]))
    assert np.allclose(shares, other.proportion_explained.to_numpy()[:2])
    line = np.arange(4.0)[:, None]
    on_line, _, of_line = classical_plane(cdist(line, line), cdist(line, line))
    assert np.allclose(on_line[:, 1], 0) and of_line.tolist() == pytest.approx([1, 0])
    same, others, nothing = classical_plane(np.zeros((3, 3)), np.zeros((2, 3)))
    assert not same.any() and not others.any() and not nothing.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 15), st.booleans())
def test_discs_part_and_those_that_are_apart_stay(seed, n, together):
    rng = np.random.default_rng(seed)
    radii = rng.uniform(3, 9, n)
    at = np.zeros((n, 2)) if together else rng.uniform(0, 200, (n, 2))
    moved = apart(at, radii)
    for i, j in combinations(range(n), 2):
        assert np.linalg.norm(moved[i] - moved[j]) > radii[i] + radii[j]
    far = np.arange(n)[:, None] * np.array([[50.0, 0.0]])
    assert np.array_equal(apart(far, radii), far)


def test_names_of_many_crowded_cell_types_do_not_overlap():
    ax = interaction_map(LET)
    texts = [text for text in ax.texts if text.get_text()]
    ax.figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in texts]
    assert not [1 for a, b in combinations(boxes, 2) if a.shrunk(0.98, 0.98).overlaps(b.shrunk(0.98, 0.98))]


# --- what other figures make of such a ruler


@pytest.mark.parametrize("manifold", [LET, GEODESIC])
def test_cells_are_drawn_without_steps_and_without_a_root(manifold, tmp_path):
    cells = placed(manifold)
    ax = embedding(cells, manifold)
    assert not [text for text in ax.texts if text.arrow_patch is not None and not text.get_text()]
    latent = manifold.project(manifold.tensors["panel.anchors"]).astype(np.float64)
    flat = plane_of(manifold, latent)
    points = latent if manifold is GEODESIC else latent / np.linalg.norm(latent, axis=1, keepdims=True)
    drawn = np.vstack([np.asarray(part.get_offsets()) for part in ax.collections[:-1]])
    assert len(drawn) == 24
    assert cdist(points @ flat, drawn).min(axis=1).max() < 1e-4
    assert draw_anchors(manifold, tmp_path / "a.png").stat().st_size > 10_000
    with pytest.raises(BadInputError, match="nothing called 'depth'"):
        embedding(cells, manifold, color="depth")
    cells.obs["depth"] = np.arange(24.0)
    embedding(cells, manifold, color="depth")


def test_a_stage_is_darker_down_the_list_of_its_class():
    colours = stage_colours(RULER, IDS)
    for earlier, later in (("left_1", "left_2"), ("left_2", "left_3"), ("right_1", "right_2")):
        assert sum(colours[earlier]) > sum(colours[later])
    assert branch_colours(RULER)["left"] == colours["left_3"]


def test_an_artifact_has_the_figures_of_its_ruler(tmp_path):
    names = {path.name for path in draw_artifact(LET, tmp_path / "a")}
    assert names == {"anchors.png", "interaction_map.png", "sender_receiver.png"}
    assert names == {path.name for path in (tmp_path / "a").iterdir()}
    graph = draw_artifact(tiny_manifold(), tmp_path / "b")
    assert [path.name for path in graph] == ["anchors.png", "stages.png"]


def test_a_hue_of_few_dots_stays_itself_in_the_file(tmp_path):
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))
    held = np.asarray(Image.open(save_axes(stage_graph(ruler), tmp_path / "x.png")).convert("RGB"), dtype=int)
    for hue in branch_colours(ruler).values():
        assert np.abs(held - np.round(np.array(hue) * 255)).max(axis=-1).min() <= 5


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    cells = placed()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (lambda: sender_receiver(RULER), lambda: sender_receiver(LET, cells), lambda: interaction_map(LET)):
        with pytest.raises(MissingExtraError, match=r"manifoldzoo\[plot\]"):
            draw()

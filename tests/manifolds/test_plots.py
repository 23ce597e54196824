"""Figures of cells, rulers and readouts: facts of what is drawn, and what is refused."""

from __future__ import annotations

import io
import re
import sys
from itertools import combinations, pairwise

import anndata as ad
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tiny import STAGES, tiny_anchors, tiny_document, tiny_genes, tiny_manifold, tiny_ruler

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.colors import same_color, to_hex
from matplotlib.text import Text

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, MissingExtraError
from manifoldzoo.manifolds._figure import plane, stage_colours
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler, read_stage_ruler
from manifoldzoo.manifolds.plots import calibration, confusion, embedding, stage_graph
from manifoldzoo.manifolds.plots._calibration import _count, reliability
from manifoldzoo.manifolds.plots._colours import MISSING, branch_colours, category_marks, ink_on, read_labels
from manifoldzoo.manifolds.plots._stage_graph import from_ontology, tidy, tree, wrap

STAGE_IDS = [name for name, _, _ in STAGES]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def manifold() -> Manifold:
    """The tiny manifold with a stage readout beside that of branches."""
    plain, document = tiny_manifold(), tiny_document()
    first = document["extraction"]["readouts"][0]
    document["extraction"]["readouts"].append({**first, "task": "stage", "classes": STAGE_IDS})
    rng = np.random.default_rng(5)
    weights, bias = rng.standard_normal((6, 3)).astype(np.float32), np.zeros(6, dtype=np.float32)
    logits = plain.vectors["latent"] @ weights.T
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba = (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)
    tensors = dict(plain.tensors) | {"readout.stage.weights": weights, "readout.stage.bias": bias}
    return Manifold.build(parse_card(document), plain.genes, tensors, dict(plain.vectors) | {"proba.stage": proba})


@pytest.fixture
def cells(manifold) -> ad.AnnData:
    """24 cells, placed."""
    values = tiny_anchors()[0] + np.random.default_rng(3).random((24, 40)).astype(np.float32) / 4
    made = ad.AnnData(values, var=pd.DataFrame(index=list(tiny_genes().symbols)))
    manifold.transform(made, scale="log1p")
    return made


@pytest.fixture(scope="module")
def blood() -> StageRuler:
    return read_stage_ruler(recipe_folder("hematopoietic"))


def points(ax) -> dict[tuple[float, float], str]:
    """Colour of every dot of a cell, by its place rounded to nine digits; the centres of stages are not among them."""
    found = {}
    for part in ax.collections[:-1]:
        colours = part.get_facecolors()
        if part.get_array() is not None:
            colours = part.to_rgba(part.get_array())
        for i, at in enumerate(part.get_offsets()):
            found[tuple(np.round(at, 9))] = to_hex(colours[i % len(colours)])
    return found


def places(manifold: Manifold, cells: ad.AnnData) -> list[tuple[float, float]]:
    """Where the cells belong, told apart from the code: directions of latents on the plane of the anchors."""
    anchors = manifold.project(manifold.tensors["panel.anchors"])
    entries = manifold.card.panel.anchors
    axes = plane(anchors, [e.stage for e in entries], [e.branch for e in entries], manifold.ruler.root)
    latent = np.asarray(cells.obsm["X_tiny"], dtype=np.float64)
    return [tuple(np.round(z / np.sqrt((z**2).sum()) @ axes, 9)) for z in latent]


def texts(ax) -> list[Text]:
    return [text for text in ax.figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def assert_readable(ax) -> None:
    """All text is at least 7 points tall, and none leaves the figure."""
    ax.figure.draw_without_rendering()
    width, height = ax.figure.canvas.get_width_height()
    for text in texts(ax):
        assert text.get_fontsize() >= 7, text
        box = text.get_window_extent()
        if text.axes is not None and text in text.axes.texts:
            assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text


def overlapping(found: list[Text]) -> list[tuple[str, str]]:
    # without the arrow of an annotation
    boxes = [Text.get_window_extent(text) for text in found]
    return [(found[i].get_text(), found[j].get_text()) for i, j in combinations(range(len(found)), 2)
            if boxes[i].shrunk(0.98, 0.98).overlaps(boxes[j].shrunk(0.98, 0.98))]  # fmt: skip


# --- embedding


def test_cells_lie_in_the_plane_of_the_anchors_and_centres_at_their_mean(manifold, cells):
    ax = embedding(cells, manifold)
    assert set(points(ax)) == set(places(manifold, cells))
    anchors = manifold.project(manifold.tensors["panel.anchors"]).astype(np.float64)
    entries = manifold.card.panel.anchors
    axes = plane(anchors, [e.stage for e in entries], [e.branch for e in entries], manifold.ruler.root)
    unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True) @ axes
    wanted = {e.stage: unit[[i for i, o in enumerate(entries) if o.stage == e.stage]].mean(axis=0) for e in entries}
    drawn = ax.collections[-1].get_offsets()
    assert np.allclose(sorted(map(tuple, drawn)), sorted(map(tuple, wanted.values())))
    names = {text.get_text(): text.xy for text in ax.texts if text.get_text()}
    assert names.keys() == {stage.label for stage in manifold.ruler.stages}
    for stage in manifold.ruler.stages:
        assert np.allclose(names[stage.label], wanted[stage.id])


def test_fewer_cells_lie_where_they_lay(manifold, cells):
    assert set(points(embedding(cells[:7].copy(), manifold))) == set(places(manifold, cells)[:7])


@pytest.mark.parametrize("color", ["stage", "branch"])
def test_labels_have_the_colours_of_the_ruler_and_missing_ones_are_grey(manifold, cells, color):
    column = cells.obs[f"tiny_{color}"].astype(object)
    column.iloc[[0, 5]] = [np.nan, "a thing the ruler does not know"]
    cells.obs[f"tiny_{color}"] = column
    hues = {"stage": stage_colours(manifold.ruler, STAGE_IDS), "branch": branch_colours(manifold.ruler)}[color]
    ax = embedding(cells, manifold, color=color)
    drawn = points(ax)
    for i, (at, label) in enumerate(zip(places(manifold, cells), column, strict=True)):
        assert drawn[at] == to_hex(MISSING if i in (0, 5) else hues[label])
    grey, known = ax.collections[0], ax.collections[1]
    assert len(grey.get_offsets()) == 2
    assert grey.get_zorder() < known.get_zorder()
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "no label (2)" in said
    assert sum(int(re.search(r"\((\d+)\)", text)[1]) for text in said) == 24


def test_a_column_of_stages_is_drawn_in_the_colours_of_stages(manifold, cells):
    cells.obs["annotated"] = tiny_anchors()[1]
    drawn, hues = points(embedding(cells, manifold, color="annotated")), stage_colours(manifold.ruler, STAGE_IDS)
    for at, label in zip(places(manifold, cells), tiny_anchors()[1], strict=True):
        assert drawn[at] == to_hex(hues[label])


def test_depth_is_expected_under_the_stage_probabilities(manifold, cells):
    proba = cells.obsm["tiny_stage_proba"].astype(np.float64)
    depth = {"stem": 0, "left_1": 1, "left_2": 2, "left_3": 3, "right_1": 1, "right_2": 2}
    wanted = [sum(p * depth[name] for p, name in zip(row, STAGE_IDS, strict=True)) for row in proba]
    ax = embedding(cells, manifold, color="depth")
    shown = ax.collections[1]
    by_place = {tuple(np.round(at, 9)): value for at, value in zip(shown.get_offsets(), shown.get_array(), strict=True)}
    assert np.allclose([by_place[at] for at in places(manifold, cells)], wanted)
    assert len(ax.figure.axes) == 2
    cells.obs["tiny_depth"] = np.arange(24)
    shown = embedding(cells, manifold, color="depth").collections[1]
    assert sorted(shown.get_array()) == list(range(24))


def test_numbers_that_are_missing_or_infinite_are_grey(manifold, cells):
    cells.obs["number"] = [np.nan, np.inf, *np.arange(22.0)]
    ax = embedding(cells, manifold, color="number")
    grey, known = ax.collections[:2]
    assert len(grey.get_offsets()) == 2
    assert all(same_color(colour[:3], MISSING) for colour in grey.get_facecolors())
    assert sorted(known.get_array()) == list(range(22))
    assert "grey" in ax.figure.axes[1].get_ylabel()
    cells.obs["nothing"] = np.nan
    ax = embedding(cells, manifold, color="nothing")
    assert len(ax.figure.axes) == 1
    assert len(ax.collections[0].get_offsets()) == 24


@pytest.mark.parametrize("kind", [float, "int64", "Int64", "Float32"])
def test_any_kind_of_number_is_a_number(manifold, cells, kind):
    cells.obs["number"] = pd.Series(range(24), index=cells.obs_names).astype(kind)
    shown = embedding(cells, manifold, color="number").collections[1]
    assert sorted(shown.get_array()) == list(range(24))


def test_truth_values_are_labels(manifold, cells):
    cells.obs["flag"] = np.arange(24) % 3 == 0
    said = [text.get_text() for text in embedding(cells, manifold, color="flag").get_legend().get_texts()]
    assert said == ["False (16)", "True (8)"]


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "backed", "dask"])
def test_a_gene_shows_the_values_of_x(manifold, cells, kind, tmp_path):
    wanted = np.asarray(cells.X)[:, 7].copy()
    if kind in ("csr", "csc"):
        cells.X = sparse.csr_matrix(cells.X) if kind == "csr" else sparse.csc_matrix(cells.X)
    if kind == "dask":
        cells.X = pytest.importorskip("dask.array").from_array(cells.X, chunks=(10, 40))
    if kind == "backed":
        cells.write_h5ad(tmp_path / "cells.h5ad")
        cells = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    shown = embedding(cells, manifold, color="GENE7").collections[1]
    by_place = {tuple(np.round(at, 9)): value for at, value in zip(shown.get_offsets(), shown.get_array(), strict=True)}
    assert np.allclose([by_place[at] for at in places(manifold, cells)], wanted)
    if kind == "backed":
        cells.file.close()


def test_categories_differ_in_colour_or_shape_and_keep_their_order(manifold, cells):
    names = [f"a_kind {i:02}" for i in range(24)]
    cells.obs["kind"] = pd.Categorical(names, categories=names[::-1])
    ax = embedding(cells, manifold, color="kind")
    handles = ax.get_legend().legend_handles
    assert [handle.get_label() for handle in handles] == [f"{name} (1)" for name in names[::-1]]
    assert len({(to_hex(handle.get_color()), handle.get_marker()) for handle in handles}) == 24
    assert set(points(ax)) == set(places(manifold, cells))
    with pytest.raises(BadInputError, match="49 categories"):
        category_marks([str(i) for i in range(49)])
    assert len(set(category_marks([str(i) for i in range(48)]).values())) == 48


def test_no_category_is_left_out_of_the_key(manifold, cells):
    cells.obs["kind"] = ["_hidden", "_", *["shown"] * 22]
    said = [text.get_text().strip() for text in embedding(cells, manifold, color="kind").get_legend().get_texts()]
    assert said == ["_ (1)", "_hidden (1)", "shown (22)"]


def test_another_key_is_read(manifold, cells):
    manifold.transform(cells, scale="log1p", key_added="mine")
    del cells.obsm["X_tiny"], cells.obs["tiny_stage"]
    embedding(cells, manifold, key="mine")
    with pytest.raises(BadInputError, match="X_tiny"):
        embedding(cells, manifold)


def test_the_axes_given_are_drawn_on_and_the_size_is_taken(manifold, cells):
    _, ax = pyplot.subplots()
    assert embedding(cells, manifold, ax=ax, size=33) is ax
    assert pyplot.get_fignums() == [1]
    assert ax.collections[1].get_sizes() == pytest.approx([33])


def test_the_same_picture_comes_again_whatever_the_global_generator(manifold, cells):
    pictures = []
    for seed in (1, 2):
        np.random.seed(seed)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        picture = io.BytesIO()
        embedding(cells, manifold).figure.savefig(picture, format="png")
        pictures.append(picture.getvalue())
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert pictures[0] == pictures[1]


def test_names_of_stages_do_not_overlap_on_real_cells():
    from manifoldzoo.manifolds.demo import demo_path
    from manifoldzoo.registry._resolve import load

    real, marrow = load("hematopoietic"), ad.read_h5ad(demo_path())
    real.transform(marrow, scale="counts")
    for color in ("stage", "cell_type"):
        ax = embedding(marrow, real, color=color)
        assert_readable(ax)
        names = [text for text in ax.texts if text.get_text()]
        assert len(names) > 20
        assert overlapping(names) == []
        frame = ax.get_window_extent()
        for name in names:
            box = Text.get_window_extent(name)
            assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1, name


def test_what_cannot_be_coloured_by_is_refused_with_the_nearest_names(manifold, cells):
    with pytest.raises(BadInputError, match=r"'stgae'.*Did you mean stage"):
        embedding(cells, manifold, color="stgae")
    with pytest.raises(BadInputError, match=r"'GEN7'.*GENE7"):
        embedding(cells, manifold, color="GEN7")
    with pytest.raises(BadInputError, match=r"'!'.*one of branch, stage, depth"):
        embedding(cells, manifold, color="!")
    assert pyplot.get_fignums() == []


def test_cells_that_are_not_placed_are_refused(manifold, cells):
    with pytest.raises(BadInputError, match="no cells"):
        embedding(cells[:0].copy(), manifold)
    for size in (0, -1, np.nan):
        with pytest.raises(BadInputError, match="size"):
            embedding(cells, manifold, size=size)
    del cells.obs["tiny_branch"]
    with pytest.raises(BadInputError, match=r"tiny_branch.*transform"):
        embedding(cells, manifold, color="branch")
    proba = cells.obsm["tiny_stage_proba"]
    cells.obsm["tiny_stage_proba"] = proba[:, :2]
    with pytest.raises(BadInputError, match=r"\(24, 2\), expected 6"):
        embedding(cells, manifold, color="depth")
    del cells.obsm["tiny_stage_proba"]
    with pytest.raises(BadInputError, match="tiny_stage_proba"):
        embedding(cells, manifold, color="depth")
    cells.obsm["X_tiny"] = np.full((24, 3), np.nan)
    with pytest.raises(BadInputError, match="not finite"):
        embedding(cells, manifold)
    cells.obsm["X_tiny"] = np.ones((24, 5))
    with pytest.raises(BadInputError, match=r"\(24, 5\).*3 coordinates"):
        embedding(cells, manifold)
    del cells.obsm["X_tiny"]
    with pytest.raises(BadInputError, match=r"X_tiny.*transform"):
        embedding(cells, manifold)
    assert pyplot.get_fignums() == []


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_depth_needs_stages_and_a_gene_needs_to_be_one(manifold, cells):
    plain = tiny_manifold()
    with pytest.raises(BadInputError, match="no stages"):
        embedding(cells, plain, color="depth")
    cells.var_names = ["twice", "twice", *cells.var_names[2:]]
    with pytest.raises(BadInputError, match="2 genes"):
        embedding(cells, manifold, color="twice")
    bare = ad.AnnData(obs=cells.obs, var=cells.var, obsm=cells.obsm)
    with pytest.raises(BadInputError, match="no X"):
        embedding(bare, manifold, color="GENE7")


# --- stage graph


def drawn(ax, prefix: str) -> dict:
    """Artists by what their id says after a prefix."""
    everything = [*ax.collections, *ax.lines]
    return {a.get_gid().removeprefix(prefix): a for a in everything if (a.get_gid() or "").startswith(prefix)}


def test_stages_lie_at_their_depth_in_the_colour_of_their_branch(blood):
    ax = stage_graph(blood)
    ids = [stage.id for stage in blood.stages]
    dots, hues = drawn(ax, "stage "), stage_colours(blood, ids)
    assert dots.keys() == set(ids)
    for name, depth in zip(ids, blood.depth(ids), strict=True):
        ((x, _),) = dots[name].get_offsets()
        assert x == depth
        assert same_color(dots[name].get_facecolors()[0], hues[name])


def test_labels_of_all_stages_are_readable_and_do_not_overlap(blood):
    ax = stage_graph(blood, highlight=["neutrophil_progenitor", "cmp"])
    assert_readable(ax)
    assert sorted(t.get_text().replace("\n", " ").replace("- ", "-") for t in ax.texts) == sorted(
        stage.label for stage in blood.stages
    )
    assert overlapping([*ax.texts, *ax.get_xticklabels(), *ax.get_legend().get_texts()]) == []
    # nor does a label cover a dot but its own
    dots = ax.transData.transform([dot.get_offsets()[0] for dot in drawn(ax, "stage ").values()])
    boxes = [Text.get_window_extent(text) for text in ax.texts]
    assert not [box for box in boxes for x, y in dots if box.contains(x, y)]


def test_a_small_ruler_is_readable():
    ax = stage_graph(tiny_manifold())
    assert_readable(ax)
    assert overlapping([*ax.texts, *ax.get_legend().get_texts()]) == []
    key, (width, _) = ax.get_legend().get_window_extent(), ax.figure.canvas.get_width_height()
    assert key.x0 >= 0 and key.x1 <= width and key.y0 >= 0


def test_a_panel_fills_the_stages_that_it_has_anchors_of():
    document = tiny_document()
    document["ruler"]["stages"].append({"id": "far", "label": "Far", "ontology_id": "", "branch": "left"})
    document["ruler"]["edges"].append({"child": "far", "parent": "left_3", "source": "made"})
    plain = tiny_manifold()
    ax = stage_graph(Manifold.build(parse_card(document), plain.genes, plain.tensors, plain.vectors))
    white = {name for name, dot in drawn(ax, "stage ").items() if same_color(dot.get_facecolors()[0], "white")}
    assert white == {"far"}
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert any("without anchors" in text for text in said)
    assert not any("anchors" in text.get_text() for text in stage_graph(tiny_ruler()).get_legend().get_texts())


def test_steps_from_citations_are_dashed(blood):
    ax = stage_graph(blood)
    steps = drawn(ax, "step ")
    assert len(steps) == len(blood.edges)
    dashed = {name for name, line in steps.items() if line.is_dashed()}
    assert dashed == {f"{e.parent} {e.child}" for e in blood.edges if not e.source.startswith("CL:")}
    assert 5 < len(dashed) < len(steps) / 2
    assert from_ontology(Edge("a", "b", "UBERON:0001 part_of x"))
    assert not from_ontology(Edge("a", "b", "Victora 2012 Annu Rev 30:429"))
    places = {name: tuple(dot.get_offsets()[0]) for name, dot in drawn(ax, "stage ").items()}
    for name, line in steps.items():
        parent, child = name.split()
        (x0, *_, x1), (y0, *_, y1) = line.get_data()
        assert (x0, y0) == places[parent] and (x1, y1) == places[child]


def test_stages_are_highlighted_and_unknown_ones_refused(blood):
    ax = stage_graph(blood, highlight="pdc")
    assert set(drawn(ax, "ring ")) == {"pdc"}
    bold = [text.get_text() for text in ax.texts if text.get_fontweight() == "bold"]
    assert len(bold) == 1 and "Plasmacytoid" in bold[0]
    with pytest.raises(BadInputError, match=r"'pcd'.*pdc"):
        stage_graph(blood, highlight=["cmp", "pcd"])


def test_a_ruler_with_a_ring_backward_steps_and_one_stage_is_drawn():
    stages = tuple(Stage(name, name.upper(), "", "one") for name in "abcd")
    # d lies beyond c by a step that points to the root, and is joined to b as well
    edges = (Edge("b", "a", "x"), Edge("c", "a", "x"), Edge("c", "d", "x"), Edge("d", "b", "x"))
    ring = StageRuler("ring", "1", stages, edges, "a")
    assert {name: (e.parent, e.child) for name, e in tree(ring).items()} == {
        "b": ("a", "b"),
        "c": ("a", "c"),
        "d": ("b", "d"),
    }
    assert len(drawn(stage_graph(ring), "step ")) == 4
    alone = StageRuler("alone", "1", stages[:1], (), "a")
    assert len(drawn(stage_graph(alone), "stage ")) == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_a_tidy_tree_keeps_room_and_centres_parents(draws, seed):
    parents = [0, *[draw % (i + 1) for i, draw in enumerate(draws)]]
    edges = {str(i): Edge(str(i), str(parents[i]), "made") for i in range(1, len(parents))}
    room = dict(
        zip(map(str, range(len(parents))), np.random.default_rng(seed).uniform(0.1, 1, len(parents)), strict=True)
    )
    place = tidy(edges, room)
    depth = {"0": 0}
    for i in range(1, len(parents)):
        depth[str(i)] = depth[str(parents[i])] + 1
    for level in set(depth.values()):
        column = sorted((place[name], name) for name in depth if depth[name] == level)
        for (above, _), (below, name) in pairwise(column):
            assert above < below - room[name] + 1e-9
    for name in place:
        children = [place[child] for child, edge in edges.items() if edge.parent == name]
        if children:
            assert place[name] == pytest.approx((children[0] + children[-1]) / 2)
            assert children == sorted(children)
    assert min(place[name] - room[name] for name in place) == pytest.approx(0)


def test_a_long_arm_is_no_recursion():
    n = sys.getrecursionlimit() + 500
    place = tidy({str(i): Edge(str(i), str(i - 1), "made") for i in range(1, n)}, {str(i): 1.0 for i in range(n)})
    assert set(place.values()) == {1.0}


def test_labels_are_broken_evenly():
    assert wrap("Naive CD4 T cell") == ["Naive CD4", "T cell"]
    assert wrap("Erythrocyte") == ["Erythrocyte"]
    assert wrap("Oligodendroglioblastoma cell") == ["Oligodendroglioblastoma", "cell"]


# --- confusion


def numbers(ax) -> dict[tuple[int, int], str]:
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}


@pytest.fixture
def guesses() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(8)
    truth = rng.choice(["x", "y", "z"], 200, p=[0.6, 0.3, 0.1])
    guess = rng.choice(["w", "x", "y"], 200)
    return truth.tolist(), np.where((rng.random(200) < 0.7) & (truth != "z"), truth, guess).tolist()


@pytest.mark.parametrize("normalise", ["true", "pred", "all", None])
def test_the_matrix_is_that_of_scikit_learn(guesses, normalise):
    from sklearn.metrics import balanced_accuracy_score, confusion_matrix

    truth, predicted = guesses
    ax = confusion(truth, predicted, normalise=normalise)
    counts = confusion_matrix(truth, predicted, labels=list("wxyz"))
    image = ax.images[0].get_array()
    wanted = confusion_matrix(truth, predicted, labels=list("wxyz"), normalize=normalise)
    there = ~np.ma.getmaskarray(image)
    assert np.allclose(image[there], wanted[there])
    # w is never true and z never predicted: their shares are not defined
    assert np.argwhere(~there).tolist() == {
        "true": [[0, i] for i in range(4)],
        "pred": [[i, 3] for i in range(4)],
    }.get(normalise or "", [])
    assert len(ax.texts) == there.sum()
    if normalise is None:
        assert numbers(ax) == {(i, j): str(counts[i, j]) for i in range(4) for j in range(4)}
    with pytest.warns(UserWarning, match="y_pred contains"):
        score = balanced_accuracy_score(truth, predicted)
    assert f"{score:.3f}" in ax.get_title(loc="left")
    assert "3 true classes" in ax.get_title(loc="left")
    assert_readable(ax)


def test_rows_are_shares_written_in_two_digits():
    ax = confusion(["a"] * 300 + ["b"] * 4, ["a"] * 299 + ["b"] * 2 + ["a"] * 3)
    assert numbers(ax) == {(0, 0): "1.00", (0, 1): "<.01", (1, 0): ".75", (1, 1): ".25"}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a (300)", "b (4)"]


def test_classes_are_in_the_order_given():
    ax = confusion(["a", "b"], ["a", "b"], classes=["c", "b", "a"])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["c", "b", "a"]
    assert numbers(ax)[1, 1] == numbers(ax)[2, 2] == "1"


def test_numbers_are_left_out_where_they_have_no_room():
    names = [f"c{i}" for i in range(30)]
    _, ax = pyplot.subplots(figsize=(3, 3))
    assert confusion(names, names, ax=ax) is ax
    assert not ax.texts
    assert len(confusion(names, names).texts) == 900


def test_numbers_are_read_on_every_shade():
    assert ink_on((1, 1, 1)) == ink_on((1, 1, 0)) == "black"
    assert ink_on((0, 0, 0)) == ink_on((0, 0, 0.6, 1)) == "white"


def test_labels_of_any_kind_are_read():
    column = pd.Series(pd.Categorical(["a", None, "b"]))
    assert read_labels(column) == ["a", None, "b"]
    assert read_labels(np.array([1, 2])) == ["1", "2"]
    assert read_labels(pd.array(["a", pd.NA, ""])) == ["a", None, None]
    numbers_of = [
        confusion(kind(["a", "b"]), kind(["a", "a"])).texts for kind in (list, tuple, np.array, pd.Categorical)
    ]
    assert {tuple(t.get_text() for t in texts) for texts in numbers_of} == {("1", "0", "1", "0")}


@pytest.mark.parametrize(
    ("truth", "predicted", "more", "said"),
    [
        (["a"], ["a", "b"], {}, "1 true and 2 predicted"),
        ([], [], {}, "truth is empty"),
        (["a", np.nan], ["a", "a"], {}, "truth lacks the label of 1 of 2"),
        (["a", "a"], ["a", ""], {}, "predicted lacks the label of 1 of 2"),
        (["alpha"], ["alpah"], {"classes": ["alpha"]}, "'alpah'.*Did you mean alpha"),
        (["b"], ["a"], {"classes": ["a"]}, "truth has the label 'b'"),
        (["a"], ["a"], {"classes": ["a", "a"]}, "'a' twice"),
        (["a"], ["a"], {"classes": []}, "no classes"),
        (["a"], ["a"], {"normalise": "rows"}, "'rows'"),
    ],
)
def test_bad_labels_are_refused(truth, predicted, more, said):
    with pytest.raises(BadInputError, match=said):
        confusion(truth, predicted, **more)
    assert pyplot.get_fignums() == []


# --- calibration


def brute_error(truth, proba, classes, n_bins) -> float:
    """Expected calibration error, cell by cell."""
    total = 0.0
    for b in range(n_bins):
        low, high = b / n_bins, (b + 1) / n_bins
        held = [(max(row), classes[list(row).index(max(row))] == t) for row, t in zip(proba, truth, strict=True)
                if low < max(row) <= high]  # fmt: skip
        if held:
            total += abs(sum(r for _, r in held) / len(held) - sum(c for c, _ in held) / len(held)) * len(held)
    return total / len(truth)


@pytest.mark.parametrize("n_bins", [1, 4, 10, 17])
def test_the_curve_is_that_of_scikit_learn_and_the_error_that_by_hand(n_bins):
    from sklearn.calibration import calibration_curve

    rng = np.random.default_rng(n_bins)
    classes = ["a", "b", "c"]
    proba = rng.dirichlet([0.5, 0.5, 0.5], 300)
    truth = [classes[rng.choice(3, p=0.7 * row + 0.1)] for row in proba]
    ax = calibration(truth, proba, classes, n_bins=n_bins)
    (curve,) = [line for line in ax.lines if line.get_marker() == "o"]
    right = [classes[row.argmax()] == t for row, t in zip(proba, truth, strict=True)]
    accuracy, confidence = calibration_curve(right, proba.max(axis=1), n_bins=n_bins)
    assert np.allclose(curve.get_xdata(), confidence)
    assert np.allclose(curve.get_ydata(), accuracy)
    error = brute_error(truth, proba, classes, n_bins)
    assert f"error {error:.3f}" in ax.get_title(loc="left")
    counted = [int(text.get_text()) for text in ax.texts]
    assert sum(counted) == 300 and len(counted) == len(accuracy)
    assert np.allclose([bar.get_height() for bar in ax.patches if bar.get_height()], np.array(counted) / 300)
    assert_readable(ax)


def test_a_readout_that_is_right_as_often_as_it_says_has_no_error():
    proba = np.repeat([[0.8, 0.2], [0.4, 0.6]], 10, axis=0)
    truth = ["a"] * 8 + ["b"] * 2 + ["b"] * 6 + ["a"] * 4
    assert "error 0.000" in calibration(truth, proba, ["a", "b"]).get_title(loc="left")
    assert "error 0.300" in calibration(["a"] * 20, np.tile([0.7, 0.3], (20, 1)), ["a", "b"]).get_title(loc="left")


def test_bins_close_above_and_the_ends_are_held():
    bins = reliability(np.array([0.0, 0.25, 0.2500001, 1.0]), np.array([True, False, True, True]), 4)
    assert bins.n.tolist() == [2, 1, 0, 1]
    assert bins.accuracy[[0, 1, 3]].tolist() == [0.5, 1, 1]
    assert np.isnan(bins.accuracy[2])


def test_counts_are_short():
    assert [_count(n) for n in (7, 9_999, 10_000, 123_456, 999_499, 1_234_567, 12_345_678)] == [
        *("7", "9999", "10k", "123k", "999k", "1M", "12M"),
    ]


GOOD = np.tile([0.7, 0.3], (3, 1))


@pytest.mark.parametrize(
    ("truth", "proba", "classes", "n_bins", "said"),
    [
        (list("aab"), GOOD[:2], list("ab"), 10, r"\(2, 2\), expected 3 cells x 2"),
        (list("aab"), GOOD, list("abc"), 10, r"\(3, 2\), expected 3 cells x 3"),
        (list("aab"), GOOD[:, 0], list("ab"), 10, r"\(3,\)"),
        (list("aac"), GOOD, list("ab"), 10, "'c' in 1 cells"),
        (["a", "a", None], GOOD, list("ab"), 10, "lacks the label of 1 of 3"),
        (list("aab"), GOOD, list("aa"), 10, "'a' twice"),
        (list("aab"), GOOD * [[1], [1.1], [1]], list("ab"), 10, "1 rows .* cell 1"),
        (list("aab"), np.tile([1.2, -0.2], (3, 1)), list("ab"), 10, "3 rows .* cell 0"),
        (list("aab"), GOOD * [[1], [1], [np.nan]], list("ab"), 10, "1 rows .* cell 2"),
        ([], np.empty((0, 2)), list("ab"), 10, "truth is empty"),
        (list("aab"), GOOD, list("ab"), 0, "n_bins is 0"),
        (list("aab"), GOOD, list("ab"), 2.5, "n_bins is 2.5"),
    ],
)
def test_what_is_no_calibration_is_refused(truth, proba, classes, n_bins, said):
    with pytest.raises(BadInputError, match=said):
        calibration(truth, proba, classes, n_bins=n_bins)
    assert pyplot.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(manifold, cells, blood, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (
        lambda: embedding(cells, manifold),
        lambda: stage_graph(blood),
        lambda: confusion(["a"], ["a"]),
        lambda: calibration(["a"], [[1.0]], ["a"]),
    ):
        with pytest.raises(MissingExtraError, match=r"manifoldzoo\[plot\]"):
            draw()

"""Figures: the plane shows the arms, colours tell branches apart, and a file is written whole or not at all."""

from __future__ import annotations

import struct
from itertools import combinations
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
from tiny import tiny_anchors, tiny_document, tiny_manifold

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, PermissionDeniedError, StoreError
from manifoldzoo.manifolds._figure import draw_anchors, draw_manifold, plane, stage_colours
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler, read_stage_ruler


@pytest.fixture(scope="module")
def manifold() -> Manifold:
    return tiny_manifold()


@pytest.fixture(scope="module")
def latent(manifold) -> np.ndarray:
    return manifold.project(tiny_anchors()[0])


STAGE = tiny_anchors()[1]


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of a PNG, by its header."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert content.rstrip().endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", content[16:24])


def test_a_png_is_written_and_nothing_beside_it(manifold, latent, tmp_path):
    path = tmp_path / "new" / "figure.png"
    assert draw_manifold(manifold, latent, STAGE, path, title="t", subtitle="s") == path
    width, height = size_of(path)
    assert 800 < width < 4000 and 500 < height < 3000
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.png"]


def test_an_svg_is_written_where_asked(manifold, latent, tmp_path):
    path = draw_manifold(manifold, latent, STAGE, tmp_path / "figure.svg")
    assert "<svg" in path.read_text(encoding="utf-8")[:1000]


def test_the_same_picture_comes_again_and_the_global_generator_stays(manifold, latent, tmp_path):
    np.random.seed(5)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = draw_manifold(manifold, latent, STAGE, tmp_path / "1.png").read_bytes()
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    np.random.seed(6)  # noqa: NPY002
    assert draw_manifold(manifold, latent, STAGE, tmp_path / "2.png").read_bytes() == first


def test_a_failure_leaves_the_earlier_picture(manifold, latent, tmp_path, monkeypatch):
    path = draw_manifold(manifold, latent, STAGE, tmp_path / "figure.png")
    before = path.read_bytes()

    def half(self, target, **_):
        Path(target).write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", half)
    with pytest.raises(StoreError, match=r"figure\.png"):
        draw_manifold(manifold, latent, STAGE, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.suffix in (".png", ".part")] == ["figure.png"]


def test_a_folder_that_cannot_be_made_is_named(manifold, latent, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((StoreError, PermissionDeniedError), match="file"):
        draw_manifold(manifold, latent, STAGE, tmp_path / "file" / "figure.png")


def test_a_format_that_is_no_picture_is_refused(manifold, latent, tmp_path):
    with pytest.raises(BadInputError, match=r"\.doc"):
        draw_manifold(manifold, latent, STAGE, tmp_path / "figure.doc")
    assert not list(tmp_path.glob("*.doc"))


def test_as_many_stages_as_cells_are_needed(manifold, latent, tmp_path):
    with pytest.raises(BadInputError, match="23"):
        draw_manifold(manifold, latent, STAGE[:23], tmp_path / "figure.png")


def test_cells_of_unknown_stage_and_no_cells_are_drawn(manifold, latent, tmp_path):
    size_of(draw_manifold(manifold, latent, ["nobody knows", "", *STAGE[2:]], tmp_path / "1.png"))
    size_of(draw_manifold(manifold, latent[:0], [], tmp_path / "2.png"))
    size_of(draw_manifold(manifold, np.zeros_like(latent), STAGE, tmp_path / "3.png"))


def test_the_anchors_of_a_manifold_are_drawn(manifold, tmp_path):
    size_of(draw_anchors(manifold, str(tmp_path / "anchors.png")))


def narrow(manifold: Manifold, d: int) -> Manifold:
    """The manifold with its first ``d`` coordinates only."""
    document = tiny_document()
    document["extraction"]["adaptor"]["n_components"] = d
    cut = {"projection": np.s_[:, :d], "offset": np.s_[:d], "adaptor.weights": np.s_[:d]}
    cut["readout.branch.weights"] = np.s_[:, :d]
    tensors = {name: np.ascontiguousarray(array[cut.get(name, ...)]) for name, array in manifold.tensors.items()}
    vectors = dict(manifold.vectors) | {"latent": np.ascontiguousarray(manifold.vectors["latent"][:, :d])}
    return Manifold.build(parse_card(document), manifold.genes, tensors, vectors)


def test_a_manifold_of_one_coordinate_is_drawn(manifold, tmp_path):
    size_of(draw_anchors(narrow(manifold, 1), tmp_path / "anchors.png"))


def test_a_manifold_of_one_branch_is_drawn(manifold, tmp_path):
    document = tiny_document()
    for entry in (*document["panel"]["anchors"], *document["ruler"]["stages"]):
        entry["branch"] = "only"
    one = Manifold.build(parse_card(document), manifold.genes, manifold.tensors, manifold.vectors)
    size_of(draw_anchors(one, tmp_path / "anchors.png"))


def test_a_ring_of_stages_that_the_panel_lacks_ends(manifold, latent, tmp_path):
    document = tiny_document()
    document["ruler"]["stages"] += [{"id": n, "label": n, "ontology_id": "", "branch": "left"} for n in ("p", "q", "r")]
    steps = [("q", "p"), ("r", "q"), ("p", "r"), ("left_3", "q")]
    document["ruler"]["edges"] += [{"child": c, "parent": p, "source": "made"} for c, p in steps]
    ring = Manifold.build(parse_card(document), manifold.genes, manifold.tensors, manifold.vectors)
    size_of(draw_manifold(ring, latent, STAGE, tmp_path / "figure.png"))


def planted(seed: int, spread: float) -> tuple[np.ndarray, list[str], list[str]]:
    """A root and three arms in ten dimensions, the third of them almost along the first."""
    rng = np.random.default_rng(seed)
    base, first, second = np.linalg.qr(rng.standard_normal((10, 3)))[0].T
    arms = {"one": first, "two": second, "three": -first}
    points, stage, branch = [], [], []
    for arm, direction in arms.items():
        for depth in (1, 2, 3):
            for _ in range(4):
                points.append(base + 0.5 * depth * direction + spread * rng.standard_normal(10))
                stage.append(f"{arm}_{depth}")
                branch.append(arm)
    points += [base + spread * rng.standard_normal(10) for _ in range(4)]
    return np.array(points), [*stage, *["root"] * 4], [*branch, *["stem"] * 4]


@pytest.mark.parametrize("seed", range(5))
def test_the_plane_puts_planted_arms_apart(seed):
    points, stage, branch = planted(seed, 0.05)
    axes = plane(points, stage, branch, "root")
    assert axes.shape == (10, 2)
    assert np.allclose(axes.T @ axes, np.eye(2), atol=1e-9)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    shown = unit @ axes
    centre = {name: shown[np.array(stage) == name].mean(axis=0) for name in set(stage)}
    ends = [centre[f"{arm}_3"] for arm in ("one", "two", "three")]
    for a, b in combinations(ends, 2):
        assert np.linalg.norm(a - b) > 0.8
    for arm in ("one", "two", "three"):
        reach = [np.linalg.norm(centre[f"{arm}_{depth}"] - centre["root"]) for depth in (1, 2, 3)]
        assert reach == sorted(reach)
    # the fraction of what a plane can show of the arms' ends, against the best plane there is
    truth = np.array([unit[np.array(stage) == f"{arm}_3"].mean(axis=0) for arm in ("one", "two", "three")])
    truth -= unit[np.array(stage) == "root"].mean(axis=0)
    best = np.linalg.svd(truth, compute_uv=False)[:2]
    assert np.linalg.norm(truth @ axes) ** 2 > 0.97 * (best**2).sum()


def test_the_plane_turns_with_the_latent_space():
    points, stage, branch = planted(0, 0.05)
    turn = np.linalg.qr(np.random.default_rng(9).standard_normal((10, 10)))[0]
    shown = points @ plane(points, stage, branch, "root")
    again = (points @ turn) @ plane(points @ turn, stage, branch, "root")
    assert np.allclose(shown, again, atol=1e-8)


def test_the_branch_with_most_anchors_lies_ahead():
    points, stage, branch = planted(1, 0.02)
    points, stage, branch = np.vstack([points, points[12:24]]), stage + stage[12:24], branch + branch[12:24]
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    shown = unit @ plane(points, stage, branch, "root")
    arm, root = np.array(branch) == "two", np.array(stage) == "root"
    assert (shown[arm].mean(axis=0) - shown[root].mean(axis=0) > -1e-6).all()


def test_a_root_without_anchors_is_no_error():
    points, stage, branch = planted(2, 0.05)
    assert plane(points, stage, branch, "elsewhere").shape == (10, 2)


def test_colours_tell_the_branches_of_blood_apart():
    ruler = read_stage_ruler(recipe_folder("hematopoietic"))
    ids = [stage.id for stage in ruler.stages]
    colours = stage_colours(ruler, ids)
    assert set(colours) == set(ids)
    assert all(0 <= value <= 1 for colour in colours.values() for value in colour)
    branch = dict(zip(ids, ruler.branch(ids), strict=True))
    depth = dict(zip(ids, ruler.depth(ids), strict=True))
    for a, b in combinations(ids, 2):
        if branch[a] == branch[b]:
            lighter, darker = sorted((a, b), key=depth.get)
            assert (colours[a] == colours[b]) == (depth[a] == depth[b])
            assert sum(colours[lighter]) >= sum(colours[darker]) - 1e-9
    deepest = {name: max((i for i in ids if branch[i] == name), key=depth.get) for name in set(branch.values())}
    for a, b in combinations(deepest.values(), 2):
        assert np.linalg.norm(np.subtract(colours[a], colours[b])) > 0.15, (a, b)


def test_many_branches_have_a_colour_each():
    n = 24
    stages = tuple(Stage(f"s{i}", f"S {i}", "", f"b{i}") for i in range(n))
    ruler = StageRuler("many", "1", stages, tuple(Edge(f"s{i}", "s0", "made") for i in range(1, n)), "s0")
    colours = stage_colours(ruler, [stage.id for stage in stages])
    assert len(set(colours.values())) == n


def test_a_colour_does_not_hang_on_what_else_is_drawn(manifold):
    ids = [stage.id for stage in manifold.ruler.stages]
    assert stage_colours(manifold.ruler, ids[::-1]) == stage_colours(manifold.ruler, ids)

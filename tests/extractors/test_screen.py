"""Scoring heads one by one: planted truth, held-out honesty, residuals by hand, and the atlas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.extractors._screen import screen
from manifoldzoo.extractors.screen._atlas import HeadAtlas, head_rows
from manifoldzoo.extractors.screen._score import _correlations, _indicators, score_heads
from manifoldzoo.gates.metrics import Pairs, angular_distances, euclidean_distances
from manifoldzoo.manifolds._geodesic import geodesic_latents
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._let_many import feature_coordinates

N, GENES = 60, 40
SETTINGS = LetSettings(n_components=4, n_steps=60)
PLACE = (1, 2)


def panel(seed=0):
    """Anchors whose first four genes carry a circle, the ruler on it; the other genes are noise."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, np.pi, N)
    distances = np.round(np.abs(angle[:, None] - angle) * 4)
    anchors = rng.random((N, GENES)) * 3
    anchors[:, :4] = np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)]) + 2
    donor = [f"d{i}" for i in rng.integers(4, size=N)]
    return anchors.astype(np.float32), distances, donor


def heads(seed=1):
    """Two layers of four heads that read noise genes only, but for the one that reads the circle."""
    rng = np.random.default_rng(seed)
    operators = rng.standard_normal((2, 4, GENES, GENES)).astype(np.float32) / 10
    operators[:, :, :4] = 0
    operators[PLACE[0] - 1, PLACE[1], :4, :4] = np.eye(4)
    operators[PLACE[0] - 1, PLACE[1], 4:] = 0
    return operators


def scored(anchors, operators, distances, donor, **changes):
    options = {
        "study": ["s"] * len(anchors),
        "donor": donor,
        "tissue": ["t"] * len(anchors),
        "settings": SETTINGS,
        "n_splits": 4,
        "seed": 0,
    }
    return score_heads(anchors, operators, distances, **(options | changes))


@pytest.fixture(scope="module")
def scores():
    anchors, distances, donor = panel()
    return scored(anchors, heads(), distances, donor)


def test_the_planted_head_comes_first_in_every_split(scores):
    place = PLACE[0] - 1, PLACE[1]
    assert scores.rank[place] == 1
    assert scores.top_1[place] == scores.top_3[place] == 1
    assert scores.residual[place] > 0.8
    others = np.delete(scores.residual.ravel(), np.ravel_multi_index(place, (2, 4)))
    assert others.max() < 0.4
    assert sorted(scores.rank.ravel()) == list(range(1, 9))
    assert scores.by_split.shape == (4, 2, 4)
    assert np.allclose(scores.by_split.mean(axis=0), scores.residual)
    assert np.allclose(scores.by_split.std(axis=0, ddof=1), scores.residual_sd)
    assert scores.top_3.sum() == pytest.approx(3)


def test_noise_fits_in_sample_and_not_out_of_it(scores):
    place = np.ravel_multi_index((PLACE[0] - 1, PLACE[1]), (2, 4))
    in_sample = np.delete(scores.in_sample.ravel(), place)
    held_out = np.delete(scores.residual.ravel(), place)
    assert in_sample.min() > held_out.max() + 0.1


def test_the_same_seed_gives_the_same_scores_and_heads_do_not_depend_on_their_company(scores):
    anchors, distances, donor = panel()
    again = scored(anchors, heads(), distances, donor)
    assert np.array_equal(again.by_split, scores.by_split)
    alone = scored(anchors, heads()[:, 2:3], distances, donor)
    assert np.allclose(alone.by_split, scores.by_split[:, :, 2:3], atol=1e-3)
    other = scored(anchors, heads(), distances, donor, seed=1)
    assert not np.allclose(other.by_split, scores.by_split)


def test_a_head_that_copies_the_donor_has_nothing_left_without_it():
    """Stages go with donors, so that the donor alone tells much of the ruler."""
    rng = np.random.default_rng(3)
    donor = np.repeat(np.arange(4), N // 4)
    anchors = rng.random((N, GENES)).astype(np.float32)
    anchors[:, :4] = np.eye(4)[donor] * 5 + 0.01 * rng.random((N, 4))
    distances = 4.0 * (donor[:, None] != donor) + np.round(np.abs(rng.random(N)[:, None] - rng.random(N)))
    distances = np.triu(distances, 1) + np.triu(distances, 1).T
    operators = np.zeros((1, 1, GENES, GENES), dtype=np.float32)
    operators[0, 0, :4, :4] = np.eye(4)
    found = scored(anchors, operators, distances, [f"d{d}" for d in donor])
    assert found.raw[0, 0] > 0.6
    assert abs(found.residual[0, 0]) < 0.15


def test_residuals_are_those_of_least_squares_by_hand():
    rng = np.random.default_rng(0)
    latents, target = rng.standard_normal((3, 20, 4)), rng.integers(1, 6, (20, 20)).astype(float)
    target = np.triu(target, 1) + np.triu(target, 1).T
    study, donor = rng.choice(["a", "b"], 20), rng.choice(["x", "y", "z"], 20)
    tissue = rng.choice(["blood", "marrow"], 20)
    pairs = Pairs(*np.triu_indices(20, 1))
    residual, raw = _correlations(latents, SETTINGS, target, pairs, _indicators(study, donor, tissue))
    for index, latent in enumerate(latents):
        left = [angular_distances(latent)[i, j] for i, j in zip(pairs.left, pairs.right, strict=True)]
        right = [target[i, j] for i, j in zip(pairs.left, pairs.right, strict=True)]
        design = [
            [1, study[i] == study[j] and donor[i] == donor[j], study[i] == study[j], tissue[i] == tissue[j]]
            for i, j in zip(pairs.left, pairs.right, strict=True)
        ]
        design = np.array(design, dtype=float)
        rest = []
        for side in (left, right):
            ranks = rankdata(side)
            rest.append(ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0])
        assert residual[index] == pytest.approx(np.corrcoef(*rest)[0, 1], abs=1e-10)
        assert raw[index] == pytest.approx(spearmanr(left, right).statistic, abs=1e-10)


class TestGeodesicHeads:
    settings = GeodesicSettings(n_components=3, n_neighbours=8)

    def test_the_planted_head_comes_first_here_too(self):
        anchors, distances, donor = panel()
        found = scored(anchors, heads(), distances, donor, settings=self.settings)
        assert found.rank[PLACE[0] - 1, PLACE[1]] == 1

    def test_scores_are_those_of_placing_anchors_held_out(self):
        anchors, distances, donor = panel()
        features = anchors @ heads()[0, 2]
        found = scored(anchors, heads()[:1, 2:3], distances, donor, settings=self.settings)
        rng = np.random.default_rng(0).spawn(2)[0].spawn(4)[0]
        held = np.zeros(N, dtype=bool)
        held[rng.permutation(N)[: round(0.2 * N)]] = True
        coordinates = feature_coordinates(features, scale_floor=0.1)
        placed = geodesic_latents(coordinates, self.settings, train=np.flatnonzero(~held), standardise=False)
        pairs = Pairs(*np.nonzero(np.triu(held[:, None] | held, 1)))
        apart = euclidean_distances(placed)
        expected, _ = _correlations(
            placed[None], self.settings, distances, pairs, _indicators(["s"] * N, donor, ["t"] * N)
        )
        assert found.by_split[0, 0, 0] == pytest.approx(expected[0], abs=1e-6)
        own = _correlations(placed[None], self.settings, apart, pairs, _indicators(["s"] * N, donor, ["t"] * N))
        assert own[1][0] == pytest.approx(1)

    def test_a_head_of_too_few_dimensions_is_left_out(self):
        anchors, distances, donor = panel()
        operators = heads()[:1]
        operators[0, 1] = np.outer(np.ones(GENES), np.ones(GENES))
        found = scored(anchors, operators, distances, donor, settings=self.settings)
        assert np.isnan(found.residual[0, 1]) and found.rank[0, 1] == 0
        assert np.isfinite(np.delete(found.residual[0], 1)).all()

    def test_panels_too_small_for_the_graph_are_refused(self):
        anchors, distances, donor = panel()
        wide = GeodesicSettings(n_components=3, n_neighbours=50)
        with pytest.raises(BadInputError, match="60 anchors and 4 splits are too few, expected at least 64 and 2"):
            scored(anchors, heads(), distances, donor, settings=wide)


def test_labels_that_say_nothing_change_nothing():
    latents = np.random.default_rng(0).standard_normal((2, 15, 3))
    target = angular_distances(np.random.default_rng(1).standard_normal((15, 3)))
    same = ["only"] * 15
    pairs, shared = Pairs(*np.triu_indices(15, 1)), _indicators(same, same, same)
    residual, raw = _correlations(latents, SETTINGS, target, pairs, shared)
    assert np.allclose(residual, raw)


def test_a_head_without_features_is_reported_and_not_scored():
    anchors, distances, donor = panel()
    operators = heads()
    operators[0, 0] = 0
    found = scored(anchors, operators, distances, donor)
    assert found.rank[0, 0] == 0
    assert np.isnan(found.residual[0, 0])
    assert np.isnan(found.in_sample[0, 0])
    assert found.top_3[0, 0] == 0
    assert sorted(found.rank.ravel()) == [0, *range(1, 8)]
    operators[:] = 0
    with pytest.raises(BadInputError, match="None of the 8 heads"):
        scored(anchors, operators, distances, donor)


@pytest.mark.parametrize(
    "changes", [{"n_splits": 1}, {"donor": ["a"]}, {"heads": np.zeros((2, 2, 3, 3))}, {"heads": np.zeros((2, 40, 40))}]
)
def test_what_does_not_fit_together_is_refused(changes):
    anchors, distances, donor = panel()
    operators = changes.pop("heads", heads())
    with pytest.raises(BadInputError):
        scored(anchors, operators, distances, changes.pop("donor", donor), **changes)


def atlas(scores, **changes) -> HeadAtlas:
    fields = {
        "model": "made",
        "model_digest": "0" * 64,
        "panel_digest": "1" * 64,
        "ruler": "tiny",
        "ruler_version": "1",
        "kind": "attention_mean",
        "control": None,
        "n_layers": 2,
        "n_heads": 4,
        "n_anchors": N,
        "n_genes": GENES,
        "n_cells": 0,
        "n_splits": 4,
        "seed": 0,
        "stability": scores.stability,
        "heads": head_rows(scores),
    }
    return HeadAtlas(**(fields | changes))


def test_table_json_and_picture_say_the_same(scores, tmp_path):
    made = atlas(scores)
    folder = made.write(tmp_path / "new" / "atlas")
    table = made.to_table()
    assert table["name"].tolist()[:5] == ["L0H0", "L0H1", "L0H2", "L0H3", "L1H0"]
    assert table.set_index("name").loc["L0H2", "rank"] == 1
    document = json.loads((folder / "heads.json").read_text())
    assert document == made.to_json()
    assert [head["residual"] for head in document["heads"]] == pytest.approx(table["residual"].tolist())
    header, first, *_ = (folder / "heads.tsv").read_text().splitlines()
    assert dict(zip(header.split("\t"), first.split("\t"), strict=True))["name"] == "L0H0"
    assert (folder / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_a_head_without_a_score_is_null_in_json_and_drawn(tmp_path):
    anchors, distances, donor = panel()
    operators = heads()
    operators[1, 3] = 0
    made = atlas(scored(anchors, operators, distances, donor))
    json.dumps(made.to_json(), allow_nan=False)
    assert made.to_json()["heads"][7]["residual"] is None
    made.write(tmp_path)


class TestFromACheckpoint:
    @pytest.fixture(scope="class")
    def job(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("job")
        cells = write_small_cells(folder / "cells.h5ad")
        model = write_tiny_scgpt(folder / "model", genes=common_genes(cells), n_layers=3, n_heads=2)
        recipe = write_small_recipe(folder / "recipe", 'kind = "attention_mean"')
        return {"recipe": recipe, "cells": [cells], "checkpoint": model, "n_splits": 3}

    @pytest.mark.parametrize("kind", ["attention_mean", "attention_value", "token_ov", "token_qk"])
    def test_every_kind_with_heads_is_screened(self, job, kind):
        made = screen(**job, kind=kind)
        assert (made.n_layers, made.n_heads, made.kind) == (3, 2, kind)
        assert sorted(head.rank for head in made.heads) == list(range(1, 7))
        assert (made.n_cells > 0) == kind.startswith("attention")

    def test_a_control_is_screened_alike_and_says_so(self, job):
        real = screen(**job)
        for control in ("random-init", "shuffled-weights", "spectrum-matched", "permuted-genes"):
            made = screen(**job, control=control)
            assert made.to_json()["control"] == {"kind": control, "seed": 0}
            assert made.panel_digest == real.panel_digest
            assert [head.residual for head in made.heads] != [head.residual for head in real.heads]

    def test_distilled_has_no_heads(self, job):
        with pytest.raises(BadInputError, match="distilled"):
            screen(**job, kind="distilled")

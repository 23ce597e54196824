"""Rungs 1 and 2: every part of an artifact that is tampered with fails at the check that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifacts import flip
from tiny import tiny_document, tiny_manifold, tiny_ruler

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._evidence import RungResult
from manifoldzoo.gates.rungs._intact import reproduces, valid
from manifoldzoo.manifolds._features import apply_operator, fold_projection
from manifoldzoo.manifolds._genes import GeneTable
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._ruler import StageRuler

PARTS = ("operator", "adaptor.weights", "adaptor.bias", "adaptor.mean", "adaptor.scale")


@pytest.fixture(scope="module")
def sound() -> Manifold:
    return tiny_manifold()


def statuses(result: RungResult) -> dict[str, str]:
    return {record.gate: record.status for record in result.records}


def failed(result: RungResult) -> set[str]:
    assert (result.status == "pass") == (set(statuses(result).values()) == {"pass"})
    return {gate for gate, status in statuses(result).items() if status != "pass"}


def with_tensor(manifold: Manifold, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Manifold:
    """The manifold rebuilt around a changed tensor, so that every digest of files holds."""
    tensors = dict(manifold.tensors) | {name: np.asarray(change(manifold.tensors[name].copy()), dtype=np.float32)}
    return Manifold.build(manifold.card, manifold.genes, tensors, manifold.vectors)


def with_vector(manifold: Manifold, name: str, change: Callable[[np.ndarray], np.ndarray]) -> Manifold:
    vectors = dict(manifold.vectors) | {name: np.asarray(change(manifold.vectors[name].copy()), dtype=np.float32)}
    return Manifold.build(manifold.card, manifold.genes, manifold.tensors, vectors)


def with_card(manifold: Manifold, **changes: Any) -> Manifold:
    return Manifold.build(parse_card(tiny_document(**changes)), manifold.genes, manifold.tensors, manifold.vectors)


def poke(row: int, column: int, by: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[row, column] += by
        return array

    return change


def test_a_sound_manifold_passes_in_memory_and_on_disk(sound, tmp_path):
    for manifold in (sound, Manifold.read(sound.save(tmp_path / "tiny"))):
        assert failed(valid(manifold)) == set()
        assert failed(reproduces(manifold)) == set()
        assert (valid(manifold).rung, reproduces(manifold).rung) == (1, 2)
    assert set(statuses(valid(sound))) == {"digests", "panel_digest", "ruler_digest", "projection_is_the_fold"}
    assert set(statuses(reproduces(sound))) == {"test_vectors_latent", "test_vectors_branch"}


@pytest.mark.parametrize("name", [*PARTS, "projection", "offset"])
def test_a_projection_that_is_not_the_fold_is_found(sound, name):
    tampered = with_tensor(sound, name, lambda array: array * 1.05)
    assert failed(valid(tampered)) == {"projection_is_the_fold"}


def test_one_weight_of_one_gene_is_enough(sound):
    size = float(np.abs(sound.tensors["projection"]).max())
    tampered = with_tensor(sound, "projection", poke(7, 1, 0.005 * size))
    assert failed(valid(tampered)) == {"projection_is_the_fold"}


def test_a_large_offset_hides_no_change_of_the_projection(sound):
    """Offsets grow with the means of the features; loadings do not, and are what places a cell."""
    parts = [sound.tensors[name] for name in PARTS]
    parts[3] = parts[3] + np.float32(1e4)
    projection, offset = fold_projection(*parts)
    tensors = dict(sound.tensors) | {
        "adaptor.mean": parts[3],
        "projection": projection.astype(np.float32),
        "offset": offset.astype(np.float32),
    }
    shifted = Manifold.build(sound.card, sound.genes, tensors, sound.vectors)
    assert np.abs(offset).max() > 1000 * np.abs(projection).max()
    assert failed(valid(shifted)) == set()
    assert failed(valid(with_tensor(shifted, "projection", lambda array: array * 1.05))) == {"projection_is_the_fold"}
    assert failed(valid(with_tensor(shifted, "projection", np.zeros_like))) == {"projection_is_the_fold"}


def test_the_fold_is_checked_against_features_and_head_not_only_itself(sound):
    """What the check stands for: x P + o is the head on the operator's features."""
    rng = np.random.default_rng(0)
    cells = rng.random((9, len(sound.genes)), dtype=np.float32)
    weights, bias, mean, scale = (sound.tensors[name].astype(np.float64) for name in PARTS[1:])
    features = apply_operator(cells, sound.tensors["operator"])
    assert np.allclose(sound.project(cells), ((features - mean) / scale - bias) @ weights.T, atol=1e-4)


def test_swapped_anchors_are_found(sound):
    def swap(anchors: np.ndarray) -> np.ndarray:
        anchors[[0, 1]] = anchors[[1, 0]]
        return anchors

    assert failed(valid(with_tensor(sound, "panel.anchors", swap))) == {"panel_digest"}
    assert failed(valid(with_tensor(sound, "panel.anchors", poke(3, 5, 1e-3)))) == {"panel_digest"}


@pytest.mark.parametrize("field", ["study", "donor", "tissue", "cell_type", "n_cells"])
def test_what_an_anchor_is_said_to_be_is_bound(sound, field):
    panel = tiny_document()["panel"]
    panel["anchors"][2][field] = 6 if field == "n_cells" else "other"
    assert failed(valid(with_card(sound, panel=panel))) == {"panel_digest"}


def test_a_changed_stage_of_an_anchor_is_found(sound):
    panel = tiny_document()["panel"]
    panel["anchors"][2]["stage"] = "left_1"
    assert failed(valid(with_card(sound, panel=panel))) == {"panel_digest"}
    panel["anchors"][2]["branch"] = "right"
    assert failed(valid(with_card(sound, panel=panel))) == {"panel_digest", "ruler_digest"}


def test_swapped_genes_are_found(sound):
    symbols, ensembl = list(sound.genes.symbols), list(sound.genes.ensembl)
    symbols[0], symbols[1] = symbols[1], symbols[0]
    genes = GeneTable(tuple(symbols), tuple(ensembl))
    swapped = Manifold.build(sound.card, genes, sound.tensors, sound.vectors)
    assert failed(valid(swapped)) == {"panel_digest"}


def ruler_document(change: Callable[[dict[str, Any]], None], *, signed: bool) -> dict[str, Any]:
    """The ruler of the tiny card after a change, with its digest renewed where ``signed``."""
    document = tiny_document()["ruler"]
    change(document)
    if signed:
        plain = tiny_ruler().to_dict()
        plain["stages"] = [[s["id"], s["label"], s["ontology_id"], s["branch"]] for s in document["stages"]]
        plain["edges"] = [[e["child"], e["parent"], e["source"]] for e in document["edges"]]
        document["digest"] = StageRuler.from_dict(plain).digest
    return document


def other_branch(document: dict[str, Any]) -> None:
    document["stages"][3]["branch"] = "right"


def other_parent(document: dict[str, Any]) -> None:
    document["edges"][2]["parent"] = "right_2"


def test_a_changed_ruler_is_found(sound):
    for change in (other_branch, other_parent):
        assert failed(valid(with_card(sound, ruler=ruler_document(change, signed=False)))) == {"ruler_digest"}
    assert failed(valid(with_card(sound, ruler=ruler_document(other_branch, signed=True)))) == {"ruler_digest"}
    # another ruler that is honestly declared is another manifold, not a broken one
    assert failed(valid(with_card(sound, ruler=ruler_document(other_parent, signed=True)))) == set()


@pytest.mark.parametrize("name", ["card.json", "genes.tsv", "manifold.safetensors", "test_vectors.safetensors"])
@pytest.mark.parametrize("harm", ["flipped", "gone"])
def test_files_that_change_after_loading_are_found(sound, tmp_path, name, harm):
    folder = sound.save(tmp_path / "tiny")
    loaded = Manifold.read(folder)
    flip(folder / name) if harm == "flipped" else (folder / name).unlink()
    result = valid(loaded)
    assert failed(result) == {"digests"}
    assert name in next(record.reason for record in result.records if record.gate == "digests")


def test_another_artifact_in_the_same_place_is_found(sound, tmp_path):
    folder = sound.save(tmp_path / "tiny")
    loaded = Manifold.read(folder)
    other = with_tensor(sound, "readout.branch.bias", lambda array: array + 1).save(tmp_path / "other")
    for path in other.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert failed(valid(loaded)) == {"digests"}


def test_a_stray_pickle_is_found(sound, tmp_path):
    folder = sound.save(tmp_path / "tiny")
    loaded = Manifold.read(folder)
    (folder / "extra.pkl").write_bytes(b"no")
    assert failed(valid(loaded)) == {"digests"}


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda m: with_vector(m, "input", poke(1, 3, 1.0)), {"test_vectors_latent"}),
        (lambda m: with_vector(m, "latent", poke(2, 0, 0.5)), {"test_vectors_latent", "test_vectors_branch"}),
        (lambda m: with_vector(m, "proba.branch", lambda p: p[:, ::-1]), {"test_vectors_branch"}),
        (lambda m: with_tensor(m, "projection", lambda p: p * 1.05), {"test_vectors_latent"}),
        (lambda m: with_tensor(m, "offset", lambda o: o + 0.1), {"test_vectors_latent"}),
        (lambda m: with_tensor(m, "readout.branch.weights", lambda w: -w), {"test_vectors_branch"}),
        (lambda m: with_tensor(m, "readout.branch.bias", lambda b: b + np.array([0, 0.1, 0])), {"test_vectors_branch"}),
    ],
    ids=["input", "latent", "proba", "projection", "offset", "weights", "bias"],
)
def test_numbers_that_do_not_come_out_are_found(sound, tamper, found):
    assert failed(reproduces(tamper(sound))) == found


def test_the_tolerance_is_the_cards_and_is_counted_in_its_units(sound):
    """Outputs off by half the tolerance pass with statistic one half, by twice it fail with two."""
    rtol = atol = 1e-3
    room = atol + rtol * np.abs(sound.vectors["latent"].astype(np.float64))

    def statistic(factor: float) -> tuple[float, str]:
        moved = replace(sound, vectors=dict(sound.vectors) | {"latent": sound.vectors["latent"] + factor * room})
        record = reproduces(moved).records[0]
        return record.statistic, record.status

    assert statistic(0.5) == (pytest.approx(0.5, rel=0.02), "pass")
    assert statistic(2.0) == (pytest.approx(2.0, rel=0.02), "fail")


def test_records_count_the_vectors(sound, tmp_path: Path):
    assert {record.n for record in reproduces(sound).records} == {4}

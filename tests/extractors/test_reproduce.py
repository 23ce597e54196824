"""Extracting again: the same artifact from the same files, and every way in which it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from scipy.stats import spearmanr
from small import common_genes, write_one_count_more, write_small_cells, write_small_recipe
from tiny import tiny_manifold
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._card import PanelFileEntry
from manifoldzoo.cards._errors import BadInputError, CheckpointError, NotFoundError, PanelError
from manifoldzoo.extractors import _reproduce, extract, reproduce
from manifoldzoo.extractors._reproduce import compare
from manifoldzoo.extractors._same_source import match_files
from manifoldzoo.manifolds._manifold import Manifold, in_format

PANELS = """
[[panels]]
name = "other-run"
role = "external"
files = ["other.h5ad"]
labels = "hematopoietic"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two files of one run to extract from, one of the other run, a tiny model and a short recipe."""
    folder = tmp_path_factory.mktemp("again")
    cells = ad.read_h5ad(write_small_cells(folder / "all.h5ad"))
    first, second = sorted(cells.obs["donor"].astype(str).unique())
    own = cells[cells.obs["donor"] == first]
    types = own.obs["cell_type"].astype(str).to_numpy()
    early = np.isin(types, sorted(set(types))[::2])
    own[early].copy().write_h5ad(folder / "one.h5ad")
    own[~early].copy().write_h5ad(folder / "two.h5ad")
    cells[cells.obs["donor"] == second].copy().write_h5ad(folder / "other.h5ad")
    (folder / "panels.toml").write_text(PANELS)
    write_small_recipe(folder / "recipe", 'kind = "attention_mean"')
    write_tiny_scgpt(folder / "model", genes=common_genes(folder / "all.h5ad"), n_layers=3, n_heads=2)
    write_tiny_scgpt(folder / "stranger", genes=common_genes(folder / "all.h5ad"), n_layers=3, n_heads=2, seed=9)
    return folder


def given(folder: Path, **changes):
    files = [folder / "two.h5ad", folder / "one.h5ad"]
    return {"recipe": folder / "recipe", "cells": files, "checkpoint": folder / "model"} | changes


@pytest.fixture(scope="module")
def made(folder) -> Manifold:
    return extract(**given(folder), name="mine", version="2.1.0", seed=5)


def forged(manifold: Manifold, **extraction) -> Manifold:
    """The same tensors under a card that says something else of the extraction."""
    changed = manifold.card.extraction.model_copy(update=extraction)
    card = manifold.card.model_copy(update={"extraction": changed})
    return Manifold.build(card, manifold.genes, manifold.tensors, manifold.vectors)


def test_the_same_files_in_another_order_give_the_same_bytes(made, folder, tmp_path):
    read = Manifold.read(made.save(tmp_path / "made"))
    told = []
    # the card says which file came first
    other_order = given(folder, cells=[folder / "one.h5ad", folder / "two.h5ad"])
    result = reproduce(read, **other_order, progress=lambda *call: told.append(call))
    assert result.verdict == "bit for bit"
    assert result.manifold.digest == result.digest == made.digest
    assert (result.card, result.software, result.causes) == ((), (), [])
    assert all(tensor.equal and tensor.absolute == 0 for tensor in result.tensors)
    assert {tensor.name for tensor in result.tensors} >= {"operator", "projection", "panel.anchors"}
    assert {"test_vectors.input", "test_vectors.latent"} <= {tensor.name for tensor in result.tensors}
    assert result.outputs[0].gate == "test_vectors_latent"
    assert all(record.statistic <= 1 for record in result.outputs)
    # equal bytes elsewhere in memory may be multiplied in another order
    assert result.angles == pytest.approx((1, 0), abs=1e-4)
    assert {label for label, _, _ in told} >= {"attention"}
    document = json.loads(json.dumps(result.to_json()))
    assert (document["verdict"], document["digest"], document["digest_here"]) == ("bit for bit", *[made.digest] * 2)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "home") == ["made"]


def test_control_panels_and_untrained_models_are_made_again(folder):
    options = {"panels": folder / "panels.toml", "control": "random-init", "control_seed": 3, "n_untrained": 1}
    small = given(folder, recipe=folder / "quick", cells=[folder / "one.h5ad", folder / "two.h5ad"])
    write_small_recipe(folder / "quick", 'kind = "token_qk"')
    artifact = extract(**small, **options)
    again = reproduce(artifact, **small, panels=folder / "panels.toml")
    assert again.verdict == "bit for bit"
    assert [panel.name for panel in again.manifold.card.panels] == ["other-run"]
    assert again.manifold.card.extraction.control == artifact.card.extraction.control
    with pytest.raises(PanelError, match=r"\['other-run'\].*no specification") as caught:
        reproduce(artifact, **small)
    assert "--panels" in caught.value.hint
    (folder / "others.toml").write_text(PANELS + "min_cells = 6\n")
    with pytest.raises(PanelError, match="'other-run' is specified otherwise"):
        reproduce(artifact, **small, panels=folder / "others.toml")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    write_one_count_more(folder / "other.h5ad", elsewhere / "other.h5ad")
    with pytest.raises(PanelError, match=r"elsewhere/other\.h5ad' was changed"):
        reproduce(artifact, **small, panels=folder / "panels.toml", data=elsewhere)


class TestRefused:
    """Whatever is not what the card names, before the model is run."""

    @pytest.fixture(autouse=True)
    def no_model_is_run(self, monkeypatch):
        monkeypatch.setattr(_reproduce, "extract", None)

    def test_one_changed_count(self, made, folder, tmp_path):
        changed = write_one_count_more(folder / "one.h5ad", tmp_path / "one.h5ad")
        with pytest.raises(PanelError, match=r"one\.h5ad' was changed") as caught:
            reproduce(made, **given(folder, cells=[folder / "two.h5ad", changed]))
        assert made.card.panel.files[1].sha256[:12] in caught.value.message

    def test_another_checkpoint(self, made, folder):
        with pytest.raises(CheckpointError, match=made.card.source_model.digest[:12]) as caught:
            reproduce(made, **given(folder, checkpoint=folder / "stranger"))
        assert "--checkpoint" in caught.value.hint
        # the bundled reference, which is used where none is named
        with pytest.raises(CheckpointError):
            reproduce(made, **given(folder, checkpoint=None))

    def test_another_recipe(self, made, folder, tmp_path):
        recipe = write_small_recipe(tmp_path / "recipe", 'kind = "attention_mean"')
        text = (recipe / "recipe.toml").read_text()
        (recipe / "recipe.toml").write_text(text.replace('name = "hematopoietic"', 'name = "another"'))
        with pytest.raises(BadInputError, match=r"'another'.*followed 'hematopoietic'"):
            reproduce(made, **given(folder, recipe=recipe))
        with pytest.raises(NotFoundError, match="nowhere"):
            reproduce(made, **given(folder, recipe=tmp_path / "nowhere"))

    def test_panels_that_the_card_does_not_have(self, made, folder):
        with pytest.raises(PanelError, match=r"other-run") as caught:
            reproduce(made, **given(folder, panels=folder / "panels.toml"))
        assert "--panels" in caught.value.hint

    def test_an_artifact_that_was_not_extracted(self, made, folder):
        derived = replace(made, card=made.card.model_copy(update={"parent": "hematopoietic@1.0.0"}))
        with pytest.raises(BadInputError, match=r"derived from hematopoietic@1\.0\.0"):
            reproduce(derived, **given(folder))


class TestMatchFiles:
    """Files are known by their bytes; their names are on the card as well."""

    @pytest.fixture
    def paths(self, tmp_path) -> list[Path]:
        for name in ("a", "b", "c"):
            (tmp_path / f"{name}.h5ad").write_bytes(name.encode() * 9)
        return [tmp_path / f"{name}.h5ad" for name in ("a", "b", "c")]

    @staticmethod
    def entries(paths: list[Path]) -> list[PanelFileEntry]:
        from manifoldzoo.cards._names import sha256_file

        return [
            PanelFileEntry(
                name=path.name, sha256=sha256_file(path), n_cells=1, cells_digest="0" * 64, n_missing_genes=0
            )
            for path in paths
        ]

    def test_the_order_is_that_of_the_card(self, paths):
        for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
            assert match_files(self.entries(paths), [paths[i] for i in order]) == paths

    def test_renamed_missing_strange_and_repeated(self, paths, tmp_path):
        entries = self.entries(paths)
        with pytest.raises(PanelError, match=r"'c\.h5ad'.*not among those given"):
            match_files(entries, paths[:2])
        (tmp_path / "d.h5ad").write_bytes(b"d")
        with pytest.raises(PanelError, match=r"d\.h5ad' is none of the card's files"):
            match_files(entries, [*paths, tmp_path / "d.h5ad"])
        with pytest.raises(PanelError, match=r"a\.h5ad' was given twice"):
            match_files(entries, [*paths, paths[0]])
        renamed = paths[1].rename(tmp_path / "e.h5ad")
        with pytest.raises(PanelError, match=r"e\.h5ad' is 'b\.h5ad' of the card under another name"):
            match_files(entries, [paths[0], renamed, paths[2]])
        # two files that took each other's names
        renamed.rename(paths[1])
        paths[0].rename(tmp_path / "x")
        paths[1].rename(paths[0])
        (tmp_path / "x").rename(paths[1])
        with pytest.raises(PanelError, match="another name"):
            match_files(entries, paths)


def test_a_forged_seed_differs(made, folder):
    lie = forged(made, seed=6)
    result = reproduce(lie, **given(folder))
    assert result.verdict == "differs"
    assert result.manifold.digest != result.digest
    assert result.manifold.card.extraction.seed == 6
    latent = next(tensor for tensor in result.tensors if tensor.name == "test_vectors.latent")
    assert latent.absolute > 1e-3
    assert not latent.equal
    # panel and genes do not depend on the seed, the head does
    equal = {tensor.name for tensor in result.tensors if tensor.equal}
    assert "panel.anchors" in equal
    assert "adaptor.weights" not in equal
    assert any(record.status == "fail" for record in result.outputs)
    assert {field.field for field in result.card} >= {"extraction.adaptor.loss"}
    assert "a card that is wrong" in result.causes[0]


class TestCompare:
    """The verdict on pairs that are made by hand."""

    def test_a_last_digit(self, made):
        tensors = dict(made.tensors)
        tensors["projection"] = np.nextafter(tensors["projection"], np.float32(np.inf))
        result = compare(made, Manifold.build(made.card, made.genes, tensors, made.vectors))
        assert result.verdict == "within tolerance"
        (off,) = [tensor for tensor in result.tensors if not tensor.equal]
        assert off.name == "projection"
        size = np.abs(made.tensors["projection"]).max()
        assert 0 < off.absolute <= np.spacing(size)
        assert off.relative == pytest.approx(off.absolute / size)
        assert [cause.split(":")[0] for cause in result.causes] == ["software and recipe are the same"]

    def test_differences_are_counted_by_hand(self, made):
        tensors = dict(made.tensors)
        offset = tensors["offset"].astype(np.float64)
        tensors["offset"] = (offset + np.eye(len(offset))[0] * 0.5).astype(np.float32)
        result = compare(made, Manifold.build(made.card, made.genes, tensors, made.vectors))
        assert result.verdict == "differs"
        (off,) = [tensor for tensor in result.tensors if not tensor.equal]
        assert off.absolute == pytest.approx(0.5, rel=1e-6)
        assert off.relative == pytest.approx(0.5 / np.abs(offset).max(), rel=1e-6)

    def test_software_and_recipe_are_told_as_causes(self, made):
        software = made.card.extraction.software | {"numpy": "1.0.0", "fortran": "77"}
        older = forged(made, software=software)
        older = Manifold.build(
            older.card.model_copy(update={"limits": ["None."]}), older.genes, older.tensors, older.vectors
        )
        result = compare(older, made)
        assert result.verdict == "within tolerance"
        assert all(tensor.equal for tensor in result.tensors)
        here = made.card.extraction.software["numpy"]
        assert {(one.field, one.artifact, one.here) for one in result.software} == {
            ("numpy", "1.0.0", here),
            ("fortran", "77", None),
        }
        assert [one.field for one in result.card] == ["limits"]
        assert result.causes == [
            f"numpy 1.0.0 made the artifact, here is {here}",
            "fortran 77 made the artifact, here is None",
            "the recipe here differs from that of the artifact: limits",
        ]

    def test_a_turn_of_the_coordinates_leaves_the_angles(self, made):
        tensors, d = dict(made.tensors), made.n_components
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))[0].astype(np.float32)
        for name in ("projection", "offset"):
            tensors[name] = tensors[name] @ turn
        result = compare(made, Manifold.build(made.card, made.genes, tensors, made.vectors))
        assert result.verdict == "differs"
        assert result.angles[0] == pytest.approx(1, abs=1e-3)
        assert result.angles[1] < 1e-3
        tensors["projection"] = tensors["projection"] * np.linspace(1, 3, d, dtype=np.float32)
        stretched = compare(made, Manifold.build(made.card, made.genes, tensors, made.vectors))
        latents = [one.project(made.vectors["input"]).astype(float) for one in (made, stretched.manifold)]
        upper = np.triu_indices(len(latents[0]), 1)
        units = [latent / np.linalg.norm(latent, axis=1, keepdims=True) for latent in latents]
        angles = [np.arccos(np.clip(unit @ unit.T, -1, 1)) for unit in units]
        assert stretched.angles[1] == pytest.approx(np.abs(angles[0] - angles[1])[upper].max(), abs=1e-3)
        assert stretched.angles[0] == pytest.approx(spearmanr(*(each[upper] for each in angles))[0], abs=1e-3)

    def test_a_readout_decides_too(self, made):
        tensors = dict(made.tensors)
        name = next(name for name in tensors if name.startswith("readout.branch."))
        tensors[name] = tensors[name] + np.arange(tensors[name].size, dtype=np.float32).reshape(tensors[name].shape)
        result = compare(made, Manifold.build(made.card, made.genes, tensors, made.vectors))
        assert result.verdict == "differs"
        status = {record.gate: record.status for record in result.outputs}
        assert status["test_vectors_latent"] == "pass"
        assert status["test_vectors_branch"] == "fail"

    def test_an_artifact_of_format_2_is_compared_as_one(self, made, tmp_path):
        old = Manifold.read(in_format(made, 2).save(tmp_path / "old"))
        result = compare(old, made)
        assert (result.verdict, result.digest) == ("bit for bit", old.digest)
        assert (old.digest != made.digest, result.manifold.digest) == (True, old.digest)
        assert not any("cells" in tensor.name for tensor in result.tensors)
        assert result.card == ()
        # what is kept of it is what was compared
        assert Manifold.read(result.manifold.save(tmp_path / "kept")).digest == old.digest

    def test_an_older_file_format(self, made):
        result = compare(replace(made, digest="0" * 64), made)
        assert result.verdict == "within tolerance"
        assert "older format" in result.causes[0]

    def test_another_manifold_altogether(self, made):
        other = tiny_manifold()
        result = compare(made, other)
        assert (result.verdict, result.outputs, result.angles) == ("differs", (), None)
        by_name = {tensor.name: tensor for tensor in result.tensors}
        assert by_name["panel.anchors"].absolute is None
        assert not any(tensor.equal for tensor in result.tensors)
        assert result.causes
        # two manifolds of the same genes and tasks whose anchors are others
        assert compare(other, other).verdict == "bit for bit"

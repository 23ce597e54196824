"""Extraction end to end: the real checkpoint, real cells, the whole artifact."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from manifoldzoo.cards._errors import BadInputError, CheckpointError, NotFoundError, PanelError
from manifoldzoo.extractors._extract import extract, reference_checkpoint
from manifoldzoo.gates._ladder import validate
from manifoldzoo.manifolds._features import apply_operator
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds.demo import demo_path


@pytest.fixture(scope="module")
def few_cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some ten real cells of each common stage and run."""
    cells = ad.read_h5ad(demo_path())
    groups = cells.obs.groupby(["donor", "cell_type"], observed=True).indices.values()
    kept = np.sort(np.concatenate([rows[:10] for rows in groups if len(rows) >= 10]))
    path = tmp_path_factory.mktemp("cells") / "few.h5ad"
    cells[kept].copy().write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def made(few_cells: Path) -> Manifold:
    return extract("hematopoietic", cells=[few_cells], name="few", version="1.2.3")


def test_the_card_says_what_was_done(made: Manifold, few_cells: Path) -> None:
    card = made.card
    cells = ad.read_h5ad(few_cells)
    assert (card.name, card.version) == ("few", "1.2.3")
    assert card.source_model.name == reference_checkpoint().name
    assert card.extraction.operator.n_cells + card.extraction.operator.n_skipped_cells == cells.n_obs
    assert card.panel.files[0].n_cells == cells.n_obs
    assert len(card.extraction.operator.numerical_rank) == card.extraction.operator.n_blocks == 2
    assert {anchor.study for anchor in card.panel.anchors} == {"marrow_setty2019"}
    assert {"torch", "numpy", "manifoldzoo"} <= set(card.extraction.software)


def test_equal_input_and_seed_give_equal_bytes(made: Manifold, few_cells: Path, tmp_path: Path) -> None:
    again = extract("hematopoietic", cells=[few_cells], name="few", version="1.2.3")
    other = extract("hematopoietic", cells=[few_cells], name="few", version="1.2.3", seed=1)
    for name, manifold in {"a": made, "b": again, "c": other}.items():
        manifold.save(tmp_path / name)
    files = {name: {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc"}
    assert files["a"] == files["b"]
    assert files["a"]["manifold.safetensors"] != files["c"]["manifold.safetensors"]


def test_the_fold_is_operator_then_head(made: Manifold) -> None:
    t = made.tensors
    x = np.random.default_rng(0).gamma(1.0, 1.0, (7, len(made.genes))).astype(np.float32)
    features = (apply_operator(x, t["operator"]) - t["adaptor.mean"]) / t["adaptor.scale"] - t["adaptor.bias"]
    expected = features @ t["adaptor.weights"].T
    np.testing.assert_allclose(made.project(x), expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_readouts_tell_the_stages_they_were_fitted_on(made: Manifold, few_cells: Path) -> None:
    cells = ad.read_h5ad(few_cells)
    made.transform(cells, scale="counts")
    erythroid = cells.obs["cell_type"].astype(str).str.startswith("Erythroid").to_numpy()
    said = (cells.obs["few_branch"] == "erythroid").to_numpy()
    assert said[erythroid].mean() > 0.8
    assert said[~erythroid].mean() < 0.2


def test_rungs_1_and_2_hold_on_disk(made: Manifold, tmp_path: Path) -> None:
    run = validate(Manifold.read(made.save(tmp_path / "artifact")), through=2)
    assert [result.status for result in run.rungs] == ["pass", "pass"]


def test_progress_adds_up(few_cells: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    extract("hematopoietic", cells=[few_cells], progress=lambda *step: seen.append(step))
    assert seen[-1][1] == seen[-1][2] == ad.read_h5ad(few_cells, backed="r").n_obs


def _log_values(path: Path, cells: ad.AnnData) -> None:
    cells.X = cells.X.log1p()
    cells.write_h5ad(path)


def _without_donor(path: Path, cells: ad.AnnData) -> None:
    del cells.obs["donor"]
    cells.write_h5ad(path)


def _strange_label(path: Path, cells: ad.AnnData) -> None:
    cells.obs["cell_type"] = "Unheard of"
    cells.write_h5ad(path)


def _not_h5ad(path: Path, cells: ad.AnnData) -> None:
    path.write_bytes(b"no cells here")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(_log_values, "counts"), (_without_donor, "donor"), (_strange_label, "Unheard of"), (_not_h5ad, "bad.h5ad")],
)
def test_cells_that_make_no_panel_are_refused(
    few_cells: Path, tmp_path: Path, spoil: Callable[[Path, ad.AnnData], None], said: str
) -> None:
    spoil(tmp_path / "bad.h5ad", ad.read_h5ad(few_cells))
    with pytest.raises(BadInputError, match=said):
        extract("hematopoietic", cells=[tmp_path / "bad.h5ad"])


def test_what_is_not_there_is_named(few_cells: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError):
        extract("hematopoietic", cells=[])
    with pytest.raises(NotFoundError, match=r"absent\.h5ad"):
        extract("hematopoietic", cells=[tmp_path / "absent.h5ad"])
    with pytest.raises(NotFoundError, match="nonsense"):
        extract("nonsense", cells=[few_cells])
    with pytest.raises(CheckpointError):
        extract("hematopoietic", cells=[few_cells], checkpoint=tmp_path)
    recipe = tmp_path / "recipe"
    shutil.copytree(recipe_folder("hematopoietic"), recipe)
    text = (recipe / "recipe.toml").read_text()
    (recipe / "recipe.toml").write_text(text.replace('extractor = "attention-let"', 'extractor = "wishful"'))
    with pytest.raises(NotFoundError, match="wishful"):
        extract(recipe, cells=[few_cells])


def test_two_cells_are_no_panel(few_cells: Path, tmp_path: Path) -> None:
    ad.read_h5ad(few_cells)[:2].copy().write_h5ad(tmp_path / "two.h5ad")
    with pytest.raises(PanelError):
        extract("hematopoietic", cells=[tmp_path / "two.h5ad"])

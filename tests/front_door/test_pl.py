"""``manifoldzoo.pl``: all figures in one place, nothing loaded before the first."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import pytest

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

import manifoldzoo as mz
from manifoldzoo import pl
from manifoldzoo.gates._ladder import validate

NAMES = {
    "calibration",
    "confusion",
    "controls",
    "embedding",
    "gates",
    "holdouts",
    "interaction_map",
    "null",
    "sender_receiver",
    "stage_graph",
}


def test_its_names_are_documented_and_take_axes() -> None:
    assert set(pl.__all__) == NAMES <= set(dir(pl))
    for name in NAMES:
        draw = getattr(pl, name)
        assert "Returns" in draw.__doc__
        parameter = inspect.signature(draw).parameters["ax"]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert parameter.default is None
    with pytest.raises(AttributeError, match="violin"):
        pl.violin  # noqa: B018


def test_names_for_types_are_those_that_are_found() -> None:
    import ast

    source = ast.parse(Path(pl.__file__).read_text())
    given = {alias.name for node in ast.walk(source) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert given - {"TYPE_CHECKING"} == NAMES


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("matplotlib", "anndata", "pandas", "scipy.stats", "sklearn", "torch")
    code = f"import sys; from manifoldzoo import pl; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "[]"


def test_a_user_draws_everything(artifact: Path, cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyplot, "show", lambda *_, **__: pytest.fail("a figure was shown"))
    manifold, adata = mz.load(str(artifact)), ad.read_h5ad(cells)
    manifold.transform(adata, scale="log1p")
    run = validate(manifold, through=2)
    predicted = adata.obs["tiny_branch"]
    try:
        drawn = [
            pl.embedding(adata, manifold, color="branch"),
            pl.stage_graph(manifold),
            pl.confusion(predicted, predicted, classes=manifold.classes("branch")),
            pl.calibration(predicted, adata.obsm["tiny_branch_proba"], manifold.classes("branch")),
            pl.gates(run)[0],
        ]
        assert all(isinstance(ax, Axes) for ax in drawn)
        # a notebook shows what pyplot knows of
        assert [pyplot.figure(number) for number in pyplot.get_fignums()] == [ax.figure for ax in drawn]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for ax in drawn:
                ax.figure.canvas.draw()
        for draw, rung in ((pl.null, 3), (pl.holdouts, 3), (pl.controls, 6)):
            with pytest.raises(mz.ZooError, match=f"through {rung}"):
                draw(run)
    finally:
        pyplot.close("all")

"""A random model, a few cells, and the job that the recipe makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from make_example import write_cells, write_checkpoint

from manifoldzoo.extractors import Job, make_job

RECIPE = Path(__file__).resolve().parents[1] / "recipe"


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cells(tmp_path_factory.mktemp("cells") / "cells.h5ad")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, cells: Path) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "model", cells)


@pytest.fixture(scope="session")
def job(cells: Path, model: Path) -> Job:
    return make_job(RECIPE, cells=[cells], checkpoint=model)

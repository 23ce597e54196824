"""Fixtures of the front door's tests: a tiny artifact and cells for it."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from artifacts import write_tiny
from tiny import tiny_anchors, tiny_genes

from manifoldzoo.registry._folders import local_store


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny manifold on disk; read only, copy it to change it."""
    return write_tiny(tmp_path_factory.mktemp("artifact") / "tiny")


@pytest.fixture
def stored(artifact: Path) -> Path:
    """The tiny manifold in the local store."""
    return local_store().put(artifact, "tiny", "0.1.0")


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cells on the genes of the tiny manifold, log1p."""
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    values = np.asarray(tiny_anchors()[0][:12])
    genes = pd.DataFrame(index=list(tiny_genes().symbols))
    ad.AnnData(values, obs=pd.DataFrame(index=[f"c{i}" for i in range(12)]), var=genes).write_h5ad(path)
    return path

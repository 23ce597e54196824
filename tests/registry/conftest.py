"""Fixtures of the registry tests: one tiny artifact, a loopback hub, and gates that are quick."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from artifacts import passing_run, write_tiny

from hub_server import LoopbackHub, serve
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.registry import _publish
from manifoldzoo.registry._publish import publish


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny manifold on disk; read only, copy it to change it."""
    return write_tiny(tmp_path_factory.mktemp("artifact") / "tiny")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub that the client in this process knows, logged in."""
    with serve(tmp_path / "served") as served:
        served.patch_client(monkeypatch, tmp_path / "client")
        yield served


@pytest.fixture(scope="session")
def published_once(artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a hub stores after the tiny manifold was published to zoo/tiny."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch, serve(folder / "served") as served:
        served.patch_client(patch, folder / "client")
        patch.setattr(_publish, "validate", lambda manifold, **options: passing_run(manifold))
        publish(artifact, "zoo/tiny")
    return folder / "served"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published_once: Path) -> Iterator[LoopbackHub]:
    """A hub with tiny@0.1.0 in zoo/tiny that the client in this process knows."""
    shutil.copytree(published_once, tmp_path / "served")
    with serve(tmp_path / "served") as served:
        served.patch_client(monkeypatch, tmp_path / "client")
        yield served


@pytest.fixture
def quick_gates(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Let every publication reach a rung at once; returns the references that were validated."""
    asked: list[str] = []

    def reach(rung: int) -> list[str]:
        def validate(manifold: Manifold, *, through: int = 3, **options: object) -> object:
            asked.append(f"{manifold.name}@{manifold.version}")
            return passing_run(manifold, rung=rung, through=max(rung, through))

        monkeypatch.setattr(_publish, "validate", validate)
        return asked

    reach(3)
    return reach

"""What every extractor offers, and the extractors there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from ..cards._errors import NotFoundError
from ..manifolds._manifold import Manifold
from ..manifolds._recipe import Recipe
from ..manifolds._ruler import StageRuler
from .checkpoints._interface import Checkpoint

Progress = Callable[[str, int, int], None]
ENTRY_POINTS = "manifoldzoo.extractors"


class Extractor(Protocol):
    """Turns a checkpoint and labelled cells into a manifold.

    Attributes
    ----------
    name
        As recipes call it.
    """

    name: str

    def extract(
        self,
        recipe: Recipe,
        checkpoint: Checkpoint,
        ruler: StageRuler,
        labels: Path,
        cells: Sequence[Path],
        *,
        seed: int,
        progress: Progress | None,
    ) -> Manifold:
        """Extract a manifold.

        Parameters
        ----------
        recipe
            What to make.
        checkpoint
            The frozen model.
        ruler
            Target distances.
        labels
            Table from the files' cell types to stages.
        cells
            ``.h5ad`` files of raw counts.
        seed
            Of everything drawn by chance; equal input and seed give equal bytes on one machine.
        progress
            Called as ``progress(step, done, total)``.
        """


def find_extractor(name: str) -> Extractor:
    """Find an extractor by name, among those of installed packages.

    Raises
    ------
    NotFoundError
        If there is none, naming those there are.
    """
    found = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise NotFoundError(
            f"There is no extractor {name!r}; there are: {', '.join(sorted(found)) or 'none'}.",
            f"Install the package that offers it under the entry point {ENTRY_POINTS!r}.",
        )
    extractor: Extractor = found[name].load()()
    return extractor

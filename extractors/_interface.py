"""What every extractor offers, and the extractors there are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ..cards._card import Control
from ..cards._ruler_entry import Interaction
from ..manifolds._count_file import PLAIN, PanelReading
from ..manifolds._manifold import Manifold
from ..manifolds._panel_spec import PanelSet
from ..manifolds._recipe import Recipe
from ..manifolds._ruler_interface import Ruler
from ._plugins import find_plugin
from .checkpoints._interface import Checkpoint

Progress = Callable[[str, int, int], None]
ENTRY_POINTS = "manifoldzoo.extractors"


@dataclass(frozen=True, eq=False)
class Job:
    """All that an extractor is given.

    Attributes
    ----------
    recipe
        What to make.
    checkpoint
        The frozen model; already destroyed where ``control`` names a control of the model.
    ruler
        Target distances.
    labels
        What gives cells their stages: a table of cell types, or of gene programs; ``recipe.labels`` reads it.
    cells
        ``.h5ad`` files of raw counts.
    seed
        Of everything drawn by chance; equal input and seed give equal bytes on one machine.
    control
        What is destroyed on purpose, if anything; an extractor applies the controls of the operator and records
        every control in the card.
    panels
        Panels that nothing is fitted to, for the evidence; ``None`` for none.
    data
        Folder of their files, before that of the specification.
    reading
        How the files are read, each as its extraction panel says; plainly by default.
    interaction
        How an interaction ruler was computed, for the card; ``None`` for other rulers.
    n_untrained
        Models of the same architecture with fresh weights that the anchors are read by as well, for the evidence.
    work
        Folder for the state of unfinished steps, so that an interrupted job goes on where it stopped; ``None`` keeps
        none.
    progress
        Called as ``progress(step, done, total)``.
    """

    recipe: Recipe
    checkpoint: Checkpoint
    ruler: Ruler
    labels: Path
    cells: tuple[Path, ...]
    reading: PanelReading = PLAIN
    seed: int = 0
    control: Control | None = None
    panels: PanelSet | None = None
    data: Path | None = None
    n_untrained: int = 0
    work: Path | None = None
    progress: Progress | None = None
    interaction: Interaction | None = None

    def steps(self, label: str, total: int) -> Callable[[int], None] | None:
        """Return what turns increments into ``progress(label, done, total)``; ``None`` without progress."""
        if self.progress is None:
            return None
        tell, done = self.progress, 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            tell(label, done, total)

        return advance


class Extractor(Protocol):
    """Turns a checkpoint and labelled cells into a manifold.

    Attributes
    ----------
    name
        As recipes call it.
    """

    name: str

    def extract(self, job: Job) -> Manifold:
        """Extract a manifold; its card records what was done."""


def find_extractor(name: str) -> Extractor:
    """Find an extractor by name, among those of installed packages.

    Raises
    ------
    NotFoundError
        If there is none, naming those there are.
    PluginError
        If the package that offers it cannot be imported, or two packages offer the name.
    """
    extractor: Extractor = find_plugin(ENTRY_POINTS, name, "extractor")()
    return extractor

"""What gives cells their stages: a table of their cell types, or scores of gene programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..cards._programs import ScoredLabels

if TYPE_CHECKING:
    import pandas as pd

    from ._count_file import PanelReading

LabelRow = tuple[str, str, str, str]
"""Data set, cell type, stage and ontology id."""


class StageLabels(Protocol):
    """What gives the cells of files their stages."""

    @property
    def path(self) -> str:
        """File it was read from, for messages."""

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides a stage, but for the cells."""

    @property
    def excluded_genes(self) -> frozenset[str]:
        """Genes that no head may read, because stages were read from them; empty for a table."""

    @property
    def rows(self) -> list[LabelRow]:
        """Cell types that have one stage each; empty where cells are scored one by one."""

    @property
    def entry(self) -> ScoredLabels | None:
        """What a card says of scored labels, without what was counted; ``None`` for a table."""

    def stages_of(self, cells: pd.DataFrame, paths: Sequence[Path], reading: PanelReading) -> list[str]:
        """Return the stage of each cell, ``"-"`` where it is left out.

        Parameters
        ----------
        cells
            One row per cell with ``dataset``, ``cell_type``, ``file`` (its place in ``paths``) and ``row`` (its place
            in the file), as ``list_cells`` gives them.
        paths, reading
            The files and how they are read.

        Raises
        ------
        PanelError
            If a cell type is unknown, or a program cannot be scored.
        """

    def counted(self, paths: Sequence[Path], reading: PanelReading) -> ScoredLabels | None:
        """Return what a card says of scored labels and of the cells of files; ``None`` for a table."""

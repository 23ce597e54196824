"""Label tables: from the cell types of data sets to stages of a ruler."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..cards._errors import FormatError, PanelError
from ..cards._names import canonical_json, sha256_bytes
from ._stage_labels import LabelRow

if TYPE_CHECKING:
    import pandas as pd

    from ._count_file import PanelReading

LEFT_OUT = "-"


@dataclass(frozen=True)
class LabelTable:
    """From the cell types of data sets to stages of a ruler.

    Attributes
    ----------
    stages
        Stage by data set and cell type; ``"-"`` marks a type that is left out on purpose.
    path
        File it was read from, for messages.
    ontology
        Cell Ontology id of those cell types that the table gives one, such as ``CL:0000037``. It names the cell type
        as its authors describe it, which may be finer or coarser than the stage.
    """

    stages: Mapping[tuple[str, str], str]
    path: str = "labels.tsv"
    ontology: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @property
    def rows(self) -> list[LabelRow]:
        """Study, cell type, stage and ontology id, in the order of the table."""
        return [(*key, stage, self.ontology.get(key, "")) for key, stage in self.stages.items()]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the sorted rows: study, cell type, stage and ontology id."""
        return sha256_bytes(canonical_json([list(row) for row in sorted(self.rows)]))

    @property
    def excluded_genes(self) -> frozenset[str]:
        """None: no gene is read for a stage."""
        return frozenset()

    @property
    def entry(self) -> None:
        """Nothing was scored."""
        return None

    def counted(self, paths: Sequence[Path], reading: PanelReading) -> None:
        """Return nothing: no cell was scored."""

    def stage_of(self, dataset: str, cell_type: str) -> str | None:
        """Stage of a cell type, ``None`` where it is left out on purpose.

        Raises
        ------
        PanelError
            If the table does not know the cell type.
        """
        try:
            stage = self.stages[dataset, cell_type]
        except KeyError as error:
            raise PanelError(
                f"The cell type {cell_type!r} of the data set {dataset!r} is not in {self.path}.",
                f"Add the line '{dataset}<TAB>{cell_type}<TAB>STAGE<TAB>NOTE', with '-' as stage to leave it out.",
            ) from error
        return None if stage == LEFT_OUT else stage

    def stages_of(self, cells: pd.DataFrame, paths: Sequence[Path], reading: PanelReading) -> list[str]:
        """Return the stage of each cell by its data set and cell type, ``"-"`` where the type is left out.

        Raises
        ------
        PanelError
            If the table does not know a cell type.
        """
        pairs = cells[["dataset", "cell_type"]].drop_duplicates()
        stages = {(d, c): self.stage_of(d, c) or LEFT_OUT for d, c in pairs.itertuples(index=False)}
        return [stages[key] for key in zip(cells["dataset"], cells["cell_type"], strict=True)]


def read_label_table(path: Path) -> LabelTable:
    """Read a label table: tab-separated ``dataset, cell_type, stage, note``, and ``ontology_id`` where there is one.

    Raises
    ------
    FormatError
        If the file or a column is missing, a cell type is listed twice, or an ontology id is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise FormatError(f"There is no label table {path}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}.") from error
    stages: dict[tuple[str, str], str] = {}
    ontology: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=2):
        if not all(row.get(column) for column in ("dataset", "cell_type", "stage")):
            raise FormatError(f"{path} line {number} needs dataset, cell_type and stage, got {row}.")
        key = row["dataset"], row["cell_type"]
        if key in stages:
            raise FormatError(f"{path} line {number} lists {key[1]!r} of {key[0]!r} a second time.")
        stages[key] = row["stage"]
        identifier = row.get("ontology_id") or ""
        if not re.fullmatch(r"(CL:\d{7})?", identifier):
            raise FormatError(
                f"{path} line {number} has the ontology id {identifier!r}, expected one such as CL:0000037, or nothing."
            )
        if identifier:
            ontology[key] = identifier
    return LabelTable(stages, str(path), ontology)


def assign_stages(
    cell_types: Iterable[tuple[str, str]],
    stages: Sequence[str],
    *,
    rng: np.random.Generator,
    known: LabelTable | None = None,
) -> LabelTable:
    """Give stages to cell types that a ruler does not know, by a draw: the labels of a negative control.

    Parameters
    ----------
    cell_types
        Pairs of data set and cell type.
    stages
        Stages of the ruler.
    rng
        Draws them.
    known
        Cell types that this table gives a stage are left out: they are what the ruler is about, and would pass.

    Returns
    -------
    A table in which a cell type has one stage in all data sets, and no two have the same while the stages last.

    Notes
    -----
    The gates compare distances between anchors with distances between stages, so anchors of cells outside the ruler's
    biology need stages to be judged at all. A table written by hand would choose them, and a choice may be right by
    design or by accident (endothelium beside the stem cells that descend from it), so that a pass or a fail would say
    little. A draw that the specification fixes chooses nothing: there is no order to be found, a gate that passes has
    accepted noise. Distinct stages keep the distances from being zero for the wrong reason. Our choice.

    A head that is fitted anew can learn any table from cell types that recur in many donors. Judge a negative control
    with a frozen head, or hold out whole cell types.
    """
    pairs = sorted(set(cell_types))
    given = known.stages if known is not None else {}
    strangers = [pair for pair in pairs if given.get(pair, LEFT_OUT) == LEFT_OUT]
    names = sorted({name for _, name in strangers})
    drawn: list[str] = []
    while len(drawn) < len(names):
        drawn += [stages[index] for index in rng.permutation(len(stages))]
    stage = dict(zip(names, drawn, strict=False))
    table = dict.fromkeys(pairs, LEFT_OUT) | {pair: stage[pair[1]] for pair in strangers}
    return LabelTable(table, "the assigned stages")

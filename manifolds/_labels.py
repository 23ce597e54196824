"""Label tables: from the cell types of data sets to stages of a ruler."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..cards._errors import FormatError, PanelError

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
    """

    stages: Mapping[tuple[str, str], str]
    path: str = "labels.tsv"

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


def read_label_table(path: Path) -> LabelTable:
    """Read a label table: tab-separated ``dataset, cell_type, stage, note``.

    Raises
    ------
    FormatError
        If the file or a column is missing, or a cell type is listed twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise FormatError(f"There is no label table {path}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}.") from error
    stages: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=2):
        if not all(row.get(column) for column in ("dataset", "cell_type", "stage")):
            raise FormatError(f"{path} line {number} needs dataset, cell_type and stage, got {row}.")
        key = row["dataset"], row["cell_type"]
        if key in stages:
            raise FormatError(f"{path} line {number} lists {key[1]!r} of {key[0]!r} a second time.")
        stages[key] = row["stage"]
    return LabelTable(stages, str(path))

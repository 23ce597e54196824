"""How a recipe says what gives cells their stages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ..cards._errors import FormatError
from ..cards._frozen import Frozen
from ..cards._text import Text
from ._gene_scores import ABOVE, MARGIN, N_BINS, N_CONTROLS
from ._labels import read_label_table
from ._programs import PROGRAMS, read_programs
from ._stage_labels import StageLabels


class TableLabels(Frozen):
    """Cell types have stages: ``labels.tsv`` beside the recipe says which."""

    kind: Literal["table"] = "table"

    @property
    def file(self) -> str:
        """Name of the file beside the recipe."""
        return "labels.tsv"

    def read(self, path: Path) -> StageLabels:
        """Read the table."""
        return read_label_table(path)


class GeneScores(Frozen):
    """Cells have stages: that of the gene program in ``programs.tsv`` that leads, see ``GeneScoreLabels``."""

    kind: Literal["gene-scores"]
    margin: float = Field(default=MARGIN, ge=0)
    """Standard deviations by which the best program must lead the second; cells in which it does not are left out."""
    above: float = Field(default=ABOVE, ge=0)
    """Standard errors by which it must lie above its control genes; cells in which it does not are left out."""
    exclude_genes: bool = True
    """Whether the genes of the programs are kept from the gene axis, so that no head can read them."""
    n_controls: int = Field(default=N_CONTROLS, ge=1)
    n_bins: int = Field(default=N_BINS, ge=2)
    seed: int = Field(default=0, ge=0)
    """Of the control genes; not that of the extraction, so that labels do not change with it."""
    cell_types: dict[Text, Annotated[list[Text], Field(min_length=1)]] = Field(default_factory=dict)
    """Cell types that take part, by data set; of data sets that are not named all do."""

    @property
    def file(self) -> str:
        """Name of the file beside the recipe."""
        return PROGRAMS

    def read(self, path: Path) -> StageLabels:
        """Read the programs.

        Raises
        ------
        FormatError
            If the file is not a table of at least two programs.
        """
        # here, so that a recipe is read without pandas and anndata
        from ._scored_labels import GeneScoreLabels

        programs = read_programs(path)
        if len(programs) < 2:
            raise FormatError(
                f"{path} has {len(programs)} program, expected two or more: the one that leads gives a cell its stage.",
                "Add one row for each stage.",
            )
        return GeneScoreLabels(tuple(programs), path=str(path), **self.model_dump(exclude={"kind"}))


LabelsRecipe = Annotated[TableLabels | GeneScores, Field(discriminator="kind")]

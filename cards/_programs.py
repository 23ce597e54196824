"""Gene programs on the card: what axes are described by, and what labels were scored by."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ._frozen import Frozen, Scalar
from ._text import Text


class GeneProgram(Frozen):
    """Genes that belong together, and who says so."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(_[a-z0-9]+)*$")]
    label: Text
    genes: Annotated[list[Text], Field(min_length=1)]
    source: Text


class ScoredStudy(Frozen):
    """What became of the cells of a study that were scored."""

    study: Text
    n_cells: int = Field(ge=0)
    """Scored; cells of types that take no part are not among them."""
    n_not_expressed: int = Field(ge=0)
    """Without a stage: the best program is not above its control genes, or not above the mean of the study."""
    n_unclear: int = Field(ge=0)
    """Without a stage: the best program does not lead by the margin."""
    n_leading: dict[str, int]
    """Cells of each stage."""
    n_measured_genes: dict[str, int]
    """Genes of each program that the study measures."""


class ScoredLabels(Frozen):
    """Stages of cells that were scored by gene programs, where no table of cell types gives them."""

    method: Text
    programs: Annotated[list[GeneProgram], Field(min_length=2)]
    """One for each stage that is scored, by the name of the stage."""
    n_excluded_genes: int = Field(ge=0)
    """Genes of the programs that the model knows and that are not on the gene axis, so that no head reads them."""
    parameters: dict[str, Scalar] = Field(default_factory=dict)
    """Margin between the best and the second score, among others."""
    cell_types: dict[str, list[Text]] = Field(default_factory=dict)
    """Cell types that take part, by data set; of data sets that are not named all do."""
    studies: list[ScoredStudy] = Field(default_factory=list)
    """Of the extraction panel."""

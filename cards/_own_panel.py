"""What a validation run says of the cells that its user brought: the panel made of them, and what was left aside."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ._frozen import Frozen, Sha256

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=0)]


class MappedLabel(Frozen):
    """A label that has a stage."""

    label: Text
    stage: Text
    by: Literal["own table", "cell type of the card", "stage id", "stage label", "ontology id", "gene scores"]
    """What gave it its stage."""
    n_cells: Count
    n_anchors: Count


class PanelNeed(Frozen):
    """What one check needs of a panel, and what the panel has."""

    rung: int = Field(ge=1, le=6)
    check: Text
    needed: Text
    got: Text
    enough: bool | None
    """Null where the check does not ask for the panel."""


class OwnPanelReport(Frozen):
    """A panel made of a user's own cells, and what of them it does not hold."""

    name: Text
    """Of the file."""
    sha256: Sha256
    """Of the file."""
    digest: Sha256 | None
    """Of the anchors; null where there are too few to make a panel."""
    columns: dict[str, str]
    """Column of ``obs`` that was read for what, or ``= VALUE`` where there is none."""
    layer: Text
    """Where the counts are."""
    min_cells: int = Field(ge=1)
    """Groups of fewer cells make no anchor, as in the extraction panel."""
    n_cells: Count
    """Of the file."""
    n_used_cells: Count
    """Behind the anchors."""
    n_anchors: Count
    n_donors: Count
    n_tissues: Count
    n_studies: Count
    n_stages: Count
    n_branches: Count
    n_small_groups: Count
    """Groups with a stage, but fewer than ``min_cells`` cells."""
    n_small_cells: Count
    """Cells in them."""
    coverage: float = Field(ge=0, le=1)
    """Part of the manifold's loading that the genes of the file carry."""
    n_missing_genes: Count
    mapped: list[MappedLabel]
    left_out: dict[str, int]
    """Cells of each label that its owner's table or the scores of their genes leave out."""
    unmapped: dict[str, int]
    """Cells of each label that nothing gives a stage."""
    unused: list[str]
    """Labels of the owner's table that no cell has."""
    needs: list[PanelNeed] = Field(default_factory=list)
    """Of each check, what it needs of the panel and what it got."""

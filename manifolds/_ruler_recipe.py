"""How a recipe says that its ruler is computed from a ligand-receptor resource and expression."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ..cards._frozen import Frozen
from ..cards._text import Text

EXPRESSED = 0.1
"""Least fraction of cells with a gene from which on it counts as expressed; ``expr_prop`` of LIANA."""


class RulerFile(Frozen):
    """A file that the expression of ligands and receptors is taken from, and how it is read.

    The fields beside the name are those of a panel specification.
    """

    name: Text
    """Name in the data folder or beside the recipe, or a path."""
    scale: Literal["counts", "log1p"] = "counts"
    """``log1p`` for a file that holds ``log1p`` of counts per 10,000 already."""
    columns: dict[Literal["dataset", "donor", "tissue", "cell_type"], Text] = Field(default_factory=dict)
    """Column of ``obs`` that holds what; each its own name by default."""
    constants: dict[Literal["dataset", "donor", "tissue", "cell_type"], Text] = Field(default_factory=dict)
    """Value for a file that lacks the column."""
    layer: Text | None = None
    """Layer of the values, or ``raw.X``; null reads ``X``."""
    gene_column: Text | None = None
    """Column of ``var`` with the gene symbols; null takes ``var_names``."""


def _as_file(given: Any) -> Any:
    """Take a bare name for a file that is read as it is."""
    return {"name": str(given)} if isinstance(given, str | Path) else given


class InteractionRecipe(Frozen):
    """A ruler of distances between the cell types of ``stages.tsv``, over ligands and receptors."""

    kind: Literal["interaction"]
    resource: Text = "liana:consensus"
    """``liana:NAME``, a resource of the installed package; or a table with the columns ``ligand`` and ``receptor``."""
    files: Annotated[tuple[RulerFile, ...], Field(min_length=1)]
    expressed: float = Field(default=EXPRESSED, gt=0, le=1)
    """Least fraction of cells with a gene from which on it counts as expressed."""
    min_cells: int = Field(default=5, ge=1)
    """Groups of study, donor, tissue and cell type of fewer cells give nothing."""
    n_nulls: int = Field(default=20, ge=1)
    """Paired null rulers that are computed beside it."""
    null_seed: int = Field(default=0, ge=0)
    """Of the null rulers; not that of the extraction, so that the ruler does not change with it."""
    paths: Text | None = None
    """Table of curated paths that the ruler is judged by; ``paths.tsv`` beside the recipe where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _names_are_files(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("files"), list | tuple):
            return given | {"files": [_as_file(file) for file in given["files"]]}
        return given

    @model_validator(mode="after")
    def _files_differ(self) -> InteractionRecipe:
        names = [Path(file.name).name for file in self.files]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ValueError(f"the ruler names the file {repeated[0]!r} twice")
        return self


def _kind(given: Any) -> str:
    """Whether a ruler is named, or described by a table."""
    return "name" if isinstance(given, str) else "table"


RulerRecipe = Annotated[
    Annotated[Text, Tag("name")] | Annotated[InteractionRecipe, Tag("table")],
    Discriminator(_kind),
]
"""The name of a ruler that an installed package offers, or how one is computed."""

"""The ruler on the card: target distances, where they come from, and how they were computed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ._frozen import Frozen, Sha256
from ._text import Licence, Text

RulerKind = Literal["stage-graph", "interaction"]
"""``stage-graph`` counts steps on a graph that stands on the card; ``interaction`` is a table between cell types that
travels as tensors, computed from a ligand-receptor resource and expression."""


class StageEntry(Frozen):
    """One stage of the ruler."""

    id: Text
    label: Text
    ontology_id: str
    branch: Text


class EdgeEntry(Frozen):
    """One developmental step, with where it comes from."""

    child: Text
    parent: Text
    source: Text


class ProfileFile(Frozen):
    """A file that expression of ligands and receptors was taken from."""

    name: Text
    sha256: Sha256
    n_groups: int = Field(ge=0)
    """Groups of study, donor, tissue and cell type that it gave."""
    n_ligands: int = Field(ge=0)
    """Ligand genes of the resource that it measures."""
    n_receptors: int = Field(ge=0)


class CuratedPaths(Frozen):
    """How well the ruler knows communication that the literature describes.

    The area under the ROC curve of the directed distance, over all ordered pairs of different cell types, for the pairs
    that a table of ligand-receptor paths with citations names.
    """

    n_paths: int = Field(ge=1)
    n_pairs: int = Field(ge=1)
    """Ordered pairs of cell types that they join."""
    n_absent: int = Field(default=0, ge=0)
    """Paths whose ligand-receptor pair the resource does not have."""
    n_silent: int = Field(default=0, ge=0)
    """Paths of the resource whose ligand or receptor is not expressed where the literature has it."""
    auroc: float = Field(ge=0, le=1)
    null_auroc: list[float]
    """Of the paired null rulers."""


class Interaction(Frozen):
    """How distances between cell types were computed from a ligand-receptor resource."""

    resource: Text
    """``package:name`` of a resource of an installed package, or the name of a table."""
    resource_version: str = ""
    resource_digest: Sha256
    """Of the sorted pairs that were used."""
    n_pairs: int = Field(ge=1)
    n_ligands: int = Field(ge=1)
    """Ligand genes of the resource, subunits of complexes one by one."""
    n_receptors: int = Field(ge=1)
    measure: Literal["closest-hops"] = "closest-hops"
    """Mean over the sender's expressed ligands, weighted by the root of expression, of the steps on the network of
    ligands and receptors to the nearest receptor that the receiver expresses."""
    expressed: float = Field(gt=0, le=1)
    """Least fraction of cells from which on a gene counts as expressed."""
    min_cells: int = Field(ge=1)
    """Groups of fewer cells gave nothing."""
    files: Annotated[list[ProfileFile], Field(min_length=1)]
    curated: CuratedPaths | None = None
    n_nulls: int = Field(ge=1)
    """Rulers that travel beside it with receptors exchanged: each keeps its number of partners."""
    null_seed: int


class Ruler(Frozen):
    """The target distances, never derived from the model."""

    kind: RulerKind = "stage-graph"
    name: Text
    version: Text
    digest: Sha256
    root: Text | None = None
    """Stage that depth is counted from; a table of interactions has none."""
    licence: Licence
    stages: list[StageEntry]
    edges: list[EdgeEntry] = Field(default_factory=list)
    interaction: Interaction | None = None

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Ruler:
        graph = self.kind == "stage-graph"
        if graph != (self.root is not None) or graph != (self.interaction is None):
            raise ValueError(f"a ruler of kind {self.kind!r} has the root {self.root!r}")
        if not graph and self.edges:
            raise ValueError("a table of interactions has no edges")
        return self

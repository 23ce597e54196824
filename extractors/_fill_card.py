"""Filling the card from what was done; nothing in it is typed in but the recipe's own words."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from ..cards._adaptor import Adaptor
from ..cards._card import (
    BesidePanel,
    Card,
    Choice,
    Extraction,
    Familiarity,
    GeneAnnotation,
    Operator,
    Readout,
    SourceModel,
    Tolerance,
    Untrained,
)
from ..cards._programs import GeneProgram
from ..cards._ruler_entry import EdgeEntry, Ruler, StageEntry
from ..manifolds._genes import GeneTable
from ..manifolds._panel_file import panel_manifest
from ..manifolds._programs import PROGRAMS, read_programs
from ..manifolds._ruler import StageRuler
from ._interface import Job
from ._prepare import Prepared
from .checkpoints._interface import Checkpoint


def fill_card(
    job: Job,
    prepared: Prepared,
    operator: Operator,
    adaptor: Adaptor,
    genes: GeneTable,
    *,
    extractor: str,
    readouts: list[Readout],
    choice: Choice | None = None,
    familiarity: Familiarity | None = None,
    panels: Sequence[BesidePanel] = (),
    untrained: Sequence[Untrained] = (),
) -> Card:
    """Fill a card.

    Parameters
    ----------
    job, prepared
        What was asked for, and the model, panel and cells it was done with.
    operator
        Entry of stage 1.
    adaptor
        Entry of stage 2, as fitted.
    genes
        The gene axis.
    extractor
        Name of the extractor.
    readouts
        Entries of stage 3, as fitted.
    choice
        How operator and number of coordinates were chosen.
    familiarity
        Thresholds for cells unlike the panel.
    panels, untrained
        What travels beside.
    """
    recipe = job.recipe
    return Card(
        name=recipe.name,
        version=recipe.version,
        title=recipe.title,
        description=recipe.description,
        scale="log1p_cp10k",
        licence=recipe.licence,
        source_model=_source_model(prepared.checkpoint, operator),
        extraction=Extraction(
            extractor=extractor,
            recipe=recipe.name,
            seed=job.seed,
            operator=operator,
            control=job.control,
            choice=choice,
            adaptor=adaptor,
            readouts=readouts,
            familiarity=familiarity,
            software=_software(),
        ),
        panel=panel_manifest(prepared.panel, recipe.panel.min_cells),
        panels=list(panels),
        untrained=list(untrained),
        evidence=recipe.evidence,
        programs=_programs(job),
        scored_labels=prepared.scored,
        ruler=_ruler(job),
        genes=GeneAnnotation(
            n=len(genes),
            n_ensembl=sum(bool(identifier) for identifier in genes.ensembl),
            organism=recipe.organism,
            source="names as model and files spell them, Ensembl ids from the panel's files",
            coverage_floor=recipe.coverage_floor,
        ),
        test_vectors=Tolerance(rtol=1e-3, atol=1e-3),
        citations=recipe.citations,
        intended_use=recipe.intended_use,
        limits=recipe.limits,
    )


def _programs(job: Job) -> list[GeneProgram]:
    """Programs in the table beside the labels, if there is one; programs that cells are scored by describe no axis."""
    table = job.labels.with_name(PROGRAMS)
    return read_programs(table) if table != job.labels and table.is_file() else []


def spdx(licence: str) -> str:
    """Spell a licence as SPDX; what a checkpoint does not state in that form is said to be not stated."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        return "LicenseRef-not-stated"


def _source_model(checkpoint: Checkpoint, operator: Operator) -> SourceModel:
    """The model, or what was taken of it."""
    note = "Only its list of genes was used: the features are expression." if operator.kind == "expression" else ""
    size = f"{checkpoint.n_layers} layers x {checkpoint.n_heads} heads, d_model {checkpoint.d_model}"
    return SourceModel(
        name=checkpoint.name,
        architecture=f"{checkpoint.family} layout, {size}",
        digest=checkpoint.digest,
        licence=spdx(checkpoint.licence),
        note=note,
    )


def _ruler(job: Job) -> Ruler:
    """The ruler: a graph as it is, of a table how it was computed."""
    ruler = job.ruler
    edges = ruler.edges if isinstance(ruler, StageRuler) else ()
    return Ruler(
        kind="stage-graph" if job.interaction is None else "interaction",
        name=ruler.name,
        version=ruler.version,
        digest=ruler.digest,
        root=ruler.root,
        licence=job.recipe.ruler_licence,
        stages=[StageEntry(id=s.id, label=s.label, ontology_id=s.ontology_id, branch=s.branch) for s in ruler.stages],
        edges=[EdgeEntry(child=e.child, parent=e.parent, source=e.source) for e in edges],
        interaction=job.interaction,
    )


def _software() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("manifoldzoo", "numba", "numpy", "scipy", "scikit-learn", "torch")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}

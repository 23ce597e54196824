"""Expression of ligands and receptors in groups of cells, read from files in pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ...cards._errors import PanelError
from ...cards._names import sha256_file
from ...manifolds._count_file import GROUP, PanelReading, label_cells, opened_counts
from ...manifolds._expression_blocks import expression_blocks
from ...manifolds._labels import LEFT_OUT
from ...manifolds._ruler_recipe import RulerFile
from ...manifolds._stage_labels import StageLabels
from ._resource import InteractionResource

Floats = NDArray[np.float64]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FileCoverage:
    """What a file knows of a resource.

    Attributes
    ----------
    name, sha256
        Of the file.
    scale
        On which it was read.
    n_groups, n_cells
        Groups that are large enough, and their cells.
    n_ligands, n_receptors
        Genes of the resource's ligands and receptors that it measures, subunits one by one.
    """

    name: str
    sha256: str
    scale: str
    n_groups: int
    n_cells: int
    n_ligands: int
    n_receptors: int


@dataclass(frozen=True, eq=False)
class Profiles:
    """Expression of genes in groups of cells that share study, donor, tissue, cell type and stage.

    Attributes
    ----------
    genes
        Symbols, ``n_genes``.
    mean
        Mean ``log1p`` of counts per 10,000, float64 ``(n_groups, n_genes)``; NaN where the file of the group does not
        measure the gene.
    fraction
        Part of the cells that have the gene, likewise.
    study, donor, tissue, cell_type, stage
        Of each group.
    n_cells
        Of each group, ``(n_groups,)``.
    files
        What each file knows.
    """

    genes: tuple[str, ...]
    mean: Floats
    fraction: Floats
    study: tuple[str, ...]
    donor: tuple[str, ...]
    tissue: tuple[str, ...]
    cell_type: tuple[str, ...]
    stage: tuple[str, ...]
    n_cells: NDArray[np.int64]
    files: tuple[FileCoverage, ...]


def read_profiles(
    files: Sequence[tuple[Path, RulerFile]],
    resource: InteractionResource,
    *,
    labels: StageLabels,
    min_cells: int = 5,
    progress: Progress | None = None,
) -> Profiles:
    """Average ligands and receptors over groups of cells, never holding a file in memory.

    Parameters
    ----------
    files
        Where each file is, and how it is read.
    resource
        Its genes are read.
    labels
        What gives cells their stages; cells without one are left out.
    min_cells
        Groups of fewer cells are left out; 5 as for anchors.
    progress
        Called as ``progress("ruler: FILE", done, total)``, in cells, or in genes where a file is stored by gene.

    Raises
    ------
    PanelError
        If a file cannot be read, has no gene of the resource, or lacks a column or label.
    ScaleError
        If values are not on the scale that is said of the file.
    """
    parts = [_read(path, file, resource, labels, min_cells, progress) for path, file in files]
    every = [group for _, _, groups, _ in parts for group in groups]
    if not every:
        raise PanelError(
            f"The {len(files)} files of the ruler have no group of at least {min_cells} cells with a stage.",
            "Check the labels, or give more cells.",
        )
    study, donor, tissue, cell_type, stage, n_cells = zip(*every, strict=True)
    return Profiles(
        genes=resource.genes,
        mean=np.concatenate([mean for mean, _, _, _ in parts]),
        fraction=np.concatenate([fraction for _, fraction, _, _ in parts]),
        study=study,
        donor=donor,
        tissue=tissue,
        cell_type=cell_type,
        stage=stage,
        n_cells=np.array(n_cells, dtype=np.int64),
        files=tuple(coverage for _, _, _, coverage in parts),
    )


def reading_of(file: RulerFile) -> PanelReading:
    """How a file of a ruler is read: all of its cells."""
    return PanelReading(
        columns={str(what): column for what, column in file.columns.items()},
        constants={str(what): value for what, value in file.constants.items()},
        layer=file.layer,
        gene_column=file.gene_column,
        scale=file.scale,
    )


Group = tuple[str, str, str, str, str, int]


def _read(
    path: Path,
    file: RulerFile,
    resource: InteractionResource,
    labels: StageLabels,
    min_cells: int,
    progress: Progress | None,
) -> tuple[Floats, Floats, list[Group], FileCoverage]:
    """Means, fractions and groups of one file, and what it knows of the resource."""

    def tell(name: str, done: int, total: int) -> None:
        if progress is not None:
            progress(f"ruler: {name}", done, total)

    reading = reading_of(file)
    table = label_cells([path], labels, reading)
    used = table[(table["stage"] != LEFT_OUT) & (table["n"] >= min_cells)]
    kept = used.groupby(list(GROUP), observed=True, sort=True)
    size = kept.size()
    genes = resource.genes
    sums, having = np.zeros((len(size), len(genes))), np.zeros((len(size), len(genes)))
    with opened_counts(path, reading) as cells:
        known = cells.genes.get_indexer(list(genes)) >= 0
        group = np.full(cells.matrix.shape[0], -1)
        group[used["row"].to_numpy()] = kept.ngroup().to_numpy()
        for rows, block, _ in expression_blocks(cells, np.flatnonzero(group >= 0), genes, tell):
            present, place = np.unique(group[rows], return_inverse=True)
            member = sparse.csr_matrix((np.ones(len(rows)), (place, np.arange(len(rows)))), (len(present), len(rows)))
            sums[present] += (member @ block).toarray()
            having[present] += (member @ (block > 0)).toarray()
    n = size.to_numpy()[:, None]
    mean, fraction = (np.where(known, total / n, np.nan) for total in (sums, having))
    measured = {gene for gene, there in zip(genes, known, strict=True) if there}
    coverage = FileCoverage(
        name=path.name,
        sha256=sha256_file(path),
        scale=file.scale,
        n_groups=len(size),
        n_cells=int(size.sum()),
        n_ligands=len(measured.intersection(resource.ligand_genes)),
        n_receptors=len(measured.intersection(resource.receptor_genes)),
    )
    return mean, fraction, [(*key, int(count)) for key, count in size.items()], coverage

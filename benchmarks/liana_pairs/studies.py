"""Cells of a study, on the scale of manifolds and of LIANA, each with its cell type of the ruler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from manifoldzoo.cards._names import canonical_json, sha256_bytes, sha256_file
from manifoldzoo.manifolds._labels import LEFT_OUT, LabelTable
from manifoldzoo.manifolds._scale import check_finite, log_normalise

GROUP = "cell_type_of_ruler"
MIN_CELLS = 5
"""Least cells of a cell type: of an anchor as published, and LIANA's default."""
COLUMNS = ("cell_state", "cell_type")
"""Columns of ``obs`` that may hold what the label table names; the finer one first."""


@dataclass(frozen=True, eq=False)
class Study:
    """Labelled cells of one file.

    Attributes
    ----------
    name
        Data set.
    sha256
        Of the file.
    cells
        Values of X: ``log1p`` of counts per 10,000, CSR float32. ``obs[GROUP]``: cell type of the ruler, with
        ``groups`` as its categories.
    groups
        Cell types with at least ``MIN_CELLS`` cells, sorted.
    sizes
        Cells of each, ``(n_groups,)``.
    """

    name: str
    sha256: str
    cells: ad.AnnData
    groups: list[str]
    sizes: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """SHA-256 of the file and of which cell has which type."""
        named = [self.sha256, *zip(self.cells.obs_names.tolist(), self.cells.obs[GROUP].astype(str), strict=True)]
        return sha256_bytes(canonical_json(named))

    def only(self, rows: NDArray[np.bool_], part: str) -> Study:
        """Some of the cells as a study; types of which too few are left are dropped."""
        return grouped(f"{self.name}, {part}", self.sha256, self.cells[rows], self.cells.obs[GROUP].astype(str)[rows])


def read_study(path: Path, labels: LabelTable) -> Study | None:
    """Read the cells of a file that have a cell type; ``None`` where the label table does not know the data set."""
    cells = ad.read_h5ad(path)
    names = sorted(set(cells.obs["dataset"].astype(str)))
    if len(names) != 1 or names[0] not in {dataset for dataset, _ in labels.stages}:
        return None
    (name,) = names
    told = [_told(labels, name, cells.obs[column]) for column in COLUMNS if column in cells.obs]
    # a table is written for one column of a file; of the other it knows names that are the same by chance
    stage = max(told, key=lambda column: int(column.notna().sum()), default=None)
    if stage is None or not stage.notna().any():
        return None
    cells.var_names_make_unique()
    cells.X = to_log(sparse.csr_matrix(cells.X))
    return grouped(name, sha256_file(path), cells, stage.fillna(LEFT_OUT))


def grouped(name: str, sha256: str, cells: ad.AnnData, stage: pd.Series) -> Study:
    """Keep the cells of types that have enough of them."""
    kept = stage != LEFT_OUT
    counts = stage[kept].value_counts()
    groups = sorted(counts.index[counts >= MIN_CELLS])
    rows = stage.isin(groups).to_numpy()
    used = ad.AnnData(cells.X[rows], obs=pd.DataFrame(index=cells.obs_names[rows]), var=cells.var[[]])
    used.obs[GROUP] = pd.Categorical(stage[rows], categories=groups)
    return Study(name, sha256, used, groups, counts[groups].to_numpy(dtype=np.int64))


def to_log(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Bring counts to ``log1p`` of counts per 10,000; values that are not all whole numbers are taken to be that."""
    check_finite(matrix.data)
    if (matrix.data != np.rint(matrix.data)).any():
        return matrix.astype(np.float32)
    totals = np.asarray(matrix.sum(axis=1, dtype=np.float64)).ravel()
    return sparse.csr_matrix(log_normalise(matrix, totals)).astype(np.float32)


def of_groups(study: Study, summary: Callable[[sparse.csr_matrix], NDArray[np.floating]]) -> NDArray[np.float64]:
    """Summarise the cells of each type, ``(n_groups, n_columns)``."""
    codes = study.cells.obs[GROUP].cat.codes.to_numpy()
    return np.stack([np.asarray(summary(study.cells.X[codes == code])).ravel() for code in range(len(study.groups))])


def means(study: Study) -> NDArray[np.float64]:
    """Mean of each gene in each type, ``(n_groups, n_genes of the file)``."""
    return of_groups(study, lambda values: values.mean(axis=0, dtype=np.float64))


def expressed_share(study: Study) -> NDArray[np.float64]:
    """Share of the cells of each type that express each gene, ``(n_groups, n_genes of the file)``."""
    return of_groups(study, lambda values: values.getnnz(axis=0) / values.shape[0])


def halves(study: Study, rng: np.random.Generator) -> tuple[Study, Study]:
    """Split the cells of each type in two at random."""
    codes = study.cells.obs[GROUP].cat.codes.to_numpy()
    first = np.zeros(len(codes), dtype=bool)
    for code in range(len(study.groups)):
        rows = rng.permutation(np.flatnonzero(codes == code))
        first[rows[: len(rows) // 2]] = True
    return study.only(first, "first half"), study.only(~first, "second half")


def _told(labels: LabelTable, dataset: str, column: pd.Series) -> pd.Series:
    """Cell type that the table gives each cell, missing where it has none or does not know the name."""
    known = {name: stage for (of, name), stage in labels.stages.items() if of == dataset}
    return column.astype(str).map(known)

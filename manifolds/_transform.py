"""Placing the cells of an AnnData object on a manifold, whatever its matrix is stored as."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse

from ..cards._errors import BadInputError
from ._genes import Alignment, align_genes, check_coverage
from ._keys import keys_for
from ._project import Progress, Projection, project_matrix
from ._results import Results
from ._scale import Scale, check_finite, decide_scale, stored_values, summarise
from ._stored_rows import StoredRows
from ._write_groups import column_to_group_by, write_groups
from ._write_results import write_results

if TYPE_CHECKING:
    from ._manifold import Manifold

_SAMPLE = 512
_STORED = 65_536
# below this many genes the input is a selection, and cell sums say nothing about its scale
_FULL_MATRIX = 5_000


def transform(
    manifold: Manifold,
    adata: ad.AnnData,
    *,
    key_added: str | None = None,
    layer: str | None = None,
    gene_column: str | None = None,
    scale: Scale | Literal["auto"] = "auto",
    groupby: str | None = None,
    copy: bool = False,
    progress: Progress | None = None,
) -> ad.AnnData | None:
    """Implement ``Manifold.transform``; ``progress`` is called with the number of cells just done."""
    if adata.is_view and adata.isbacked and not copy:
        raise BadInputError("A view of a backed file cannot take results.", "Pass copy=True, or `adata.to_memory()`.")
    target = adata.copy() if copy and not adata.isbacked else adata.to_memory() if copy else adata
    stem = key_added or manifold.name
    keys_for(stem)
    column = column_to_group_by(manifold, target.obs, stem, groupby)
    alignment = match_genes(manifold, target, gene_column)
    coverage = check_coverage(alignment, manifold.tensors["projection"], floor=manifold.card.genes.coverage_floor)
    matrix = pick_matrix(target, layer)
    # of a backed CSC file only stored values are looked at, which says nothing about the sum of a cell
    full = matrix.shape[1] >= _FULL_MATRIX and not isinstance(matrix, CSCDataset)
    decided = decide_scale(_sample(matrix), scale, all_genes=full)
    projection = Projection.of(manifold, alignment, matrix.shape[1])
    results = Results(manifold, matrix.shape[0])
    project_matrix(matrix, projection, decided, results.put, progress)
    write_results(manifold, target, results, stem, coverage, alignment, decided)
    if column is not None:
        write_groups(manifold, target, stem, column)
    return target if copy else None


def match_genes(manifold: Manifold, adata: ad.AnnData, gene_column: str | None) -> Alignment:
    """Align the genes of an AnnData object, after refusing one without cells or genes."""
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise BadInputError(f"The input is empty: {adata.n_obs} cells x {adata.n_vars} genes.")
    if gene_column is not None and gene_column not in adata.var:
        columns = ", ".join(map(str, adata.var.columns)) or "none"
        raise BadInputError(f"`var` has no column {gene_column!r}; its columns are: {columns}.")
    names = adata.var_names if gene_column is None else adata.var[gene_column]
    return align_genes(names.astype(str).tolist(), manifold.genes, cell_names=adata.obs_names[:10_000].tolist())


def pick_matrix(adata: ad.AnnData, layer: str | None) -> Any:
    """``X`` or a layer."""
    if layer is None:
        if adata.X is None:
            raise BadInputError("The input has no X.", "Name a layer with `layer`.")
        return adata.X
    if layer not in adata.layers:
        known = ", ".join(map(str, filter(None, adata.layers))) or "none"
        raise BadInputError(f"There is no layer {layer!r}; the layers are: {known}.")
    return adata.layers[layer]


def _sample(matrix: Any) -> Any:
    """Summary of some cells spread over the matrix."""
    n_rows = matrix.shape[0]
    if isinstance(matrix, CSCDataset):
        # of stored values: any few columns may be empty, and rows are dear to read
        stored = matrix.group["data"]
        starts = np.linspace(0, max(0, len(stored) - _STORED), 4).astype(int)
        block = np.concatenate([stored[start : start + _STORED] for start in starts])[None, :]
    elif n_rows <= _SAMPLE:
        block = matrix[:] if not hasattr(matrix, "dask") else matrix
    else:
        starts = np.linspace(0, n_rows - _SAMPLE // 4, 4).astype(int)
        if isinstance(matrix, CSRDataset):
            stored = StoredRows.of(matrix)
            # a copy of each, since the next is read in its place
            parts = [stored.between(start, start + _SAMPLE // 4).matrix().copy() for start in starts]
        else:
            parts = [_in_memory(matrix[start : start + _SAMPLE // 4]) for start in starts]
        block = sparse.vstack(parts, format="csr") if sparse.issparse(parts[0]) else np.vstack(parts)
    block = _in_memory(block)
    check_finite(stored_values(block))
    return summarise(block)


def _in_memory(block: Any) -> Any:
    """The values of a block, computed where it is lazy."""
    if hasattr(block, "dask"):
        return block.compute()
    if isinstance(block, CSRDataset | CSCDataset):
        return block.to_memory()
    return block if sparse.issparse(block) else np.asarray(block)

"""Placing the cells of an AnnData object on a manifold, whatever its matrix is stored as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import BadInputError
from ._genes import Alignment, align_genes, check_coverage
from ._keys import Keys, keys_for
from ._scale import Scale, check_finite, decide_scale, log_normalise, stored_values, summarise

if TYPE_CHECKING:
    from ._manifold import Manifold

CHUNK = 16_384
_SAMPLE = 512
# below this many genes the input is a selection, and cell sums say nothing about its scale
_FULL_MATRIX = 5_000

Progress = Callable[[int], None]


def transform(
    manifold: Manifold,
    adata: ad.AnnData,
    *,
    key_added: str | None = None,
    layer: str | None = None,
    gene_column: str | None = None,
    scale: Scale | Literal["auto"] = "auto",
    copy: bool = False,
    progress: Progress | None = None,
) -> ad.AnnData | None:
    """Implement ``Manifold.transform``; ``progress`` is called with the number of cells just done."""
    target = adata.copy() if copy and not adata.isbacked else adata.to_memory() if copy else adata
    stem = key_added or manifold.name
    keys_for(stem)
    alignment = match_genes(manifold, target, gene_column)
    coverage = check_coverage(alignment, manifold.tensors["projection"], floor=manifold.card.genes.coverage_floor)
    matrix = pick_matrix(target, layer)
    # of a backed CSC file only some columns are looked at, which says nothing about the sum of a cell
    full = matrix.shape[1] >= _FULL_MATRIX and not isinstance(matrix, CSCDataset)
    decided = decide_scale(_sample(matrix), scale, all_genes=full)
    projection = spread_projection(manifold, alignment, matrix.shape[1])
    latent = project_matrix(matrix, projection, manifold.tensors["offset"], decided, progress)
    write_results(manifold, target, latent, stem, coverage, alignment, decided)
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
        raise BadInputError(f"There is no layer {layer!r}; the layers are: {', '.join(adata.layers) or 'none'}.")
    return adata.layers[layer]


def spread_projection(manifold: Manifold, alignment: Alignment, n_columns: int) -> NDArray[np.float32]:
    """The folded projection on the input's own columns, ``(n_columns, d)``, zero where the manifold has no gene.

    Spreading the small matrix spares slicing columns out of the large one.
    """
    spread = np.zeros((n_columns, manifold.n_components), dtype=np.float32)
    found = alignment.column >= 0
    spread[alignment.column[found]] = manifold.tensors["projection"][found]
    return spread


def project_matrix(
    matrix: Any,
    projection: NDArray[np.float32],
    offset: NDArray[Any],
    scale: Scale,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Multiply a matrix of any kind with the projection, in pieces, checking every value on the way.

    Parameters
    ----------
    matrix
        Dense, CSR, CSC, backed dense, backed CSR, backed CSC or Dask, ``(n_cells, n_columns)``.
    projection
        ``(n_columns, d)``.
    offset
        ``(d,)``.

    Returns
    -------
    Float32 ``(n_cells, d)``. A Dask array is computed block by block on its own scheduler.
    """
    offset32 = offset.astype(np.float32)
    if hasattr(matrix, "dask"):
        return _project_dask(matrix, projection, offset32, scale)
    if isinstance(matrix, CSCDataset) or (sparse.issparse(matrix) and matrix.format == "csc"):
        return _project_columns(matrix, projection, offset32, scale, progress)
    latent = np.empty((matrix.shape[0], projection.shape[1]), dtype=np.float32)
    for start, block in _row_blocks(matrix):
        stop = start + block.shape[0]
        latent[start:stop] = _project_block(block, projection, scale)
        latent[start:stop] += offset32
        if progress is not None:
            progress(stop - start)
    return latent


def write_results(
    manifold: Manifold,
    target: ad.AnnData,
    latent: NDArray[np.float32],
    stem: str,
    coverage: float,
    alignment: Alignment,
    scale: Scale,
) -> None:
    """Store coordinates, readouts and provenance under the keys of ``stem``."""
    base = keys_for(stem)
    target.obsm[base.obsm] = latent
    classes: dict[str, NDArray[np.str_]] = {}
    for task in manifold.tasks:
        keys: Keys = keys_for(stem, task)
        proba = manifold.read_out(latent, task)
        names = manifold.classes(task)
        target.obs[keys.obs] = pd.Categorical.from_codes(proba.argmax(axis=1), categories=names)
        target.obsm[keys.obsm_proba] = proba
        classes[task] = np.asarray(names, dtype=str)
    target.uns[base.uns] = {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "coverage": coverage,
        "n_genes_matched": alignment.n_matched,
        "genes_matched_by": alignment.kind,
        "scale": scale,
        "classes": classes,
    }


def _row_blocks(matrix: Any) -> Iterator[tuple[int, Any]]:
    """Blocks of rows in memory; views where the matrix is in memory already."""
    n_rows = matrix.shape[0]
    if sparse.issparse(matrix):
        csr = matrix if matrix.format == "csr" else matrix.tocsr()
        for start in range(0, n_rows, CHUNK):
            stop = min(start + CHUNK, n_rows)
            low, high = csr.indptr[start], csr.indptr[stop]
            # built from views: scipy's own row slicing copies data and indices
            view = (csr.data[low:high], csr.indices[low:high], csr.indptr[start : stop + 1] - low)
            yield start, sparse.csr_matrix(view, shape=(stop - start, csr.shape[1]), copy=False)
        return
    for start in range(0, n_rows, CHUNK):
        yield start, matrix[start : min(start + CHUNK, n_rows)]


def _project_block(block: Any, projection: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    """Check, bring to scale and multiply one block of rows in memory."""
    if not sparse.issparse(block):
        block = np.asarray(block)
    check_finite(stored_values(block))
    if scale == "counts":
        block = log_normalise(block, _row_sums(block))
    if block.dtype != np.float32:
        block = block.astype(np.float32)
    return np.asarray(block @ projection)


def _project_columns(
    matrix: Any, projection: NDArray[np.float32], offset: NDArray[np.float32], scale: Scale, progress: Progress | None
) -> NDArray[np.float32]:
    """Accumulate over blocks of columns: a CSC matrix is read once (twice for counts) in storage order."""
    n_rows, n_columns = matrix.shape
    width = 1024

    def blocks() -> Iterator[tuple[slice, Any]]:
        for start in range(0, n_columns, width):
            columns = slice(start, min(start + width, n_columns))
            yield columns, sparse.csc_matrix(matrix[:, columns])

    totals = np.zeros(n_rows)
    if scale == "counts":
        for _, block in blocks():
            totals += _row_sums(block)
    factor = np.divide(1e4, totals, out=np.zeros(n_rows), where=totals > 0).astype(np.float32)
    latent = np.zeros((n_rows, projection.shape[1]), dtype=np.float32)
    for columns, block in blocks():
        check_finite(block.data)
        if scale == "counts":
            block = sparse.csc_matrix(
                (np.log1p(block.data * factor[block.indices]), block.indices, block.indptr), shape=block.shape
            )
        latent += block.astype(np.float32) @ projection[columns]
    if progress is not None:
        progress(n_rows)
    return latent + offset


def _project_dask(
    matrix: Any, projection: NDArray[np.float32], offset: NDArray[np.float32], scale: Scale
) -> NDArray[np.float32]:
    """Map the projection over blocks of whole rows and gather the small result."""
    rows = matrix.rechunk({1: -1}) if len(matrix.chunks[1]) > 1 else matrix
    mapped = rows.map_blocks(
        lambda block: _project_block(block, projection, scale) + offset,
        dtype=np.float32,
        chunks=(rows.chunks[0], (projection.shape[1],)),
        meta=np.empty((0, 0), dtype=np.float32),
    )
    return np.asarray(mapped.compute(), dtype=np.float32)


def _sample(matrix: Any) -> Any:
    """Summary of some cells spread over the matrix (of some columns, where rows are dear to read)."""
    n_rows = matrix.shape[0]
    if isinstance(matrix, CSCDataset):
        block = sparse.csc_matrix(matrix[:, : min(256, matrix.shape[1])]).tocsr()
    elif n_rows <= _SAMPLE:
        block = matrix[:] if not hasattr(matrix, "dask") else matrix
    else:
        starts = np.linspace(0, n_rows - _SAMPLE // 4, 4).astype(int)
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


def _row_sums(block: Any) -> NDArray[np.float64]:
    """Sum of each row in float64."""
    return np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()

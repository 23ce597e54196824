"""Placing the cells of an AnnData object on a manifold, whatever its matrix is stored as."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
_STORED = 65_536
# a block holds at most CHUNK times this many values, stored or dense
_WIDTH = 1_024
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
    if adata.is_view and adata.isbacked and not copy:
        raise BadInputError("A view of a backed file cannot take results.", "Pass copy=True, or `adata.to_memory()`.")
    target = adata.copy() if copy and not adata.isbacked else adata.to_memory() if copy else adata
    stem = key_added or manifold.name
    keys_for(stem)
    alignment = match_genes(manifold, target, gene_column)
    coverage = check_coverage(alignment, manifold.tensors["projection"], floor=manifold.card.genes.coverage_floor)
    matrix = pick_matrix(target, layer)
    # of a backed CSC file only stored values are looked at, which says nothing about the sum of a cell
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
        known = ", ".join(map(str, filter(None, adata.layers))) or "none"
        raise BadInputError(f"There is no layer {layer!r}; the layers are: {known}.")
    return adata.layers[layer]


def spread_projection(manifold: Manifold, alignment: Alignment, n_columns: int) -> NDArray[np.float32]:
    """The folded projection on the input's own columns, ``(n_columns, d)``, zero where the manifold has no gene.

    Spreading the small matrix spares slicing columns out of the large one.
    """
    spread = np.zeros((n_columns, manifold.n_components), dtype=np.float32)
    found = alignment.column >= 0
    # two genes may share a column where the table gives both one Ensembl id
    np.add.at(spread, alignment.column[found], manifold.tensors["projection"][found].astype(np.float32))
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
    if sparse.issparse(matrix) and matrix.format != "csr":
        matrix = matrix.tocsr()
    latent = np.empty((matrix.shape[0], projection.shape[1]), dtype=np.float32)
    # a row of a dense matrix holds every gene, so as many rows as of a sparse one could fill the memory
    dense = not sparse.issparse(matrix) and not isinstance(matrix, CSRDataset)
    height = max(1, min(CHUNK, CHUNK * _WIDTH // matrix.shape[1])) if dense else CHUNK

    def project(start: int) -> int:
        stop = min(start + height, len(latent))
        block = _rows(matrix, start, stop)
        np.add(_project_block(block, projection, scale), offset32, out=latent[start:stop])
        return stop - start

    # scipy's sparse products release the interpreter lock; BLAS has threads of its own, and HDF5 reads with one
    with ThreadPoolExecutor(_n_threads() if sparse.issparse(matrix) else 1) as pool:
        for n_done in pool.map(project, range(0, len(latent), height)):
            if progress is not None:
                progress(n_done)
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
        proba, best = _read_out(manifold, latent, task)
        names = manifold.classes(task)
        target.obs[keys.obs] = pd.Categorical.from_codes(best, categories=names)
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


def _read_out(
    manifold: Manifold, latent: NDArray[np.float32], task: str
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities and the most probable class of every cell, in pieces on the processors there are."""
    proba = np.empty((len(latent), len(manifold.classes(task))), dtype=np.float32)
    best = np.empty(len(latent), dtype=np.int64)

    def read(start: int) -> None:
        rows = slice(start, start + CHUNK)
        proba[rows] = manifold.read_out(latent[rows], task)
        best[rows] = proba[rows].argmax(axis=1)

    with ThreadPoolExecutor(_n_threads()) as pool:
        list(pool.map(read, range(0, len(latent), CHUNK)))
    return proba, best


def _n_threads() -> int:
    """Processors this process may use, at most 8: beyond that memory is the limit."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, 8)


def _rows(matrix: Any, start: int, stop: int) -> Any:
    """Rows of a matrix, without a copy where it is CSR in memory and the piece is not small."""
    if not sparse.issparse(matrix):
        return matrix[start:stop]
    low, high = matrix.indptr[start], matrix.indptr[stop]
    # built from views: scipy's own row slicing copies data and indices
    view = (matrix.data[low:high], matrix.indices[low:high], matrix.indptr[start : stop + 1] - low)
    return sparse.csr_matrix(view, shape=(stop - start, matrix.shape[1]), copy=False)


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
    stored = matrix.group["indptr"] if isinstance(matrix, CSCDataset) else matrix.indptr
    pointers = np.asarray(stored[:], dtype=np.int64)

    def blocks() -> Iterator[tuple[slice, Any]]:
        start = 0
        while start < n_columns:
            last = int(np.searchsorted(pointers, pointers[start] + CHUNK * _WIDTH, side="right")) - 1
            stop = max(start + 1, last)
            yield slice(start, stop), sparse.csc_matrix(matrix[:, start:stop])
            start = stop

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

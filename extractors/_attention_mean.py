"""Mean attention between genes over cells: the ``attention_mean`` operator kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import BadInputError, GeneError, PanelError
from ..manifolds._scale import check_finite, decide_scale, summarise
from .checkpoints._interface import PADDING, Checkpoint

MIN_GENES = 10
"""Cells with fewer expressed genes of the vocabulary are skipped; our choice."""
_N_CELLS_FOR_SCALE = 512
_N_CELLS_PER_COUNT = 4096


@dataclass(frozen=True, eq=False)
class AttentionMean:
    """Attention averaged over the cells in which both genes are expressed.

    Attributes
    ----------
    layers
        ``(n_layers, n_genes, n_genes)`` float32 averaged over heads, or ``(n_layers, n_heads, n_genes, n_genes)``
        where heads were asked for. Row = query gene, column = key gene; 0 for pairs never seen together. Rows do
        not sum to one: a cell's attention to ``<cls>`` is left out, and each pair has its own number of cells, by
        which rows may also exceed one.
    support
        Number of cells with both genes, ``(n_genes, n_genes)`` int32; the diagonal counts each gene's cells.
    genes
        Gene of each row and column, ``(n_genes,)``.
    n_cells
        Cells that contributed.
    n_skipped
        Cells with fewer than ``MIN_GENES`` expressed genes of the vocabulary.
    n_truncated
        Cells with more expressed genes than the model reads, of which the highest were kept.
    """

    layers: NDArray[np.float32]
    support: NDArray[np.int32]
    genes: tuple[str, ...]
    n_cells: int
    n_skipped: int
    n_truncated: int


def attention_mean(
    checkpoint: Checkpoint,
    cells: sparse.csr_matrix | sparse.csr_array | NDArray[np.float32],
    genes: Sequence[str],
    *,
    batch_size: int = 2,
    per_head: bool = False,
    progress: Callable[[int], None] | None = None,
) -> AttentionMean:
    """Average a model's attention between genes over cells.

    Parameters
    ----------
    checkpoint
        The frozen model.
    cells
        ``log1p`` of counts scaled to 10,000 per cell, ``(n_cells, n_genes)``, CSR or dense.
    genes
        Gene of each column. The model sees these genes only; those outside its vocabulary keep zero rows
        and columns.
    batch_size
        Cells per forward pass. Changes speed and memory, and the result only by rounding; small batches are the
        fastest on a CPU, because the attention of a large one leaves the cache.
    per_head
        Keep heads apart; takes ``n_heads`` times the memory.
    progress
        Called with the number of cells finished since the last call; the calls add up to ``n_cells``.

    Returns
    -------
    AttentionMean
        Equal for equal input on the same machine, PyTorch and number of threads.

    Raises
    ------
    GeneError
        If genes do not match the columns, repeat, or are all outside the vocabulary.
    ScaleError
        If values are negative, not finite, or not ``log1p``.
    PanelError
        If no cell has ``MIN_GENES`` expressed genes of the vocabulary.

    Notes
    -----
    For layer l: ``A_l[i, j] = sum_c a_l,c[i, j] / |{c : i and j expressed}|``, where ``a_l,c`` is the post-softmax
    attention of cell c (Kendiukhov, arXiv:2603.10261, does not spell it out; this is the best supported reading).
    A cell's sequence is ``<cls>`` and its expressed genes. Cells with more genes than the model reads keep the
    highest values, ties by column: our choice, deterministic where scGPT samples.

    Memory beside the input does not grow with the values of the cells: one batch of one layer, and one float64 sum
    per layer (and head), which keeps the rounding of sums over millions of cells below float32.
    """
    if batch_size < 1:
        raise BadInputError(f"batch_size must be at least 1, got {batch_size}.")
    table = _as_csr(cells, len(genes))
    vocabulary = _vocabulary_index(checkpoint, genes)
    length = _count_expressed(table, vocabulary >= 0)
    used = np.flatnonzero(length >= MIN_GENES)
    if not len(used):
        raise PanelError(f"None of {table.shape[0]} cells has {MIN_GENES} expressed genes of {checkpoint.name}.")
    n_skipped = table.shape[0] - len(used)
    if progress is not None and n_skipped:
        progress(n_skipped)
    # neighbours in length share a batch, which leaves next to no padding
    order = used[np.argsort(length[used], kind="stable")]

    n_genes, n_maps = len(genes), checkpoint.n_heads if per_head else 1
    total = torch.zeros(checkpoint.n_layers, n_maps, n_genes * n_genes, dtype=torch.float64)
    support = torch.zeros(n_genes * n_genes, dtype=torch.int32)
    for start in range(0, len(order), batch_size):
        batch = [
            _expressed(table, row, vocabulary >= 0, checkpoint.max_genes) for row in order[start : start + batch_size]
        ]
        tokens, values = _pad(batch, vocabulary)
        pairs = [torch.from_numpy((columns[:, None] * n_genes + columns).ravel()) for columns, _ in batch]
        for pair in pairs:
            support.index_add_(0, pair, torch.ones(len(pair), dtype=torch.int32))
        for layer, attention in enumerate(checkpoint.attention(tokens, values)):
            maps = attention if per_head else attention.mean(dim=1, keepdim=True)
            for cell, pair in enumerate(pairs):
                n = len(batch[cell][0])
                for index in range(n_maps):
                    total[layer, index].index_add_(0, pair, maps[cell, index, :n, :n].reshape(-1).double())
        if progress is not None:
            progress(len(batch))

    layers = np.empty((checkpoint.n_layers, n_maps, n_genes, n_genes), dtype=np.float32)
    divisor = support.clamp(min=1)
    for layer in range(checkpoint.n_layers):
        layers[layer] = (total[layer] / divisor).numpy().reshape(n_maps, n_genes, n_genes)
    return AttentionMean(
        layers=layers if per_head else layers[:, 0],
        support=support.numpy().reshape(n_genes, n_genes),
        genes=tuple(genes),
        n_cells=len(used),
        n_skipped=n_skipped,
        n_truncated=int((length > checkpoint.max_genes).sum()),
    )


def _as_csr(cells: Any, n_genes: int) -> sparse.csr_array:
    """View cells as canonical float32 CSR on the scale the model reads, leaving the input as it is."""
    if len(cells.shape) != 2 or cells.shape[1] != n_genes:
        raise GeneError(f"{n_genes} genes were named for cells of shape {cells.shape}.")
    table = sparse.csr_array(cells, dtype=np.float32)
    if not table.has_canonical_format:
        table = table.copy()
        table.sum_duplicates()
    check_finite(table.data)
    decide_scale(summarise(table[:_N_CELLS_FOR_SCALE]), "log1p", all_genes=False)
    return table


def _vocabulary_index(checkpoint: Checkpoint, genes: Sequence[str]) -> NDArray[np.int64]:
    """Index of each gene in the vocabulary, -1 outside it."""
    repeated = [gene for gene, n in Counter(genes).items() if n > 1]
    if repeated:
        raise GeneError(f"Gene {repeated[0]!r} names more than one column.")
    position = {gene: index for index, gene in enumerate(checkpoint.genes)}
    index = np.array([position.get(gene, -1) for gene in genes], dtype=np.int64)
    if not (index >= 0).any():
        raise GeneError(
            f"None of {len(genes)} genes is in the vocabulary of {checkpoint.name}.",
            f"It names genes like {', '.join(checkpoint.genes[:3])}.",
        )
    return index


def _count_expressed(table: sparse.csr_array, in_vocabulary: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of expressed genes of the vocabulary per cell, ``(n_cells,)``."""
    length = np.empty(table.shape[0], dtype=np.int64)
    for start in range(0, len(length), _N_CELLS_PER_COUNT):
        bounds = table.indptr[start : start + _N_CELLS_PER_COUNT + 1]
        stored = slice(bounds[0], bounds[-1])
        kept = (table.data[stored] > 0) & in_vocabulary[table.indices[stored]]
        before = np.concatenate([[0], np.cumsum(kept)])
        length[start : start + _N_CELLS_PER_COUNT] = np.diff(before[bounds - bounds[0]])
    return length


def _expressed(
    table: sparse.csr_array, row: int, in_vocabulary: NDArray[np.bool_], limit: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Columns and values of one cell's expressed genes of the vocabulary, the highest ``limit`` of them."""
    stored = slice(table.indptr[row], table.indptr[row + 1])
    columns, values = table.indices[stored].astype(np.int64), table.data[stored]
    kept = (values > 0) & in_vocabulary[columns]
    columns, values = columns[kept], values[kept]
    if len(columns) > limit:
        highest = np.sort(np.argsort(-values, kind="stable")[:limit])
        columns, values = columns[highest], values[highest]
    return columns, values


def _pad(
    batch: list[tuple[NDArray[np.int64], NDArray[np.float32]]], vocabulary: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Stack cells of different lengths, ``PADDING`` and 0 at the end of the shorter ones."""
    shape = (len(batch), max(len(columns) for columns, _ in batch))
    tokens, values = np.full(shape, PADDING, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    for cell, (columns, expression) in enumerate(batch):
        tokens[cell, : len(columns)] = vocabulary[columns]
        values[cell, : len(columns)] = expression
    return tokens, values

"""Mean attention between genes over cells: the operator kinds ``attention_mean`` and ``attention_value``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ... import __version__
from ...cards._errors import CheckpointError
from ..checkpoints._interface import Checkpoint
from ._accumulate import PairSums, use_threads
from ._cells import GENE_FLOOR, Cells, ReadableCells, readable_cells
from ._resume import UnfinishedState

STATE_FILE = "attention.state"
_BATCH_FLOATS = 1 << 20
"""Most attention values of one layer of a batch: 4 MB, beyond which they leave the cache."""
_GROUP_FLOATS = (1 << 20, 1 << 24)
"""Least and most attention values of one layer of a group; between them a quarter as many as there are sums."""


@dataclass(frozen=True, eq=False)
class AttentionMean:
    """Attention averaged over the cells in which both genes are expressed.

    Attributes
    ----------
    layers
        ``(n_layers, n_genes, n_genes)`` float32 averaged over heads, or ``(n_layers, n_heads, n_genes, n_genes)``
        where heads were asked for. Row = query gene, column = key gene; 0 for pairs never seen together and for
        genes that the model does not know. Rows do not sum to one: a cell's attention to special tokens is left
        out, and each pair has its own number of cells, by which rows may also exceed one.
    support
        Number of cells with both genes, ``(n_genes, n_genes)`` int32; the diagonal counts each gene's cells.
    genes
        Gene of each row and column, ``(n_genes,)``.
    unknown_genes
        Those of ``genes`` that the model does not know.
    n_cells
        Cells that contributed.
    n_skipped
        Cells with fewer than ``MIN_GENES`` (10) expressed genes that the model knows.
    n_truncated
        Cells with more expressed genes than the model reads, of which the highest were kept.
    """

    layers: NDArray[np.float32]
    support: NDArray[np.int32]
    genes: tuple[str, ...]
    unknown_genes: tuple[str, ...]
    n_cells: int
    n_skipped: int
    n_truncated: int


def attention_mean(
    checkpoint: Checkpoint,
    cells: Cells,
    genes: Sequence[str],
    *,
    per_head: bool = False,
    weighted: bool = False,
    batch_size: int = 16,
    gene_floor: float = GENE_FLOOR,
    resume: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> AttentionMean:
    """Average a model's attention between genes over cells.

    Parameters
    ----------
    checkpoint
        The frozen model.
    cells
        Values on the scale that ``checkpoint.scale`` names, ``(n_cells, n_genes)``, CSR or dense: ``log1p`` of counts
        scaled to 10,000 per cell, or raw counts.
    genes
        Gene of each column. The model sees these genes only; those it does not know keep zero rows and columns.
    per_head
        Keep heads apart; takes ``n_heads`` times the memory.
    weighted
        Multiply attention by the length of what the head would add for the key gene (kind ``attention_value``).
    batch_size
        Most cells per forward pass, fewer where their attention would leave the cache; a batch holds cells of one
        length, so that nothing is padded. Changes speed, and the result only by rounding.
    gene_floor
        Smallest fraction of ``genes`` that the model must know; the default is our choice.
    resume
        Folder for the sums so far, saved about every half minute and when the work is interrupted. A call with the
        same arguments and the same folder goes on from there and returns the bytes that an uninterrupted call
        would. What it leaves there is the caller's to remove.
    progress
        Called with the number of cells finished since the last call; the calls add up to the number of cells.

    Returns
    -------
    AttentionMean
        Equal for equal input on the same machine, PyTorch and number of threads.

    Raises
    ------
    GeneError
        If genes do not match the columns, repeat, or too few are known to the model.
    ScaleError
        If values are negative, not finite, or not on the model's scale.
    PanelError
        If no cell has ``MIN_GENES`` expressed genes that the model knows.
    CheckpointError
        If the model returns something else than attention: wrong shapes, or values that are not finite.

    Warns
    -----
    ZooWarning
        If the state in ``resume`` is damaged or belongs to another computation, which then starts over; if it cannot
        be saved, without which the computation goes on.

    Notes
    -----
    For layer l: ``A_l[i, j] = sum_c a_l,c[i, j] / |{c : i and j expressed}|``, where ``a_l,c`` is the post-softmax
    attention of cell c (Kendiukhov, arXiv:2603.10261, does not spell it out; this is the best supported reading).
    A cell's sequence is its expressed genes beside the model's special tokens. Cells with more genes than the model
    reads keep the highest values, ties by column: our choice, deterministic where scGPT samples.

    Memory beside the input does not grow with the cells: one float64 sum per layer (and head), which keeps the
    rounding of sums over millions of cells below float32, the float32 result of half that size, and the attention
    of one layer of a group of cells.
    """
    read = readable_cells(checkpoint, cells, genes, gene_floor=gene_floor)
    source = read.checkpoint
    # found before any work: a batch size that is none, or a folder that cannot be read
    batches = read.batches(read.used, batch_size, max(1, _BATCH_FLOATS // source.n_heads))
    with PairSums(source.n_layers, source.n_heads if per_head else 1, len(genes), use_threads()) as sums:
        state = None
        if resume is not None:
            print_of = _fingerprint(read, genes, per_head=per_head, weighted=weighted, batch_size=batch_size)
            state = UnfinishedState(resume / STATE_FILE, print_of, sums.arrays)
        _sum_over(sums, read, batches, state, weighted=weighted, progress=progress)
        state = None
        layers = sums.take_means()
    if not all(np.isfinite(layer).all() for layer in layers):
        raise CheckpointError(f"The attention of {checkpoint.name} is not finite everywhere.")
    return AttentionMean(
        layers=layers if per_head else layers[:, 0],
        support=sums.support,
        genes=tuple(genes),
        unknown_genes=read.unknown_genes,
        n_cells=sum(map(len, batches)),
        n_skipped=read.n_skipped,
        n_truncated=read.n_truncated,
    )


def _sum_over(
    sums: PairSums,
    read: ReadableCells,
    batches: list[NDArray[np.int64]],
    state: UnfinishedState | None,
    *,
    weighted: bool,
    progress: Callable[[int], None] | None,
) -> None:
    """Add all batches to the sums, going on from what an interrupted call left."""
    groups = _groups(read, batches, sums)
    if state is not None:
        state.restore()
    done = read.n_skipped + sum(len(batch) for group in groups[: sums.n_groups] for batch in group)
    if progress is not None and done:
        progress(done)
    with _kept_when_interrupted(sums, state):
        for group in groups[sums.n_groups :]:
            _add_group(sums, read, group, weighted=weighted)
            if state is not None:
                state.save_if_due()
            if progress is not None:
                progress(sum(map(len, group)))


def _groups(read: ReadableCells, batches: list[NDArray[np.int64]], sums: PairSums) -> list[list[NDArray[np.int64]]]:
    """Gather batches whose attention is added together, at least one."""
    groups: list[list[NDArray[np.int64]]] = []
    least, most = _GROUP_FLOATS
    max_floats, room = min(most, max(least, sums.n_values // 4)), 0
    n_held = sums.n_maps if sums.n_maps > 1 else read.checkpoint.n_layers
    for batch in batches:
        size = len(batch) * n_held * min(int(read.length[batch[0]]), read.checkpoint.max_genes) ** 2
        if not groups or size > room:
            groups.append([])
            room = max_floats
        groups[-1].append(batch)
        room -= size
    return groups


def _add_group(sums: PairSums, read: ReadableCells, batches: list[NDArray[np.int64]], *, weighted: bool) -> None:
    """Run the model over a group of batches and add what it says."""
    stacks = [read.stack(batch) for batch in batches]
    group = sums.begin_group([columns for stack, _ in stacks for columns in stack])
    runs = [
        _maps(read.checkpoint, read.index[columns], values, weighted=weighted, averaged=sums.n_maps == 1)
        for columns, values in stacks
    ]
    # averages are so small that those of all layers can wait for other batches, unlike the maps of all heads that a
    # run on its way holds
    at_once = sums.n_maps == 1 and len(runs) > 1
    for layer, maps in enumerate(zip(*map(list, runs), strict=True) if at_once else _together(runs)):
        sums.add_layer(layer, group, maps)
    sums.end_group()


def _together(runs: list[Iterator[Tensor]]) -> Iterator[list[Tensor]]:
    """Take one layer of every run after another."""
    maps = [next(run) for run in runs]
    while True:
        yield maps
        for index, run in enumerate(runs):
            # one in, one out: freeing all of a layer's tensors first would hand their memory back to the system
            found = next(run, None)
            if found is None:
                return
            maps[index] = found


def _maps(
    checkpoint: Checkpoint, genes: NDArray[np.int64], values: NDArray[np.float32], *, weighted: bool, averaged: bool
) -> Iterator[Tensor]:
    """Run the model over a batch; yields each layer's maps, averaged over heads or not, as the kernels read them."""
    run = checkpoint.attention(genes, values, weighted=weighted)
    expected = (len(genes), checkpoint.n_heads, genes.shape[1], genes.shape[1])
    for layer in range(checkpoint.n_layers):
        found = next(run, None)
        if found is None or tuple(found.shape) != expected:
            told = "nothing" if found is None else f"shape {tuple(found.shape)}"
            raise CheckpointError(
                f"{checkpoint.name} returned {told} for layer {layer} of {checkpoint.n_layers}, expected {expected}.",
                "This is a fault of the checkpoint's reader.",
            )
        found = found.detach().to(device="cpu", dtype=torch.float32)
        if averaged:
            found = found.mean(dim=1, keepdim=True)
        yield found if found.stride(-1) == 1 else found.contiguous()


@contextmanager
def _kept_when_interrupted(sums: PairSums, state: UnfinishedState | None) -> Iterator[None]:
    """Save the sums if the work inside ends early, and now and then at its end."""
    try:
        yield
    except BaseException:
        sums.settle()
        if state is not None and sums.progress.any():
            state.save()
        raise
    if state is not None:
        state.save_if_due()


def _fingerprint(
    read: ReadableCells, genes: Sequence[str], *, per_head: bool, weighted: bool, batch_size: int
) -> dict[str, object]:
    """Name all that the sums depend on, down to their last bit."""
    cells = hashlib.sha256(repr(read.table.shape).encode())
    for array in (read.table.indptr, read.table.indices, read.table.data):
        cells.update(np.ascontiguousarray(array).view(np.uint8).data)
    return {
        "checkpoint": read.checkpoint.digest,
        "cells": cells.hexdigest(),
        "genes": hashlib.sha256("\n".join(genes).encode()).hexdigest(),
        "per_head": per_head,
        "weighted": weighted,
        "batch_size": batch_size,
        "threads": use_threads(),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
        "manifoldzoo": __version__,
    }

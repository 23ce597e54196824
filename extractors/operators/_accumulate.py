"""Sums of attention over cells, in float64, each row of a sum visited once for a whole group of cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from numba.np.numpy_support import carray
from numpy.typing import NDArray
from torch import Tensor

_FLOAT32_BYTES = 4


class PairSums:
    """Sum maps between the genes of cells into one matrix per layer and map; a context manager.

    Parameters
    ----------
    n_layers, n_maps, n_genes
        Sums are ``(n_layers, n_maps, n_genes, n_genes)``.
    n_threads
        Threads that share the rows of a sum. They change neither the order of additions nor the result.

    Attributes
    ----------
    totals
        ``(n_maps * n_genes, n_genes)`` float64 for each layer.
    support
        Number of cells with both genes, ``(n_genes, n_genes)`` int32.
    progress
        Groups done; then for each thread the layers of the unfinished group that its rows hold; last, whether
        ``support`` holds the group. The kernels write it, so that it is true whenever Python is interrupted.

    Notes
    -----
    The sums of all layers are larger than a cache, so adding one cell after another is bound by memory: a group of
    cells is added row by row of the sum instead. No fastmath; the cells of a group are added in their order, whatever
    the number of threads.
    """

    def __init__(self, n_layers: int, n_maps: int, n_genes: int, n_threads: int) -> None:
        self.n_maps = n_maps
        self.totals = [np.zeros((n_maps * n_genes, n_genes), dtype=np.float64) for _ in range(n_layers)]
        self.support = np.zeros((n_genes, n_genes), dtype=np.int32)
        self.progress = np.zeros(n_threads + 2, dtype=np.int64)
        self._edges = np.linspace(0, n_maps * n_genes, n_threads + 1).astype(np.int64).tolist()
        self._pool = ThreadPoolExecutor(n_threads - 1) if n_threads > 1 else None

    def __enter__(self) -> PairSums:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that has been summed, under names."""
        named = {f"total.{layer}": total for layer, total in enumerate(self.totals)}
        return {**named, "support": self.support, "progress": self.progress}

    @property
    def n_values(self) -> int:
        """Number of sums."""
        return sum(total.size for total in self.totals)

    @property
    def n_groups(self) -> int:
        """Groups whose cells are all in the sums."""
        return int(self.progress[0])

    def settle(self) -> None:
        """Wait for the threads, so that ``progress`` and the sums agree."""
        if self._pool is not None:
            self._pool.shutdown()

    def begin_group(self, cells: Sequence[NDArray[np.int64]]) -> Group:
        """Lay out a group of cells, given the columns of each, and count their pairs of genes."""
        group = Group(cells, len(self.support))
        if not self.progress[-1]:
            _count_pairs(group.columns, group.starts, self.support, self.progress)
        return group

    def add_layer(self, layer: int, group: Group, maps: Sequence[Tensor]) -> None:
        """Add a layer's maps of a group.

        Parameters
        ----------
        layer
            Layers of a group are added in their order.
        group
            From ``begin_group``.
        maps
            Float32 ``(n_cells, n_maps, n_tokens, n_tokens)`` on the CPU with adjacent columns, the cells of one after
            those of another in the order of the group.
        """
        places = np.concatenate([_places(tensor) for tensor in maps])
        given = (places, group.columns, group.starts, group.index, self.totals[layer])

        def add(part: int) -> None:
            if self.progress[1 + part] <= layer:
                _add_rows(*given, self._edges[part], self._edges[part + 1], self.progress, 1 + part, layer)

        self._share(add)

    def end_group(self) -> None:
        """Count a group as done."""
        after = np.zeros_like(self.progress)
        after[0] = self.progress[0] + 1
        # one copy in C: an interrupt comes before or after it
        self.progress[:] = after

    def take_means(self) -> NDArray[np.float32]:
        """Divide by the number of cells, ``(n_layers, n_maps, n_genes, n_genes)``.

        The sums are given up one by one, so that sums and means are never in memory together.
        """
        n_genes = len(self.support)
        divisor = np.maximum(self.support, 1).astype(np.float64)
        means = np.empty((len(self.totals), self.n_maps, n_genes, n_genes), dtype=np.float32)
        for mean in means:
            np.divide(self.totals.pop(0).reshape(mean.shape), divisor, out=mean, casting="same_kind")
        return means

    def _share(self, work: Callable[[int], None]) -> None:
        """Do every thread's part of some work, the first one here."""
        n_parts = len(self._edges) - 1
        others = [] if self._pool is None else [self._pool.submit(work, part) for part in range(1, n_parts)]
        try:
            work(0)
        finally:
            # the tensors that the threads read must outlive them
            wait(others)
        for other in others:
            other.result()


class Group:
    """Columns of the cells of a group, one after another, and where each gene stands in each cell.

    Attributes
    ----------
    columns, starts
        Cell ``c`` has the columns ``columns[starts[c] : starts[c + 1]]``.
    index
        Position of each gene among the columns of each cell, -1 where it is not one, ``(n_cells, n_genes)``.
    """

    def __init__(self, cells: Sequence[NDArray[np.int64]], n_genes: int) -> None:
        # unsigned, or every access in the kernels would ask whether to count from the end
        self.columns = np.concatenate(cells).astype(np.uint32)
        self.starts = np.cumsum([0, *map(len, cells)], dtype=np.int64)
        self.index = np.full((len(cells), n_genes), -1, dtype=np.int32)
        for cell, columns in enumerate(cells):
            self.index[cell, columns] = np.arange(len(columns))


def use_threads() -> int:
    """Threads to share sums among: as many as PyTorch uses in the model."""
    return torch.get_num_threads()


def _places(maps: Tensor) -> NDArray[np.int64]:
    """Address, and bytes from map to map and row to row, of each cell's maps, ``(n_cells, 3)``."""
    strides = [step * _FLOAT32_BYTES for step in maps.stride()]
    first = maps.data_ptr() + np.arange(len(maps)) * strides[0]
    return np.column_stack([first, np.full(len(maps), strides[1]), np.full(len(maps), strides[2])])


def _point_at(_context: Any, _address: Any) -> Any:
    """Turn an address into a pointer; a list of arrays would be compiled anew for every length."""
    signature = types.CPointer(types.float32)(types.int64)  # type: ignore[no-untyped-call]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return signature, generate


_floats_at: Any = intrinsic(_point_at)


@njit(nogil=True)
def _add_rows(
    places: Any, columns: Any, starts: Any, index: Any, total: Any,
    low: Any, high: Any, progress: Any, slot: Any, layer: Any,
) -> None:  # fmt: skip
    """Add to the rows ``low`` to ``high`` of ``total``, whose rows are maps by genes."""
    n_cells, n_genes = index.shape
    for target in range(low, high):
        number, gene = target // n_genes, target % n_genes
        row = total[target]
        for cell in range(n_cells):
            place = index[cell, gene]
            if place < 0:
                continue
            own = columns[starts[cell] : starts[cell + 1]]
            address = places[cell, 0] + number * places[cell, 1] + place * places[cell, 2]
            given = carray(_floats_at(address), (len(own),))
            for j in range(len(own)):
                row[own[j]] += given[j]
    progress[slot] = layer + 1


@njit(nogil=True)
def _count_pairs(columns: Any, starts: Any, support: Any, progress: Any) -> None:
    """Count each pair of genes of each cell once."""
    for cell in range(len(starts) - 1):
        own = columns[starts[cell] : starts[cell + 1]]
        for i in range(len(own)):
            row = support[own[i]]
            for j in range(len(own)):
                row[own[j]] += 1
    progress[-1] = 1

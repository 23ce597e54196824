"""Independent pieces of work in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    """Threads for a fit: as many as there are processors, and no more than ``OMP_NUM_THREADS`` says."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(n_processors(), int(asked))) if asked.isdigit() else n_processors()


def in_threads(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call ``work`` with each item, in as many threads as there are processors to use.

    Parameters
    ----------
    work
        Writes its result where nothing else does. It has to release the interpreter, as products of matrices and
        compiled loops do; linear algebra takes one thread in each call, so that results do not depend on their number.
    items
        What to call it with.
    """
    pieces = list(items)
    workers = min(n_threads(), len(pieces))
    if workers < 2:
        for piece in pieces:
            work(piece)
        return
    with threadpool_limits(limits=1), ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(work, pieces):
            pass

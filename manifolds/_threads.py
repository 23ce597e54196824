"""Independent pieces of work in threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from threadpoolctl import threadpool_limits

Item = TypeVar("Item")
Result = TypeVar("Result")


def n_processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads() -> int:
    """Threads for a fit: as many as there are processors, and no more than ``OMP_NUM_THREADS`` says."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(n_processors(), int(asked))) if asked.isdigit() else n_processors()


def in_threads(work: Callable[[Item], Result], items: Iterable[Item], *, at_most: int | None = None) -> list[Result]:
    """Call ``work`` with each item, in several threads.

    Parameters
    ----------
    work
        Writes nowhere that another call does. It has to release the interpreter, as products of matrices and compiled
        loops do; linear algebra takes one thread in each call, so that results do not depend on their number.
    items
        What to call it with.
    at_most
        Threads; as many as there are for a fit by default.

    Returns
    -------
    What it returned, in the order of the items.
    """
    pieces = list(items)
    workers = min(n_threads() if at_most is None else at_most, len(pieces))
    if workers < 2:
        return [work(piece) for piece in pieces]
    with threadpool_limits(limits=1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(work, pieces))

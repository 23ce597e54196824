"""Products of a distance matrix with others while its rows and columns are permuted together, compiled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...manifolds._compiled import compiled
from ...manifolds._threads import in_threads

Floats = NDArray[np.float64]
Orders = NDArray[np.uint32]

_ROUND = 1024
"""Permutations drawn at a time, which bounds the memory; never changes a result."""
_PART = 128
"""Permutations that a thread takes at a time: even, as they are taken in twos."""


def draw_orders(
    blocks: NDArray[np.integer], n_permutations: int, *, rng: np.random.Generator, round_size: int = _ROUND
) -> Iterator[Orders]:
    """Draw permutations that move rows only within their block, each arrangement with the same chance.

    Parameters
    ----------
    blocks
        Block of each row, shape (n,).
    n_permutations
        Number of them in all.
    rng
        Gives n numbers for each permutation, one permutation after the other.
    round_size
        Permutations yielded at a time; memory only.

    Yields
    ------
    Rows to take, shape (up to ``round_size``, n).

    Notes
    -----
    Fisher & Yates (1938) in each block, from uniform numbers of 53 bits: the chance of an arrangement is off by a
    part of 1e-13 at most in blocks of a thousand rows.
    """
    members = np.argsort(blocks, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.unique(blocks, return_counts=True)[1])])
    for first in range(0, n_permutations, round_size):
        orders = np.empty((min(round_size, n_permutations - first), len(blocks)), dtype=np.uint32)
        _shuffle(rng.random(orders.shape), members, starts, orders)
        yield orders


def permuted_products(matrix: Floats, target: Floats, orders: Orders, *, n_threads: int = 1) -> Floats:
    """Sum the products of a permuted matrix and a target over all unordered pairs.

    Parameters
    ----------
    matrix, target
        Symmetric, shape (n, n); diagonals are not read.
    orders
        Rows to take, shape (m, n).
    n_threads
        Permutations are shared among them; never changes a result.

    Returns
    -------
    ``sum_{i < j} matrix[o_i, o_j] target[i, j]`` for each permutation ``o``, shape (m,).
    """
    n, count = len(matrix), len(orders)
    # rows and permutations are taken in twos: a row of zeros more, or a permutation more, adds nothing
    size = n + n % 2
    x, y = (np.zeros((size, size)) for _ in range(2))
    x[:n, :n], y[:n, :n] = matrix, target
    taken = np.full((count + count % 2, size), n, dtype=np.uint32)
    taken[:count, :n], taken[count:, :n] = orders, np.arange(n)
    out = np.empty(len(taken))
    # small parts, so that no thread waits long for another
    parts = [slice(start, start + _PART) for start in range(0, len(taken), _PART)]
    in_threads(lambda part: _products(x, y, taken[part], out[part]), parts, at_most=n_threads)
    return out[:count]


@compiled
def _shuffle(uniform: Any, members: Any, starts: Any, orders: Any) -> None:
    """Exchange rows within blocks; the rows of block ``b`` are ``members[starts[b]:starts[b + 1]]``."""
    for p in range(orders.shape[0]):
        order = orders[p]
        for i in range(order.shape[0]):
            order[i] = i
        for block in range(starts.shape[0] - 1):
            start = starts[block]
            for last in range(starts[block + 1] - 1, start, -1):
                other = start + np.int64(uniform[p, last] * (last - start + 1))
                i, j = members[last], members[other]
                held = order[i]
                order[i] = order[j]
                order[j] = held


@compiled
def _products(x: Any, y: Any, orders: Any, out: Any) -> None:
    """Take two permutations and two rows at a time: four sums that do not wait for each other."""
    n = x.shape[0]
    for p in range(0, orders.shape[0], 2):
        first, second = orders[p], orders[p + 1]
        first_sum = second_sum = 0.0
        for i in range(0, n, 2):
            upper, lower = y[i], y[i + 1]
            a, b, c, d = x[first[i]], x[first[i + 1]], x[second[i]], x[second[i + 1]]
            sum_a, sum_b = a[first[i + 1]] * upper[i + 1], 0.0
            sum_c, sum_d = c[second[i + 1]] * upper[i + 1], 0.0
            for j in range(i + 2, n):
                k, m = first[j], second[j]
                sum_a += a[k] * upper[j]
                sum_b += b[k] * lower[j]
                sum_c += c[m] * upper[j]
                sum_d += d[m] * lower[j]
            first_sum += sum_a + sum_b
            second_sum += sum_c + sum_d
        out[p], out[p + 1] = first_sum, second_sum

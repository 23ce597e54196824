"""Anchors that are copies of each other: the same cells, whatever they are called."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ...cards._evidence import Record, judge

RELATIVE_DISTANCE = 1e-4
"""Anchors nearer than this part of their length are copies; our choice, see :func:`copied_anchors`."""
_EXAMPLES = 5


def copied_anchors(first: NDArray[np.floating], second: NDArray[np.floating] | None = None) -> NDArray[np.intp]:
    """Find anchors that are equal to rounding.

    Parameters
    ----------
    first
        Expression of anchors, shape (n, G).
    second
        That of another panel, shape (m, G); by default anchors of the first are compared with each other.

    Returns
    -------
    Pairs of row numbers, shape (n_pairs, 2), with the smaller first within one panel.

    Notes
    -----
    Means over the same cells differ by the rounding of float32, some 1e-7 of their length. Means over different cells
    of one type and donor differ by several hundredths. Copies are found under any name of cells, donors and studies, as
    long as the cells are grouped alike.
    """
    a = np.asarray(first, dtype=np.float64)
    b = a if second is None else np.asarray(second, dtype=np.float64)
    length = np.maximum(np.linalg.norm(a, axis=1)[:, None], np.linalg.norm(b, axis=1)[None, :])
    near = cdist(a, b) <= RELATIVE_DISTANCE * length
    return np.argwhere(np.triu(near, 1) if second is None else near)


def copied_record(gate: str, first: NDArray[np.floating], second: NDArray[np.floating] | None = None) -> Record:
    """Make the record of copied anchors, of which there must be none.

    Parameters
    ----------
    gate
        Its name.
    first, second
        As of :func:`copied_anchors`.
    """
    pairs = copied_anchors(first, second)
    n = len(first) if second is None else len(second)
    named = ", ".join(f"{left} and {right}" for left, right in pairs[:_EXAMPLES].tolist())
    details = {"pairs": named + (", ..." if len(pairs) > _EXAMPLES else "")} if len(pairs) else {}
    return judge(gate, float(len(pairs)), "<=", 0.0, n=n, details=details)

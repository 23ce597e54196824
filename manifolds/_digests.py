"""Digests of panels: what binds evidence to the very anchors and cells it was computed on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._names import canonical_json


def anchors_digest(anchors: NDArray[np.floating], entries: Sequence[dict[str, Any]], genes: Sequence[str]) -> str:
    """SHA-256 over anchors, what each is, and the genes.

    Parameters
    ----------
    anchors
        ``(n_anchors, n_genes)``, hashed as little-endian float32 in C order.
    entries
        Study, donor, tissue, cell type, stage, branch and number of cells of each anchor.
    genes
        Symbols.
    """
    digest = hashlib.sha256(canonical_json({"anchors": list(entries), "genes": list(genes)}))
    digest.update(np.ascontiguousarray(anchors, dtype="<f4").tobytes())
    return digest.hexdigest()


def cells_digest(cell_ids: Sequence[str]) -> str:
    """SHA-256 of a set of cell ids, whatever their order."""
    return hashlib.sha256("\n".join(sorted(cell_ids)).encode()).hexdigest()

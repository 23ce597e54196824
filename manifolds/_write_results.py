"""Storing coordinates, readouts, familiarity and where they come from in an AnnData object."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._genes import Alignment
from ._keys import keys_for
from ._project import CHUNK, n_threads
from ._scale import Scale

if TYPE_CHECKING:
    from ._manifold import Manifold

FAMILIARITY = ("familiarity", "familiarity_scaled", "unfamiliar")
"""Columns of ``obs`` that say how much a cell looks like the panel, after ``<name>_``."""
_IN_SCOPE = 0.5
"""Least probability of a task's stages for a cell to be given a class of it; our choice."""


def write_results(
    manifold: Manifold,
    target: ad.AnnData,
    placed: NDArray[np.float32],
    stem: str,
    coverage: float,
    alignment: Alignment,
    scale: Scale,
) -> None:
    """Store what ``project_matrix`` returned, readouts and provenance under the keys of ``stem``."""
    base = keys_for(stem)
    latent = np.ascontiguousarray(placed[:, : manifold.n_components])
    target.obsm[base.obsm] = latent
    classes: dict[str, NDArray[np.str_]] = {}
    found = {task: _read_out(manifold, latent, task) for task in manifold.tasks}
    for readout in manifold.card.extraction.readouts:
        keys, values = keys_for(stem, readout.task), found[readout.task]
        if not readout.classes:
            target.obs[keys.obs] = values
            continue
        best = values.argmax(axis=1)
        if readout.stages and "stage" in found:
            within = np.isin(manifold.classes("stage"), readout.stages)
            best[found["stage"][:, within].sum(axis=1) < _IN_SCOPE] = -1
        target.obs[keys.obs] = pd.Categorical.from_codes(best, categories=readout.classes)
        target.obsm[keys.obsm_proba] = values
        classes[readout.task] = np.asarray(readout.classes, dtype=str)
    target.uns[base.uns] = {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "coverage": coverage,
        "n_genes_matched": alignment.n_matched,
        "genes_matched_by": alignment.kind,
        "scale": scale,
        "classes": classes,
    } | _write_familiarity(manifold, target, placed[:, manifold.n_components :], stem)


def _write_familiarity(
    manifold: Manifold, target: ad.AnnData, scores: NDArray[np.float32], stem: str
) -> dict[str, Any]:
    """Store both scores and the flag; returns what they mean."""
    limits = manifold.card.extraction.familiarity
    if limits is None:
        return {}
    keys = [keys_for(stem, name).obs for name in FAMILIARITY]
    target.obs[keys[0]], target.obs[keys[1]] = scores[:, 0], scores[:, 1]
    target.obs[keys[2]] = scores[:, 0] < limits.threshold
    return {
        "unfamiliar": {
            "means": "unfamiliar cell or platform",
            "threshold": limits.threshold,
            "scaled_threshold": limits.scaled_threshold,
        }
    }


def _read_out(manifold: Manifold, latent: NDArray[np.float32], task: str) -> NDArray[np.float32]:
    """What a readout says of every cell, in pieces on the processors there are."""
    with ThreadPoolExecutor(n_threads()) as pool:
        parts = pool.map(
            lambda start: manifold.read_out(latent[start : start + CHUNK], task), range(0, len(latent), CHUNK)
        )
        return np.concatenate(list(parts))

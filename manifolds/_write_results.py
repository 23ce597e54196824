"""Storing coordinates, readouts, familiarity and where they come from in an AnnData object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._genes import Alignment
from ._keys import keys_for
from ._results import Results
from ._scale import Scale

if TYPE_CHECKING:
    from ._manifold import Manifold

FAMILIARITY = ("familiarity", "familiarity_scaled", "unfamiliar")
"""Columns of ``obs`` that say how much a cell looks like the panel, after ``<name>_``."""


def write_results(
    manifold: Manifold,
    target: ad.AnnData,
    results: Results,
    stem: str,
    coverage: float,
    alignment: Alignment,
    scale: Scale,
) -> None:
    """Store results and provenance under the keys of ``stem``, taking each array out of ``results`` on the way."""
    base = keys_for(stem)
    target.obsm[base.obsm] = results.latent
    classes: dict[str, NDArray[np.str_]] = {}
    for readout in manifold.card.extraction.readouts:
        keys, task = keys_for(stem, readout.task), readout.task
        if not readout.classes:
            target.obs[keys.obs] = results.values.pop(task)
            continue
        target.obs[keys.obs] = pd.Categorical.from_codes(results.best.pop(task), categories=readout.classes)
        target.obsm[keys.obsm_proba] = results.proba.pop(task)
        classes[task] = np.asarray(readout.classes, dtype=str)
    target.uns[base.uns] = {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "coverage": coverage,
        "n_genes_matched": alignment.n_matched,
        "genes_matched_by": alignment.kind,
        "scale": scale,
        "classes": classes,
    } | _write_familiarity(manifold, target, results.scores, stem)


def _write_familiarity(
    manifold: Manifold, target: ad.AnnData, scores: list[NDArray[np.float32]], stem: str
) -> dict[str, Any]:
    """Store both scores and the flag; returns what they mean."""
    limits = manifold.card.extraction.familiarity
    if limits is None:
        return {}
    keys = [keys_for(stem, name).obs for name in FAMILIARITY]
    target.obs[keys[0]], target.obs[keys[1]] = scores
    target.obs[keys[2]] = scores[0] < limits.threshold
    return {
        "unfamiliar": {
            "means": "unfamiliar cell or platform",
            "threshold": limits.threshold,
            "scaled_threshold": limits.scaled_threshold,
        }
    }

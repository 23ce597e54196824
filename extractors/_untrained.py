"""Untrained models of the same architecture, for the last rung of the evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Control, Untrained
from ..gates.controls._comparators import SCALE_FLOOR
from ..manifolds._features import apply_operator
from ..manifolds._let_many import feature_coordinates
from ._interface import Job
from ._operator import read_operator
from ._prepare import Prepared

Float32 = NDArray[np.float32]


def read_untrained(job: Job, prepared: Prepared, *, rng: np.random.Generator) -> list[tuple[Untrained, Float32]]:
    """Read the anchors by models of the same architecture with fresh weights.

    Parameters
    ----------
    job
        How many, ``n_untrained``.
    prepared
        Model, panel and cells.
    rng
        As the operator itself is read with, one child each.

    Returns
    -------
    Entry of the card and coordinates of the anchors, ``(n_anchors, n_anchors)``: all that heads and comparisons need of
    features, at a hundredth of the size of an operator.
    """
    found = []
    for seed, child in enumerate(rng.spawn(job.n_untrained)):
        source = job.checkpoint.random_initialisation(seed)
        # the state of an interrupted pass belongs to the model itself
        fresh = replace(job, checkpoint=source, control=Control(kind="random-init", seed=seed), work=None)
        ready = replace(prepared, checkpoint=source.with_genes(prepared.panel.genes))
        operator, _ = read_operator(fresh, ready, child)
        features = apply_operator(prepared.panel.anchors, operator)
        told = Untrained(control="random-init", seed=seed, digest=source.digest)
        found.append((told, feature_coordinates(features, scale_floor=SCALE_FLOOR)))
    return found

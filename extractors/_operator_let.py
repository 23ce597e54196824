"""The built-in extractor: an operator of any kind, LET anchor head, linear readouts."""

from __future__ import annotations

import numpy as np

from ..manifolds._manifold import Manifold
from ._fit_manifold import fit_manifold
from ._interface import Job
from ._operator import read_operator
from ._prepare import prepare


class OperatorLet:
    """Operator -> LET anchor head -> linear readouts.

    Notes
    -----
    The operator is read over stage-balanced cells of the panel, the head is fitted on the panel's anchors, and
    the readouts on the same stage-balanced cells. Nothing is chosen by a score but the heads of ``top_k``, which the
    card says.
    """

    name = "operator-let"

    def extract(self, job: Job) -> Manifold:
        """Extract; see ``Extractor.extract``."""
        cell_rng, head_rng, operator_rng = np.random.default_rng(job.seed).spawn(3)
        prepared = prepare(job, cell_rng)
        operator, entry = read_operator(job, prepared, operator_rng)
        return fit_manifold(job, prepared, operator, entry, extractor=self.name, rng=head_rng)

"""The built-in extractor: an operator of any kind, a LET head on anchors or cells, readouts."""

from __future__ import annotations

import numpy as np

from ..manifolds._manifold import Manifold
from ._choose import choose
from ._fit_manifold import fit_manifold
from ._interface import Job
from ._operator import read_operator
from ._prepare import prepare


class OperatorLet:
    """Operator -> LET head -> readouts.

    Notes
    -----
    The operator is read over stage-balanced cells of the panel, the head is fitted on the panel's anchors or on these
    cells, as the recipe says, and the readouts on the same cells. Nothing is chosen by a score but the heads of
    ``top_k`` and what the recipe leaves open to choice, which the card says.
    """

    name = "operator-let"

    def extract(self, job: Job) -> Manifold:
        """Extract; see ``Extractor.extract``."""
        cell_rng, head_rng, operator_rng = np.random.default_rng(job.seed).spawn(3)
        prepared = prepare(job, cell_rng)
        if job.recipe.choice is None:
            operator, entry = read_operator(job, prepared, operator_rng)
            return fit_manifold(job, prepared, operator, entry, extractor=self.name, rng=head_rng)
        made = choose(job, job.recipe.choice, prepared, operator_rng)
        return fit_manifold(
            made.job, prepared, made.operator, made.entry, extractor=self.name, rng=head_rng, choice=made.choice
        )

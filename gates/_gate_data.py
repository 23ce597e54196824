"""A panel as the gates read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError
from ..manifolds._let import checked_distances
from .nulls._permutation import block_labels


@dataclass(frozen=True, eq=False)
class GateData:
    """Hold what the gates need of a panel.

    Parameters
    ----------
    features
        What the adaptor reads, shape (n, p).
    expression
        Log-normalised expression of the anchors, shape (n, G).
    stage, branch, donor, tissue, study
        Labels, n of each. Donors are told apart by study and donor together.
    distances
        Ruler distances between the anchors, shape (n, n).

    Raises
    ------
    BadInputError
        If lengths disagree, values are not finite, or the distances are no distance matrix.
    """

    features: NDArray[np.floating]
    expression: NDArray[np.floating]
    stage: Sequence[str]
    distances: NDArray[np.floating]
    branch: Sequence[str]
    donor: Sequence[str]
    tissue: Sequence[str]
    study: Sequence[str]

    def __post_init__(self) -> None:
        n = len(self.features)
        for name in ("features", "expression"):
            values = np.asarray(getattr(self, name))
            if values.ndim != 2 or len(values) != n:
                raise BadInputError(f"{name} has shape {values.shape}, expected {n} rows of two dimensions.")
            if not np.isfinite(values).all():
                raise BadInputError(f"{name} holds values that are not finite, expected none.")
        for name in ("stage", "branch", "donor", "tissue", "study"):
            if len(getattr(self, name)) != n:
                raise BadInputError(f"{name} has {len(getattr(self, name))} labels, expected {n}.")
        checked_distances(self.distances, n)

    @property
    def donor_ids(self) -> list[str]:
        """Study and donor together, as donors of two studies may share a name."""
        return [f"{study}|{donor}" for study, donor in zip(self.study, self.donor, strict=True)]

    @property
    def blocks(self) -> NDArray[np.intp]:
        """Number of each anchor's study x donor x tissue block."""
        return block_labels(self.study, self.donor, self.tissue)

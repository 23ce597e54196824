"""Stage 2 on the card: which head, and how its fit went."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ._frozen import Frozen, Scalar

AdaptorKind = Literal["let-anchor", "let-cell", "let-hybrid", "isomap", "geodesic-mds"]
"""``let-anchor`` is fitted on the anchors, which travel with the artifact; the other LET heads on cells, which do not.
``isomap`` and ``geodesic-mds`` lay out path lengths between the anchors without reading the ruler."""
GEODESIC_KINDS: tuple[AdaptorKind, ...] = ("isomap", "geodesic-mds")
_ON_CELLS = ("let-cell", "let-hybrid")


class Convergence(Frozen):
    """How a fit on cells went."""

    terms: dict[str, float]
    """Terms of the loss of the head before weighting, means over an epoch of the cells fitted on; none of weight 0."""
    n_epochs: int = Field(ge=1)
    """Epochs run."""
    best_epoch: int = Field(ge=1)
    """The epoch that the head is of, counted from 1; the last one where no cells were held out."""
    stopped_early: bool
    change: float | None
    """Relative change of the loss over the last tenth of the epochs; null where there was one epoch."""
    converged: bool
    """Whether that is at most 0.01."""
    n_train_cells: int = Field(ge=1)
    n_validation_cells: int = Field(ge=0)
    """Cells of the panel held out to stop by."""
    validation_by: Literal["donor", "cell"] | None = None
    """Whether whole donors were held out; null where nothing was."""
    validation_loss: float | None = None
    """Loss of the head on the cells held out."""

    @model_validator(mode="after")
    def _fits_together(self) -> Convergence:
        if self.best_epoch > self.n_epochs:
            raise ValueError(f"the best epoch is {self.best_epoch} of {self.n_epochs}")
        held_out = self.n_validation_cells > 0
        if held_out != (self.validation_by is not None) or held_out != (self.validation_loss is not None):
            raise ValueError(f"{self.n_validation_cells} cells were held out, and their loss is {self.validation_loss}")
        return self


class Adaptor(Frozen):
    """Stage 2: how the head was fitted."""

    kind: AdaptorKind
    n_components: int = Field(ge=1)
    loss: float
    """What the fit leaves: the loss of a LET head, the residual variance of Isomap, the stress of metric MDS."""
    beta: float
    """Ruler distance for each unit of distance between coordinates."""
    parameters: dict[str, Scalar]
    convergence: Convergence | None = None
    """Of a head fitted on cells."""
    n_reduced: int | None = Field(default=None, ge=1)
    """Coordinates in which a new cell is compared with landmarks; null for LET heads, which are linear."""
    n_landmarks: int | None = Field(default=None, ge=3)
    """Anchors that new cells are placed by."""
    n_pieces: int | None = Field(default=None, ge=1)
    """Pieces that their neighbourhood graph fell into, joined where they come closest; 1 where it held together."""

    @model_validator(mode="after")
    def _parts_fit_the_kind(self) -> Adaptor:
        if (self.kind in _ON_CELLS) != (self.convergence is not None):
            raise ValueError(f"convergence is told of heads fitted on cells, and only of them; this is {self.kind!r}")
        told = {value is not None for value in (self.n_reduced, self.n_landmarks, self.n_pieces)}
        if told != {self.kind in GEODESIC_KINDS}:
            raise ValueError(f"landmarks are of geodesic heads, and only of them; this is {self.kind!r}")
        return self

    @property
    def fitted_on_anchors(self) -> bool:
        """Whether the head can be refitted from the artifact alone, in which its anchors travel."""
        return self.kind not in _ON_CELLS

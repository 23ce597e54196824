"""Settings of the cell head and the hybrid head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...cards._errors import BadInputError

TERMS = ("stage", "local", "recon", "cls", "topo", "compact")
"""Terms of the loss, each also the name of its weight in :class:`CellSettings`."""
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class CellSettings:
    """Hold the parameters of a fit on cells.

    Parameters
    ----------
    n_components
        Latent dimensions ``d``; 10 as published.
    epochs, batch_size
        120 and 896 as published. An epoch is as many batches as draw at least as many cells as are fitted on
        (our choice); a batch is never larger than the number of cells fitted on.
    learning_rate
        Step size of Adam for a matrix of 100 features; multiplied by ``sqrt(100 / n_features)`` and brought to 0 along
        half a cosine over ``epochs``. All of this is our choice: entries of ``W`` are of size ``n_features ** -0.5``.
    stage, local, recon, cls
        Weights of the terms of the cell head; 1.0, 0.1, 0.08 and 0.4 as published.
    topo, compact
        Weights of the two terms that make it a hybrid head; published as 0.005 to 0.18, and 0 or 0.015.
    n_neighbours
        Neighbours of a cell that the term ``local`` keeps near; 15 is our choice.
    temperature
        Of the term ``local``, in units of cosine; 0.2 is our choice.
    scale_floor
        As of ``LetSettings``.
    dtype
        Precision of the fit; that of the head is float64.
    patience
        Epochs without a smaller validation loss after which the fit stops; the epoch of the smallest is returned.
        ``None`` holds no cell out, runs all epochs and returns the last, as published.
    validation
        Share of the cells, or of the cells in whole groups, held out where there is a ``patience``; our choice.

    Raises
    ------
    BadInputError
        If a value is outside its range.
    """

    n_components: int = 10
    epochs: int = 120
    batch_size: int = 896
    learning_rate: float = 0.01
    stage: float = 1.0
    local: float = 0.1
    recon: float = 0.08
    cls: float = 0.4
    topo: float = 0.0
    compact: float = 0.0
    n_neighbours: int = 15
    temperature: float = 0.2
    scale_floor: float = 0.1
    dtype: Literal["float32", "float64"] = "float32"
    patience: int | None = None
    validation: float = 0.1

    def __post_init__(self) -> None:
        least = {"n_components": 1, "epochs": 1, "batch_size": 2, "n_neighbours": 1}
        if self.patience is not None:
            least["patience"] = 1
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise BadInputError(f"{name} is {getattr(self, name)}, expected at least {bound}.")
        for name in ("learning_rate", "temperature", "scale_floor", *TERMS):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0 or (value == 0 and name not in TERMS):
                raise BadInputError(f"{name} is {value}, expected a finite positive number.")
        if self.stage + self.topo == 0:
            raise BadInputError("stage and topo are both 0, expected one above 0: no other term reads the ruler.")
        if not 0 < self.validation < 1:
            raise BadInputError(f"validation is {self.validation}, expected a share between 0 and 1.")
        if self.dtype not in DTYPES:
            raise BadInputError(f"dtype is {self.dtype!r}, expected one of {', '.join(DTYPES)}.")

    @property
    def weights(self) -> tuple[float, ...]:
        """Weight of each of ``TERMS``."""
        return tuple(float(getattr(self, name)) for name in TERMS)


HYBRID = CellSettings(topo=0.03, compact=0.015)
"""The hybrid head: ``topo`` in the middle (geometric, our choice) of what was published, ``compact`` as published.
Other values with ``dataclasses.replace(HYBRID, topo=0.18)``."""

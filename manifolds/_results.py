"""Coordinates, readouts and scores of many cells, filled piece by piece while others are still placed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ._readouts import most_probable, probabilities

if TYPE_CHECKING:
    from ._manifold import Manifold

Float32 = NDArray[np.float32]

_STRIP = 8_192
"""Cells read out at a time, so that what is computed of them stays in the cache."""
_IN_SCOPE = 0.5
"""Least probability of a task's stages for a cell to be given a class of it; our choice."""


class Results:
    """All that a transform says of its cells, in arrays of the size of the results and nothing beside them.

    Parameters
    ----------
    manifold
        The manifold.
    n_cells
        Number of cells; what is said of a cell is undefined until ``put`` has been called with it.

    Attributes
    ----------
    latent
        ``(n_cells, d)`` float32.
    proba
        ``(n_cells, n_classes)`` float32 of each task with classes.
    best
        Code of the most probable class ``(n_cells,)`` of each task with classes; -1 where the task is about some
        stages only and the stage readout gives them less than half of its probability.
    values
        ``(n_cells,)`` float32 of each task without classes.
    scores
        Both familiarity scores, ``(n_cells,)`` float32 each; none for a manifold without thresholds.
    """

    def __init__(self, manifold: Manifold, n_cells: int) -> None:
        self._readouts, self._tensors = manifold.card.extraction.readouts, manifold.tensors
        self.latent: Float32 = np.empty((n_cells, manifold.n_components), dtype=np.float32)
        self.proba: dict[str, Float32] = {}
        self.best: dict[str, NDArray[np.integer]] = {}
        self.values: dict[str, Float32] = {}
        self._within: dict[str, NDArray[np.intp]] = {}
        for readout in self._readouts:
            if not readout.classes:
                self.values[readout.task] = np.empty(n_cells, dtype=np.float32)
                continue
            n_classes = len(readout.classes)
            self.proba[readout.task] = np.empty((n_cells, n_classes), dtype=np.float32)
            self.best[readout.task] = np.empty(n_cells, dtype=np.min_scalar_type(-n_classes))
            if readout.stages and "stage" in manifold.tasks:
                self._within[readout.task] = np.flatnonzero(np.isin(manifold.classes("stage"), readout.stages))
        n_scores = 2 if manifold.card.extraction.familiarity is not None else 0
        self.scores: list[Float32] = [np.empty(n_cells, dtype=np.float32) for _ in range(n_scores)]

    def put(self, start: int, placed: Float32) -> None:
        """Take coordinates and scores of the cells from ``start`` on, ``(n, d + n_scores)``, and read the tasks out.

        Cells are independent of each other, so several threads may put different cells at a time.
        """
        d = self.latent.shape[1]
        for first in range(0, len(placed), _STRIP):
            strip = placed[first : first + _STRIP]
            cells = slice(start + first, start + first + len(strip))
            self.latent[cells] = strip[:, :d]
            for column, score in enumerate(self.scores):
                score[cells] = strip[:, d + column]
            self._read_out(cells, np.ascontiguousarray(strip[:, :d].T))

    def _read_out(self, cells: slice, latent: Float32) -> None:
        """Read the tasks out of coordinates ``(d, n)``."""
        found = {told.task: probabilities(latent, told, self._tensors) for told in self._readouts if told.of is None}
        for told in self._readouts:
            if told.of is not None:
                values = self._tensors[f"readout.{told.task}.values"].astype(np.float32, copy=False)
                self.values[told.task][cells] = values @ found[told.of]
                continue
            proba, best = found[told.task], most_probable(found[told.task])
            if told.task in self._within:
                best[found["stage"][self._within[told.task]].sum(axis=0) < _IN_SCOPE] = -1
            self.best[told.task][cells] = best
            rows = self.proba[told.task][cells]
            # one column after the other is twice as fast as the whole turned at once
            for code, column in enumerate(proba):
                rows[:, code] = column

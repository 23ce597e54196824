"""Stage 3: small functions of the coordinates, as the card describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card, Readout

Array = NDArray[np.float32]


def readout_shapes(readout: Readout, d: int, n_classes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a readout on ``d`` coordinates, by name.

    ``weights`` ``(n_classes, n_inputs)`` and ``bias`` ``(n_classes,)``; an ``mlp`` has ``hidden.weights``
    ``(n_hidden, d)`` and ``hidden.bias`` ``(n_hidden,)`` before them. An ``expected`` has ``values``, one for each of
    the ``n_classes`` of the other task.
    """
    stem, n_outputs = f"readout.{readout.task}", len(readout.classes)
    if readout.of is not None:
        return {f"{stem}.values": (n_classes[readout.of],)}
    shapes: dict[str, tuple[int, ...]] = {}
    n_inputs = d
    if readout.n_hidden is not None:
        n_inputs = readout.n_hidden
        shapes |= {f"{stem}.hidden.weights": (n_inputs, d), f"{stem}.hidden.bias": (n_inputs,)}
    return shapes | {f"{stem}.weights": (n_outputs, n_inputs), f"{stem}.bias": (n_outputs,)}


def stage_readout(card: Card) -> Readout | None:
    """The readout that tells the stages of the ruler, of all cells; the one with most classes if there are several."""
    return _tells(card, {stage.id for stage in card.ruler.stages})


def branch_readout(card: Card) -> Readout | None:
    """The readout that tells the branches of the ruler, of all cells."""
    return _tells(card, {stage.branch for stage in card.ruler.stages})


def _tells(card: Card, names: set[str]) -> Readout | None:
    """The readout of most classes, all of them among these names, that is about all cells."""
    told = [r for r in card.extraction.readouts if r.classes and not r.stages and names.issuperset(r.classes)]
    return max(told, key=lambda readout: len(readout.classes), default=None)


def vector_of(readout: Readout) -> str:
    """Name of the test vector that a readout reproduces."""
    return f"{'proba' if readout.classes else 'value'}.{readout.task}"


def read_out(latent: NDArray[np.floating], readout: Readout, tensors: Mapping[str, NDArray[Any]]) -> Array:
    """Apply a readout of classes.

    Parameters
    ----------
    latent
        ``(n_cells, d)``.
    readout
        Its entry in the card.
    tensors
        Of the manifold, float32 or float64.

    Returns
    -------
    Float32 probabilities ``(n_cells, n_classes)``, rows sum to 1, columns as ``readout.classes``.

    Notes
    -----
    ``softmax(W h + b)`` with ``h = z``, or ``h = max(0, V z + c)`` where there is a hidden layer.
    """
    stem = f"readout.{readout.task}"
    inputs = latent
    if readout.n_hidden is not None:
        inputs = np.maximum(latent @ tensors[f"{stem}.hidden.weights"].T + tensors[f"{stem}.hidden.bias"], 0)
    outputs = inputs @ tensors[f"{stem}.weights"].T + tensors[f"{stem}.bias"]
    outputs = np.asarray(outputs, dtype=np.float32)
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs


def probabilities(latent: Array, readout: Readout, tensors: Mapping[str, NDArray[Any]]) -> Array:
    """Apply a readout of classes to coordinates that lie one below the other, as a transform of many cells does.

    Parameters
    ----------
    latent
        ``(d, n_cells)``.
    readout, tensors
        As for ``read_out``.

    Returns
    -------
    Float32 probabilities ``(n_classes, n_cells)``, those of ``read_out`` to within rounding.

    Notes
    -----
    With few classes a maximum or a sum over the last axis takes ten times as long as one over the first.
    """
    stem = f"readout.{readout.task}"
    inputs: NDArray[Any] = latent
    if readout.n_hidden is not None:
        inputs = tensors[f"{stem}.hidden.weights"] @ latent + tensors[f"{stem}.hidden.bias"][:, None]
        inputs = np.maximum(inputs, 0)
    outputs = tensors[f"{stem}.weights"] @ inputs
    outputs += tensors[f"{stem}.bias"][:, None]
    outputs = outputs.astype(np.float32, copy=False)
    outputs -= outputs.max(axis=0)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=0)
    return np.asarray(outputs)


def most_probable(proba: Array) -> NDArray[np.intp]:
    """The first class of the highest probability of each cell, from ``(n_classes, n_cells)``."""
    best, highest = np.zeros(proba.shape[1], dtype=np.intp), proba.max(axis=0)
    for code in range(len(proba) - 1, 0, -1):
        best[proba[code] == highest] = code
    best[proba[0] == highest] = 0
    return best

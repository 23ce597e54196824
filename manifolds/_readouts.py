"""Stage 3: small functions of the coordinates, as the card describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Readout

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

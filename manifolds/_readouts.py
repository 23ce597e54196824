"""Stage 3: small functions of the coordinates, as the card describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Readout

Array = NDArray[np.float32]


def readout_shapes(readout: Readout, d: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a readout on ``d`` coordinates, by name.

    ``weights`` ``(n_outputs, n_inputs)`` and ``bias`` ``(n_outputs,)``; an ``mlp`` has ``hidden.weights``
    ``(n_hidden, d)`` and ``hidden.bias`` ``(n_hidden,)`` before them. A ``ridge`` has one output.
    """
    stem, n_outputs = f"readout.{readout.task}", max(1, len(readout.classes))
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
    """Apply a readout.

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
    Float32: probabilities ``(n_cells, n_classes)``, rows sum to 1, columns as ``readout.classes``; or, of a ``ridge``,
    values ``(n_cells,)``.

    Notes
    -----
    ``softmax(W h + b)`` with ``h = z``, or ``h = max(0, V z + c)`` where there is a hidden layer.
    """
    stem = f"readout.{readout.task}"
    inputs = latent
    if readout.n_hidden is not None:
        inputs = np.maximum(latent @ tensors[f"{stem}.hidden.weights"].T + tensors[f"{stem}.hidden.bias"], 0)
    outputs = inputs @ tensors[f"{stem}.weights"].T + tensors[f"{stem}.bias"]
    outputs = outputs.astype(np.float32, copy=False)
    if not readout.classes:
        return np.ascontiguousarray(outputs[:, 0])
    outputs -= outputs.max(axis=1, keepdims=True)
    np.exp(outputs, out=outputs)
    outputs /= outputs.sum(axis=1, keepdims=True)
    return outputs

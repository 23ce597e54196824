"""Loss, analytic gradient and descent of the LET objective, for many problems over the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

COSINE_BOUND = 1e-6
"""Cosines are kept within ``1 - COSINE_BOUND`` in size, where arccos has a finite slope in float32."""
_TINY = 1e-20
_STRIP_ROWS = 64
_ADAM_DECAY = (0.9, 0.999)
_ADAM_EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class PairLayout:
    """Hold the upper triangle of ``B`` target matrices as blocks: square ones on the diagonal, then the rest.

    Each block beside the diagonal stands for itself and its mirror image, so the work per pair is nearly halved
    while every operation stays a dense product or one pass over a flat buffer.

    Parameters
    ----------
    n_rows
        Rows of the matrices.
    diagonal, beside
        Row slice, column slice and place in the flat buffer of each block.
    n_diagonal
        Length of the buffer's part that holds the diagonal blocks.
    targets, cosines, angles
        Flat buffers, shape (B, m).
    """

    n_rows: int
    diagonal: tuple[tuple[slice, slice], ...]
    beside: tuple[tuple[slice, slice, slice], ...]
    n_diagonal: int
    targets: Array
    cosines: Array
    angles: Array

    @classmethod
    def of(cls, targets: Array, *, strip_rows: int = _STRIP_ROWS) -> PairLayout:
        """Lay out square targets, shape (B, n, n), in strips of about ``strip_rows`` rows."""
        count, n, _ = targets.shape
        edges = np.linspace(0, n, max(1, round(n / strip_rows)) + 1).astype(int).tolist()
        strips = [slice(a, b) for a, b in pairwise(edges)]
        diagonal: list[tuple[slice, slice]] = []
        beside: list[tuple[slice, slice, slice]] = []
        place = 0
        for rows in strips:
            size = (rows.stop - rows.start) ** 2
            diagonal.append((rows, slice(place, place + size)))
            place += size
        n_diagonal = place
        for rows in strips[:-1]:
            size = (rows.stop - rows.start) * (n - rows.stop)
            beside.append((rows, slice(rows.stop, n), slice(place, place + size)))
            place += size
        flat = np.empty((count, place), dtype=targets.dtype)
        layout = cls(n, tuple(diagonal), tuple(beside), n_diagonal, flat, np.empty_like(flat), np.empty_like(flat))
        for rows, columns, block in layout.blocks(flat):
            block[...] = targets[:, rows, columns]
        return layout

    def blocks(self, flat: Array) -> list[tuple[slice, slice, Array]]:
        """View a flat buffer as blocks, shape (B, rows, columns) each, the diagonal ones first."""
        count = len(flat)
        places = [(rows, rows, place) for rows, place in self.diagonal] + list(self.beside)
        return [
            (rows, columns, flat[:, place].reshape(count, rows.stop - rows.start, columns.stop - columns.start))
            for rows, columns, place in places
        ]

    def total(self, left: Array, right: Array) -> Array:
        """Sum a product of flat buffers over all ordered pairs, shape (B,)."""
        edge = self.n_diagonal
        on = left[:, None, :edge] @ right[:, :edge, None]
        off = left[:, None, edge:] @ right[:, edge:, None]
        return np.asarray((on + 2 * off)[:, 0, 0])


def let_gradient(
    rows: Array,
    layout: PairLayout,
    weights: Array,
    bias: Array,
    log_beta: Array,
    alpha: float,
    *,
    out: tuple[Array, Array, Array],
) -> None:
    """Write the gradient of the LET loss into ``out``, in the precision of the inputs.

    Parameters
    ----------
    rows
        Centred rows, shape (n, r).
    layout
        Targets of the ``B`` problems.
    weights, bias, log_beta
        Parameters, shapes (B, d, r), (B, r), (B,).
    alpha
        Weight of the reconstruction term.
    out
        Arrays for the gradients by weights, bias and log beta.

    Notes
    -----
    Pair term: with unit latents ``u``, ``c = u_i . u_j`` and ``e = beta arccos(c) - d``, the slope by ``c`` is
    ``-2 beta e / sqrt(1 - c^2)``. Cosines are shrunk by the factor ``1 - COSINE_BOUND`` instead of clipped (our
    choice): the bound is the same, the loss stays differentiable and one pass over the pairs is saved.
    Reconstruction: with ``c = x - b``, ``||W^T z - c||^2 = ||c||^2 - 2 ||z||^2 + z^T W W^T z`` needs no array of the
    size of the rows.
    """
    n = len(rows)
    latent, unit, norm = _unit_latents(rows, weights, bias)
    beta = np.exp(log_beta)[:, None]
    predicted, cosines = _angles(layout, unit), layout.cosines
    predicted *= beta
    # the slope by log beta needs the predictions, whose buffer the errors take over to stay in cache
    out[2][...] = 2 * (layout.total(predicted, predicted) - layout.total(predicted, layout.targets))
    errors = np.subtract(predicted, layout.targets, out=predicted)
    np.multiply(cosines, cosines, out=cosines)
    np.subtract(1, cosines, out=cosines)
    np.sqrt(cosines, out=cosines)
    np.divide(errors, cosines, out=cosines)
    grad_unit = np.zeros_like(unit)
    for index, (left, right, slope) in enumerate(layout.blocks(cosines)):
        grad_unit[:, :, right] += unit[:, :, left] @ slope
        if index >= len(layout.diagonal):
            grad_unit[:, :, left] += unit[:, :, right] @ slope.transpose(0, 2, 1)
    grad_unit *= -4 * (1 - COSINE_BOUND) * beta[:, :, None]
    radial = np.einsum("bdn,bdn->bn", unit, grad_unit)[:, None]
    grad_latent = grad_unit
    grad_latent -= unit * radial
    grad_latent /= norm
    if alpha:
        gram = weights @ weights.transpose(0, 2, 1)
        grad_latent += (2 * alpha) * (gram @ latent)
        grad_latent -= (4 * alpha) * latent
    total = grad_latent.sum(axis=2)
    np.matmul(grad_latent, rows, out=out[0])
    out[0][...] -= total[:, :, None] * bias[:, None, :]
    out[1][...] = -(total[:, None, :] @ weights)[:, 0]
    if alpha:
        out[0][...] += (2 * alpha) * ((latent @ latent.transpose(0, 2, 1)) @ weights)
        out[1][...] += (2 * alpha) * (n * bias - rows.sum(axis=0))


def let_loss(rows: Array, targets: Array, weights: Array, bias: Array, log_beta: Array, alpha: float) -> Array:
    """Return the LET loss of each problem, shape (B,); targets have shape (B, n, n), the rest as for the gradient."""
    layout = PairLayout.of(targets)
    latent, unit, _ = _unit_latents(rows, weights, bias)
    errors = _angles(layout, unit) * np.exp(log_beta)[:, None] - layout.targets
    rebuilt = latent.transpose(0, 2, 1) @ weights + bias[:, None, :] - rows
    return np.asarray(layout.total(errors, errors) + alpha * (rebuilt**2).sum(axis=(1, 2)))


def unpack(flat: Array, d: int) -> tuple[Array, Array, Array]:
    """View flat parameters (B, d r + r + 1) as weights (B, d, r), bias (B, r) and log beta (B,)."""
    rank = (flat.shape[1] - 1) // (d + 1)
    return flat[:, : d * rank].reshape(len(flat), d, rank), flat[:, d * rank : -1], flat[:, -1]


def optimise(
    rows: Array, targets: Array, flat: Array, d: int, alpha: float, n_steps: int, learning_rate: float
) -> None:
    """Take Adam steps (Kingma & Ba 2015, their decay rates) from the start in ``flat``, in place.

    Parameters
    ----------
    rows
        Centred rows, shape (n, r).
    targets
        Target distances, shape (B, n, n).
    flat
        Parameters, shape (B, d r + r + 1), see :func:`unpack`.
    d, alpha, n_steps, learning_rate
        As in the settings of a LET fit.
    """
    layout = PairLayout.of(targets)
    gradient, first, second, scratch = (np.zeros_like(flat) for _ in range(4))
    parameters, parts = unpack(flat, d), unpack(gradient, d)
    decay_1, decay_2 = _ADAM_DECAY
    for step in range(1, n_steps + 1):
        let_gradient(rows, layout, *parameters, float(alpha), out=parts)
        first *= decay_1
        first += np.multiply(gradient, 1 - decay_1, out=scratch)
        np.multiply(gradient, gradient, out=gradient)
        second *= decay_2
        second += np.multiply(gradient, 1 - decay_2, out=scratch)
        np.sqrt(np.multiply(second, 1 / (1 - decay_2**step), out=scratch), out=scratch)
        scratch += _ADAM_EPSILON
        np.divide(first, scratch, out=scratch)
        scratch *= learning_rate / (1 - decay_1**step)
        flat -= scratch


def _unit_latents(rows: Array, weights: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Return latents, unit latents (B, d, n) and norms (B, 1, n)."""
    latent = weights @ np.ascontiguousarray(rows.T)
    latent -= weights @ bias[:, :, None]
    norm = np.sqrt(np.einsum("bdn,bdn->bn", latent, latent) + _TINY)[:, None]
    return latent, latent / norm, norm


def _angles(layout: PairLayout, unit: Array) -> Array:
    """Fill the layout's cosines and return its angles."""
    shrunk = unit * (1 - COSINE_BOUND)
    for left, right, block in layout.blocks(layout.cosines):
        np.matmul(shrunk[:, :, left].transpose(0, 2, 1), unit[:, :, right], out=block)
    return np.asarray(np.arccos(layout.cosines, out=layout.angles))

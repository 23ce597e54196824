"""Loss, analytic gradient and descent of the LET objective, for many problems over the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
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
    targets, cosines
        Flat buffers, shape (B, m).
    """

    n_rows: int
    diagonal: tuple[tuple[slice, slice], ...]
    beside: tuple[tuple[slice, slice, slice], ...]
    n_diagonal: int
    targets: Array
    cosines: Array

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
        layout = cls(n, tuple(diagonal), tuple(beside), n_diagonal, flat, np.empty_like(flat))
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

    def fill_cosines(self, unit: Array) -> None:
        """Compute the cosines of unit latents, shape (B, d, n), shrunk by ``1 - COSINE_BOUND``."""
        shrunk = unit * (1 - COSINE_BOUND)
        for left, right, block in self.blocks(self.cosines):
            np.matmul(shrunk[:, :, left].transpose(0, 2, 1), unit[:, :, right], out=block)


def let_gradient(
    rows: Array,
    columns: Array,
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
        Centred rows, shape (n, r), or (B, n, r) where each problem has its own.
    columns
        The same transposed, contiguous: with ten latents a product with a transposed view is several times slower.
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
    ``-2 beta e / sqrt(1 - c^2)``, and the slope by log beta is twice the sum of ``beta arccos(c) e``. Cosines are
    shrunk by the factor ``1 - COSINE_BOUND`` instead of clipped (our choice): the bound is the same, the loss stays
    differentiable and one pass over the pairs is saved.
    Reconstruction: with ``c = x - b``, ``||W^T z - c||^2 = ||c||^2 - 2 ||z||^2 + z^T W W^T z`` needs no array of the
    size of the rows.
    """
    n = rows.shape[-2]
    latent, unit, norm = _unit_latents(columns, weights, bias)
    beta = np.exp(log_beta)
    layout.fill_cosines(unit)
    cosines = layout.cosines
    _pair_pass(cosines, layout.targets, beta, layout.n_diagonal, out[2])
    out[2][...] *= 2
    grad_unit = np.zeros_like(unit)
    for index, (left, right, slope) in enumerate(layout.blocks(cosines)):
        grad_unit[:, :, right] += unit[:, :, left] @ slope
        if index >= len(layout.diagonal):
            grad_unit[:, :, left] += unit[:, :, right] @ slope.transpose(0, 2, 1)
    grad_unit *= -4 * (1 - COSINE_BOUND) * beta[:, None, None]
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
        out[1][...] += (2 * alpha) * (n * bias - rows.sum(axis=-2))


def let_loss(rows: Array, targets: Array, weights: Array, bias: Array, log_beta: Array, alpha: float) -> Array:
    """Return the LET loss of each problem, shape (B,); targets have shape (B, n, n), the rest as for the gradient."""
    latent, unit, _ = _unit_latents(rows.swapaxes(-1, -2), weights, bias)
    cosines = (unit * (1 - COSINE_BOUND)).transpose(0, 2, 1) @ unit
    errors = np.arccos(cosines) * np.exp(log_beta)[:, None, None] - targets
    rebuilt = latent.transpose(0, 2, 1) @ weights + bias[:, None, :] - rows
    return np.asarray((errors**2).sum(axis=(1, 2)) + alpha * (rebuilt**2).sum(axis=(1, 2)))


def unpack(flat: Array, d: int) -> tuple[Array, Array, Array]:
    """View flat parameters (B, d r + r + 1) as weights (B, d, r), bias (B, r) and log beta (B,)."""
    rank = (flat.shape[1] - 1) // (d + 1)
    return flat[:, : d * rank].reshape(len(flat), d, rank), flat[:, d * rank : -1], flat[:, -1]


def optimise(rows: Array, targets: Array, flat: Array, d: int, alpha: float, rates: NDArray[np.float64]) -> None:
    """Take Adam steps (Kingma & Ba 2015, their decay rates) from the start in ``flat``, in place.

    Parameters
    ----------
    rows
        Centred rows, shape (n, r), or (B, n, r) where each problem has its own.
    targets
        Target distances, shape (B, n, n).
    flat
        Parameters, shape (B, d r + r + 1), see :func:`unpack`.
    d, alpha
        As in the settings of a LET fit.
    rates
        Step size of every step, shape (n_steps,).
    """
    layout = PairLayout.of(targets)
    columns = np.ascontiguousarray(rows.swapaxes(-1, -2))
    gradient, first, second = (np.zeros_like(flat) for _ in range(3))
    parameters, parts = unpack(flat, d), unpack(gradient, d)
    decay_1, decay_2 = _ADAM_DECAY
    for step, rate in enumerate(rates.tolist(), 1):
        let_gradient(rows, columns, layout, *parameters, float(alpha), out=parts)
        step_size, correction = rate / (1 - decay_1**step), 1 / (1 - decay_2**step)
        _adam_step(flat, gradient, first, second, flat.dtype.type(step_size), flat.dtype.type(correction))


def _unit_latents(columns: Array, weights: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Return latents, unit latents (B, d, n) and norms (B, 1, n)."""
    latent = weights @ columns
    latent -= weights @ bias[:, :, None]
    norm = np.sqrt(np.einsum("bdn,bdn->bn", latent, latent) + _TINY)[:, None]
    return latent, latent / norm, norm


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _pair_pass(cosines: Any, targets: Any, beta: Any, n_diagonal: int, totals: Any) -> None:
    """Turn cosines ``c`` into ``e / sqrt(1 - c^2)`` in place, and sum ``beta arccos(c) e`` over all ordered pairs.

    arccos is the polynomial 4.4.46 of Abramowitz & Stegun (1964), within 2e-8 of the truth: unlike a library's it is
    compiled to vector instructions together with the rest, so that the pairs are passed over once. Of
    ``1 / sqrt(1 - c^2) = 1 / sqrt(1 - |c|) * 1 / sqrt(1 + |c|)`` the second factor is a polynomial too (a Chebyshev
    fit, within 4e-7 of the truth), which saves a square root for every pair.
    """
    for problem in range(cosines.shape[0]):
        scale = beta[problem]
        own = _pair_strip(cosines[problem, :n_diagonal], targets[problem, :n_diagonal], scale)
        mirrored = _pair_strip(cosines[problem, n_diagonal:], targets[problem, n_diagonal:], scale)
        totals[problem] = own + np.float32(2) * mirrored


@njit(nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
def _pair_strip(cosines: Any, targets: Any, scale: Any) -> Any:
    """One stretch of pairs of one problem; returns its sum."""
    one, pi = np.float32(1), np.float32(np.pi)
    total = np.float32(0)
    for pair in range(cosines.shape[0]):
        cosine = cosines[pair]
        size = abs(cosine)
        series = np.float32(-0.0012624911)
        series = series * size + np.float32(0.0066700901)
        series = series * size + np.float32(-0.0170881256)
        series = series * size + np.float32(0.0308918810)
        series = series * size + np.float32(-0.0501743046)
        series = series * size + np.float32(0.0889789874)
        series = series * size + np.float32(-0.2145988016)
        series = series * size + np.float32(1.5707963050)
        factor = np.float32(-0.0122705696)
        factor = factor * size + np.float32(0.0627307945)
        factor = factor * size + np.float32(-0.1498687420)
        factor = factor * size + np.float32(0.2366268672)
        factor = factor * size + np.float32(-0.3041864269)
        factor = factor * size + np.float32(0.3740304114)
        factor = factor * size + np.float32(-0.4999553833)
        factor = factor * size + np.float32(0.9999996529)
        root = np.sqrt(one - size)
        angle = root * series
        angle = angle if cosine >= np.float32(0) else pi - angle
        predicted = scale * angle
        error = predicted - targets[pair]
        total += predicted * error
        cosines[pair] = error / root * factor
    return total


@njit(nogil=True, error_model="numpy")
def _adam_step(flat: Any, gradient: Any, first: Any, second: Any, rate: Any, correction: Any) -> None:
    """One Adam step in place; ``rate`` and ``correction`` hold the step size and what corrects the second moment."""
    decay_1, decay_2 = np.float32(_ADAM_DECAY[0]), np.float32(_ADAM_DECAY[1])
    one, epsilon = np.float32(1), np.float32(_ADAM_EPSILON)
    for problem in range(flat.shape[0]):
        for index in range(flat.shape[1]):
            slope = gradient[problem, index]
            mean = decay_1 * first[problem, index] + (one - decay_1) * slope
            square = decay_2 * second[problem, index] + (one - decay_2) * slope * slope
            first[problem, index] = mean
            second[problem, index] = square
            flat[problem, index] -= rate * mean / (np.sqrt(square * correction) + epsilon)

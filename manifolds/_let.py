"""The LET adaptor: a linear map whose latent angles match the distances of a ruler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import BadInputError
from ._let_kernel import let_loss, optimise, unpack
from ._standard_rows import checked_features, standard_rows
from ._threads import in_threads

Floats = NDArray[np.float64]
Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class LetSettings:
    """Hold the parameters of a LET fit.

    Parameters
    ----------
    n_components
        Latent dimensions ``d``; 10 as published.
    alpha
        Weight of the reconstruction term. Unpublished; 0.01 is our choice.
    n_steps, learning_rate
        Adam steps and step size, fixed in number so that every permutation gets the same effort; our choice.
    schedule
        Of the step size: ``constant``, or ``cosine``, which takes it to zero (Loshchilov & Hutter 2017). With a
        constant one a rounding error grows by orders of magnitude before the last step, so that another processor finds
        another head.
    scale_floor
        Floor of the per-feature scale, as a fraction of the median standard deviation of the features that vary in
        the training rows; our choice. Without it a feature that barely varies in the training rows dominates
        the rows held out.

    Raises
    ------
    BadInputError
        If a value is outside its range.
    """

    n_components: int = 10
    alpha: float = 0.01
    n_steps: int = 150
    learning_rate: float = 0.02
    scale_floor: float = 0.1
    schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        if self.schedule not in get_args(Schedule):
            raise BadInputError(f"schedule is {self.schedule!r}, expected one of {', '.join(get_args(Schedule))}.")
        for name in ("n_components", "n_steps"):
            if getattr(self, name) < 1:
                raise BadInputError(f"{name} is {getattr(self, name)}, expected at least 1.")
        for name in ("alpha", "learning_rate", "scale_floor"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0 or (value == 0 and name != "alpha"):
                raise BadInputError(f"{name} is {value}, expected a finite positive number.")

    def rates(self) -> Floats:
        """Step size of every step, ``(n_steps,)``; ``cosine`` is ``(1 + cos(pi t / n_steps)) / 2`` of the first one."""
        if self.schedule == "constant":
            return np.full(self.n_steps, self.learning_rate)
        return self.learning_rate * (1 + np.cos(np.pi * np.arange(self.n_steps) / self.n_steps)) / 2


@dataclass(frozen=True, eq=False)
class LetHead:
    """Map features to latents with ``z = W ((x - mean) / scale - bias)``.

    Parameters
    ----------
    weights
        ``W``, shape (d, p).
    bias
        Shape (p,), in standardised units.
    mean, scale
        Shape (p,), fitted on the training rows only; scale is floored.
    beta
        Ruler distance per radian of latent angle.
    loss
        Loss at the returned parameters, summed over ordered pairs and over anchors; of a head fitted on cells, the
        weighted sum of its terms, a mean over one epoch.
    """

    weights: Floats
    bias: Floats
    mean: Floats
    scale: Floats
    beta: float
    loss: float

    def latent(self, features: NDArray[np.floating]) -> Floats:
        """Place feature rows, shape (m, p), in the latent space, shape (m, d).

        Raises
        ------
        BadInputError
            If the width of ``features`` is not that of the head, or a value is not finite.
        """
        checked = checked_features(features)
        if checked.shape[1] != self.mean.size:
            raise BadInputError(f"features have {checked.shape[1]} columns, the head expects {self.mean.size}.")
        latents: Floats = ((checked - self.mean) / self.scale - self.bias) @ self.weights.T
        return latents


@dataclass(frozen=True, eq=False)
class RowSpace:
    """Hold standardised rows in a randomly rotated basis of the span of the training rows.

    The loss depends on ``W`` only through that span, so a fit in its ``r <= n_train - 1`` coordinates is exact and
    independent of the number of features.

    Parameters
    ----------
    rows
        All rows in the basis, float32, shape (n, r).
    train
        Index of the training rows, shape (n_train,).
    basis
        Orthonormal rows, shape (r, p).
    mean, scale
        Standardisation fitted on the training rows, shape (p,).
    """

    rows: NDArray[np.float32]
    train: NDArray[np.intp]
    basis: Floats
    mean: Floats
    scale: Floats


@dataclass(frozen=True, eq=False)
class RowFit:
    """Hold ``B`` heads fitted in one row space: weights (B, d, r), bias (B, r), beta (B,), all float32."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    beta: NDArray[np.float32]

    def latents(self, rows: NDArray[np.float32]) -> Floats:
        """Place ``rows``, shape (n, r), with every head: float64, shape (B, n, d)."""
        columns = np.ascontiguousarray(rows.T)
        placed = self.weights @ columns - (self.weights @ self.bias[:, :, None])
        return np.ascontiguousarray(placed.transpose(0, 2, 1), dtype=np.float64)


def row_space(
    features: NDArray[np.floating],
    settings: LetSettings,
    *,
    rng: np.random.Generator,
    train: NDArray[np.integer] | None = None,
) -> RowSpace:
    """Standardise features on the training rows and reduce them to the training rows' span.

    Parameters
    ----------
    features
        Shape (n, p), any scale.
    settings
        Only ``scale_floor`` is used.
    rng
        Draws the rotation.
    train
        Index of the training rows; all rows by default.

    Raises
    ------
    BadInputError
        If fewer than three rows are left for training, or no feature varies among them.

    Notes
    -----
    The basis is the right singular vectors of the standardised training rows, rotated by a Haar-random orthogonal
    matrix (our choice): Adam is not rotation-invariant, and steps along principal axes gave worse heads.
    """
    standard, span, index, mean, scale = standard_rows(features, settings.scale_floor, train)
    basis = random_rotation(len(span), rng) @ span
    return RowSpace(np.ascontiguousarray(standard @ basis.T, dtype=np.float32), index, basis, mean, scale)


def fit_in_row_space(
    space: RowSpace,
    distances: NDArray[np.floating],
    settings: LetSettings,
    *,
    rngs: Sequence[np.random.Generator],
    batch_size: int = 16,
) -> RowFit:
    """Fit ``B`` heads to ``B`` target matrices over the rows of one row space.

    Parameters
    ----------
    space
        From :func:`row_space`.
    distances
        Target distances of all rows, shape (B, n, n); only the pairs of training rows are read.
    settings
        Parameters of the fit.
    rngs
        One generator per problem: draws its start, so that ``batch_size`` never changes a result.
    batch_size
        Problems optimised together; memory only. 16 keeps the pair buffers near the cache (our choice). Several batches
        are fitted in threads.

    Notes
    -----
    Start (our choice): ``W`` normal with variance ``1 / r``, bias 0 (the training mean), ``log beta`` such that a
    right angle is the mean target distance. Adam runs on ``W``, the bias and ``log beta`` together, in float32.
    """
    targets = np.asarray(distances)
    problems, train = len(rngs), space.train
    if targets.shape != (problems, len(space.rows), len(space.rows)):
        n = len(space.rows)
        raise BadInputError(f"distances have shape {targets.shape}, expected {(problems, n, n)}.")
    rank, d = space.rows.shape[1], settings.n_components
    flat = np.zeros((problems, d * rank + rank + 1), dtype=np.float32)
    fitted = np.ascontiguousarray(space.rows[train])

    def fit(first: int) -> None:
        part = slice(first, min(first + batch_size, problems))
        chosen = targets[part][:, train[:, None], train[None, :]].astype(np.float32)
        weights, _, log_beta = unpack(flat[part], d)
        for problem, rng in enumerate(rngs[part]):
            weights[problem] = rng.standard_normal((d, rank)) / np.sqrt(rank)
        mean_target = chosen.sum(axis=(1, 2), dtype=np.float64) / (train.size * (train.size - 1))
        log_beta[:] = np.log(np.maximum(mean_target, 1e-6) / (np.pi / 2))
        optimise(fitted, chosen, flat[part], d, settings.alpha, settings.rates())

    in_threads(fit, range(0, problems, batch_size))
    weights, bias, log_beta = unpack(flat, d)
    return RowFit(weights, bias, np.exp(log_beta))


def fit_let(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    settings: LetSettings,
    *,
    rng: np.random.Generator,
) -> LetHead:
    """Fit one LET head to target distances.

    Parameters
    ----------
    features
        Shape (n, p).
    distances
        Symmetric ruler distances, shape (n, n).
    settings
        Parameters of the fit.
    rng
        Draws the rotation and the start.

    Raises
    ------
    BadInputError
        If shapes disagree, values are not finite, or the distances are no distance matrix with a positive entry.

    Notes
    -----
    ``L = sum_ij (beta arccos(cos(z_i, z_j)) - d_ij)^2 + alpha sum_i ||W^T z_i + b - x_i||^2`` with
    ``z = W (x - b)`` (Kendiukhov, arXiv:2603.10261), read literally: sums, not means, over ordered pairs and anchors.
    That ``x`` is standardised, that beta is learned as ``exp(log beta)`` and how it is optimised are our choices.
    """
    x = checked_features(features)
    target = checked_distances(distances, len(x))
    space = row_space(x, settings, rng=rng.spawn(1)[0])
    fit = fit_in_row_space(space, target[None], settings, rngs=rng.spawn(1))
    weights, bias = fit.weights.astype(np.float64), fit.bias.astype(np.float64)
    log_beta = np.log(fit.beta.astype(np.float64))
    loss = let_loss(space.rows.astype(np.float64), target[None], weights, bias, log_beta, settings.alpha)
    return LetHead(
        weights=weights[0] @ space.basis,
        bias=bias[0] @ space.basis,
        mean=space.mean,
        scale=space.scale,
        beta=float(fit.beta[0]),
        loss=float(loss[0]),
    )


def fit_let_batch(
    features: NDArray[np.floating],
    distances: NDArray[np.floating],
    settings: LetSettings,
    *,
    rng: np.random.Generator,
    train: NDArray[np.integer] | None = None,
    batch_size: int = 16,
) -> Floats:
    """Fit ``B`` heads at once and return the latents of all rows, shape (B, n, d).

    Parameters
    ----------
    features
        Shape (n, p), shared by all problems.
    distances
        Target distances, one matrix per problem, shape (B, n, n).
    settings
        Parameters of the fit.
    rng
        Spawns the rotation first, then one child per problem.
    train
        Rows to fit on: all by default; one index (m,) for all problems; or one per problem, shape (B, m), which
        is fitted one by one.
    batch_size
        Problems optimised together; never changes a result.

    Raises
    ------
    BadInputError
        As :func:`fit_let`.
    """
    x = checked_features(features)
    stacked = np.asarray(distances)
    if stacked.ndim != 3 or not len(stacked):
        raise BadInputError(f"distances have shape {stacked.shape}, expected (B, n, n) with B at least 1.")
    for target in stacked:
        checked_distances(target, len(x))
    index = None if train is None else np.asarray(train, dtype=np.intp)
    rotation = rng.spawn(1)[0]
    children = rng.spawn(len(stacked))
    if index is not None and index.ndim == 2:
        if len(index) != len(stacked):
            raise BadInputError(
                f"train holds {len(index)} index rows, expected one for each of {len(stacked)} problems."
            )
        heads = [
            fit_let(x[rows], target[np.ix_(rows, rows)], settings, rng=child)
            for rows, target, child in zip(index, stacked, children, strict=True)
        ]
        return np.stack([head.latent(x) for head in heads])
    space = row_space(x, settings, rng=rotation, train=index)
    return fit_in_row_space(space, stacked, settings, rngs=children, batch_size=batch_size).latents(space.rows)


def checked_distances(distances: NDArray[np.floating], n: int) -> Floats:
    """Return distances as float64 after checking that they are an (n, n) distance matrix.

    Raises
    ------
    BadInputError
        If the shape differs, a value is negative or not finite, the matrix is not symmetric, the diagonal is not
        zero, or all distances are zero.
    """
    d = np.asarray(distances, dtype=np.float64)
    if d.shape != (n, n):
        raise BadInputError(f"distances have shape {d.shape}, expected {(n, n)} as there are {n} feature rows.")
    if not np.isfinite(d).all() or (d < 0).any():
        raise BadInputError(f"distances hold {d.min()} to {d.max()}, expected finite values of at least 0.")
    if np.abs(np.diag(d)).max() > 0 or not np.allclose(d, d.T, rtol=1e-6, atol=0):
        raise BadInputError("distances are not symmetric with a zero diagonal, expected a distance matrix.")
    if not d.any():
        raise BadInputError("all distances are 0, expected at least one pair apart.")
    return d


def random_rotation(size: int, rng: np.random.Generator) -> Floats:
    """Draw a Haar-random orthogonal matrix."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    # without the sign fix QR does not sample the Haar measure (Mezzadri 2007)
    return np.asarray(q * np.where(np.diag(r) < 0, -1.0, 1.0))

"""A linear surrogate of a model's own cell embedding: the operator kind ``distilled``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from ...cards._errors import BadInputError, CheckpointError, GeneError, PanelError
from ..checkpoints._interface import Checkpoint
from ._cells import GENE_FLOOR, Cells, ReadableCells, readable_cells

PENALTIES = tuple(float(penalty) for penalty in np.logspace(-1, 7, 17))
"""Ridge penalties tried, half a decade apart; our choice."""
_BATCH_FLOATS = 1 << 22
_N_ROWS = 512

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Distilled:
    """Ridge regression from expression to a model's pooled hidden state.

    Attributes
    ----------
    operator
        ``(1, n_genes, d_model)`` float32; zero for genes that the model does not know.
    intercept
        ``(d_model,)`` float32: the surrogate is ``x @ operator[0] + intercept``.
    genes, unknown_genes
        Gene of each row, and those of them that the model does not know.
    penalty
        The one chosen inside the training cells.
    r2_train, r2_held_out
        Variance of the hidden state explained, over all its dimensions together.
    n_train, n_held_out
        Cells fitted on, and cells held out.
    n_skipped
        Cells with too few expressed genes that the model knows, in neither.
    n_truncated
        Cells with more expressed genes than the model reads, of which it read the highest.
    train
        Whether a cell was fitted on, ``(n_cells,)``.
    """

    operator: NDArray[np.float32]
    intercept: NDArray[np.float32]
    genes: tuple[str, ...]
    unknown_genes: tuple[str, ...]
    penalty: float
    r2_train: float
    r2_held_out: float
    n_train: int
    n_held_out: int
    n_skipped: int
    n_truncated: int
    train: NDArray[np.bool_]


def distil(
    checkpoint: Checkpoint,
    cells: Cells,
    genes: Sequence[str],
    *,
    rng: np.random.Generator,
    expression: Cells | None = None,
    held_out: float = 0.2,
    groups: Sequence[str] | None = None,
    train: NDArray[np.bool_] | None = None,
    penalties: Sequence[float] = PENALTIES,
    batch_size: int = 2,
    gene_floor: float = GENE_FLOOR,
    progress: Callable[[int], None] | None = None,
) -> Distilled:
    """Fit a linear surrogate of a model's cell embedding.

    Parameters
    ----------
    checkpoint
        The frozen model.
    cells
        What the model reads, on the scale that ``checkpoint.scale`` names, ``(n_cells, n_genes)``.
    genes
        Gene of each column.
    rng
        Draws the cells to hold out where ``train`` is not given.
    expression
        What the operator is to act on: ``log1p`` of counts per 10,000, of the shape of ``cells``. By default the
        cells themselves, where the model reads that scale.
    held_out
        Fraction of the cells to hold out.
    groups
        Group of each cell, such as its donor: groups are held out whole.
    train
        Cells to fit on, ``(n_cells,)``; the others are held out.
    penalties
        Ridge penalties to choose from, added to sums of squares over cells as ``sklearn.linear_model.Ridge`` does.
    batch_size
        Most cells per forward pass.
    gene_floor
        Smallest fraction of ``genes`` that the model must know.
    progress
        Called with the number of cells finished since the last call; the calls add up to the number of cells.

    Returns
    -------
    Distilled

    Raises
    ------
    BadInputError
        If the arguments do not fit together.
    GeneError, ScaleError, PanelError
        As ``attention_mean``; also if too few cells or groups are left to fit on or to hold out.
    CheckpointError
        If the model returns something else than finite hidden states.

    Notes
    -----
    Least squares on centred expression and hidden state with a ridge penalty, not scaled per gene. The penalty is
    chosen by generalised cross-validation inside the training cells (Golub, Heath and Wahba 1979); the held-out cells
    decide nothing. Only sums over cells are kept, so memory does not grow with their number: float64 Gram matrices
    of training and held-out cells, from which fit and both R2 follow. Groups are held out in random order until
    ``held_out`` of the cells are; one that would bring them above half of the cells is passed over. All of this is
    our choice.
    """
    if not len(penalties) or not all(np.isfinite(penalty) and penalty > 0 for penalty in penalties):
        raise BadInputError(f"Penalties must be positive, got {list(penalties)}.")
    read = readable_cells(checkpoint, cells, genes, gene_floor=gene_floor)
    table = _expression(read, expression)
    used = read.used
    fitted = _training_cells(read, rng, held_out=held_out, groups=groups, train=train)
    known = np.flatnonzero(read.index >= 0)
    inside, outside = (_Moments(len(known), read.checkpoint.d_model) for _ in range(2))
    if progress is not None and read.n_skipped:
        progress(read.n_skipped)
    for batch in read.batches(used, batch_size, max(1, _BATCH_FLOATS // read.checkpoint.n_heads)):
        hidden = _pooled(read, batch)
        given = table[batch][:, known].toarray()
        for part, chosen in ((inside, fitted[batch]), (outside, ~fitted[batch])):
            part.add(given[chosen], hidden[chosen])
        if progress is not None:
            progress(len(batch))
    centred, held = inside.centred(), outside.centred()
    weights, intercept, penalty, left_over = _ridge(centred, penalties)
    operator = np.zeros((1, len(genes), read.checkpoint.d_model), dtype=np.float32)
    operator[0, known] = weights
    return Distilled(
        operator=operator,
        intercept=intercept.astype(np.float32),
        genes=tuple(genes),
        unknown_genes=read.unknown_genes,
        penalty=penalty,
        r2_train=_explained(left_over, centred.yy),
        r2_held_out=_explained(held.squared_error(weights, intercept), held.yy),
        n_train=centred.n,
        n_held_out=held.n,
        n_skipped=read.n_skipped,
        n_truncated=read.n_truncated,
        train=fitted,
    )


@dataclass(frozen=True, eq=False)
class _Centred:
    """Means and centred second moments of expression ``x`` and hidden state ``y`` over ``n`` cells."""

    n: int
    x: Float64
    y: Float64
    xx: Float64
    xy: Float64
    yy: float

    def squared_error(self, weights: Float64, intercept: Float64) -> float:
        """Sum of squares of ``y - x @ weights - intercept``."""
        spread = self.yy - 2 * np.sum(weights * self.xy) + np.sum(weights * (self.xx @ weights))
        bias = self.y - self.x @ weights - intercept
        return max(0.0, float(spread + self.n * bias @ bias))


class _Moments:
    """Sums over cells, taken some hundred rows at a time."""

    def __init__(self, n_genes: int, d_model: int) -> None:
        self._n, self._filled = 0, 0
        self._rows = np.zeros((_N_ROWS, n_genes + d_model), dtype=np.float64)
        self._n_genes = n_genes
        self._sum = np.zeros(n_genes + d_model)
        self._xx, self._xy = np.zeros((n_genes, n_genes)), np.zeros((n_genes, d_model))
        self._yy = 0.0

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Add cells."""
        for start in range(0, len(x), _N_ROWS):
            part = slice(start, start + _N_ROWS)
            if self._filled + len(x[part]) > _N_ROWS:
                self._flush()
            rows = self._rows[self._filled : self._filled + len(x[part])]
            rows[:, : self._n_genes], rows[:, self._n_genes :] = x[part], y[part]
            self._filled += len(rows)

    def centred(self) -> _Centred:
        """Take the mean out of the sums."""
        self._flush()
        n = max(1, self._n)
        x, y = self._sum[: self._n_genes] / n, self._sum[self._n_genes :] / n
        return _Centred(
            self._n,
            x,
            y,
            self._xx - n * np.outer(x, x),
            self._xy - n * np.outer(x, y),
            max(0.0, float(self._yy - n * (y @ y))),
        )

    def _flush(self) -> None:
        """Empty the buffer into the sums."""
        rows = self._rows[: self._filled]
        x, y = rows[:, : self._n_genes], rows[:, self._n_genes :]
        self._n += len(rows)
        self._sum += rows.sum(axis=0)
        self._xx += x.T @ x
        self._xy += x.T @ y
        self._yy += float(np.einsum("ij,ij->", y, y))
        self._filled = 0


def _ridge(cells: _Centred, penalties: Sequence[float]) -> tuple[Float64, Float64, float, float]:
    """Weights, intercept, the penalty of the least GCV error, and the squared error left over."""
    values, vectors = np.linalg.eigh(cells.xx)
    values = values.clip(min=0)
    turned = vectors.T @ cells.xy
    power = np.einsum("ij,ij->i", turned, turned)
    best: tuple[float, float, float] | None = None
    for penalty in sorted(map(float, penalties), reverse=True):
        left_over = max(0.0, cells.yy - float(np.sum(power * (values + 2 * penalty) / (values + penalty) ** 2)))
        freedom = cells.n - 1 - float(np.sum(values / (values + penalty)))
        error = left_over / freedom**2 if freedom > 0 else np.inf
        # among equals the largest penalty
        if best is None or error < best[0]:
            best = (error, penalty, left_over)
    assert best is not None
    _, penalty, left_over = best
    weights = vectors @ (turned / (values + penalty)[:, None])
    return weights, cells.y - cells.x @ weights, penalty, left_over


def _explained(error: float, total: float) -> float:
    """``1 - error / total``; 0 where there is nothing to explain."""
    return 1 - error / total if total > 0 else 0.0


def _expression(read: ReadableCells, expression: Cells | None) -> sparse.csr_array:
    """Table that the operator is fitted to act on."""
    if expression is None:
        if read.checkpoint.scale != "log1p":
            raise BadInputError(
                f"{read.checkpoint.name} reads {read.checkpoint.scale}, while the operator acts on log1p values.",
                "Pass the log1p values of the same cells as `expression`.",
            )
        return read.table
    if tuple(expression.shape) != tuple(read.table.shape):
        raise GeneError(f"Expression of shape {expression.shape} was given for cells of shape {read.table.shape}.")
    table = sparse.csr_array(expression, dtype=np.float32)
    if not np.isfinite(table.data).all():
        raise BadInputError("The expression values are not finite everywhere.")
    return table


def _training_cells(
    read: ReadableCells,
    rng: np.random.Generator,
    *,
    held_out: float,
    groups: Sequence[str] | None,
    train: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Cells to fit on; skipped ones are none of them."""
    n_cells, usable = len(read.length), np.zeros(len(read.length), dtype=bool)
    usable[read.used] = True
    if train is not None:
        if train.dtype != np.bool_ or train.shape != (n_cells,):
            raise BadInputError(f"train must be {n_cells} booleans, got {train.dtype} of shape {train.shape}.")
        fitted = usable & train
    else:
        if not 0 < held_out < 1:
            raise BadInputError(f"held_out must lie between 0 and 1, got {held_out}.")
        if groups is not None and len(groups) != n_cells:
            raise BadInputError(f"{len(groups)} groups were named for {n_cells} cells.")
        fitted = usable & ~_drawn(np.flatnonzero(usable), n_cells, rng, held_out, groups)
    n_train, n_held = int(fitted.sum()), int((usable & ~fitted).sum())
    if n_train < 2 or n_held < 2:
        raise PanelError(f"{n_train} cells are left to fit on and {n_held} to hold out, at least 2 each are needed.")
    return fitted


def _drawn(
    rows: NDArray[np.int64], n_cells: int, rng: np.random.Generator, fraction: float, groups: Sequence[str] | None
) -> NDArray[np.bool_]:
    """Draw cells, or whole groups of cells, to hold out."""
    drawn = np.zeros(n_cells, dtype=bool)
    target = max(2, round(fraction * len(rows)))
    if groups is None:
        drawn[rng.permutation(rows)[:target]] = True
        return drawn
    names, members = np.unique(np.asarray(groups, dtype=str)[rows], return_inverse=True)
    if len(names) < 2:
        raise PanelError(
            f"All cells are of the group {names[0]!r}, so that no group can be held out.",
            "Hold out cells instead of groups, or add cells of another group.",
        )
    sizes, held = np.bincount(members), 0
    for group in rng.permutation(len(names)):
        if held < target and held + sizes[group] <= len(rows) / 2:
            drawn[rows[members == group]] = True
            held += sizes[group]
    return drawn


def _pooled(read: ReadableCells, batch: NDArray[np.int64]) -> NDArray[np.float32]:
    """Hidden states of a batch, checked."""
    columns, values = read.stack(batch)
    hidden = read.checkpoint.pooled(read.index[columns], values).detach().to(device="cpu", dtype=torch.float32)
    expected = (len(batch), read.checkpoint.d_model)
    if tuple(hidden.shape) != expected or not bool(torch.isfinite(hidden).all()):
        raise CheckpointError(
            f"{read.checkpoint.name} returned hidden states of shape {tuple(hidden.shape)} or with values that are not "
            f"finite, expected finite ones of shape {expected}."
        )
    return hidden.numpy()

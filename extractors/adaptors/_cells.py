"""Cells to fit on: checked, split, standardised, with their neighbours, and drawn in batches balanced over stages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.extmath import randomized_svd

from ...cards._errors import BadInputError, PanelError
from ...manifolds._let import checked_distances

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Features: TypeAlias = NDArray[np.floating[Any]] | sparse.csr_matrix | sparse.csr_array

N_PRINCIPAL = 50
"""Principal components in which neighbours are found; our choice."""
_BLOCK_ROWS = 512


@dataclass(frozen=True, eq=False)
class Standardised:
    """Hold standardised features.

    Attributes
    ----------
    rows
        In the order asked for, ``(n, p)``, in the precision of the fit.
    mean, scale
        Float64 ``(p,)``.
    """

    rows: NDArray[np.floating[Any]]
    mean: Floats
    scale: Floats


def checked_cells(
    features: Features,
    stage: Sequence[str],
    distances: NDArray[np.floating],
    stages: Sequence[str],
    groups: Sequence[str] | None,
) -> tuple[Index, Floats]:
    """Check that features, stages, distances and groups fit together.

    Parameters
    ----------
    features, stage, distances, stages, groups
        As of ``fit_cells``.

    Returns
    -------
    Index of each cell's stage among those that have cells, int64 ``(n_cells,)``, and the distances of these.

    Raises
    ------
    BadInputError
        If lengths or shapes differ, a stage is unknown or named twice, or the distances are none.
    PanelError
        If all cells are of one stage.
    """
    shape = np.shape(features)
    if len(shape) != 2 or not shape[0] or not shape[1]:
        raise BadInputError(f"Features have shape {shape}, expected (n_cells, p) with both at least 1.")
    if len(stage) != shape[0]:
        raise BadInputError(f"{len(stage)} stages were named for {shape[0]} cells.")
    if groups is not None and len(groups) != shape[0]:
        raise BadInputError(f"{len(groups)} groups were named for {shape[0]} cells.")
    n = len(stages)
    if len(set(stages)) != n or np.shape(distances) != (n, n):
        raise BadInputError(
            f"Distances of shape {np.shape(distances)} were given for {n} stages, {len(set(stages))} of them "
            "different, expected a square matrix and a name for each row."
        )
    position = {name: index for index, name in enumerate(stages)}
    unknown = sorted(set(stage) - position.keys())
    if unknown:
        near = difflib.get_close_matches(unknown[0], position, n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else f"The stages are {', '.join(position)}."
        raise BadInputError(f"There is no distance for the stage {unknown[0]!r}.", hint)
    used, index = np.unique([position[name] for name in stage], return_inverse=True)
    if len(used) < 2:
        raise PanelError(f"All cells are of the stage {stages[used[0]]!r}, expected two stages or more.")
    ruler = np.asarray(distances, dtype=np.float64)[np.ix_(used, used)]
    return index.astype(np.int64), checked_distances(ruler, len(used))


def held_out_cells(stage: Index, fraction: float, groups: Sequence[str] | None, rng: np.random.Generator) -> Index:
    """Draw the cells of the validation part.

    Parameters
    ----------
    stage
        Index of each cell's stage, shape (n,).
    fraction
        Share of the cells to hold out.
    groups
        Group of each cell; groups are held out whole.
    rng
        Draws cells or groups.

    Returns
    -------
    Their index, sorted.

    Raises
    ------
    PanelError
        If cells of fewer than two stages can be held out.

    Notes
    -----
    Our choice. Without groups the same share of each stage is held out, rounded, never all of it. Groups are held out
    in random order until the share is reached; one that would leave a stage without cells to fit on, or bring the
    cells held out above half, is passed over.
    """
    held = np.zeros(len(stage), dtype=bool)
    if groups is None:
        order = rng.permutation(len(stage))
        for cells in _members(stage[order]):
            held[order[cells[: min(len(cells) - 1, round(fraction * len(cells)))]]] = True
    else:
        names, member = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
        table = np.zeros((len(names), int(stage.max()) + 1), dtype=np.int64)
        np.add.at(table, (member, stage), 1)
        left = table.sum(axis=0)
        for group in rng.permutation(len(names)):
            remaining = left - table[group]
            if len(stage) - left.sum() >= fraction * len(stage):
                break
            if (remaining > 0).all() and 2 * remaining.sum() >= len(stage):
                left, held = remaining, held | (member == group)
    if len(np.unique(stage[held])) < 2:
        raise PanelError(
            f"{int(held.sum())} cells of {len(np.unique(stage[held]))} stages can be held out for validation, expected "
            "two stages or more.",
            "Give more cells, another validation share or smaller groups, or set patience to None.",
        )
    return np.flatnonzero(held)


def standardise(features: Features, order: Index, n_train: int, *, floor: float, dtype: str) -> Standardised:
    """Bring features to mean 0 and standard deviation 1 over the training cells.

    Parameters
    ----------
    features
        Shape (n, p), any scale.
    order
        Cell of each row of the result, those to fit on first.
    n_train
        As many of them are fitted on.
    floor
        Smallest scale, as a fraction of the median standard deviation of the features that vary; as the LET adaptor.
    dtype
        Of the result.

    Raises
    ------
    BadInputError
        If a value is not finite, or no feature varies over the training cells.
    """
    table: Any = features
    table = table.tocsr() if sparse.issparse(table) else np.asarray(table)
    p = table.shape[1]
    rows = np.empty((len(order), p), dtype=dtype)
    mean, square = np.zeros(p), np.zeros(p)
    for first in range(0, n_train, _BLOCK_ROWS):
        mean += _block(table, order[first : min(first + _BLOCK_ROWS, n_train)]).sum(axis=0)
    mean /= n_train
    for first in range(0, n_train, _BLOCK_ROWS):
        square += ((_block(table, order[first : min(first + _BLOCK_ROWS, n_train)]) - mean) ** 2).sum(axis=0)
    spread = np.sqrt(square / n_train)
    varies = spread > 1e-12 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        raise BadInputError(f"None of the {p} features varies over the training cells, expected at least one.")
    scale = np.maximum(spread, floor * np.median(spread[varies]))
    for first in range(0, len(order), _BLOCK_ROWS):
        part = slice(first, first + _BLOCK_ROWS)
        rows[part] = (_block(table, order[part]) - mean) / scale
    return Standardised(rows, mean, scale)


def nearest_training_cells(
    rows: NDArray[np.floating[Any]], n_train: int, n_neighbours: int, rng: np.random.Generator
) -> Index:
    """Find the nearest training cells of each cell.

    Parameters
    ----------
    rows
        Standardised features, the training cells first, shape (n, p).
    n_train
        Number of training cells, more than ``n_neighbours``.
    n_neighbours
        How many, a cell itself not counted.
    rng
        Starts the singular value decomposition.

    Returns
    -------
    Rows of the neighbours, shape (n, n_neighbours), nearest first.

    Notes
    -----
    Euclidean, in the first ``N_PRINCIPAL`` principal components of the training cells (our choice). The training cells
    are centred, so a truncated decomposition of their rows is a principal component analysis without another copy.
    """
    size = min(N_PRINCIPAL, n_train, rows.shape[1])
    seed = int(rng.integers(2**31))
    _, _, axes = randomized_svd(rows[:n_train], size, random_state=seed)
    placed = np.ascontiguousarray(rows @ axes.T)
    search = NearestNeighbors(n_neighbors=n_neighbours).fit(placed[:n_train])
    # without a query scikit-learn leaves out the cell itself, also where another is at distance 0
    found = search.kneighbors(return_distance=False)
    if len(rows) > n_train:
        found = np.concatenate([found, search.kneighbors(placed[n_train:], return_distance=False)])
    return np.asarray(found, dtype=np.int64)


def balanced_batches(stage: Index, n_batches: int, batch_size: int, rng: np.random.Generator) -> Index:
    """Draw batches in which all stages have the same number of cells.

    Parameters
    ----------
    stage
        Index of each cell's stage, shape (n,); every index below the largest occurs.
    n_batches, batch_size
        Shape of the result.
    rng
        Draws the cells.

    Returns
    -------
    Cells, shape (n_batches, batch_size), sorted by stage within a batch.

    Notes
    -----
    Our choice. Where ``batch_size`` is no multiple of the number of stages, stages drawn for each batch have one cell
    more. Each stage is gone through in random order, and again in another order when it is used up.
    """
    n_stages = int(stage.max()) + 1
    each, more = divmod(batch_size, n_stages)
    extra = np.tile(np.arange(n_stages) < more, (n_batches, 1))
    sizes = each + rng.permuted(extra, axis=1)
    slots = np.repeat(np.tile(np.arange(n_stages), n_batches), sizes.ravel()).reshape(n_batches, batch_size)
    drawn = np.empty(slots.shape, dtype=np.int64)
    for index, cells in enumerate(_members(stage)):
        wanted = slots == index
        rounds = -(-int(wanted.sum()) // len(cells))
        drawn[wanted] = rng.permuted(np.tile(cells, (rounds, 1)), axis=1).ravel()[: wanted.sum()]
    return drawn


def _members(stage: Index) -> list[Index]:
    """Cells of each stage."""
    order = np.argsort(stage, kind="stable")
    return np.split(order, np.cumsum(np.bincount(stage))[:-1])


def _block(table: Any, rows: Index) -> Floats:
    """Some rows of an array or a CSR matrix as finite float64."""
    taken = table[rows]
    block = np.asarray(taken.toarray() if sparse.issparse(taken) else taken, dtype=np.float64)
    if not np.isfinite(block).all():
        raise BadInputError(f"Features hold {int((~np.isfinite(block)).sum())} values that are not finite.")
    return block

"""What a manifold is compared with: features of the same anchors that no trained model was needed for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import svd
from sklearn.decomposition import PCA

from ...manifolds._features import apply_operator
from ...manifolds._let_many import feature_coordinates
from .._gate_data import GateData
from .._named_child import named_child
from ._control_operators import gene_permuted, spectrum_matched

SCALE_FLOOR = 0.1
"""Floor of a feature's scale, that of the heads; see ``LetSettings``."""
N_DRAWS = 5
"""Draws of each random control of the operator."""
N_COMPONENTS = 10
"""Of principal components and of singular vectors; as published."""
Family = Literal["untrained", "expression", "other"]
COMPARED: dict[str, Family] = {
    "raw": "expression",
    "z_scored": "expression",
    "pca": "expression",
    "svd": "expression",
    "gene_correlation": "other",
    "spectrum_matched": "other",
    "gene_permuted": "other",
}
"""What every artifact is compared with beside its untrained models, and the family of each."""
Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Comparator:
    """Features that the same head is fitted to.

    Parameters
    ----------
    name
        Of the comparison.
    family
        What must be beaten for a verdict: ``untrained``, ``expression`` or ``other``.
    coordinates
        One set per seed, shape (n_seeds, n, n), see ``feature_coordinates``.
    """

    name: str
    family: Family
    coordinates: Float32


def comparators(
    data: GateData,
    operator: NDArray[np.floating],
    untrained: Mapping[str, Sequence[Float32]],
    *,
    rng: np.random.Generator,
) -> list[Comparator]:
    """Make the comparators of a panel.

    Parameters
    ----------
    data
        The panel.
    operator
        Of the manifold, shape (k, n_genes, n_features).
    untrained
        Coordinates of the anchors under models without training, by what was done to them, one for each seed; as they
        travel in an artifact.
    rng
        Draws random operators and permutations, each from a child of the comparator's own name.

    Returns
    -------
    Those of ``COMPARED`` in its order, then the untrained ones.

    Notes
    -----
    ``raw``: expression with scales floored as for every head. ``z_scored``: each gene brought to unit variance.
    ``pca``: the first ten principal components of the anchors. ``svd``: as many components of the truncated singular
    value decomposition of the expression, not centred. ``gene_correlation``: expression multiplied with the
    correlation of genes over the anchors. ``spectrum_matched``: operators with the same singular values and random
    singular vectors. ``gene_permuted``: the same operator, its genes given to others. How each is made is our choice.
    """
    x = np.asarray(data.expression, dtype=np.float64)
    spread = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    n_components = min(N_COMPONENTS, len(x) - 1, x.shape[1])
    left, singular, _ = svd(x, full_matrices=False)
    made = {
        "raw": feature_coordinates(x, scale_floor=SCALE_FLOOR)[None],
        "z_scored": feature_coordinates(z, scale_floor=1e-6)[None],
        "pca": _as_they_are(PCA(n_components, svd_solver="full").fit_transform(x))[None],
        "svd": _as_they_are(left[:, :n_components] * singular[:n_components])[None],
        "gene_correlation": feature_coordinates(x @ (z.T @ z) / len(x), scale_floor=SCALE_FLOOR)[None],
        "spectrum_matched": _under_controls(data, operator, spectrum_matched, named_child(rng, "spectrum_matched")),
        "gene_permuted": _under_controls(data, operator, gene_permuted, named_child(rng, "gene_permuted")),
    }
    told = [Comparator(name, family, made[name]) for name, family in COMPARED.items()]
    return told + [Comparator(name, "untrained", np.stack(sets)) for name, sets in untrained.items() if len(sets)]


def label_lookup(stage: Sequence[str]) -> Float32:
    """Coordinates of anchors of which nothing but the stage is known, shape (n, n).

    Parameters
    ----------
    stage
        Of each anchor.

    Returns
    -------
    Those of the stages as one column each, 1 for its own anchors: what a perfect classifier of stages would give.

    Raises
    ------
    BadInputError
        If there is one stage only.

    Notes
    -----
    Where the stages of a held-out donor occur in others, a head looks their places up: the ceiling of what recognising
    labels can reach. Where a branch is held out its stages were never seen, and all of its anchors fall on one place:
    near each other, which is right, and anywhere.
    """
    names = np.asarray(stage, dtype=str)
    return feature_coordinates((names[:, None] == np.unique(names)).astype(np.float64), scale_floor=SCALE_FLOOR)


def _under_controls(
    data: GateData,
    operator: NDArray[np.floating],
    control: Callable[..., Float32],
    rng: np.random.Generator,
) -> Float32:
    """Coordinates of the anchors under several draws of a control of the operator, shape (N_DRAWS, n, n)."""
    given = np.asarray(operator, dtype=np.float32)
    drawn = (control(given, seed=int(child.integers(2**31))) for child in rng.spawn(N_DRAWS))
    return np.stack(
        [feature_coordinates(apply_operator(data.expression, made), scale_floor=SCALE_FLOOR) for made in drawn]
    )


def _as_they_are(scores: NDArray[np.floating]) -> Float32:
    """Rows in as many columns as there are rows, without any scaling of their features."""
    placed = np.zeros((len(scores), len(scores)), dtype=np.float32)
    # the overall scale only decides what alpha means; heads expect features of unit variance
    placed[:, : scores.shape[1]] = scores / np.sqrt(scores.var(axis=0).mean())
    return placed

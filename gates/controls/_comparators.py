"""What a manifold is compared with: features of the same anchors that no trained model was needed for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from ...manifolds._features import apply_operator
from ...manifolds._let_many import feature_coordinates
from .._gate_data import GateData
from ._control_operators import spectrum_matched

SCALE_FLOOR = 0.1
"""Floor of a feature's scale, that of the heads; see ``LetSettings``."""
N_SPECTRA = 5
"""Random operators that are drawn."""
N_PCS = 10
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
    family: str
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
        Draws random operators.

    Notes
    -----
    ``raw``: expression with scales floored as for every head. ``z_scored``: each gene brought to unit variance.
    ``pca``: the first ten principal components of the anchors. ``gene_correlation``: expression multiplied with the
    correlation of genes over the anchors. ``spectrum_matched``: operators with the same singular values and random
    singular vectors. How each is made is our choice.
    """
    x = np.asarray(data.expression, dtype=np.float64)
    spread = x.std(axis=0)
    z = (x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    n_pcs = min(N_PCS, len(x) - 1)
    random = [
        feature_coordinates(
            apply_operator(data.expression, spectrum_matched(operator, seed=int(child.integers(2**31)))),
            scale_floor=SCALE_FLOOR,
        )
        for child in rng.spawn(N_SPECTRA)
    ]
    made = [
        Comparator("raw", "expression", feature_coordinates(x, scale_floor=SCALE_FLOOR)[None]),
        Comparator("z_scored", "expression", feature_coordinates(z, scale_floor=1e-6)[None]),
        Comparator("pca", "expression", _as_they_are(PCA(n_pcs, svd_solver="full").fit_transform(x))[None]),
        Comparator(
            "gene_correlation", "other", feature_coordinates(x @ (z.T @ z) / len(x), scale_floor=SCALE_FLOOR)[None]
        ),
        Comparator("spectrum_matched", "other", np.stack(random)),
    ]
    return made + [Comparator(name, "untrained", np.stack(sets)) for name, sets in untrained.items() if len(sets)]


def _as_they_are(scores: NDArray[np.floating]) -> Float32:
    """Rows in as many columns as there are rows, without any scaling of their features."""
    placed = np.zeros((len(scores), len(scores)), dtype=np.float32)
    # the overall scale only decides what alpha means; heads expect features of unit variance
    placed[:, : scores.shape[1]] = scores / scores.std()
    return placed

"""An extractor: the correlation of genes over cells as operator, then head and readouts as ever."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from manifoldzoo.cards import BadInputError, Operator
from manifoldzoo.extractors import Job, fit_manifold, prepare
from manifoldzoo.extractors.operators import apply_control, numerical_rank
from manifoldzoo.manifolds import Manifold

N_ROWS = 512
LIMIT = (
    "The operator is the correlation of genes over the panel's own cells: nothing of it was read from the source "
    "model, which only names the genes. It is a baseline that operators of a model have to beat."
)


class CoexpressionLet:
    """Gene correlation -> LET anchor head -> linear readouts: the baseline without a model.

    Notes
    -----
    ``A[i, j]`` is Pearson's correlation of ``log1p`` expression of genes ``i`` and ``j`` over the stage-balanced cells
    of the panel, and 0 where a gene does not vary. Controls of the operator are applied; controls of the model are
    refused, since there is nothing of the model in it to destroy.
    """

    name = "coexpression-let"

    def extract(self, job: Job) -> Manifold:
        """Extract; see ``manifoldzoo.extractors.Extractor``.

        Raises
        ------
        BadInputError
            If the recipe asks for an operator of the model, or the control is one of the model.
        """
        if "operator" in job.recipe.model_fields_set:
            raise BadInputError(
                f"The recipe asks for the operator {job.recipe.operator.kind!r}, which {self.name} does not read.",
                "Leave [operator] out of recipe.toml.",
            )
        if job.control is not None and job.control.kind in ("random-init", "shuffled-weights"):
            raise BadInputError(
                f"The control {job.control.kind!r} destroys the model, of which {self.name} reads nothing but genes.",
                "Use spectrum-matched or permuted-genes.",
            )
        cell_rng, head_rng = np.random.default_rng(job.seed).spawn(2)
        prepared = prepare(job, cell_rng)
        values = prepared.cells.values
        matrix = gene_correlation(values, progress=job.steps("correlation", values.shape[0]))
        operator = apply_control(matrix[None], job.control)
        entry = Operator(
            kind=f"{self.name}:gene_correlation",
            combination="none",
            n_blocks=1,
            numerical_rank=[numerical_rank(block) for block in operator],
            n_cells=values.shape[0],
            n_skipped_cells=0,
            cells_digest=prepared.cells.digest,
            pairs_seen=None,
        )
        made = fit_manifold(job, prepared, operator, entry, extractor=self.name, rng=head_rng)
        card = made.card.model_copy(update={"limits": [LIMIT, *made.card.limits]})
        return Manifold.build(card, made.genes, made.tensors, made.vectors)


def gene_correlation(
    values: sparse.csr_matrix, *, progress: Callable[[int], None] | None = None
) -> NDArray[np.float32]:
    """Correlate genes over cells.

    Parameters
    ----------
    values
        ``log1p`` of counts per 10,000, CSR ``(n_cells, n_genes)``.
    progress
        Called with the number of cells finished since the last call.

    Returns
    -------
    Pearson's correlation, float32 ``(n_genes, n_genes)``; 0 for genes that do not vary.
    """
    n_cells, n_genes = values.shape
    # SciPy sums float32 in float32, whatever dtype it is asked for
    wide = values.astype(np.float64)
    mean = np.asarray(wide.mean(axis=0)).ravel()
    products = np.zeros((n_genes, n_genes))
    for start in range(0, n_cells, N_ROWS):
        block = wide[start : start + N_ROWS].toarray() - mean
        products += block.T @ block
        if progress is not None:
            progress(len(block))
    spread = np.sqrt(np.diagonal(products))
    # rounding leaves a spread of about 1e-16 to genes that do not vary
    varies = spread > 1e-9 * np.sqrt(n_cells) * (1 + np.abs(mean))
    scale = np.divide(1.0, spread, out=np.zeros(n_genes), where=varies)
    correlation: NDArray[np.float32] = (products * scale[:, None] * scale).astype(np.float32)
    return correlation

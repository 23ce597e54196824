"""Scores of gene programs against control genes of like expression, and the program that leads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from ..cards._errors import BadInputError

N_CONTROLS, N_BINS = 50, 25
"""Control genes of a bin and number of bins, as published and as ``scanpy.tl.score_genes`` has them."""
MARGIN, ABOVE = 0.5, 2.0
"""Standard deviations by which a program must lead, and standard errors by which it must lie above its controls; our
choice, made before anything was fitted."""
NOT_EXPRESSED, UNCLEAR = -1, -2
"""In place of a program: the best one is not above its controls, or does not lead."""


def control_genes(
    mean: NDArray[np.float64],
    program: NDArray[np.intp],
    *,
    n_controls: int = N_CONTROLS,
    n_bins: int = N_BINS,
    seed: int = 0,
) -> NDArray[np.intp]:
    """Draw the control genes of a program: so many of every bin of mean expression that holds a gene of it.

    Parameters
    ----------
    mean
        Mean ``log1p`` expression of every gene, ``(n_genes,)``.
    program
        Its genes, indices into ``mean``.
    n_controls
        Genes drawn of a bin, all where it has no more.
    n_bins
        Bins that genes are cut into by rank.
    seed
        Of the draw.

    Returns
    -------
    Sorted indices, without genes of the program.

    Raises
    ------
    BadInputError
        If there are none.

    Notes
    -----
    Tirosh et al. 2016 (doi:10.1126/science.aad0501). Bins and draw are those of ``scanpy.tl.score_genes`` with
    ``random_state=seed`` (scanpy 1.10 and 1.11), so that the scores are too; without loading a file, without extras and
    without its effect on the random state of the process.
    """
    n_items = max(1, int(np.round(len(mean) / (n_bins - 1))))
    rank = np.searchsorted(np.sort(mean), mean, side="left") + 1
    cut = rank // n_items
    # the old generator, because pandas draws with it for scanpy
    drawn = np.random.RandomState(seed)
    found = []
    for bin_ in np.unique(cut[program]):
        there = np.flatnonzero(cut == bin_)
        found.append(there if len(there) <= n_controls else there[drawn.choice(len(there), n_controls, replace=False)])
    controls = np.setdiff1d(np.concatenate(found), program)
    if not len(controls):
        raise BadInputError(
            f"The {len(mean)} genes have none of like expression beside the {len(program)} of the program.",
            "Give the whole matrix, not a selection of genes.",
        )
    return controls


@dataclass(frozen=True, eq=False)
class ScoreWeights:
    """What the scores of programs are made with, for the cells of one study.

    Attributes
    ----------
    program, control
        Weights of the means over the genes of each program and over its control genes, float64
        ``(n_genes, n_programs)``; the columns add up to 1.
    """

    program: NDArray[np.float64]
    control: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        mean: NDArray[np.float64],
        programs: Sequence[NDArray[np.intp]],
        *,
        n_controls: int = N_CONTROLS,
        n_bins: int = N_BINS,
        seed: int = 0,
    ) -> ScoreWeights:
        """Draw the control genes of some programs; parameters are those of ``control_genes``."""
        weights = cls(*np.zeros((2, len(mean), len(programs))))
        for column, program in enumerate(programs):
            controls = control_genes(mean, program, n_controls=n_controls, n_bins=n_bins, seed=seed)
            weights.program[program, column] = 1 / len(program)
            weights.control[controls, column] = 1 / len(controls)
        return weights

    def moments(self, values: sparse.csr_matrix) -> NDArray[np.float64]:
        """Add up what scores are made of; moments of some genes add to those of the others.

        Parameters
        ----------
        values
            ``log1p`` of counts per 10,000, ``(n_cells, n_genes)``.

        Returns
        -------
        Mean over the genes of each program, over its control genes, and of the squares of these,
        ``(3, n_cells, n_programs)``.
        """
        x = values.astype(np.float64)
        return np.stack([x @ self.program, x @ self.control, x.power(2) @ self.control])

    def scores(self, moments: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the score of each program, and its standard error if the program were no more than control genes.

        Parameters
        ----------
        moments
            As ``moments`` gives them.

        Returns
        -------
        Both ``(n_cells, n_programs)``.

        Notes
        -----
        The score is the difference of the two means, as ``scanpy.tl.score_genes`` has it. The error is that of the
        difference of the means of two samples of control genes within the cell, so that a single molecule of a shallow
        cell does not count for much. Our choice.
        """
        own, control, square = moments
        n = 1 / (self.program != 0).sum(axis=0) + 1 / (self.control != 0).sum(axis=0)
        return own - control, np.sqrt(np.clip(square - control**2, 0, None) * n)


def standardise(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring each column to mean 0 and standard deviation 1; a column without any spread becomes 0.

    Parameters
    ----------
    scores
        ``(n_cells, n_programs)``.
    """
    if not len(scores):
        return scores
    spread = scores.std(axis=0)
    flat = spread <= 1e-12 * np.abs(scores).max(axis=0)
    return np.where(flat, 0.0, (scores - scores.mean(axis=0)) / np.where(flat, 1.0, spread))


def leading_program(
    scores: NDArray[np.float64], errors: NDArray[np.float64], *, margin: float, above: float
) -> NDArray[np.intp]:
    """Find the program that leads in each cell.

    Parameters
    ----------
    scores, errors
        Score of each program above its controls, and its standard error, ``(n_cells, n_programs)``, cells of one study.
    margin
        Standard deviations by which the best program must lead the second.
    above
        Standard errors by which it must lie above its control genes.

    Returns
    -------
    Index of the program with the highest standardised score ``(n_cells,)``; ``NOT_EXPRESSED`` where it is not so far
    above its controls, or not above the mean of the study; ``UNCLEAR`` where it leads by less than the margin, or not
    at all.

    Notes
    -----
    Scores are standardised per program, because programs differ in number and expression of genes, and the highest
    gives the phase, as in Macosko et al. 2015 (doi:10.1016/j.cell.2015.05.002). That a program must also be expressed
    above its controls is our choice, and so is the margin: standardised alone, some program leads in every resting
    cell.
    """
    if not len(scores):
        return np.zeros(0, dtype=np.intp)
    standard = standardise(scores)
    best = standard.argmax(axis=1)
    at_best = np.arange(len(scores)), best
    top = np.partition(standard, -2, axis=1)
    lead = top[:, -1] - top[:, -2]
    silent = (standard[at_best] <= 0) | (scores[at_best] <= 0) | (scores[at_best] < above * errors[at_best])
    found = np.where((lead < margin) | (lead <= 0), UNCLEAR, best)
    return np.where(silent, NOT_EXPRESSED, found)

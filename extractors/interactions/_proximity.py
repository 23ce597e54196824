"""Distances over a network of ligands and receptors: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import shortest_path

from ...cards._errors import BadInputError, PanelError

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

MAX_HOPS = 9
"""Longer ways count as this many steps, and so do ends that no way joins; our choice: in the consensus of LIANA, 97 in
100 of the ligands and receptors that a way joins lie no farther apart."""
_ROUNDS = 1_000


def mean_of_groups(values: Floats, member: Places, n: int) -> Floats:
    """Average groups to types, each gene over the groups that measure it.

    Parameters
    ----------
    values
        ``(n_groups, n_genes)``, NaN where the file of a group does not measure the gene.
    member
        Type of each group, ``(n_groups,)``.
    n
        Number of types.

    Returns
    -------
    ``(n, n_genes)``; 0 where no group of a type measures the gene. Every group weighs the same, whatever its cells.
    """
    groups = csr_matrix((np.ones(len(member)), (member, np.arange(len(member)))), shape=(n, len(member)))
    known = np.isfinite(values)
    total, count = groups @ np.where(known, values, 0.0), groups @ known.astype(np.float64)
    return np.asarray(np.divide(total, count, out=np.zeros_like(total), where=count > 0))


def expressed_only(mean: Floats, fraction: Floats, threshold: float) -> Floats:
    """Set genes to 0 in types where fewer than ``threshold`` of the cells have them; all ``(n, n_genes)``."""
    return np.where(fraction >= threshold, mean, 0.0)


def complex_expression(expression: Floats, members: Sequence[Sequence[int]]) -> Floats:
    """Take the minimum of the subunits.

    Parameters
    ----------
    expression
        ``(n_types, n_genes)``.
    members
        Genes of each complex, at least one.

    Returns
    -------
    ``(n_types, n_complexes)``; a complex is expressed where all of its subunits are.
    """
    genes = np.concatenate([np.asarray(own, dtype=np.int64) for own in members])
    starts = np.cumsum([0, *(len(own) for own in members[:-1])])
    return np.asarray(np.minimum.reduceat(expression[:, genes], starts, axis=1))


def nearest_hops(
    ligand: Places, receptor: Places, n_ligands: int, expressed: NDArray[np.bool_], *, max_hops: int = MAX_HOPS
) -> Floats:
    """Count the steps from each ligand to the nearest receptor of each receiver.

    Parameters
    ----------
    ligand, receptor
        Ends of each pair of a resource, ``(n_pairs,)``.
    n_ligands
        How many ligands there are.
    expressed
        Which receptors each receiver expresses, ``(n_types, n_receptors)``.
    max_hops
        Longer ways count as this many steps, and so do ends that no way joins.

    Returns
    -------
    Edges on the shortest way in the graph that has a node for each ligand, one for each receptor and an edge for each
    pair, float64 ``(n_ligands, n_types)``: 1 where a receptor of the ligand is expressed, else 3, 5, and so on.
    """
    n_types, n_receptors = expressed.shape
    n = n_ligands + n_receptors
    # one more node for each receiver, from which its receptors can be reached and which nothing leads back to: a walk
    # from each of these few finds what would else take one from every ligand
    own, held = np.nonzero(expressed)
    rows = np.concatenate([ligand, n_ligands + receptor, n + own])
    columns = np.concatenate([n_ligands + receptor, ligand, n_ligands + held])
    graph = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(n + n_types,) * 2)
    steps = shortest_path(graph, method="D", unweighted=True, indices=n + np.arange(n_types))
    return np.asarray(np.minimum(steps[:, :n_ligands].T - 1, max_hops))


def directed_hops(
    ligands: Floats,
    receptors: Floats,
    ligand: Places,
    receptor: Places,
    *,
    names: Sequence[str],
    max_hops: int = MAX_HOPS,
) -> Floats:
    """Measure how far the ligands of each sender are from the receptors of each receiver.

    Parameters
    ----------
    ligands, receptors
        Expression, ``(n_types, n_ligands)`` and ``(n_types, n_receptors)``; 0 where not expressed.
    ligand, receptor
        Ends of each pair of a resource, ``(n_pairs,)``.
    names
        Of the types, for messages.
    max_hops
        As ``nearest_hops``.

    Returns
    -------
    Float64 ``(n_types, n_types)``, row = sender, column = receiver: the mean over the sender's expressed ligands,
    weighted by the square root of their expression, of the steps to the nearest receptor that the receiver expresses.

    Raises
    ------
    PanelError
        If a type expresses no ligand or no receptor.

    Notes
    -----
    The "closest" measure of network proximity, there from the targets of a drug to the genes of a disease (Guney et al.
    2016, Nature Communications 7:10331), here from ligands to receptors. That ligands weigh by the root of their
    expression follows the "sqrt-weighted" paths of the published communication manifold (Kendiukhov,
    arXiv:2603.10261), whose definition is not given: our reading.
    """
    for what, expression in (("ligand", ligands), ("receptor", receptors)):
        silent = np.flatnonzero(~(expression > 0).any(axis=1))
        if len(silent):
            raise PanelError(
                f"The cell type {names[silent[0]]!r} expresses no {what} of the resource.",
                "Lower the least fraction of cells (`expressed`), give files that measure more of the resource's "
                "genes, or leave the type out.",
            )
    hops = nearest_hops(ligand, receptor, ligands.shape[1], receptors > 0, max_hops=max_hops)
    weight = np.sqrt(ligands)
    return np.asarray((weight @ hops) / weight.sum(axis=1, keepdims=True))


def permuted_receivers(ligand: Places, receptor: Places, *, rng: np.random.Generator) -> Places:
    """Exchange the receptor ends of pairs at random: every ligand and receptor keeps its number of partners.

    Parameters
    ----------
    ligand, receptor
        Ends of each pair, ``(n_pairs,)``, no pair twice.
    rng
        Draws the exchange.

    Returns
    -------
    Receptor ends in the order of the pairs, int64 ``(n_pairs,)``; no pair occurs twice.

    Raises
    ------
    BadInputError
        If no exchange without a repeated pair is found.

    Notes
    -----
    A permutation makes some pairs twice, which would count once as edges and so take partners away. Their receptor ends
    are exchanged again with those of pairs drawn at random until there are none (our choice).
    """
    drawn = rng.permutation(receptor)
    width = int(receptor.max(initial=0)) + 1
    for _ in range(_ROUNDS):
        _, first = np.unique(ligand * width + drawn, return_index=True)
        again = np.setdiff1d(np.arange(len(drawn)), first, assume_unique=True)
        if not len(again):
            return np.asarray(drawn, dtype=np.int64)
        # one at a time, since two exchanges with the same pair would lose one of its ends
        for place, other in zip(again.tolist(), rng.integers(len(drawn), size=len(again)).tolist(), strict=True):
            drawn[place], drawn[other] = drawn[other], drawn[place]
    raise BadInputError(
        f"The {len(ligand)} pairs of the resource leave no other way to pair its ligands and receptors.",
        "Use a resource with more pairs: the paired null rulers need one.",
    )

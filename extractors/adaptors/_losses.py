"""The terms of the cell head's and the hybrid head's loss, on latents of one batch.

The paper names and weights the terms (Kendiukhov, arXiv:2603.10261) and defines none of them: each formula below is our
choice. ``angle(u, v)`` is ``arccos((1 - COSINE_BOUND) cos(u, v))``, whose slope is finite, as in the LET adaptor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...manifolds._let_kernel import COSINE_BOUND

_TINY = 1e-20


def unit(latent: Tensor) -> Tensor:
    """Divide latents, shape (..., d), by their length; one of length 0 stays 0."""
    return latent * (latent.square().sum(dim=-1, keepdim=True) + _TINY).rsqrt()


def angles(cosines: Tensor) -> Tensor:
    """Return the angle, in radians, of each cosine; any shape."""
    return torch.acos(cosines * (1 - COSINE_BOUND))


def stage_loss(cosines: Tensor, stage: Tensor, distances: Tensor, beta: Tensor) -> Tensor:
    """Compare latent distances of cells with ruler distances of their stages.

    Parameters
    ----------
    cosines
        Of all pairs of latents of the batch, shape (n, n).
    stage
        Index of each cell's stage, shape (n,), int64.
    distances
        Ruler distances of the stages, shape (n_stages, n_stages), divided by their mean over pairs of stages.
    beta
        Distance per radian, in the same unit; shape ().

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_stage = sum_{i != j} w_i w_j (beta angle(z_i, z_j) - d(s_i, s_j))^2 / sum_{i != j} w_i w_j``, ``w_i`` one over
    the number of cells of ``s_i`` in the batch, so that stages weigh alike; our choice. With distances over their mean
    the term does not depend on the unit of the ruler, and is about 1 where all angles are 0.
    """
    weight = 1 / torch.bincount(stage, minlength=len(distances)).to(cosines.dtype)[stage]
    target = distances.index_select(1, stage).index_select(0, stage)
    error = (beta * angles(cosines) - target).square()
    total = weight @ error @ weight - (weight.square() * error.diagonal()).sum()
    return total / (weight.sum().square() - weight.square().sum())


def local_loss(cosines: Tensor, partner: Tensor, cell: Tensor, temperature: float) -> Tensor:
    """Ask each cell to find a neighbour in feature space among the cells of the batch.

    Parameters
    ----------
    cosines
        Of all pairs of latents of the batch, shape (n, n).
    partner
        Cosine of each cell's latent and that of one of its nearest neighbours, shape (n,).
    cell
        What cell each row is, shape (n,): a small stage may have one several times in a batch.
    temperature
        ``t``.

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_local = mean_i -log(e^{cos(z_i, z_i') / t} / (e^{cos(z_i, z_i') / t} + sum_{j != i} e^{cos(z_i, z_j) / t}))``,
    ``i'`` drawn from the nearest neighbours of ``i``, which is InfoNCE (van den Oord et al., arXiv:1807.03748); our
    choice. It asks for an order only: angles in feature space are near a right angle even between neighbours, and to
    match them would pull against the ruler.
    """
    others = (cosines / temperature).masked_fill(cell[:, None] == cell[None, :], -torch.inf)
    logits = torch.logaddexp(others.logsumexp(dim=1), partner / temperature)
    return (logits - partner / temperature).mean()


def recon_loss(latent: Tensor, rows: Tensor, power: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Rebuild standardised features from latents.

    Parameters
    ----------
    latent
        ``z = W (x - b)``, shape (n, d).
    rows
        ``x``, shape (n, p).
    power
        ``||x||^2`` of each row, shape (n,).
    weights, bias
        ``W``, shape (d, p), and ``b``, shape (p,).

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_recon = mean over cells and features of (W^T z + b - x)^2``, the LET adaptor's term as a mean; our choice.
    With ``c = x - b``, ``||W^T z - c||^2 = ||c||^2 - 2 ||z||^2 + z^T W W^T z`` needs no array of the size of the rows.
    """
    centred = power - 2 * (rows @ bias) + bias @ bias
    rebuilt = ((latent @ (weights @ weights.T)) * latent).sum(dim=1)
    return (centred - 2 * latent.square().sum(dim=1) + rebuilt).mean() / rows.shape[1]


def cls_loss(latent: Tensor, stage: Tensor, weights: Tensor, bias: Tensor) -> Tensor:
    """Return the cross-entropy of a linear classifier of the stage.

    Parameters
    ----------
    latent
        Shape (n, d).
    stage
        Index of each cell's stage, shape (n,), int64.
    weights, bias
        Shapes (n_stages, d) and (n_stages,).

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_cls = mean_i -log softmax(C z_i + c)[s_i]``; our choice.
    """
    return torch.nn.functional.cross_entropy(latent @ weights.T + bias, stage)


def centroids(latent: Tensor, stage: Tensor, n_stages: int) -> tuple[Tensor, Tensor]:
    """Average the latents of each stage.

    Returns
    -------
    ``mu``, shape (n_stages, d), 0 for stages that no cell has; and the number of cells of each, shape (n_stages,).
    """
    count = torch.bincount(stage, minlength=n_stages)
    total = latent.new_zeros(n_stages, latent.shape[1]).index_add(0, stage, latent)
    return total / count.clamp(min=1).to(latent.dtype)[:, None], count


def topo_loss(mu: Tensor, count: Tensor, distances: Tensor, beta: Tensor) -> Tensor:
    """Compare latent distances of stage centroids with the ruler.

    Parameters
    ----------
    mu, count
        From :func:`centroids`.
    distances, beta
        Ruler distances of the stages, shape (n_stages, n_stages), and distance per radian, in one unit.

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_topo = mean_{s < t} (beta angle(mu_s, mu_t) - d(s, t))^2`` over the stages of the batch: the published
    ``||D(mu(z)) - D_ref||^2`` as a mean over pairs, with the centroids of a batch; our choice.
    """
    there = torch.nonzero(count)[:, 0]
    if len(there) < 2:
        return mu.sum() * 0
    first, second = torch.triu_indices(len(there), len(there), offset=1)
    towards = unit(mu[there])
    error = beta * angles(towards @ towards.T) - distances[there][:, there]
    return error[first, second].square().mean()


def compact_loss(latent: Tensor, stage: Tensor, mu: Tensor) -> Tensor:
    """Return the mean angle, in radians, between cells and the centroids of their stages.

    Parameters
    ----------
    latent, stage
        Shapes (n, d) and (n,).
    mu
        From :func:`centroids`.

    Returns
    -------
    Shape ().

    Notes
    -----
    ``L_compact = mean_i angle(z_i, mu_{s_i})``, for the published "within-stage spread"; our choice.
    """
    return angles((unit(latent) * unit(mu)[stage]).sum(dim=1)).mean()

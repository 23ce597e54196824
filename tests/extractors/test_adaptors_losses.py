"""The terms of the cell head's loss: each against a plain double loop, its gradient against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from manifoldzoo.extractors.adaptors._losses import (
    centroids,
    cls_loss,
    compact_loss,
    local_loss,
    recon_loss,
    stage_loss,
    topo_loss,
    unit,
)
from manifoldzoo.manifolds._let_kernel import COSINE_BOUND

N, D, P, N_STAGES = 17, 4, 9, 5
SAME = {"rtol": 1e-6, "atol": 0}


class Batch:
    """A batch of cells, a repeated one among them, with parameters; the last stage has no cell."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.x = rng.standard_normal((N, P))
        self.cell = np.append(np.arange(N - 1), 0)
        self.x[-1] = self.x[0]
        self.stage = rng.permutation(np.repeat(np.arange(N_STAGES - 1), [2, 8, 3, 4]))
        self.stage[-1] = self.stage[0]
        self.w, self.b = rng.standard_normal((D, P)), rng.standard_normal(P)
        self.z = (self.x - self.b) @ self.w.T
        self.near = rng.standard_normal((N, D))
        d = rng.uniform(0.2, 2, (N_STAGES, N_STAGES))
        self.d = (d + d.T) * (1 - np.eye(N_STAGES))
        self.beta = 0.7
        self.c, self.offset = rng.standard_normal((N_STAGES, D)), rng.standard_normal(N_STAGES)


@pytest.fixture(params=[0, 1, 2])
def batch(request):
    return Batch(request.param)


def angle(u, v):
    return np.arccos((1 - COSINE_BOUND) * (u @ v) / np.sqrt((u @ u) * (v @ v)))


def tensor(array, grad=False):
    return torch.tensor(array, dtype=torch.float64 if np.asarray(array).dtype.kind == "f" else None, requires_grad=grad)


def cosines(latent):
    return unit(latent) @ unit(latent).T


def check_gradient(function, *arrays):
    assert torch.autograd.gradcheck(function, tuple(tensor(array, grad=True) for array in arrays))


def test_stage_loss(batch):
    total = weight = 0.0
    for i in range(N):
        for j in range(N):
            if i != j:
                share = 1 / (np.sum(batch.stage == batch.stage[i]) * np.sum(batch.stage == batch.stage[j]))
                error = batch.beta * angle(batch.z[i], batch.z[j]) - batch.d[batch.stage[i], batch.stage[j]]
                total, weight = total + share * error**2, weight + share
    found = stage_loss(cosines(tensor(batch.z)), tensor(batch.stage), tensor(batch.d), tensor(batch.beta))
    np.testing.assert_allclose(found.item(), total / weight, **SAME)


def test_stage_loss_weighs_stages_alike():
    # three cells of stage 0 in one place or one cell there: the pairs between stages count the same
    z, d = np.array([[1.0, 0], [0, 1], [-1, 1]]), np.array([[0, 1.0, 3], [1, 0, 1], [3, 1, 0]])
    many, few = np.array([0, 0, 0, 1, 2]), np.array([0, 1, 2])
    sums = []
    for stage in (many, few):
        weight = 1 / np.bincount(stage)[stage]
        pairs = weight.sum() ** 2 - (weight**2).sum()
        loss = stage_loss(cosines(tensor(z[stage])), tensor(stage), tensor(d), torch.tensor(0.5, dtype=torch.float64))
        sums.append(loss.item() * pairs)
    # what differs are the pairs within stage 0, at angle arccos(1 - 1e-6)
    np.testing.assert_allclose(sums[0], sums[1], atol=1e-5)


def test_local_loss(batch):
    temperature, total = 0.3, 0.0
    for i in range(N):
        near = np.exp(np.cos(np.arccos(batch.z[i] @ batch.near[i] / norm(batch.z[i], batch.near[i]))) / temperature)
        others = sum(
            np.exp(batch.z[i] @ batch.z[j] / norm(batch.z[i], batch.z[j]) / temperature)
            for j in range(N)
            if batch.cell[j] != batch.cell[i]
        )
        total += -np.log(near / (near + others))
    z, near = tensor(batch.z), tensor(batch.near)
    found = local_loss(cosines(z), (unit(z) * unit(near)).sum(dim=1), tensor(batch.cell), temperature)
    np.testing.assert_allclose(found.item(), total / N, **SAME)


def norm(u, v):
    return np.linalg.norm(u) * np.linalg.norm(v)


def test_recon_loss(batch):
    total = 0.0
    for row, z in zip(batch.x, batch.z, strict=True):
        for feature in range(P):
            total += (batch.w[:, feature] @ z + batch.b[feature] - row[feature]) ** 2
    power = (batch.x**2).sum(axis=1)
    found = recon_loss(*map(tensor, (batch.z, batch.x, power, batch.w, batch.b)))
    np.testing.assert_allclose(found.item(), total / (N * P), **SAME)


def test_recon_loss_is_zero_where_rows_are_rebuilt():
    w = np.linalg.qr(np.random.default_rng(0).standard_normal((P, P)))[0]
    x, b = np.random.default_rng(1).standard_normal((N, P)), np.full(P, 0.3)
    found = recon_loss(*map(tensor, ((x - b) @ w.T, x, (x**2).sum(axis=1), w, b)))
    assert abs(found.item()) < 1e-12


def test_cls_loss(batch):
    total = 0.0
    for z, stage in zip(batch.z, batch.stage, strict=True):
        logits = [batch.c[s] @ z + batch.offset[s] for s in range(N_STAGES)]
        total -= np.log(np.exp(logits[stage]) / sum(np.exp(logit) for logit in logits))
    found = cls_loss(*map(tensor, (batch.z, batch.stage, batch.c, batch.offset)))
    np.testing.assert_allclose(found.item(), total / N, **SAME)


def plain_centroids(batch):
    return [batch.z[batch.stage == s].mean(axis=0) for s in range(N_STAGES - 1)]


def test_centroids(batch):
    mu, count = centroids(tensor(batch.z), tensor(batch.stage), N_STAGES)
    np.testing.assert_allclose(mu[:-1].numpy(), plain_centroids(batch), **SAME)
    assert not mu[-1].any()
    assert count.tolist() == [np.sum(batch.stage == s) for s in range(N_STAGES)]


def test_topo_loss(batch):
    mu, errors = plain_centroids(batch), []
    for s in range(N_STAGES - 1):
        for t in range(s):
            errors.append((batch.beta * angle(mu[s], mu[t]) - batch.d[s, t]) ** 2)
    found = topo_loss(*centroids(tensor(batch.z), tensor(batch.stage), N_STAGES), tensor(batch.d), tensor(batch.beta))
    np.testing.assert_allclose(found.item(), np.mean(errors), **SAME)


def test_topo_loss_of_one_stage_is_zero_with_a_gradient():
    z = torch.ones(3, 2, requires_grad=True)
    loss = topo_loss(*centroids(z, torch.zeros(3, dtype=torch.int64), 4), torch.ones(4, 4), torch.tensor(1.0))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros(3, 2))


def test_compact_loss(batch):
    mu = plain_centroids(batch)
    spread = np.mean([angle(z, mu[s]) for z, s in zip(batch.z, batch.stage, strict=True)])
    latent, stage = tensor(batch.z), tensor(batch.stage)
    found = compact_loss(latent, stage, centroids(latent, stage, N_STAGES)[0])
    np.testing.assert_allclose(found.item(), spread, **SAME)


def test_gradients(batch):
    stage, d, cell = tensor(batch.stage), tensor(batch.d), tensor(batch.cell)
    beta = np.array(batch.beta)
    # the repeated cell apart: arccos bends too sharply there for finite differences
    z = batch.z + np.random.default_rng(3).standard_normal(batch.z.shape)
    check_gradient(lambda z, beta: stage_loss(cosines(z), stage, d, beta), z, beta)
    check_gradient(lambda z, near: local_loss(cosines(z), (unit(z) * unit(near)).sum(dim=1), cell, 0.3), z, batch.near)
    check_gradient(lambda z, c, offset: cls_loss(z, stage, c, offset), z, batch.c, batch.offset)
    check_gradient(lambda z, beta: topo_loss(*centroids(z, stage, N_STAGES), d, beta), z, beta)
    check_gradient(lambda z: compact_loss(z, stage, centroids(z, stage, N_STAGES)[0]), z)
    x = tensor(batch.x)
    check_gradient(lambda w, b: recon_loss((x - b) @ w.T, x, x.square().sum(dim=1), w, b), batch.w, batch.b)


def test_gradients_stay_finite_in_float32_where_cells_coincide():
    # same direction, opposite direction, and no length at all
    z = torch.tensor([[1.0, 2], [1, 2], [2, 4], [-1, -2], [0, 0], [3, 1]], requires_grad=True)
    stage, d = torch.tensor([0, 0, 1, 1, 2, 2]), torch.ones(3, 3) - torch.eye(3)
    beta = torch.tensor(1.0, requires_grad=True)
    mu, count = centroids(z, stage, 3)
    total = stage_loss(cosines(z), stage, d, beta) + topo_loss(mu, count, d, beta) + compact_loss(z, stage, mu)
    total = total + local_loss(cosines(z), cosines(z)[0], torch.arange(6), 0.1)
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(z.grad).all() and torch.isfinite(beta.grad)

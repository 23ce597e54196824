from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_checkpoint import PlainCheckpoint
from tiny_models import FAMILIES, GENES, tiny_model
from tiny_scgpt import write_tiny_scgpt
from torch import Tensor

from manifoldzoo.cards._errors import BadInputError, CheckpointError, GeneError
from manifoldzoo.extractors.checkpoints._interface import HeadWeights
from manifoldzoo.extractors.checkpoints._scgpt import read_scgpt
from manifoldzoo.extractors.operators._combine import numerical_rank
from manifoldzoo.extractors.operators._tokens import TokenKind, token_operators

PLAIN = PlainCheckpoint(vocabulary=GENES, genes=GENES)
KINDS: tuple[TokenKind, ...] = ("token_ov", "token_qk")


def one_by_one(embedding: np.ndarray, weights: HeadWeights, kind: TokenKind) -> np.ndarray:
    """The formula for one pair of genes after another, ``(n_heads, n_genes, n_genes)``."""
    query, key, value, output = (
        part.detach().double().numpy() for part in (weights.query, weights.key, weights.value, weights.output)
    )
    n, rows = len(embedding), embedding.astype(np.float64)
    made = np.zeros((len(query), n, n))
    for head in range(len(query)):
        for i in range(n):
            for j in range(n):
                if kind == "token_ov":
                    made[head, i, j] = rows[j] @ (output[head] @ (value[head] @ rows[i]))
                else:
                    made[head, i, j] = (query[head] @ rows[i]) @ (key[head] @ rows[j]) / query.shape[1] ** 0.5
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_formula_pair_by_pair_in_every_family(family: str, kind: TokenKind, tmp_path: Path) -> None:
    checkpoint = tiny_model(family, tmp_path / "model").with_genes(GENES)
    embedding = checkpoint.embedding().detach().numpy()
    want = np.stack([one_by_one(embedding, checkpoint.heads(layer), kind) for layer in range(checkpoint.n_layers)])
    per_head = token_operators(checkpoint, GENES, kind, per_head=True)
    pooled = token_operators(checkpoint, GENES, kind)
    assert per_head.dtype == pooled.dtype == np.float32
    assert per_head.shape == (checkpoint.n_layers, checkpoint.n_heads, len(GENES), len(GENES))
    scale = np.abs(want).max()
    np.testing.assert_allclose(per_head, want, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(pooled, want.mean(1), rtol=1e-5, atol=1e-6 * scale)
    assert np.abs(want - want.transpose(0, 1, 3, 2)).max() > 0.01 * scale


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Any:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path_factory.mktemp("model"), genes=GENES, n_layers=2))
    checkpoint.model.double()
    return checkpoint


@pytest.mark.parametrize("layer", [0, 1])
def test_token_ov_is_the_jacobian_of_what_the_heads_add(network: Any, layer: int) -> None:
    """A sequence of one token has attention one, so the attention does not move with the token."""
    attention = network.model.transformer_encoder.layers[layer].self_attn

    def added(x: Tensor) -> Tensor:
        return attention(x[None, None], None)[0][0, 0]

    embedding = network.embedding().detach().double()
    jacobian = torch.autograd.functional.jacobian(added, embedding[0])
    # d added / d x, seen along the embedding of each gene, moved by each gene; the heads' sum is n_heads means
    want = (embedding @ jacobian @ embedding.T).T.numpy()
    got = token_operators(network, GENES, "token_ov")[layer] * network.n_heads
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("layer", [0, 1])
def test_token_qk_is_the_second_derivative_of_the_score(network: Any, layer: int) -> None:
    """Of two tokens the log ratio of attention to both is a difference of scores, whatever the softmax."""
    attention = network.model.transformer_encoder.layers[layer].self_attn
    embedding, d_model = network.embedding().detach().double(), network.d_model
    got = token_operators(network, GENES, "token_qk", per_head=True)[layer]
    for head in range(network.n_heads):

        def score(x: Tensor, y: Tensor, head: int = head) -> Tensor:
            towards = attention(torch.stack([x, y])[None], None)[1][0, head, 0]
            return towards[1].log() - towards[0].log()

        (_, mixed), _ = torch.autograd.functional.hessian(score, (embedding[0], embedding[1]))
        assert mixed.shape == (d_model, d_model)
        want = (embedding @ mixed @ embedding.T).numpy()
        np.testing.assert_allclose(got[head], want, rtol=1e-5, atol=1e-6 * np.abs(want).max())


def test_heads_have_at_most_the_rank_of_their_projections() -> None:
    for kind in KINDS:
        heads = token_operators(PLAIN, GENES, kind, per_head=True)
        assert {numerical_rank(head) for layer in heads for head in layer} == {PLAIN.d_head}
        assert {numerical_rank(layer) for layer in token_operators(PLAIN, GENES, kind)} == {
            min(PLAIN.d_model, PLAIN.n_heads * PLAIN.d_head)
        }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_head", [False, True])
def test_rows_and_columns_follow_the_genes_named_and_unknown_ones_are_zero(kind: TokenKind, per_head: bool) -> None:
    names = ["X1", *GENES[::-1], "X2"]
    got = token_operators(PLAIN, names, kind, per_head=per_head)
    straight = token_operators(PLAIN, GENES, kind, per_head=per_head)
    np.testing.assert_array_equal(got[..., 1:-1, 1:-1], straight[..., ::-1, ::-1])
    for edge in (0, -1):
        assert not got[..., edge, :].any()
        assert not got[..., :, edge].any()
    # of what the model knows, not of what was asked for before
    np.testing.assert_array_equal(
        token_operators(PLAIN.with_genes(GENES[3:6]), GENES, kind, per_head=per_head), straight
    )


def test_bad_genes_are_refused() -> None:
    with pytest.raises(GeneError, match="more than one"):
        token_operators(PLAIN, (*GENES[:-1], GENES[0]), "token_qk")
    with pytest.raises(GeneError, match="knows 1 of 3"):
        token_operators(PLAIN, [GENES[0], "X", "Y"], "token_qk")
    assert token_operators(PLAIN, [GENES[0], "X", "Y"], "token_qk", gene_floor=0.3).shape == (3, 3, 3)
    with pytest.raises(BadInputError, match="-1"):
        token_operators(PLAIN, GENES, "token_qk", gene_floor=-1)


def test_weights_that_are_not_finite_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = PlainCheckpoint.heads

    def broken(self: PlainCheckpoint, layer: int) -> HeadWeights:
        weights = plainly(self, layer)
        return replace(weights, key=weights.key * float("inf")) if layer == 1 else weights

    monkeypatch.setattr(PlainCheckpoint, "heads", broken)
    with pytest.raises(CheckpointError, match="layer 1 of plain is not finite"):
        token_operators(PLAIN, GENES, "token_qk")
    token_operators(PLAIN, GENES, "token_ov")

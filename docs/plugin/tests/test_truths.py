"""What no conformance kit can know: that the numbers are the right ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from manifoldzoo_coexpression import CoexpressionLet, StaticEmbeddingReader
from manifoldzoo_coexpression._coexpression_let import gene_correlation
from scipy import sparse
from scipy.special import softmax

from manifoldzoo.cards import BadInputError, CheckpointError, Control


def test_attention_is_that_of_the_formula(model) -> None:
    checkpoint = StaticEmbeddingReader().read(model)
    w = {part: tensor.numpy().astype(np.float64) for part, tensor in checkpoint.weights.items()}
    genes, values = np.array([[4, 0, 9]]), np.array([[1.5, 0.25, 3.0]], dtype=np.float32)
    x = w["embedding"][genes[0]] * values[0][:, None].astype(np.float64)
    (attention,), (weighted,) = checkpoint.attention(genes, values), checkpoint.attention(genes, values, weighted=True)
    out = x.copy()
    for head in range(checkpoint.n_heads):
        scores = (x @ w["query"][head].T) @ (x @ w["key"][head].T).T / np.sqrt(w["query"].shape[1])
        expected, added = softmax(scores, axis=1), x @ w["value"][head].T @ w["output"][head].T
        assert np.allclose(attention[0, head], expected, atol=1e-5)
        assert np.allclose(weighted[0, head], expected * np.linalg.norm(added, axis=1), atol=1e-5)
        out += expected @ added
    assert np.allclose(checkpoint.pooled(genes, values), out.mean(axis=0), atol=1e-5)


def test_correlation_is_numpys() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((1100, 6)) * (rng.random((1100, 6)) < 0.5)
    values[:, 3] = 0.7
    values[:, 5] = 0
    found = gene_correlation(sparse.csr_matrix(values, dtype=np.float32))
    varies = [0, 1, 2, 4]
    assert np.allclose(found[np.ix_(varies, varies)], np.corrcoef(values[:, varies].T), atol=1e-6)
    assert not found[[3, 5]].any()
    assert not found[:, [3, 5]].any()


def test_the_card_says_that_the_model_was_not_read(job) -> None:
    card = CoexpressionLet().extract(job).card
    assert "nothing of it was read from the source model" in card.limits[0]
    assert card.extraction.operator.kind == "coexpression-let:gene_correlation"
    assert card.source_model.licence == "CC0-1.0"
    assert card.ruler.name == "toy-two-arms"


@pytest.mark.parametrize("kind", ["random-init", "shuffled-weights"])
def test_controls_of_a_model_that_is_not_read_are_refused(job, kind) -> None:
    with pytest.raises(BadInputError, match=f"'{kind}'"):
        CoexpressionLet().extract(replace(job, control=Control(kind=kind, seed=0)))


def test_a_recipe_that_asks_for_an_operator_of_the_model_is_refused(job) -> None:
    asking = type(job.recipe).model_validate(job.recipe.model_dump() | {"operator": {"kind": "token_ov"}})
    with pytest.raises(BadInputError, match="'token_ov'"):
        CoexpressionLet().extract(replace(job, recipe=asking))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("genes.txt", b"GENE1\nGENE1\n", "repeated"),
        ("genes.txt", b"GENE1\n", "names 1 genes for 60"),
        ("genes.txt", b"\xff\xfe", "UTF-8"),
        ("embedding.safetensors", b"nothing", "whole safetensors"),
    ],
)
def test_folders_that_cannot_be_read(model, tmp_path, name, content, said) -> None:
    for path in model.iterdir():
        (tmp_path / path.name).write_bytes(content if path.name == name else path.read_bytes())
    with pytest.raises(CheckpointError, match=said):
        StaticEmbeddingReader().read(tmp_path)

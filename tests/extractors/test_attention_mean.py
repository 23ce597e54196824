from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from torch import Tensor

from manifoldzoo.cards._errors import BadInputError, GeneError, PanelError, ScaleError
from manifoldzoo.extractors._attention_mean import MIN_GENES, AttentionMean, attention_mean
from manifoldzoo.extractors.checkpoints._interface import PADDING, Checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, ScGPTSettings
from manifoldzoo.extractors.checkpoints._scgpt_model import ScGPTModel

N_GENES, N_LAYERS, N_HEADS = 24, 3, 2
GENES = tuple(f"G{i}" for i in range(N_GENES))


def tiny_checkpoint(max_genes: int = N_GENES) -> ScGPTCheckpoint:
    torch.manual_seed(0)
    model = ScGPTModel(n_tokens=N_GENES + 3, pad_id=0, d_model=8, n_heads=N_HEADS, n_layers=N_LAYERS, d_hid=8)
    torch.nn.init.normal_(model.encoder.embedding.weight, std=2.0)
    for layer in model.transformer_encoder.layers:
        torch.nn.init.normal_(layer.self_attn.in_proj_weight)
    return ScGPTCheckpoint(
        name="tiny",
        licence="none",
        digest="0" * 64,
        files=(),
        settings=ScGPTSettings(N_LAYERS, N_HEADS, 8, 8, max_genes + 1, False, "<pad>"),
        genes=GENES,
        token_ids=np.arange(N_GENES) + 3,
        cls_id=1,
        pad_id=0,
        offset=None,
        ignored_keys=(),
        model=model.eval().requires_grad_(False),
    )


CHECKPOINT = tiny_checkpoint()


@dataclass(frozen=True)
class UniformCheckpoint:
    """Another family: every gene attends to all genes of its cell alike, layer l scaled by l + 1."""

    name: str = "uniform"
    licence: str = "none"
    digest: str = "1" * 64
    genes: tuple[str, ...] = GENES
    n_layers: int = 2
    n_heads: int = 2
    d_model: int = 1
    max_genes: int = N_GENES

    def attention(self, genes: np.ndarray, values: np.ndarray) -> Iterator[Tensor]:
        n_read = torch.from_numpy((genes != PADDING).sum(1))
        for layer in range(self.n_layers):
            row = (layer + 1) / n_read.float()
            yield row[:, None, None, None].expand(len(genes), self.n_heads, genes.shape[1], genes.shape[1])

    def random_initialisation(self, seed: int) -> Checkpoint:
        return self


def random_cells(n_cells: int, seed: int, density: float = 0.6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.gamma(2.0, 0.7, (n_cells, N_GENES)).clip(0.05, 8) * (rng.random((n_cells, N_GENES)) < density)).astype(
        np.float32
    )


def brute_force(checkpoint: ScGPTCheckpoint, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """One cell at a time, straight through the layers, in float64 sums; columns are the checkpoint's genes."""
    total, seen, n_used = np.zeros((N_LAYERS, N_HEADS, N_GENES, N_GENES)), np.zeros((N_GENES, N_GENES)), 0
    for cell in cells:
        present = np.flatnonzero(cell > 0)
        if len(present) < MIN_GENES:
            continue
        n_used += 1
        present = present[np.argsort(-cell[present], kind="stable")[: checkpoint.max_genes]]
        ids = torch.tensor([[checkpoint.cls_id, *checkpoint.token_ids[present]]])
        x = checkpoint.model.embed(ids, torch.tensor([[0.0, *cell[present].tolist()]]))
        for index, layer in enumerate(checkpoint.model.transformer_encoder.layers):
            x, attention = layer(x, None)
            total[index][:, present[:, None], present] += attention[0, :, 1:, 1:].numpy()
        seen[present[:, None], present] += 1
    return total / np.maximum(seen, 1), seen, n_used


@pytest.mark.parametrize("max_genes", [N_GENES, 12])
def test_equals_a_loop_over_cells(max_genes: int) -> None:
    checkpoint = tiny_checkpoint(max_genes)
    cells = random_cells(40, 0)
    cells[3] = 0
    want, seen, n_used = brute_force(checkpoint, cells)
    assert 0 < n_used < 40

    per_head = attention_mean(checkpoint, cells, GENES, per_head=True)
    pooled = attention_mean(checkpoint, cells, GENES)

    assert per_head.layers.dtype == pooled.layers.dtype == np.float32
    np.testing.assert_allclose(per_head.layers, want, rtol=0, atol=1e-5)
    np.testing.assert_allclose(pooled.layers, want.mean(1), rtol=0, atol=1e-5)
    assert per_head.support.dtype == np.int32
    assert np.array_equal(per_head.support, seen)
    assert (per_head.n_cells, per_head.n_skipped) == (n_used, 40 - n_used)
    assert per_head.n_truncated == ((cells > 0).sum(1) > max_genes).sum()
    assert want.max() > 0.5, "attention this flat would not tell rows from columns"


def equal(a: AttentionMean, b: AttentionMean) -> None:
    # padding changes the order of float32 sums, which the sharp attention of these weights enlarges
    np.testing.assert_allclose(a.layers, b.layers, rtol=0, atol=1e-5)
    assert np.array_equal(a.support, b.support)
    assert (a.n_cells, a.n_skipped, a.n_truncated) == (b.n_cells, b.n_skipped, b.n_truncated)


@settings(max_examples=25, deadline=None)
@given(
    n_cells=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    density=st.floats(0.5, 1.0),
    batch_size=st.integers(1, 14),
    per_head=st.booleans(),
)
def test_batch_size_order_and_layout_change_nothing(
    n_cells: int, seed: int, density: float, batch_size: int, per_head: bool
) -> None:
    cells = random_cells(n_cells, seed, density)
    cells[0] = 1.0
    cells[0, 0] = 1.5
    one = attention_mean(CHECKPOINT, cells, GENES, batch_size=1, per_head=per_head)
    equal(one, attention_mean(CHECKPOINT, cells, GENES, batch_size=batch_size, per_head=per_head))
    shuffled = np.random.default_rng(seed).permutation(n_cells)
    equal(one, attention_mean(CHECKPOINT, cells[shuffled], GENES, batch_size=batch_size, per_head=per_head))
    equal(one, attention_mean(CHECKPOINT, sparse.csr_matrix(cells), GENES, batch_size=batch_size, per_head=per_head))


def test_repeats_bit_for_bit() -> None:
    cells = random_cells(30, 3)
    first, again = (attention_mean(CHECKPOINT, cells, GENES, batch_size=4) for _ in range(2))
    assert first.layers.tobytes() == again.layers.tobytes()


def test_rows_and_columns_follow_the_order_of_the_genes_named() -> None:
    cells, order = random_cells(20, 4), np.random.default_rng(0).permutation(N_GENES)
    straight = attention_mean(CHECKPOINT, cells, GENES)
    turned = attention_mean(CHECKPOINT, cells[:, order], [GENES[i] for i in order])
    np.testing.assert_allclose(turned.layers, straight.layers[:, order][:, :, order], rtol=0, atol=1e-5)
    assert turned.genes == tuple(GENES[i] for i in order)


def test_genes_outside_the_vocabulary_are_not_seen() -> None:
    cells = random_cells(20, 5)
    known = attention_mean(CHECKPOINT, cells, GENES)
    more = attention_mean(CHECKPOINT, np.hstack([np.full((20, 2), 3.0, np.float32), cells]), ["X1", "X2", *GENES])
    np.testing.assert_allclose(more.layers[:, 2:, 2:], known.layers, rtol=0, atol=1e-5)
    assert not more.layers[:, :2].any()
    assert not more.layers[:, :, :2].any()
    assert not more.support[:2].any()
    assert more.n_skipped == known.n_skipped


def test_pairs_never_seen_together_are_zero_and_rows_lack_the_attention_to_cls() -> None:
    cells = np.zeros((2, N_GENES), dtype=np.float32)
    cells[0, :12] = cells[1, 12:] = 1.5
    result = attention_mean(CHECKPOINT, cells, GENES)
    assert not result.layers[:, :12, 12:].any()
    assert not result.support[:12, 12:].any()
    assert (result.layers[:, :12, :12] > 0).all()
    row_sums = result.layers.sum(2)
    assert row_sums.max() < 1 + 1e-6
    assert row_sums.mean() < 0.99


def test_a_checkpoint_of_another_family_needs_only_the_interface() -> None:
    cells = random_cells(15, 6)
    present = (cells > 0) & ((cells > 0).sum(1) >= MIN_GENES)[:, None]
    pairs = (present[:, :, None] & present[:, None, :]).astype(float)
    seen = pairs.sum(0)
    want = (pairs / present.sum(1).clip(1)[:, None, None]).sum(0) / np.maximum(seen, 1)
    result = attention_mean(UniformCheckpoint(), cells, GENES, batch_size=5)
    np.testing.assert_allclose(result.layers, [want, 2 * want], atol=1e-6)
    assert np.array_equal(result.support, seen)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_progress_adds_up_to_the_number_of_cells(batch_size: int) -> None:
    cells, calls = random_cells(17, 7), []
    cells[:3] = 0
    attention_mean(CHECKPOINT, cells, GENES, batch_size=batch_size, progress=calls.append)
    assert sum(calls) == 17
    assert min(calls) > 0


def test_unusual_csr_is_read_right_and_left_alone() -> None:
    cells = random_cells(6, 8, density=0.9)
    plain = sparse.csr_matrix(cells)
    rows, columns, values = [], [], []
    for row in range(6):
        own = slice(plain.indptr[row], plain.indptr[row + 1])
        rows += [row] * (2 * (own.stop - own.start) + 1)
        columns += [*plain.indices[own][::-1], *plain.indices[own], 0]
        values += [*plain.data[own][::-1] / 2, *plain.data[own] / 2, 0.0]
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    odd = sparse.csr_matrix((np.array(values, np.float64), np.array(columns), indptr), shape=cells.shape)
    before = (odd.data.copy(), odd.indices.copy(), odd.indptr.copy())
    equal(attention_mean(CHECKPOINT, odd, GENES), attention_mean(CHECKPOINT, cells, GENES))
    for kept, now in zip(before, (odd.data, odd.indices, odd.indptr), strict=True):
        assert np.array_equal(kept, now)


def test_the_boundary_of_too_few_genes() -> None:
    cells = np.zeros((2, N_GENES), dtype=np.float32)
    cells[0, : MIN_GENES - 1] = 1.5
    cells[1, :MIN_GENES] = 1.5
    result = attention_mean(CHECKPOINT, cells, GENES)
    assert (result.n_cells, result.n_skipped) == (1, 1)
    with pytest.raises(PanelError, match=str(MIN_GENES)):
        attention_mean(CHECKPOINT, cells[:1], GENES)
    with pytest.raises(PanelError):
        attention_mean(CHECKPOINT, cells[:0], GENES)


def with_value(value: float) -> np.ndarray:
    cells = random_cells(3, 9)
    cells[1, 2] = value
    return cells


@pytest.mark.parametrize(
    ("cells", "genes", "error"),
    [
        (with_value(float("nan")), GENES, ScaleError),
        (with_value(float("inf")), GENES, ScaleError),
        (with_value(-1.0), GENES, ScaleError),
        (with_value(300.0), GENES, ScaleError),
        (np.rint(random_cells(3, 9) * 4), GENES, ScaleError),
        (random_cells(3, 9), GENES[:-1], GeneError),
        (random_cells(3, 9)[0], GENES, GeneError),
        (random_cells(3, 9), (*GENES[:-1], "G0"), GeneError),
        (random_cells(3, 9), [gene.lower() for gene in GENES], GeneError),
    ],
)
def test_bad_input_is_refused(cells: np.ndarray, genes: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        attention_mean(CHECKPOINT, cells, genes)
    with pytest.raises(error):
        attention_mean(CHECKPOINT, sparse.csr_matrix(cells) if cells.ndim == 2 else cells, genes)


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(BadInputError, match="0"):
        attention_mean(CHECKPOINT, random_cells(3, 1), GENES, batch_size=0)


def test_untrained_weights_give_another_operator() -> None:
    cells = random_cells(10, 10)
    control = CHECKPOINT.random_initialisation(1)
    assert not np.allclose(
        attention_mean(control, cells, GENES).layers, attention_mean(CHECKPOINT, cells, GENES).layers, atol=1e-3
    )


def test_no_gradient_is_kept() -> None:
    genes = np.arange(12)[None]
    layers = list(CHECKPOINT.attention(genes, np.ones((1, 12), np.float32)))
    assert len(layers) == N_LAYERS
    assert not any(layer.requires_grad for layer in layers)


def test_attention_refuses_more_genes_than_the_model_reads() -> None:
    short = replace(CHECKPOINT, settings=replace(CHECKPOINT.settings, max_seq_len=5))
    with pytest.raises(BadInputError, match="4"):
        next(short.attention(np.arange(5)[None], np.ones((1, 5), np.float32)))

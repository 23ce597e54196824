from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plain_checkpoint import PlainCheckpoint
from scipy import sparse
from tiny_models import FAMILIES, GENES, tiny_cells, tiny_model
from tiny_scgpt import write_tiny_scgpt
from torch import Tensor

from manifoldzoo.cards._errors import BadInputError, CheckpointError, GeneError, PanelError, ScaleError
from manifoldzoo.extractors.checkpoints._interface import PADDING, Checkpoint
from manifoldzoo.extractors.checkpoints._scgpt import ScGPTCheckpoint, read_scgpt
from manifoldzoo.extractors.operators import _attention
from manifoldzoo.extractors.operators._attention import AttentionMean, attention_mean
from manifoldzoo.extractors.operators._cells import MIN_GENES

N_GENES = len(GENES)
PLAIN = PlainCheckpoint(vocabulary=GENES, genes=GENES)


@dataclass(frozen=True)
class Uniform:
    """Every gene attends to all genes of its cell alike, layer l scaled by l + 1."""

    name: str = "uniform"
    digest: str = "1" * 64
    genes: tuple[str, ...] = GENES
    n_layers: int = 2
    n_heads: int = 2
    d_model: int = 1
    max_genes: int = N_GENES
    scale: str = "log1p"

    def knows(self, names: Any) -> NDArray[np.bool_]:
        return np.isin(np.asarray(names, dtype=str), self.genes)

    def with_genes(self, names: Any) -> Uniform:
        return replace(self, genes=tuple(names))

    def attention(self, genes: Any, values: Any, *, weighted: bool = False) -> Iterator[Tensor]:
        n_read = torch.from_numpy((genes != PADDING).sum(1))
        for layer in range(self.n_layers):
            row = (layer + 1) / n_read.float()
            yield row[:, None, None, None].expand(len(genes), self.n_heads, genes.shape[1], genes.shape[1])


def random_cells(n_cells: int, seed: int, density: float = 0.6) -> NDArray[np.float32]:
    return tiny_cells("log1p", n_cells, N_GENES, seed=seed, density=density).toarray()


def one_by_one(
    checkpoint: Checkpoint, cells: Any, *, weighted: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """One cell at a time, added by NumPy; columns are the checkpoint's genes."""
    n = len(checkpoint.genes)
    total, seen, n_used = np.zeros((checkpoint.n_layers, checkpoint.n_heads, n, n)), np.zeros((n, n)), 0
    for cell in cells.toarray() if sparse.issparse(cells) else cells:
        present = np.flatnonzero(cell > 0)
        if len(present) < MIN_GENES:
            continue
        n_used += 1
        present = np.sort(present[np.argsort(-cell[present], kind="stable")[: checkpoint.max_genes]])
        for layer, attention in enumerate(checkpoint.attention(present[None], cell[None, present], weighted=weighted)):
            total[layer][:, present[:, None], present] += attention[0].numpy()
        seen[present[:, None], present] += 1
    return total / np.maximum(seen, 1), seen, n_used


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_a_loop_over_cells_in_every_family(family: str, weighted: bool, tmp_path: Path) -> None:
    checkpoint = tiny_model(family, tmp_path / "model").with_genes(GENES)
    cells = tiny_cells(checkpoint.scale, 17, N_GENES)
    want, seen, n_used = one_by_one(checkpoint, cells, weighted=weighted)
    per_head = attention_mean(checkpoint, cells, GENES, per_head=True, weighted=weighted)
    pooled = attention_mean(checkpoint, cells, GENES, weighted=weighted)
    assert per_head.layers.dtype == pooled.layers.dtype == np.float32
    np.testing.assert_allclose(per_head.layers, want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pooled.layers, want.mean(1), rtol=1e-5, atol=1e-5)
    assert np.array_equal(per_head.support, seen) and np.array_equal(pooled.support, seen)
    assert per_head.support.dtype == np.int32
    assert 0 < n_used == per_head.n_cells == pooled.n_cells
    assert np.abs(want - want.transpose(0, 1, 3, 2)).max() > 0.05, (
        "attention this flat would not tell rows from columns"
    )


def test_weighted_attention_is_another(tmp_path: Path) -> None:
    cells = random_cells(9, 0)
    plain, weighted = (attention_mean(PLAIN, cells, GENES, weighted=weighted).layers for weighted in (False, True))
    assert np.abs(plain - weighted).max() > 0.1


def straight(
    checkpoint: ScGPTCheckpoint, cells: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Through the layers of the network itself, one cell at a time."""
    n, heads = len(checkpoint.genes), checkpoint.n_heads
    total, seen = np.zeros((checkpoint.n_layers, heads, n, n)), np.zeros((n, n))
    for cell in cells:
        present = np.flatnonzero(cell > 0)
        present = present[np.argsort(-cell[present], kind="stable")[: checkpoint.max_genes]]
        if len(present) < MIN_GENES:
            continue
        ids = torch.tensor([[checkpoint.cls_id, *checkpoint.token_ids[present]]])
        x = checkpoint.model.embed(ids, torch.tensor([[0.0, *cell[present].tolist()]]))
        for index, layer in enumerate(checkpoint.model.transformer_encoder.layers):
            x, attention = layer(x, None)
            total[index][:, present[:, None], present] += attention[0, :, 1:, 1:].numpy()
        seen[present[:, None], present] += 1
    return total / np.maximum(seen, 1), seen


@pytest.mark.parametrize("max_genes", [N_GENES, 12])
def test_equals_the_network_itself(max_genes: int, tmp_path: Path) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, genes=GENES, args={"max_seq_len": max_genes + 1}))
    cells = random_cells(40, 0)
    cells[3] = 0
    want, seen = straight(checkpoint, cells)
    got = attention_mean(checkpoint, cells, GENES, per_head=True)
    np.testing.assert_allclose(got.layers, want, rtol=0, atol=1e-5)
    assert np.array_equal(got.support, seen)
    assert got.n_cells + got.n_skipped == 40
    assert got.n_truncated == ((cells > 0).sum(1) > max_genes).sum()


def equal(a: AttentionMean, b: AttentionMean) -> None:
    # batches change the order of float32 sums, which the sharp attention of these weights enlarges
    np.testing.assert_allclose(a.layers, b.layers, rtol=0, atol=1e-5)
    assert np.array_equal(a.support, b.support)
    assert (a.n_cells, a.n_skipped, a.n_truncated) == (b.n_cells, b.n_skipped, b.n_truncated)


@settings(max_examples=25, deadline=None)
@given(
    n_cells=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    density=st.floats(0.5, 1.0),
    batch_size=st.integers(1, 14),
    group=st.sampled_from([(1, 1), (1 << 11, 1 << 11), (1 << 21, 1 << 21)]),
    per_head=st.booleans(),
    n_heads=st.sampled_from([1, 3, 4, 5]),
)
def test_batches_groups_order_and_layout_change_nothing(
    n_cells: int, seed: int, density: float, batch_size: int, group: tuple[int, int], per_head: bool, n_heads: int
) -> None:
    checkpoint = PlainCheckpoint(vocabulary=GENES, genes=GENES, n_heads=n_heads)
    cells = random_cells(n_cells, seed, density)
    cells[0] = 1.0
    cells[0, 0] = 1.5
    want, seen, _ = one_by_one(checkpoint, cells)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_attention, "_GROUP_FLOATS", group)
        given_ = {"batch_size": batch_size, "per_head": per_head}
        got = attention_mean(checkpoint, cells, GENES, **given_)
        np.testing.assert_allclose(got.layers, want if per_head else want.mean(1), rtol=0, atol=1e-5)
        assert np.array_equal(got.support, seen)
        shuffled = np.random.default_rng(seed).permutation(n_cells)
        equal(got, attention_mean(checkpoint, cells[shuffled], GENES, **given_))
        equal(got, attention_mean(checkpoint, sparse.csr_matrix(cells), GENES, **given_))


@pytest.mark.parametrize("per_head", [False, True])
def test_threads_that_add_change_no_byte_and_leave_those_of_torch(
    per_head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, cells, made = torch.get_num_threads(), random_cells(30, 3), []
    for n_threads in (1, 3, 50):
        monkeypatch.setattr(_attention, "use_threads", lambda n=n_threads: n)
        made.append(attention_mean(PLAIN, cells, GENES, per_head=per_head))
    assert torch.get_num_threads() == before
    assert len({result.layers.tobytes() for result in made}) == 1
    assert len({result.support.tobytes() for result in made}) == 1


def test_repeats_bit_for_bit() -> None:
    cells = random_cells(30, 3)
    first, again = (attention_mean(PLAIN, cells, GENES, per_head=True) for _ in range(2))
    assert first.layers.tobytes() == again.layers.tobytes()


def test_rows_and_columns_follow_the_order_of_the_genes_named() -> None:
    cells, order = random_cells(20, 4), np.random.default_rng(0).permutation(N_GENES)
    straight_on = attention_mean(PLAIN, cells, GENES)
    turned = attention_mean(PLAIN, cells[:, order], [GENES[i] for i in order])
    np.testing.assert_allclose(turned.layers, straight_on.layers[:, order][:, :, order], rtol=0, atol=1e-5)
    assert turned.genes == tuple(GENES[i] for i in order)


def test_genes_that_the_model_does_not_know_are_reported_and_not_seen() -> None:
    cells = random_cells(20, 5)
    known = attention_mean(PLAIN, cells, GENES)
    assert known.unknown_genes == ()
    more = attention_mean(PLAIN, np.hstack([np.full((20, 2), 3.0, np.float32), cells]), ["X1", "X2", *GENES])
    assert more.unknown_genes == ("X1", "X2")
    np.testing.assert_allclose(more.layers[:, 2:, 2:], known.layers, rtol=0, atol=1e-5)
    assert not more.layers[:, :2].any()
    assert not more.layers[:, :, :2].any()
    assert not more.support[:2].any()
    assert more.n_skipped == known.n_skipped


def test_too_few_known_genes_are_refused_with_the_numbers() -> None:
    names = [*GENES[:12], *(f"X{i}" for i in range(12))]
    cells = np.full((2, 24), 1.5, np.float32)
    assert len(attention_mean(PLAIN, cells, names).unknown_genes) == 12
    names[0] = "X12"
    with pytest.raises(GeneError, match=r"knows 11 of 24 genes, at least 50% are needed; unknown are 'X12', 'X0'"):
        attention_mean(PLAIN, cells, names)
    assert len(attention_mean(PLAIN, cells, names, gene_floor=0.4).unknown_genes) == 13
    with pytest.raises(GeneError, match="knows 0 of 24"):
        attention_mean(PLAIN, cells, [f"X{i}" for i in range(24)], gene_floor=0.0)
    with pytest.raises(BadInputError, match=r"1\.5"):
        attention_mean(PLAIN, cells, names, gene_floor=1.5)


def test_pairs_never_seen_together_are_zero_and_rows_lack_the_attention_to_cls(tmp_path: Path) -> None:
    checkpoint = read_scgpt(write_tiny_scgpt(tmp_path, genes=GENES))
    cells = np.zeros((2, N_GENES), dtype=np.float32)
    cells[0, :12] = cells[1, 12:] = 1.5
    result = attention_mean(checkpoint, cells, GENES)
    assert not result.layers[:, :12, 12:].any()
    assert not result.support[:12, 12:].any()
    assert (result.layers[:, :12, :12] > 0).all()
    row_sums = result.layers.sum(2)
    assert row_sums.max() < 1 + 1e-6
    assert row_sums.mean() < 0.99


@pytest.mark.parametrize("per_head", [False, True])
def test_maps_of_any_layout_are_read_right(per_head: bool) -> None:
    cells = random_cells(15, 6)
    present = (cells > 0) & ((cells > 0).sum(1) >= MIN_GENES)[:, None]
    pairs = (present[:, :, None] & present[:, None, :]).astype(float)
    seen = pairs.sum(0)
    want = (pairs / present.sum(1).clip(1)[:, None, None]).sum(0) / np.maximum(seen, 1)
    result = attention_mean(Uniform(), cells, GENES, batch_size=5, per_head=per_head)
    expected = np.stack([want, 2 * want])
    np.testing.assert_allclose(result.layers, expected[:, None].repeat(2, 1) if per_head else expected, atol=1e-6)
    assert np.array_equal(result.support, seen)


@pytest.mark.parametrize(
    "change",
    [
        lambda maps: maps.double(),
        lambda maps: maps.transpose(2, 3).contiguous().transpose(2, 3),
        lambda maps: maps.transpose(0, 1).contiguous().transpose(0, 1),
        lambda maps: torch.nn.functional.pad(maps, (3, 1, 2, 5))[:, :, 2:-5, 3:-1],
        lambda maps: maps.clone().requires_grad_(),
    ],
)
def test_dtype_strides_and_gradients_of_maps_do_not_matter(change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = random_cells(15, 6)
    want = attention_mean(PLAIN, cells, GENES, per_head=True)
    plainly = PlainCheckpoint.attention
    monkeypatch.setattr(
        PlainCheckpoint, "attention", lambda self, *a, **k: (change(maps) for maps in plainly(self, *a, **k))
    )
    equal(want, attention_mean(PLAIN, cells, GENES, per_head=True))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda maps: maps[:, :, 1:], "shape"),
        (lambda maps: maps[:, :1], "shape"),
        (lambda maps: maps[0], "shape"),
        (lambda maps: maps * float("nan"), "not finite"),
        (lambda maps: maps * float("inf"), "not finite"),
    ],
)
def test_a_checkpoint_that_returns_something_else_is_told(
    change: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plainly = PlainCheckpoint.attention
    monkeypatch.setattr(
        PlainCheckpoint, "attention", lambda self, *a, **k: (change(maps) for maps in plainly(self, *a, **k))
    )
    with pytest.raises(CheckpointError, match=told):
        attention_mean(PLAIN, random_cells(15, 6), GENES)


@pytest.mark.parametrize("per_head", [False, True])
def test_a_checkpoint_with_too_few_layers_is_told(per_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = PlainCheckpoint.attention
    monkeypatch.setattr(PlainCheckpoint, "attention", lambda self, *a, **k: islice(plainly(self, *a, **k), 2))
    with pytest.raises(CheckpointError, match="nothing for layer 2 of 3"):
        attention_mean(PLAIN, random_cells(15, 6), GENES, per_head=per_head)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
@pytest.mark.parametrize("per_head", [False, True])
def test_progress_adds_up_to_the_number_of_cells(batch_size: int, per_head: bool) -> None:
    cells, calls = random_cells(17, 7), []
    cells[:3] = 0
    attention_mean(PLAIN, cells, GENES, batch_size=batch_size, per_head=per_head, progress=calls.append)
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
    equal(attention_mean(PLAIN, odd, GENES), attention_mean(PLAIN, cells, GENES))
    for kept, now in zip(before, (odd.data, odd.indices, odd.indptr), strict=True):
        assert np.array_equal(kept, now)


def test_the_boundary_of_too_few_genes() -> None:
    cells = np.zeros((2, N_GENES), dtype=np.float32)
    cells[0, : MIN_GENES - 1] = 1.5
    cells[1, :MIN_GENES] = 1.5
    result = attention_mean(PLAIN, cells, GENES)
    assert (result.n_cells, result.n_skipped) == (1, 1)
    with pytest.raises(PanelError, match=str(MIN_GENES)):
        attention_mean(PLAIN, cells[:1], GENES)
    with pytest.raises(PanelError):
        attention_mean(PLAIN, cells[:0], GENES)
    # expressed, but not known
    with pytest.raises(PanelError):
        attention_mean(PLAIN, cells[1:], ["X", *GENES[1:]])


def with_value(value: float) -> NDArray[np.float32]:
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
        (random_cells(3, 9), (*GENES[:-1], GENES[0]), GeneError),
        (random_cells(3, 9), [gene.lower() for gene in GENES], GeneError),
    ],
)
def test_bad_input_is_refused(cells: NDArray[np.float32], genes: tuple[str, ...], error: type[Exception]) -> None:
    with pytest.raises(error):
        attention_mean(PLAIN, cells, genes)
    with pytest.raises(error):
        attention_mean(PLAIN, sparse.csr_matrix(cells) if cells.ndim == 2 else cells, genes)


def test_counts_are_read_by_models_of_counts_and_must_be_whole() -> None:
    checkpoint = replace(PLAIN, scale="counts")
    cells = tiny_cells("counts", 5000, N_GENES).tolil()
    want = attention_mean(checkpoint, cells.tocsr()[:20], GENES)
    assert want.n_cells > 10
    cells[4998, np.flatnonzero(cells[[4998]].toarray())[0]] = 2.5
    with pytest.raises(ScaleError, match="whole"):
        attention_mean(checkpoint, cells.tocsr(), GENES)
    with pytest.raises(ScaleError, match="negative"):
        attention_mean(checkpoint, -cells.tocsr()[:20], GENES)
    with pytest.raises(ScaleError, match="whole"):
        attention_mean(checkpoint, random_cells(5, 0), GENES)


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_must_be_positive(batch_size: int) -> None:
    with pytest.raises(BadInputError, match=str(batch_size)):
        attention_mean(PLAIN, random_cells(3, 1, 0.9), GENES, batch_size=batch_size)


def test_batches_hold_cells_of_one_length_and_bounded_size() -> None:
    from manifoldzoo.extractors.operators._cells import readable_cells

    read = readable_cells(PLAIN, random_cells(200, 0), GENES)
    batches = read.batches(read.used, 4, 3 * 14**2)
    assert sorted(np.concatenate(batches)) == sorted(np.flatnonzero(read.length >= MIN_GENES))
    for batch in batches:
        (length,) = set(read.length[batch].tolist())
        assert len(batch) <= 4
        assert len(batch) == 1 or len(batch) * length**2 <= 3 * 14**2
    assert max(map(len, batches)) == 4


def test_untrained_weights_give_another_operator() -> None:
    cells = random_cells(10, 10)
    control = PLAIN.random_initialisation(1)
    assert not np.allclose(
        attention_mean(control, cells, GENES).layers, attention_mean(PLAIN, cells, GENES).layers, atol=1e-3
    )

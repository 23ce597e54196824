"""Whether a checkpoint behaves as its protocol says."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import GeneError
from ..checkpoints._interface import Checkpoint, InputScale
from ._cells import LONGEST, Trial, nothing_global_changes, same, same_shapes, sound, weights_of
from ._conformance import Check, Mismatch, named, run
from ._controls import random_initialisation, shuffled_weights

NOT_GENES = ("no-such-gene-0", "no such gene", "")
_EPSILON = 1e-4


def check_checkpoint(
    checkpoint: Checkpoint, *, genes: Sequence[str] | None = None, seed: int = 0, several_tokens: bool = False
) -> None:
    """Check that a checkpoint behaves as extraction relies on.

    Parameters
    ----------
    checkpoint
        What a reader of a family returned. Small models are as good as large ones, and faster.
    genes
        Names to give a checkpoint that reads any symbol, at least six; its own by default.
    seed
        Draws the cells and seeds the controls.
    several_tokens
        Whether a gene may fall into several tokens, as in models of language. Then the length that ``weighted``
        multiplies by is a mean over tokens and may differ from query to query.

    Raises
    ------
    ConformanceError
        Of the first check that fails: its name, what was found and what was expected.

    See Also
    --------
    checkpoint_checks : The same one by one, to parametrise tests.

    Notes
    -----
    Cells are random, with values all different: what a model does with equal values is its own affair. Results that
    can be had in two ways may differ by 1e-4 of the largest value, which is our choice. What no run can tell, such as
    whether the attention is the attention of the model that the folder holds, is left to tests of the reader.
    """
    run(checkpoint, checkpoint_checks(genes=genes, seed=seed, several_tokens=several_tokens))


def checkpoint_checks(
    *, genes: Sequence[str] | None = None, seed: int = 0, several_tokens: bool = False
) -> Iterator[tuple[str, Check[Checkpoint]]]:
    """Yield the checks of ``check_checkpoint``, each a name and a function of a checkpoint.

    Parameters are those of ``check_checkpoint``. Each check stands by itself and draws its own cells.
    """

    def on(body: Callable[[Trial], None]) -> Callable[[Checkpoint], None]:
        def whole(checkpoint: Checkpoint) -> None:
            # so that what one check leaves behind does not hide a fault from the next
            with torch.inference_mode(mode=False), torch.enable_grad():
                body(Trial.of(checkpoint, genes, seed))

        return whole

    yield named("attributes", on(_attributes))
    yield named("vocabulary", on(_vocabulary))
    yield named("gene_order", on(_gene_order))
    yield named("attention", on(_attention))
    yield named("weighted_attention", on(partial(_weighted_attention, several_tokens=several_tokens)))
    yield named("pooled", on(_pooled))
    yield named("embedding", on(_embedding))
    yield named("heads", on(_heads))
    yield named("padding", on(_padding))
    yield named("batches", on(_batches))
    yield named("token_order", on(_token_order))
    yield named("longest_cell", on(_longest_cell))
    yield named("repeatable", on(_repeatable))
    yield named("interleaved", on(_interleaved))
    yield named("no_traces", on(_no_traces))
    yield named("random_initialisation", on(partial(random_initialisation, seed=seed)))
    yield named("shuffled_weights", on(partial(shuffled_weights, seed=seed)))


def _attributes(trial: Trial) -> None:
    """Names, digest, genes and sizes are of the types that cards and kernels take."""
    checkpoint = trial.checkpoint
    for what in ("name", "family", "licence"):
        text = getattr(checkpoint, what)
        if not isinstance(text, str) or not text.strip():
            raise Mismatch(f"{what} {text!r}", "words")
    if not isinstance(checkpoint.digest, str) or not re.fullmatch(r"[0-9a-f]{64}", checkpoint.digest):
        raise Mismatch(f"digest {checkpoint.digest!r}", "64 digits of lower-case hex, a SHA-256")
    if not isinstance(checkpoint.genes, tuple) or not all(isinstance(gene, str) and gene for gene in checkpoint.genes):
        raise Mismatch(f"genes of type {type(checkpoint.genes).__name__}", "a tuple of names")
    if len(set(checkpoint.genes)) != len(checkpoint.genes):
        raise Mismatch(f"{len(checkpoint.genes) - len(set(checkpoint.genes))} repeated genes", "each gene once")
    for what in ("n_layers", "n_heads", "d_model", "max_genes"):
        size = getattr(checkpoint, what)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise Mismatch(f"{what} {size!r}", "a positive int")
    if checkpoint.scale not in get_args(InputScale):
        raise Mismatch(f"scale {checkpoint.scale!r}", " or ".join(map(repr, get_args(InputScale))))


def _vocabulary(trial: Trial) -> None:
    """Genes are known or not, and naming them changes nothing else."""
    checkpoint, first = trial.checkpoint, trial.checkpoint.genes[0]
    stranger = next((name for name in NOT_GENES if not _known(checkpoint, [name])[0]), None)
    if stranger is None:
        raise Mismatch(f"that it knows {', '.join(map(repr, NOT_GENES))}", "False for what cannot be a gene")
    for names, expected in (
        (checkpoint.genes, [True] * len(checkpoint.genes)),
        ((), []),
        ((first, stranger, checkpoint.genes[1]), [True, False, True]),
    ):
        if _known(checkpoint, names).tolist() != expected:
            raise Mismatch(f"other answers of `knows` for {len(names)} names", "True for `genes`, False for others")
    for names, fault in (((first, stranger), "an unknown gene"), ((first, first), "one gene twice")):
        try:
            checkpoint.with_genes(names)
        except GeneError:
            continue
        raise Mismatch(f"`with_genes` takes {fault}, {names[1]!r}", "GeneError")
    turned = checkpoint.with_genes(checkpoint.genes[::-1])
    if turned.genes != checkpoint.genes[::-1]:
        raise Mismatch("other `genes` after `with_genes`", "the names given, in their order")
    for what in ("family", "digest", "n_layers", "n_heads", "d_model", "scale"):
        if getattr(turned, what) != getattr(checkpoint, what):
            raise Mismatch(f"another {what} after `with_genes`", "the same model with other genes")


def _known(checkpoint: Checkpoint, names: Sequence[str]) -> NDArray[np.bool_]:
    """What ``knows`` says, one answer a name."""
    known = np.asarray(checkpoint.knows(names))
    if known.shape != (len(names),) or (known.dtype != np.bool_ and known.size):
        raise Mismatch(f"`knows` of {len(names)} names: {known.dtype} of shape {known.shape}", "one bool a name")
    return known


def _gene_order(trial: Trial) -> None:
    """Genes in another order, and fewer of them, are the same genes."""
    genes, values = trial.cells(trial.n_read)
    chosen = trial.rng.permutation(genes[0])
    turned = Trial(trial.checkpoint.with_genes([trial.checkpoint.genes[index] for index in chosen]), trial.rng)
    place = {index: position for position, index in enumerate(chosen.tolist())}
    again = np.array([[place[index] for index in genes[0].tolist()]], dtype=np.int64)
    because = "that of the same genes before `with_genes` moved them"
    same(turned.checkpoint.embedding(), trial.checkpoint.embedding()[torch.from_numpy(chosen)], "embedding", because)
    for found, expected in zip(turned.maps(again, values), trial.maps(genes, values), strict=True):
        same(found, expected, "attention", because)
    same(turned.checkpoint.pooled(again, values), trial.checkpoint.pooled(genes, values), "pooled state", because)


def _attention(trial: Trial) -> None:
    """Maps are shares of attention: finite, not negative, rows of at most one."""
    genes, values = trial.cells(trial.n_read, trial.n_read - 1, trial.n_read // 2)
    given = trial.checkpoint.attention(genes, values)
    if not isinstance(given, Iterator):
        raise Mismatch(f"attention of type {type(given).__name__}", "an iterator over layers")
    for layer, attention in enumerate(trial.maps(genes, values)):
        for cell, own in enumerate(_own(attention, genes)):
            where = f"attention of layer {layer}, cell {cell},"
            sound(own, where)
            if float(own.min()) < 0:
                raise Mismatch(f"{where} of {float(own.min()):.3g}", "no negative attention")
            highest = float(own.sum(dim=-1).max())
            if highest > 1 + _EPSILON:
                raise Mismatch(f"{where} with a row that sums to {highest:.4g}", "at most 1: row = query, column = key")
            if not bool((own > 0).any(dim=-1).any(dim=-1).all()):
                raise Mismatch(f"{where} with a head that is 0 everywhere", "some attention between the genes")


def _weighted_attention(trial: Trial, *, several_tokens: bool) -> None:
    """Weighted attention is attention times a length that belongs to head and key."""
    genes, values = trial.cells(trial.n_read, trial.n_read)
    pairs = zip(trial.maps(genes, values), trial.maps(genes, values, weighted=True), strict=True)
    for layer, (plain, weighted) in enumerate(pairs):
        where = f"weighted attention of layer {layer}"
        sound(weighted, where)
        if float(weighted.min()) < 0:
            raise Mismatch(f"{where} of {float(weighted.min()):.3g}", "attention times a length, never negative")
        largest = float(weighted.max())
        if not largest > 0 or bool(((plain == 0) & (weighted > 0)).any()):
            raise Mismatch(f"{where} that is 0 everywhere, or not where attention is", "attention times a length")
        told = plain > 1e-3 * plain.max()
        ratio = torch.where(told, weighted / plain, torch.nan)
        if not bool((ratio[told] - 1).abs().max() > 1e-3):
            raise Mismatch(f"{where} equal to plain attention", "attention times the length of what the head adds")
        if several_tokens:
            continue
        lowest = torch.where(told, ratio, torch.inf).amin(dim=-2)
        highest = torch.where(told, ratio, -torch.inf).amax(dim=-2)
        seen = told.any(dim=-2)
        spread = float(((highest - lowest)[seen] / highest[seen]).max())
        if not spread < 1e-2:
            raise Mismatch(f"{where} over attention that differs by {spread:.2g} between queries", "one length a key")


def _pooled(trial: Trial) -> None:
    """The pooled state is one finite vector a cell."""
    genes, values = trial.cells(trial.n_read, trial.n_read - 1, trial.n_read // 2)
    pooled = trial.checkpoint.pooled(genes, values)
    same_shapes([pooled], [(len(genes), trial.checkpoint.d_model)], "pooled state")
    sound(pooled, "pooled state")
    if bool((pooled == pooled[0]).all()):
        raise Mismatch("the same pooled state of different cells", "one that tells cells apart")


def _embedding(trial: Trial) -> None:
    """The embedding is one finite vector a gene."""
    embedding = trial.checkpoint.embedding()
    same_shapes([embedding], [(len(trial.checkpoint.genes), trial.checkpoint.d_model)], "embedding")
    sound(embedding, "embedding")
    if bool((embedding == embedding[0]).all()):
        raise Mismatch("the same embedding of all genes", "one that tells genes apart")


def _heads(trial: Trial) -> None:
    """Projections of all layers fit the sizes that are stated."""
    checkpoint = trial.checkpoint
    for layer in range(checkpoint.n_layers):
        heads = checkpoint.heads(layer)
        d_head = heads.query.shape[1] if heads.query.ndim == 3 else 0
        inward = (checkpoint.n_heads, d_head, checkpoint.d_model)
        outward = (checkpoint.n_heads, checkpoint.d_model, d_head)
        parts = (heads.query, heads.key, heads.value, heads.output)
        same_shapes(parts, (inward, inward, inward, outward), f"query, key, value and output of layer {layer}")
        for what, part in zip(("query", "key", "value", "output"), parts, strict=True):
            sound(part, f"{what} of layer {layer}")


def _padding(trial: Trial) -> None:
    """A cell is read alike alone and beside longer ones."""
    genes, values = trial.cells(trial.n_read, trial.n_read - 1, trial.n_read // 2)
    _as_alone(trial, genes, values, "that of the same cell without padding")


def _batches(trial: Trial) -> None:
    """A cell is read alike alone and beside cells of its length."""
    genes, values = trial.cells(*[trial.n_read - 1] * 3)
    _as_alone(trial, genes, values, "that of the same cell alone")


def _as_alone(trial: Trial, genes: NDArray[np.int64], values: NDArray[np.float32], because: str) -> None:
    """Compare cells of a batch with each of them alone."""
    plain, weighted = trial.maps(genes, values), trial.maps(genes, values, weighted=True)
    pooled = trial.checkpoint.pooled(genes, values)
    for cell, length in enumerate((genes >= 0).sum(axis=1).tolist()):
        own = genes[cell : cell + 1, :length], values[cell : cell + 1, :length]
        for together, alone, what in (
            (plain, trial.maps(*own), "attention"),
            (weighted, trial.maps(*own, weighted=True), "weighted attention"),
        ):
            for layer, (found, expected) in enumerate(zip(together, alone, strict=True)):
                part = found[cell : cell + 1, :, :length, :length]
                same(part, expected, f"{what} of layer {layer}, cell {cell},", because)
        same(pooled[cell : cell + 1], trial.checkpoint.pooled(*own), f"pooled state of cell {cell}", because)


def _token_order(trial: Trial) -> None:
    """Genes of a cell given in another order come back in that order."""
    genes, values = trial.cells(trial.n_read)
    order = trial.rng.permutation(trial.n_read)
    turned = genes[:, order], values[:, order]
    because = "that of the same cell with its genes given in another order"
    for layer, (found, expected) in enumerate(zip(trial.maps(*turned), trial.maps(genes, values), strict=True)):
        same(found, expected[:, :, order][:, :, :, order], f"attention of layer {layer}", because)
    same(trial.checkpoint.pooled(*turned), trial.checkpoint.pooled(genes, values), "pooled state", because)


def _longest_cell(trial: Trial) -> None:
    """A cell of as many genes as the model says it reads can be read."""
    checkpoint = trial.checkpoint
    genes, values = trial.cells(min(len(checkpoint.genes), checkpoint.max_genes, LONGEST))
    for read in (*trial.maps(genes, values), checkpoint.pooled(genes, values)):
        if not bool(read.isfinite().all()):
            raise Mismatch(f"values that are not finite for a cell of {genes.shape[1]} genes", "finite ones")


def _repeatable(trial: Trial) -> None:
    """The same question has the same answer, bit by bit."""
    genes, values = trial.cells(trial.n_read, trial.n_read)
    first, weights = trial.maps(genes, values), weights_of(trial.checkpoint)
    pooled = trial.checkpoint.pooled(genes, values)
    again = trial.maps(genes, values)
    if not all(torch.equal(one, other) for one, other in zip(first, again, strict=True)):
        raise Mismatch("other attention in a second run", "the same bits")
    if not torch.equal(pooled, trial.checkpoint.pooled(genes, values)):
        raise Mismatch("another pooled state in a second run", "the same bits")
    for what, matrix in weights_of(trial.checkpoint).items():
        if not torch.equal(matrix, weights[what]):
            raise Mismatch(f"another {what} after the model was run", "the same bits")


def _interleaved(trial: Trial) -> None:
    """Two runs over different cells, advanced in turns, do not disturb each other."""
    batches = [trial.cells(trial.n_read), trial.cells(trial.n_read - 1)]
    alone = [trial.maps(*batch) for batch in batches]
    turns = [trial.checkpoint.attention(*batch) for batch in batches]
    for layer, expected in enumerate(zip(*alone, strict=True)):
        for index, one in enumerate(turns):
            same(next(one), expected[index], f"attention of layer {layer}", "that of a run that nothing interrupts")


def _no_traces(trial: Trial) -> None:
    """Reading keeps no gradient, and leaves arguments and the state of the process alone."""
    genes, values = trial.cells(trial.n_read, trial.n_read - 1)
    given = genes.copy(), values.copy()
    tensors: list[Tensor] = []
    with nothing_global_changes():
        started = trial.checkpoint.attention(genes, values)
    with _closed_at_once(started) as maps:
        with nothing_global_changes():
            tensors.append(next(maps))
        with nothing_global_changes():
            tensors += maps
    with nothing_global_changes():
        tensors += trial.checkpoint.attention(genes, values, weighted=True)
        tensors += [trial.checkpoint.pooled(genes, values), trial.checkpoint.embedding()]
        heads = trial.checkpoint.heads(0)
        tensors += [heads.query, heads.key, heads.value, heads.output]
    if any(tensor.requires_grad for tensor in tensors):
        raise Mismatch("a tensor that requires gradients", "none: the model is frozen")
    if not (np.array_equal(given[0], genes) and np.array_equal(given[1], values)):
        raise Mismatch("genes or values written to", "arguments left as they are")


@contextmanager
def _closed_at_once(maps: Iterator[Tensor]) -> Iterator[Iterator[Tensor]]:
    """End a run here, so that a mode which it has on is not turned off whenever memory happens to be collected."""
    try:
        yield maps
    finally:
        if isinstance(maps, Generator):
            maps.close()


def _own(attention: Tensor, genes: NDArray[np.int64]) -> Iterator[Tensor]:
    """Attention between the genes of each cell, without padding."""
    for cell, length in enumerate((genes >= 0).sum(axis=1).tolist()):
        yield attention[cell, :, :length, :length]

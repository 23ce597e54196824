"""Whether the controls of a checkpoint destroy what they say, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from ..checkpoints._interface import Checkpoint
from ._cells import Trial, nothing_global_changes, sound, weights_of
from ._conformance import Mismatch

_KEPT = ("family", "genes", "n_layers", "n_heads", "d_model", "max_genes", "scale")


def random_initialisation(trial: Trial, *, seed: int) -> None:
    """Fresh weights of the same architecture, the same for the same seed."""
    _control(trial, trial.checkpoint.random_initialisation, seed)


def shuffled_weights(trial: Trial, *, seed: int) -> None:
    """The entries of each matrix in another order, the same for the same seed."""
    control = _control(trial, trial.checkpoint.shuffled_weights, seed)
    for layer in range(control.n_layers):
        # projections are often stored as one matrix, whose entries may move between query, key and value
        for parts in (("query", "key", "value"), ("output",)):
            found, expected = (_entries(source, layer, parts) for source in (control, trial.checkpoint))
            if not torch.equal(found, expected):
                what = ", ".join(parts)
                raise Mismatch(f"other entries in {what} of layer {layer}", "those of the model in another order")


def _control(trial: Trial, make: Callable[[int], Checkpoint], seed: int) -> Checkpoint:
    """Make a control three times, compare, and return it."""
    original = trial.checkpoint
    before = weights_of(original)
    with nothing_global_changes():
        control, again, other = make(seed), make(seed), make(seed + 1)
    for what in _KEPT:
        if getattr(control, what) != getattr(original, what):
            raise Mismatch(f"another {what}", "architecture and vocabulary kept")
    digests = control.digest, again.digest, other.digest, original.digest
    if not re.fullmatch(r"[0-9a-f]{64}", control.digest) or control.digest != again.digest:
        raise Mismatch(f"digests {control.digest!r} and {again.digest!r} for one seed", "the same SHA-256")
    if len(set(digests)) != 3:
        raise Mismatch("a digest that the model or another seed has", "one of its own")
    first, second, third, left = map(weights_of, (control, again, other, original))
    for what, matrix in first.items():
        sound(matrix, what)
        if not torch.equal(matrix, second[what]):
            raise Mismatch(f"{what} that differs for one seed", "equal weights for equal seeds")
        for whose, taken in (("the model", before[what]), ("another seed", third[what])):
            if torch.equal(matrix, taken):
                raise Mismatch(f"{what} that {whose} has", "weights of its own")
        if not torch.equal(left[what], before[what]):
            raise Mismatch(f"{what} of the model itself changed", "the model left as it was")
    genes, values = trial.cells(trial.n_read, trial.n_read)
    maps = zip(trial.maps(genes, values), Trial(control, trial.rng).maps(genes, values), strict=True)
    for layer, (own, destroyed) in enumerate(maps):
        sound(destroyed, f"attention of layer {layer}")
        if torch.equal(own, destroyed):
            raise Mismatch(f"attention of layer {layer} of the model", "that of other weights")
    return control


def _entries(checkpoint: Checkpoint, layer: int, parts: tuple[str, ...]) -> Tensor:
    """All entries of some projections of a layer, sorted."""
    heads = checkpoint.heads(layer)
    return torch.cat([getattr(heads, part).reshape(-1) for part in parts]).sort().values

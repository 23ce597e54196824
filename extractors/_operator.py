"""Stage 1 of a job: from model and cells to the operator and what the card says of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Head, Operator
from ..cards._errors import BadInputError
from ..cards._frozen import Scalar
from ._interface import Job
from ._prepare import Prepared
from .operators._attention import attention_mean
from .operators._combine import drift, mean_operator, numerical_rank, single, top_k
from .operators._controls import apply_control
from .operators._distilled import distil
from .operators._tokens import token_operators
from .screen._score import HeadScores, score_heads

Float32 = NDArray[np.float32]
N_SPLITS = 10
"""Splits of the panel over which the heads of ``top_k`` are scored; our choice."""


@dataclass(frozen=True, eq=False)
class Read:
    """Matrices read from a model, before heads and layers are joined.

    Attributes
    ----------
    maps
        ``(n_layers, n_genes, n_genes)``, or ``(n_layers, n_heads, n_genes, n_genes)`` where heads are kept apart, or
        ``(1, n_genes, n_features)`` for ``distilled``.
    record
        Fields of the card's ``Operator`` that reading alone decides.
    """

    maps: Float32
    record: dict[str, Any]


def read_operator(job: Job, prepared: Prepared, rng: np.random.Generator) -> tuple[Float32, Operator]:
    """Read, join and, for a control, destroy the operator that the recipe asks for.

    Parameters
    ----------
    job
        With recipe, control and progress.
    prepared
        Model and cells.
    rng
        Draws what ``distilled`` holds out and the splits of the screen.

    Returns
    -------
    The operator ``(k, n_genes, n_features)`` float32, and its entry in the card.

    Raises
    ------
    BadInputError
        If the model lacks the layers or heads asked for, or is to be destroyed although it is not read.
    """
    asked = job.recipe.operator
    per_head = asked.combination in ("single", "top_k")
    read = read_maps(job, prepared, per_head=per_head, rng=rng)
    heads: list[Head] = []
    chosen_by = None
    if asked.combination == "drift":
        operator = drift(read.maps)
    elif asked.combination == "mean":
        operator = mean_operator(read.maps)
    elif asked.combination == "single":
        layer, head = int(asked.layer or 0), int(asked.head or 0)
        operator = single(read.maps, layer=layer, head=head)
        heads, chosen_by = [Head(layer=layer, head=head, weight=1.0)], "recipe"
    elif asked.combination == "top_k":
        operator, heads = _best_heads(job, prepared, read.maps, rng)
        chosen_by = "screen of the panel"
    else:
        operator = read.maps
    operator = apply_control(operator, job.control)
    fields = {"kind": asked.kind, "combination": asked.combination, "heads": heads, "chosen_by": chosen_by}
    entry = Operator(
        n_blocks=len(operator),
        n_features=None if operator.shape[1] == operator.shape[2] else operator.shape[2],
        numerical_rank=[numerical_rank(block) for block in operator],
        **fields,
        **read.record,
    )
    return operator, entry


def read_maps(job: Job, prepared: Prepared, *, per_head: bool, rng: np.random.Generator) -> Read:
    """Read the matrices of a kind; heads are averaged per layer unless they are to be kept apart."""
    kind, source = job.recipe.operator.kind, prepared.checkpoint
    if kind in ("token_ov", "token_qk"):
        maps = token_operators(source, source.genes, kind, per_head=per_head)
        return Read(maps, {"n_cells": 0, "n_skipped_cells": 0, "cells_digest": None, "pairs_seen": None})
    if kind == "expression":
        _refuse_models(job)
        maps = np.eye(len(source.genes), dtype=np.float32)[None]
        return Read(maps, {"n_cells": 0, "n_skipped_cells": 0, "cells_digest": None, "pairs_seen": None})
    inputs, n_cells = prepared.inputs, len(prepared.cells.stage)
    if kind == "distilled":
        donors = prepared.cells.donor_ids
        several = len(set(donors)) > 1
        fitted = distil(
            source,
            inputs,
            source.genes,
            rng=rng,
            expression=prepared.cells.values,
            groups=donors if several else None,
            progress=job.steps("hidden states", n_cells),
        )
        parameters: dict[str, Scalar] = {
            "held_out_by": "donor" if several else "cell",
            "penalty": fitted.penalty,
            "r2_train": fitted.r2_train,
            "r2_held_out": fitted.r2_held_out,
            "n_train_cells": fitted.n_train,
            "n_held_out_cells": fitted.n_held_out,
        }
        record: dict[str, Any] = {
            "n_cells": fitted.n_train + fitted.n_held_out,
            "n_skipped_cells": fitted.n_skipped,
            "n_truncated_cells": fitted.n_truncated,
            "cells_digest": prepared.cells.digest,
            "pairs_seen": None,
            "parameters": parameters,
        }
        return Read(fitted.operator, record)
    attention = attention_mean(
        source,
        inputs,
        source.genes,
        per_head=per_head,
        weighted=kind == "attention_value",
        resume=job.work,
        progress=job.steps("attention", n_cells),
    )
    record = {
        "n_cells": attention.n_cells,
        "n_skipped_cells": attention.n_skipped,
        "n_truncated_cells": attention.n_truncated,
        "cells_digest": prepared.cells.digest,
        "pairs_seen": float((attention.support > 0).mean()),
    }
    return Read(attention.layers, record)


def _refuse_models(job: Job) -> None:
    """Refuse to destroy or compare a model that is not looked at."""
    if job.control is not None and job.control.kind in ("random-init", "shuffled-weights"):
        raise BadInputError(
            f"The control {job.control.kind!r} destroys a model, and kind 'expression' reads none.",
            "Use permuted-genes or spectrum-matched, or another kind.",
        )
    if job.n_untrained:
        raise BadInputError(
            f"{job.n_untrained} untrained models were asked for, and kind 'expression' reads none.",
            "Leave `--untrained` out.",
        )


def _best_heads(job: Job, prepared: Prepared, maps: Float32, rng: np.random.Generator) -> tuple[Float32, list[Head]]:
    """Weighted sum of the heads that a screen of the panel scores highest."""
    k = int(job.recipe.operator.k or 1)
    if k > maps.shape[0] * maps.shape[1]:
        raise BadInputError(f"top_k asks for {k} heads, the model has {maps.shape[0]} layers x {maps.shape[1]} heads.")
    scores = score_panel(job, prepared, maps, n_splits=N_SPLITS, rng=rng)
    operator, chosen = top_k(maps, scores.residual, k=k)
    heads = [
        Head(layer=layer, head=head, weight=weight, score=float(scores.residual[layer, head]))
        for layer, head, weight in chosen
    ]
    return operator, heads


def score_panel(job: Job, prepared: Prepared, maps: Float32, *, n_splits: int, rng: np.random.Generator) -> HeadScores:
    """Score every head, ``(n_layers, n_heads, n_genes, n_genes)``, on the panel of a job."""
    panel = prepared.panel
    return score_heads(
        panel.anchors,
        maps,
        prepared.distances,
        study=panel.study,
        donor=panel.donor,
        tissue=panel.tissue,
        settings=job.recipe.adaptor.settings(),
        n_splits=n_splits,
        seed=int(rng.integers(2**31)),
        progress=job.steps("splits", n_splits),
    )

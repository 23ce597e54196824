"""Scoring every attention head by itself: an adaptor's head on its features, held out and residualised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from ...cards._errors import BadInputError
from ...gates.metrics import Pairs, shared_labels
from ...manifolds._geodesic import geodesic_latents
from ...manifolds._geodesic_settings import GeodesicSettings
from ...manifolds._heads import HeadSettings, latent_distances, least_rows, refit_starts
from ...manifolds._let import checked_distances
from ...manifolds._let_many import feature_coordinates

Floats = NDArray[np.float64]
HELD_OUT = 0.2
"""Part of the anchors held out by a split, that of the published random holdout."""
_N_PAIRS_OF_HEADS = 1 << 22


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Scores of all heads, ``(n_layers, n_heads)`` each unless said otherwise; NaN for a head without features.

    Attributes
    ----------
    residual, residual_sd
        Held-out rank correlation after regressing out donor, study and tissue: mean and standard deviation over
        splits. The ranking goes by the mean.
    raw, raw_sd
        The same without regressing anything out.
    in_sample
        The residualised correlation over all anchors, all of them fitted on, which is how the published figures were
        made. It proves nothing: a head of noise has it too.
    rank
        1 for the best head; 0 for a head without features.
    top_1, top_3
        Part of the splits in which the head is the best, or among the best three.
    by_split
        Residualised correlation of every split, ``(n_splits, n_layers, n_heads)``.
    stability
        Spearman correlation of the heads' means over the first and over the second half of the splits.
    """

    residual: Floats
    residual_sd: Floats
    raw: Floats
    raw_sd: Floats
    in_sample: Floats
    rank: NDArray[np.int64]
    top_1: Floats
    top_3: Floats
    by_split: Floats
    stability: float


def score_heads(
    anchors: NDArray[np.floating],
    heads: NDArray[np.floating],
    distances: NDArray[np.floating],
    *,
    study: Sequence[str],
    donor: Sequence[str],
    tissue: Sequence[str],
    settings: HeadSettings,
    n_splits: int,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> HeadScores:
    """Score every head alone on a panel.

    Parameters
    ----------
    anchors
        Expression of the anchors, ``(n, n_genes)``.
    heads
        Operator of each head, ``(n_layers, n_heads, n_genes, n_genes)``.
    distances
        Ruler distances, ``(n, n)``.
    study, donor, tissue
        Of each anchor; a donor is one within a study.
    settings
        Of the heads fitted, of any kind that is fitted on anchors.
    n_splits
        Random splits of the anchors; the same for every head, at least 2.
    seed
        Of the splits and of the starts, which all heads share.
    progress
        Called with 1 after every split, and nothing else.

    Raises
    ------
    BadInputError
        If shapes disagree, or the anchors are too few to hold some out.

    Notes
    -----
    For each split a head is fitted without a fifth of the anchors; compared are latent and ruler distance over
    the pairs that touch one of them. Both are ranked, indicators of whether the two anchors share donor, study and
    tissue are regressed out of the ranks, and the residuals are correlated (a partial Spearman correlation), in
    float64. The paper ranks heads "by correlation after regressing out donor and tissue" (Kendiukhov,
    arXiv:2603.10261) in sample; that we hold out, that we count the study among the indicators, and how is our choice.
    Features are scaled over all anchors, which no label enters.
    """
    n = len(anchors)
    target = checked_distances(distances, n)
    if heads.ndim != 4 or heads.shape[2] != anchors.shape[1]:
        raise BadInputError(f"Heads of shape {heads.shape} do not match anchors of shape {anchors.shape}.")
    if not len(study) == len(donor) == len(tissue) == n:
        raise BadInputError(f"study, donor and tissue must name {n} anchors each.")
    n_held = round(HELD_OUT * n)
    least = least_rows(settings)
    if n_splits < 2 or n_held < 2 or n - n_held < least:
        said = f"expected at least {max(8, math.ceil(least / (1 - HELD_OUT)))} and 2"
        raise BadInputError(f"{n} anchors and {n_splits} splits are too few, {said}.")
    shape = heads.shape[:2]
    coordinates, usable = _coordinates(anchors, heads, settings)
    shared = _indicators(study, donor, tissue)
    split_rng, sample_rng = np.random.default_rng(seed).spawn(2)
    residual, raw = (np.full((n_splits, len(usable)), np.nan) for _ in range(2))
    for split, rng in enumerate(split_rng.spawn(n_splits)):
        held = np.zeros(n, dtype=bool)
        held[rng.permutation(n)[:n_held]] = True
        latents = refit_starts(coordinates, target, settings, rngs=[rng], train=np.flatnonzero(~held))[:, 0]
        pairs = Pairs(*np.nonzero(np.triu(held[:, None] | held, 1)))
        residual[split, usable], raw[split, usable] = _correlations(latents, settings, target, pairs, shared)
        if progress is not None:
            progress(1)
    in_sample = np.full(len(usable), np.nan)
    latents = refit_starts(coordinates, target, settings, rngs=[sample_rng])[:, 0]
    in_sample[usable], _ = _correlations(latents, settings, target, Pairs(*np.triu_indices(n, 1)), shared)
    return _summary(residual, raw, in_sample, usable, shape)


def _coordinates(
    anchors: NDArray[np.floating], heads: NDArray[np.floating], settings: HeadSettings
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Coordinates of the features of the heads that have any, and which heads those are, one head after another."""
    given = np.asarray(anchors, dtype=np.float32)
    found, usable = [], []
    for layer in heads:
        for head in layer:
            features = given @ np.asarray(head, dtype=np.float32)
            try:
                made = feature_coordinates(features, scale_floor=settings.scale_floor)
                if isinstance(settings, GeodesicSettings):
                    # features of too few dimensions cannot be laid out
                    geodesic_latents(made, settings, standardise=False)
            except BadInputError:
                usable.append(False)
                continue
            found.append(made)
            usable.append(True)
    if not found:
        raise BadInputError(f"None of the {len(usable)} heads has features that vary over the anchors.")
    return np.stack(found), np.array(usable)


def _indicators(study: Sequence[str], donor: Sequence[str], tissue: Sequence[str]) -> Floats:
    """Whether two anchors share donor, study and tissue, ``(3, n, n)``."""
    return shared_labels([f"{s}\t{d}" for s, d in zip(study, donor, strict=True)], study, tissue)


def _correlations(
    latents: Floats, settings: HeadSettings, target: Floats, pairs: Pairs, shared: Floats
) -> tuple[Floats, Floats]:
    """Residualised and raw rank correlation of each set of latents with the ruler, ``(B,)`` each."""
    design = np.vstack([np.ones(len(pairs)), pairs.of(shared)]).T
    # indicators may agree on these pairs, so that only the span of them counts
    left, size, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, size > 1e-9 * size[0]]
    ruler = rankdata(pairs.of(target))
    ruler_raw, ruler_residual = ruler - ruler.mean(), ruler - basis @ (basis.T @ ruler)
    residual, raw = np.empty(len(latents)), np.empty(len(latents))
    step = max(1, _N_PAIRS_OF_HEADS // max(len(pairs), len(target) ** 2))
    for first in range(0, len(latents), step):
        part = slice(first, first + step)
        ranks = np.asarray(rankdata(pairs.of(latent_distances(latents[part], settings)), axis=-1))
        raw[part] = _cosine(ranks - ranks.mean(axis=1, keepdims=True), ruler_raw)
        residual[part] = _cosine(ranks - (ranks @ basis) @ basis.T, ruler_residual)
    return residual, raw


def _cosine(rows: Floats, to: Floats) -> Floats:
    """Cosine of each row with a vector; 0 where nothing is left of either but rounding."""
    size = np.linalg.norm(rows, axis=1) * np.linalg.norm(to)
    nothing = size <= 1e-9 * len(to) ** 3
    return np.where(nothing, 0.0, rows @ to / np.where(nothing, 1.0, size))


def _summary(
    residual: Floats, raw: Floats, in_sample: Floats, usable: NDArray[np.bool_], shape: tuple[int, ...]
) -> HeadScores:
    """Means, spreads, ranks and stability over splits."""
    mean = residual.mean(axis=0)
    rank = np.zeros(len(usable), dtype=np.int64)
    order = np.flatnonzero(usable)[np.argsort(-mean[usable], kind="stable")]
    rank[order] = np.arange(1, len(order) + 1)
    place = np.argsort(np.argsort(-np.where(usable, residual, -np.inf), axis=1, kind="stable"), axis=1)
    top_1, top_3 = ((place < k).mean(axis=0) * usable for k in (1, 3))
    half = len(residual) // 2
    halves = residual[:half].mean(axis=0)[usable], residual[half:].mean(axis=0)[usable]
    stability = float(spearmanr(*halves).statistic) if usable.sum() > 2 else np.nan
    return HeadScores(
        residual=mean.reshape(shape),
        residual_sd=residual.std(axis=0, ddof=1).reshape(shape),
        raw=raw.mean(axis=0).reshape(shape),
        raw_sd=raw.std(axis=0, ddof=1).reshape(shape),
        in_sample=in_sample.reshape(shape),
        rank=rank.reshape(shape),
        top_1=top_1.reshape(shape),
        top_3=top_3.reshape(shape),
        by_split=residual.reshape(-1, *shape),
        stability=stability,
    )

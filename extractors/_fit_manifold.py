"""Stages 2 and 3 of a job: from an operator to the whole manifold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card, Choice, Operator
from ..manifolds._features import fold_projection
from ..manifolds._genes import GeneTable
from ..manifolds._geodesic import GeodesicHead
from ..manifolds._heads import Head
from ..manifolds._landmarks import stored_landmarks
from ..manifolds._manifold import Manifold, stores_operator
from ..manifolds._panel import Panel, read_ensembl_ids
from ..manifolds._readouts import vector_of
from ..manifolds._stored_ruler import ruler_tensors
from ._fill_card import fill_card
from ._fit_familiarity import fit_familiarity
from ._fit_head import heads_of
from ._fit_readouts import fit_readouts
from ._interface import Job
from ._prepare import Prepared
from ._untrained import read_untrained

N_VECTORS = 16


def fit_manifold(
    job: Job,
    prepared: Prepared,
    operator: NDArray[np.float32],
    entry: Operator,
    *,
    extractor: str,
    rng: np.random.Generator,
    choice: Choice | None = None,
) -> Manifold:
    """Fit head and readouts on an operator, and fill card and test vectors.

    Parameters
    ----------
    job
        What is made.
    prepared
        Model, panel and cells, as ``prepare`` made them.
    operator
        ``(k, n_genes, n_features)`` float32: ``f(x) = [x A_1; ...; x A_k]``.
    entry
        What the card says of the operator.
    extractor
        Name of the extractor, for the card.
    rng
        Draws the start of the head and the folds of the readouts.
    choice
        How operator and number of coordinates were chosen, where the recipe left them open.

    Returns
    -------
    The manifold, named as the recipe.

    Raises
    ------
    PanelError
        If the cells have one class only of something that is read out.
    """
    panel, cells = prepared.panel, prepared.cells
    heads = heads_of(job, prepared, operator)
    head_rng, readout_rng, untrained_rng = rng.spawn(3)
    head, adaptor = heads.fit(head_rng)
    tensors = _tensors(panel, operator, head)
    latent = np.asarray(cells.values @ tensors["projection"] + tensors["offset"])
    landmarks = stored_landmarks(tensors, adaptor)
    if landmarks is not None:
        latent = landmarks.place(latent).astype(np.float32)
    readouts = fit_readouts(job.recipe, prepared, job.ruler, operator, heads, latent, rng=readout_rng)
    for told, parts in readouts:
        for part, array in parts.items():
            tensors[f"readout.{told.task}.{part}"] = np.ascontiguousarray(array, dtype=np.float32)
    tensors |= {f"panel.{panel.entry.name}.anchors": panel.anchors for panel in prepared.beside}
    tensors |= ruler_tensors(job.ruler)
    untrained = read_untrained(job, prepared, rng=untrained_rng)
    tensors |= {f"comparator.{told.control}.{told.seed}": coordinates for told, coordinates in untrained}
    genes = GeneTable(panel.genes, read_ensembl_ids(job.cells, panel.genes, reading=job.reading))
    card = fill_card(
        job,
        prepared,
        entry,
        adaptor,
        genes,
        extractor=extractor,
        choice=choice,
        readouts=[told for told, _ in readouts],
        familiarity=fit_familiarity(panel, cells),
        panels=[panel.entry for panel in prepared.beside],
        untrained=[told for told, _ in untrained],
    )
    if not stores_operator(card.extraction):
        del tensors["operator"]
    draft = Manifold(card, genes, tensors, _empty_vectors(card), digest="")
    return Manifold.build(card, genes, tensors | _cell_ids(prepared), _vectors(draft, panel))


def _tensors(panel: Panel, operator: NDArray[np.float32], head: Head) -> dict[str, NDArray[np.float32]]:
    """Operator, head, their fold and the anchors, all float32; the fold is that of the float32 parts."""
    parts = {
        "operator": operator,
        "adaptor.weights": head.weights,
        "adaptor.bias": head.bias,
        "adaptor.mean": head.mean,
        "adaptor.scale": head.scale,
        "panel.anchors": panel.anchors,
    }
    if isinstance(head, GeodesicHead):
        found = head.landmarks
        parts |= {
            "head.landmarks": found.places,
            "head.geodesics": found.geodesics,
            "head.coordinates": found.coordinates,
        }
    stored = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in parts.items()}
    projection, offset = fold_projection(*list(stored.values())[:5])
    return stored | {"projection": projection.astype(np.float32), "offset": offset.astype(np.float32)}


def _cell_ids(prepared: Prepared) -> dict[str, NDArray[np.uint64]]:
    """Who is in each panel, as hashes."""
    found = prepared.members.tensors()
    for panel in prepared.beside:
        found |= panel.cells.tensors(f"panel.{panel.entry.name}")
    return found


def _vectors(manifold: Manifold, panel: Panel) -> dict[str, NDArray[np.float32]]:
    """Test vectors: anchors spread over the panel, and a cell without any count."""
    rows = np.unique(np.linspace(0, len(panel.anchors) - 1, N_VECTORS).astype(int))
    given = np.vstack([panel.anchors[rows], np.zeros((1, panel.anchors.shape[1]))]).astype(np.float32)
    latent = manifold.project(given)
    told = manifold.card.extraction.readouts
    return {"input": given, "latent": latent} | {vector_of(r): manifold.read_out(latent, r.task) for r in told}


def _empty_vectors(card: Card) -> dict[str, NDArray[np.float32]]:
    """Placeholders of the right width, replaced before anything is saved."""
    shapes: dict[str, tuple[int, ...]] = {
        "input": (1, card.genes.n),
        "latent": (1, card.extraction.adaptor.n_components),
    }
    for readout in card.extraction.readouts:
        shapes[vector_of(readout)] = (1, len(readout.classes)) if readout.classes else (1,)
    return {name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()}

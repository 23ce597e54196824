"""The tiny manifold under a geodesic head: 40 genes, 23 reduced coordinates, 24 landmarks, 3 coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny import STAGES, D, tiny_anchors, tiny_manifold_with_tasks, tiny_ruler

from manifoldzoo.cards._card import parse_card
from manifoldzoo.manifolds._features import apply_operator, fold_projection
from manifoldzoo.manifolds._geodesic import GeodesicSettings, fit_geodesic
from manifoldzoo.manifolds._landmarks import place_by_landmarks
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._readouts import read_out, vector_of

N_NEIGHBOURS = 8


def tiny_geodesic(kind: str = "isomap", **parameters: Any) -> Manifold:
    """The tiny manifold with tasks and familiarity, its head replaced; ``parameters`` replace those on the card."""
    plain = tiny_manifold_with_tasks()
    settings = GeodesicSettings(kind, n_components=D, n_neighbours=N_NEIGHBOURS)
    values, stage = tiny_anchors()
    operator = plain.tensors["operator"]
    head = fit_geodesic(apply_operator(values, operator), tiny_ruler().distances(stage), settings)
    document = plain.card.model_dump(mode="json")
    document["extraction"]["adaptor"] |= {
        "kind": kind,
        "loss": head.loss,
        "beta": head.beta,
        "parameters": settings.parameters() | parameters,
        "n_reduced": len(head.weights),
        "n_landmarks": len(values),
        "n_pieces": head.n_pieces,
    }
    parts = [np.asarray(a, dtype=np.float32) for a in (operator, head.weights, head.bias, head.mean, head.scale)]
    names = ("operator", "adaptor.weights", "adaptor.bias", "adaptor.mean", "adaptor.scale")
    projection, offset = fold_projection(*parts)
    found = head.landmarks
    more = dict(zip(names, parts, strict=True)) | {
        "projection": projection,
        "offset": offset,
        "head.landmarks": found.places,
        "head.geodesics": found.geodesics,
        "head.coordinates": found.coordinates,
    }
    tensors = plain.tensors | {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in more.items()}
    given = values[:4]
    stored = [tensors[f"head.{part}"] for part in ("landmarks", "geodesics", "coordinates")]
    reduced = (given @ tensors["projection"] + tensors["offset"]).astype(np.float32)
    latent = place_by_landmarks(reduced, *stored, N_NEIGHBOURS, n_steps=settings.steps).astype(np.float32)
    # the stage readout is a nearest centroid again
    stages = sorted(name for name, _, _ in STAGES)
    placed = found.coordinates
    centroids = np.stack([placed[np.array(stage) == name].mean(axis=0) for name in stages])
    tensors["readout.stage.weights"] = (2 * centroids).astype(np.float32)
    tensors["readout.stage.bias"] = (-((centroids**2).sum(axis=1))).astype(np.float32)
    card = parse_card(document)
    by_stage = read_out(latent, card.extraction.readouts[0], tensors)
    vectors = {"input": given, "latent": latent}
    for told in card.extraction.readouts:
        known = told.of is None
        vectors[vector_of(told)] = (
            read_out(latent, told, tensors) if known else by_stage @ tensors["readout.depth.values"]
        )
    return Manifold.build(card, plain.genes, tensors, vectors)

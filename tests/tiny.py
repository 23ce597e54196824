"""A tiny but complete manifold made without a model: 40 genes, 3 coordinates, 24 anchors, 6 stages."""

from __future__ import annotations

from typing import Any

import numpy as np

from manifoldzoo.cards._card import Card, parse_card
from manifoldzoo.manifolds._cell_ids import CellIds
from manifoldzoo.manifolds._digests import anchors_digest
from manifoldzoo.manifolds._features import apply_operator, fold_projection
from manifoldzoo.manifolds._genes import GeneTable
from manifoldzoo.manifolds._let import LetSettings, fit_let
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._panel_overlap import PanelMembers
from manifoldzoo.manifolds._readouts import read_out, readout_shapes, vector_of
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler

N_GENES, D = 40, 3
STAGES = [
    ("stem", "", "stem"),
    ("left_1", "stem", "left"),
    ("left_2", "left_1", "left"),
    ("left_3", "left_2", "left"),
    ("right_1", "stem", "right"),
    ("right_2", "right_1", "right"),
]


def tiny_ruler() -> StageRuler:
    return StageRuler(
        name="tiny",
        version="1",
        stages=tuple(Stage(name, name.replace("_", " "), "", branch) for name, _, branch in STAGES),
        edges=tuple(Edge(name, parent, "made up for tests") for name, parent, _ in STAGES if parent),
        root="stem",
    )


def tiny_genes() -> GeneTable:
    return GeneTable(
        tuple(f"GENE{i}" for i in range(N_GENES)),
        tuple(f"ENSG{i:011d}" if i % 5 else "" for i in range(N_GENES)),
    )


def tiny_document(**changes: Any) -> dict[str, Any]:
    """A card document; ``changes`` replace top-level fields."""
    ruler = tiny_ruler()
    anchors = [
        {
            "study": "made",
            "donor": f"d{donor}",
            "tissue": "none",
            "cell_type": name,
            "stage": name,
            "branch": branch,
            "n_cells": 5,
        }
        for donor in range(4)
        for name, _, branch in STAGES
    ]
    values, _ = tiny_anchors()
    document = {
        "card_version": 4,
        "name": "tiny",
        "version": "0.1.0",
        "title": "Tiny",
        "description": "Planted geometry for tests.",
        "scale": "log1p_cp10k",
        "licence": "BSD-3-Clause",
        "source_model": {"name": "none", "architecture": "none", "digest": "0" * 64, "licence": "BSD-3-Clause"},
        "extraction": {
            "extractor": "by-hand",
            "recipe": "tiny",
            "seed": 0,
            "operator": {
                "kind": "attention_mean",
                "combination": "mean",
                "n_blocks": 1,
                "numerical_rank": [N_GENES],
                "n_cells": 120,
                "n_skipped_cells": 0,
                "cells_digest": "1" * 64,
                "pairs_seen": 1.0,
            },
            "adaptor": {
                "kind": "let-anchor",
                "n_components": D,
                "loss": 1.0,
                "beta": 1.0,
                "parameters": {"alpha": 0.01, "n_steps": 60, "learning_rate": 0.02, "scale_floor": 0.1},
            },
            "readouts": [
                {
                    "task": "branch",
                    "kind": "linear",
                    "classes": ["left", "right", "stem"],
                    "n_cells": 24,
                    "parameters": {},
                },
            ],
            "software": {"python": "3"},
        },
        "panel": {
            "digest": anchors_digest(values, anchors, tiny_genes().symbols),
            "min_cells": 5,
            "files": [
                {
                    "name": "made.h5ad",
                    "sha256": "2" * 64,
                    "n_cells": 120,
                    "cells_digest": "3" * 64,
                    "n_missing_genes": 0,
                }
            ],
            "anchors": anchors,
        },
        "ruler": {
            "name": ruler.name,
            "version": ruler.version,
            "digest": ruler.digest,
            "root": ruler.root,
            "licence": "CC0-1.0",
            "stages": [{"id": s.id, "label": s.label, "ontology_id": "", "branch": s.branch} for s in ruler.stages],
            "edges": [{"child": e.child, "parent": e.parent, "source": e.source} for e in ruler.edges],
        },
        "genes": {"n": N_GENES, "n_ensembl": 32, "organism": "Homo sapiens", "source": "made", "coverage_floor": 0.3},
        "test_vectors": {"rtol": 1e-3, "atol": 1e-3},
        "citations": [{"key": "none", "text": "Nobody (2026)."}],
        "intended_use": "Tests.",
        "limits": ["Means nothing."],
    }
    return document | changes


def tiny_anchors() -> tuple[np.ndarray, list[str]]:
    """Anchor expression ``(24, 40)`` in which depth and arm are planted, and the stage of each."""
    rng = np.random.default_rng(1)
    place = {"stem": (0, 0), "left_1": (1, 0), "left_2": (2, 0), "left_3": (3, 0), "right_1": (0, 1), "right_2": (0, 2)}
    stage = [name for _ in range(4) for name, _, _ in STAGES]
    loadings = rng.random((2, N_GENES))
    values = np.array([place[name] for name in stage]) @ loadings + 1.0 + 0.05 * rng.random((24, N_GENES))
    return values.astype(np.float32), stage


def tiny_manifold(**changes: Any) -> Manifold:
    """The tiny manifold; ``changes`` replace top-level fields of its card."""
    card: Card = parse_card(tiny_document(**changes))
    rng = np.random.default_rng(2)
    operator = (np.eye(N_GENES) + 0.1 * rng.random((N_GENES, N_GENES))).astype(np.float32)[None]
    values, stage = tiny_anchors()
    settings = LetSettings(n_components=D, n_steps=60)
    head = fit_let(apply_operator(values, operator), tiny_ruler().distances(stage), settings, rng=rng)
    parts = [np.asarray(a, dtype=np.float32) for a in (operator, head.weights, head.bias, head.mean, head.scale)]
    projection, offset = fold_projection(*parts)
    names = ("operator", "adaptor.weights", "adaptor.bias", "adaptor.mean", "adaptor.scale")
    tensors = dict(zip(names, parts, strict=True)) | {
        "projection": projection.astype(np.float32),
        "offset": offset.astype(np.float32),
        "panel.anchors": values,
        "readout.branch.weights": rng.standard_normal((3, D)).astype(np.float32),
        "readout.branch.bias": np.zeros(3, dtype=np.float32),
    }
    given = values[:4]
    latent = (given @ tensors["projection"] + tensors["offset"]).astype(np.float32)
    logits = latent @ tensors["readout.branch.weights"].T
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba /= proba.sum(axis=1, keepdims=True)
    vectors = {"input": given, "latent": latent, "proba.branch": proba.astype(np.float32)}
    return Manifold.build(card, tiny_genes(), tensors, vectors)


def tiny_manifold_with_tasks() -> Manifold:
    """The tiny manifold with a readout of every kind and thresholds for unfamiliar cells."""
    plain, rng = tiny_manifold(), np.random.default_rng(3)
    document = plain.card.model_dump(mode="json")
    stages = sorted(name for name, _, _ in STAGES)
    common = {"n_cells": 24, "parameters": {}}
    document["extraction"]["readouts"] = [
        {"task": "stage", "kind": "linear", "classes": stages, **common},
        {"task": "side", "kind": "linear", "classes": ["left", "right"], **common}
        | {"stages": ["left_1", "left_2", "left_3", "right_1", "right_2"]},
        {"task": "branch", "kind": "mlp", "n_hidden": 5, "classes": ["left", "right", "stem"], **common},
        {"task": "depth", "kind": "expected", "of": "stage", "classes": [], **common},
    ]
    document["extraction"]["familiarity"] = {
        "threshold": 0.9,
        "scaled_threshold": 0.5,
        "quantile": 0.1,
        "held_out_by": "donor",
        "groups": {"d0": 0.88, "d1": 0.92},
    }
    card = parse_card(document)
    readouts = card.extraction.readouts
    counts = {told.task: len(told.classes) for told in readouts}
    shapes = {name: shape for told in readouts for name, shape in readout_shapes(told, D, counts).items()}
    kept = {name: array for name, array in plain.tensors.items() if not name.startswith("readout.")}
    drawn = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    # the stage readout is a nearest centroid, so that anchors are read right
    latent = plain.project(plain.tensors["panel.anchors"])
    centroids = np.stack([latent[np.array(plain.anchor_stages) == name].mean(axis=0) for name in stages])
    drawn["readout.stage.weights"] = (20 * centroids).astype(np.float32)
    drawn["readout.stage.bias"] = (-10 * (centroids**2).sum(axis=1)).astype(np.float32)
    vectors = {name: plain.vectors[name] for name in ("input", "latent")}
    drawn["readout.depth.values"] = tiny_ruler().depth(stages).astype(np.float32)
    for told in readouts:
        by_stage = read_out(vectors["latent"], readouts[0], drawn)
        known = told.of is None
        vectors[vector_of(told)] = (
            read_out(vectors["latent"], told, drawn) if known else by_stage @ drawn["readout.depth.values"]
        )
    return Manifold.build(card, plain.genes, kept | drawn, vectors)


def tiny_manifold_with_everything() -> Manifold:
    """The tiny manifold with all that an artifact can hold: tasks, a choice, a panel beside, an untrained model, a plan
    of the evidence and cell ids."""
    plain = tiny_manifold_with_tasks()
    document = plain.card.model_dump(mode="json")
    candidates = [{"kind": "attention_mean", "combination": "mean", "n_components": n} for n in (2, D)]
    document["extraction"]["choice"] = {
        "candidates": candidates,
        "left_out_by": "donor",
        "n_starts": 2,
        "made": {"left_out": None, "scores": [0.7, 0.8], "chosen": 1},
        "runs": [{"left_out": "made:d0", "scores": [0.6, None], "chosen": 0, "left_out_score": 0.5}],
        "left_out_score": 0.5,
    }
    beside = {"name": "external", "role": "external", "n_shared_cells": 0, "n_shared_donors": 0}
    document["panels"] = [beside | {"specification": "4" * 64, "manifest": document["panel"]}]
    document["untrained"] = [{"control": "random-init", "seed": 0, "digest": "5" * 64}]
    document["evidence"] = {"n_permutations": 2000}
    n = len(document["panel"]["anchors"])
    rng = np.random.default_rng(4)
    more = {
        "panel.external.anchors": plain.tensors["panel.anchors"],
        "comparator.random-init.0": rng.standard_normal((n, n)).astype(np.float32),
    }
    own, other = CellIds.of(tiny_members("made", 120)), CellIds.of(tiny_members("other", 30))
    ids = own.tensors() | other.tensors("panel.external")
    return Manifold.build(parse_card(document), plain.genes, plain.tensors | more | ids, plain.vectors)


def tiny_members(study: str, n_cells: int, *, first: int = 0) -> PanelMembers:
    """So many cells of a study, with barcodes that count from ``first`` in base four."""
    numbers = range(first, first + n_cells)
    barcodes = ("".join("ACGT"[(number >> 2 * place) & 3] for place in range(12)) for number in numbers)
    donors = tuple(f"d{number % 4}" for number in numbers)
    return PanelMembers((study,) * n_cells, donors, tuple(f"{barcode}-1" for barcode in barcodes))

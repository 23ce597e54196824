"""The tiny manifold with a table of interactions as its ruler: six cell types of three broad classes, two nulls."""

from __future__ import annotations

from typing import Any

import numpy as np
from tiny import tiny_manifold_with_tasks, tiny_ruler

from manifoldzoo.cards._card import parse_card
from manifoldzoo.manifolds._interaction_ruler import InteractionRuler
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._stored_ruler import ruler_tensors


def tiny_interactions() -> InteractionRuler:
    """Directed distances between the tiny ruler's stages: steps there, and a little more for every later receiver."""
    stages = tiny_ruler().stages
    n = len(stages)
    directed = 1 + tiny_ruler().distances([stage.id for stage in stages]) + 0.1 * np.arange(n)
    nulls = [np.random.default_rng(seed).permuted(directed.ravel()).reshape(n, n) for seed in range(2)]
    return InteractionRuler("talk", "1", stages, directed, np.array(nulls))


def interaction_document(**changes: Any) -> dict[str, Any]:
    """The ruler on the card; ``changes`` replace fields of how it was computed."""
    ruler = tiny_interactions()
    return {
        "kind": "interaction",
        "name": ruler.name,
        "version": ruler.version,
        "digest": ruler.digest,
        "root": None,
        "licence": "CC0-1.0",
        "stages": [{"id": s.id, "label": s.label, "ontology_id": "", "branch": s.branch} for s in ruler.stages],
        "edges": [],
        "interaction": {
            "resource": "liana:consensus",
            "resource_version": "1.10.0",
            "resource_digest": "6" * 64,
            "n_pairs": 4701,
            "n_ligands": 1032,
            "n_receptors": 933,
            "expressed": 0.1,
            "min_cells": 5,
            "files": [{"name": "a|b.h5ad", "sha256": "7" * 64, "n_groups": 12, "n_ligands": 1001, "n_receptors": 902}],
            "curated": {"n_paths": 40, "n_pairs": 31, "n_absent": 2, "auroc": 0.6375, "null_auroc": [0.7, 0.5]},
            "n_nulls": 2,
            "null_seed": 3,
        }
        | changes,
    }


def tiny_interaction(plain: Manifold | None = None) -> Manifold:
    """A tiny manifold, that with every kind of readout by default, under the ruler of interactions."""
    plain = plain or tiny_manifold_with_tasks()
    document = plain.card.model_dump(mode="json")
    document["ruler"] = interaction_document()
    # no depth without a root
    readouts = document["extraction"]["readouts"]
    document["extraction"]["readouts"] = [told for told in readouts if told["kind"] != "expected"]
    tensors = {name: array for name, array in plain.tensors.items() if name != "readout.depth.values"}
    vectors = {name: array for name, array in plain.vectors.items() if name != "value.depth"}
    return Manifold.build(parse_card(document), plain.genes, tensors | ruler_tensors(tiny_interactions()), vectors)

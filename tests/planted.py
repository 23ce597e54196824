"""A planted manifold with known answers on all six rungs, and the parts of it that can be spoilt one at a time.

A caterpillar tree of 18 stages in six branches. Every step of the tree is an axis, which 300 genes mix. In all other
directions the genes vary more, and with no order. The model knows the subspace of the axes; nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from planted_tree import caterpillar, steps_from_the_root
from tiny import tiny_document

from manifoldzoo.cards._card import parse_card
from manifoldzoo.manifolds._digests import anchors_digest
from manifoldzoo.manifolds._features import apply_operator, fold_projection
from manifoldzoo.manifolds._genes import GeneTable
from manifoldzoo.manifolds._geodesic import GeodesicHead
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._heads import Head, HeadSettings, fit_head
from manifoldzoo.manifolds._landmarks import stored_landmarks
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._let_many import feature_coordinates
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._ruler import StageRuler

SITES = (0, 1, 3, 6, 10, 15)
"""No two arms equally far apart, so that none can change places unnoticed."""
N_GENES, N_DONORS = 300, 8
SETTINGS = LetSettings(n_components=6, n_steps=80)
ISOMAP = GeodesicSettings(n_components=6, n_neighbours=10)


RULER = caterpillar(SITES)
EVERY = [stage.id for stage in RULER.stages]
STAGES = [stage.id for stage in RULER.stages if stage.branch != "trunk"]
AXES = np.random.default_rng(99).standard_normal((len(EVERY), N_GENES))
KNOWN = np.linalg.pinv(AXES) @ AXES
BESIDE = np.eye(N_GENES) - KNOWN
"""Onto all directions that no step of the tree takes."""
NOISE, ELSEWHERE = 4.0, 10.0


@dataclass(frozen=True, eq=False)
class PlantedPanel:
    """Anchors with labels: expression ``(n, 300)``, and stage, donor and study of each."""

    values: np.ndarray
    stage: list[str]
    donor: list[str]
    study: list[str]

    def entries(self, ruler: StageRuler) -> list[dict[str, Any]]:
        """Anchors as a card lists them."""
        columns = zip(self.study, self.donor, self.stage, ruler.branch(self.stage), strict=True)
        return [
            {"study": study, "donor": donor, "tissue": "t", "cell_type": stage, "stage": stage, "branch": branch}
            | {"n_cells": 5}
            for study, donor, stage, branch in columns
        ]


def planted_panel(seed: int, *, n_donors: int = N_DONORS, prefix: str = "d", biology: float = 1.0) -> PlantedPanel:
    """Anchors of every stage from each donor; without biology they hold noise and offsets alone."""
    rng = np.random.default_rng(seed)
    stage = STAGES * n_donors
    axes = steps_from_the_root(RULER, stage) + 0.2 * rng.standard_normal((len(stage), len(EVERY)))
    values = biology * axes @ AXES + NOISE * rng.standard_normal((len(stage), N_GENES))
    values += ELSEWHERE * rng.standard_normal((len(stage), N_GENES)) @ BESIDE
    donor = [f"{prefix}{d}" for d in range(n_donors) for _ in STAGES]
    values += np.repeat(2.0 * rng.standard_normal((n_donors, N_GENES)), len(STAGES), axis=0)
    study = [f"s{prefix}{int(name[len(prefix) :]) % 3}" for name in donor]
    return PlantedPanel(values.astype(np.float32), stage, donor, study)


def knowing_operator() -> np.ndarray:
    """What the model knows: onto the subspace of the axes, and a little of the rest."""
    return (KNOWN + 0.02 * np.eye(N_GENES)).astype(np.float32)[None]


def untrained_operator(seed: int) -> np.ndarray:
    """What a model without training gives: a rotation of expression."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((N_GENES, N_GENES)))
    return q.astype(np.float32)[None]


@dataclass(frozen=True, eq=False)
class Planted:
    """The parts of an artifact; ``replace`` one of them to spoil it."""

    operator: np.ndarray = field(default_factory=knowing_operator)
    panel: PlantedPanel = field(default_factory=lambda: planted_panel(0))
    external: PlantedPanel = field(default_factory=lambda: planted_panel(1, n_donors=4, prefix="e"))
    negative: PlantedPanel = field(default_factory=lambda: planted_panel(2, n_donors=4, prefix="n", biology=0.0))
    ruler: StageRuler = RULER
    shared: tuple[int, int] = (0, 0)
    n_untrained: int = 5
    latent_of: str = "the ruler"
    settings: HeadSettings = SETTINGS

    def spoilt(self, **changes: Any) -> Planted:
        """The same with other parts."""
        return replace(self, **changes)

    def build(self) -> Manifold:
        """Fit the head and put everything together."""
        ruler, panel = self.ruler, self.panel
        settings, d = self.settings, self.settings.n_components
        features = apply_operator(panel.values, self.operator)
        rng = np.random.default_rng(5)
        goal = ruler.distances(panel.stage)
        if self.latent_of == "the batch":
            goal = 1.0 - (np.array(panel.donor)[:, None] == np.array(panel.donor)[None, :])
        head = fit_head(features, goal, settings, rng=rng)
        weights = np.zeros_like(head.weights) if self.latent_of == "nothing" else head.weights
        parts = [np.asarray(a, dtype=np.float32) for a in (self.operator, weights, head.bias, head.mean, head.scale)]
        projection, offset = fold_projection(*parts)
        names = ("operator", "adaptor.weights", "adaptor.bias", "adaptor.mean", "adaptor.scale")
        tensors: dict[str, np.ndarray] = dict(zip(names, parts, strict=True)) | {
            "projection": projection.astype(np.float32),
            "offset": offset.astype(np.float32),
            "panel.anchors": panel.values,
            "readout.branch.weights": rng.standard_normal((3, d)).astype(np.float32),
            "readout.branch.bias": np.zeros(3, dtype=np.float32),
            "panel.external.anchors": self.external.values,
            "panel.negative.anchors": self.negative.values,
        }
        if isinstance(head, GeodesicHead):
            found = head.landmarks
            laid_out = {"landmarks": found.places, "geodesics": found.geodesics, "coordinates": found.coordinates}
            tensors |= {f"head.{name}": part.astype(np.float32) for name, part in laid_out.items()}
        for seed in range(self.n_untrained):
            seen = feature_coordinates(apply_operator(panel.values, untrained_operator(seed)), scale_floor=0.1)
            tensors[f"comparator.random-init.{seed}"] = seen
        given, card = panel.values[:4], parse_card(self.document(head))
        latent = (given @ tensors["projection"] + tensors["offset"]).astype(np.float32)
        landmarks = stored_landmarks(tensors, card.extraction.adaptor)
        if landmarks is not None:
            latent = landmarks.place(latent).astype(np.float32)
        logits = latent @ tensors["readout.branch.weights"].T
        proba = np.exp(logits - logits.max(axis=1, keepdims=True))
        proba /= proba.sum(axis=1, keepdims=True)
        vectors = {"input": given, "latent": latent, "proba.branch": proba.astype(np.float32)}
        return Manifold.build(card, planted_genes(), tensors, vectors)

    def document(self, head: Head) -> dict[str, Any]:
        """The card."""
        plain = tiny_document()
        ruler = self.ruler
        stages = [{"id": s.id, "label": s.label, "ontology_id": "", "branch": s.branch} for s in ruler.stages]
        edges = [{"child": e.child, "parent": e.parent, "source": e.source} for e in ruler.edges]
        extraction = plain["extraction"] | {
            "operator": plain["extraction"]["operator"] | {"numerical_rank": [N_GENES]},
            "adaptor": plain["extraction"]["adaptor"] | self._adaptor(head),
        }
        beside = [
            {
                "name": role,
                "role": role,
                "n_shared_cells": self.shared[0] if role == "external" else 0,
                "n_shared_donors": self.shared[1] if role == "external" else 0,
                "specification": "4" * 64,
                "manifest": self._manifest(panel, plain["panel"]),
            }
            for role, panel in (("external", self.external), ("negative", self.negative))
        ]
        untrained = [{"control": "random-init", "seed": s, "digest": "5" * 64} for s in range(self.n_untrained)]
        return tiny_document(
            name="planted",
            extraction=extraction,
            panel=self._manifest(self.panel, plain["panel"]),
            panels=beside,
            untrained=untrained,
            ruler=plain["ruler"]
            | {"name": ruler.name, "digest": ruler.digest, "root": ruler.root, "stages": stages, "edges": edges},
            genes=plain["genes"] | {"n": N_GENES, "n_ensembl": 0},
        )

    def _adaptor(self, head: Head) -> dict[str, Any]:
        """The head as the card describes it."""
        settings = self.settings
        told: dict[str, Any] = {"n_components": settings.n_components}
        if isinstance(settings, GeodesicSettings) and isinstance(head, GeodesicHead):
            reduced, landmarks = len(head.weights), len(head.landmarks.places)
            told |= {"kind": settings.kind, "n_reduced": reduced, "n_landmarks": landmarks, "n_pieces": head.n_pieces}
            return told | {"parameters": settings.parameters(), "beta": head.beta}
        names = ("alpha", "n_steps", "learning_rate", "scale_floor", "schedule")
        return told | {"parameters": {name: getattr(settings, name) for name in names}}

    def _manifest(self, panel: PlantedPanel, like: Mapping[str, Any]) -> dict[str, Any]:
        """A panel as the card describes it."""
        entries = panel.entries(self.ruler)
        digest = anchors_digest(panel.values, entries, planted_genes().symbols)
        return {**like, "digest": digest, "anchors": entries}


def planted_genes() -> GeneTable:
    """Three hundred symbols."""
    return GeneTable(tuple(f"GENE{i}" for i in range(N_GENES)), ("",) * N_GENES)

"""What tensors an artifact has, by its card, and how they must fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Card, Extraction
from ..cards._errors import BadInputError, FormatError
from ._cell_ids import KINDS, CellIds
from ._format import GENES, TENSORS, VECTORS
from ._readouts import readout_shapes, vector_of
from ._stored_ruler import ruler_shapes

if TYPE_CHECKING:
    from ._manifold import Manifold


def stores_operator(extraction: Extraction) -> bool:
    """Whether the operator is a tensor of the artifact: one that leaves expression as it is need not be."""
    return extraction.operator.kind != "expression" or extraction.control is not None


def expected_shapes(card: Card) -> dict[str, tuple[int, ...]]:
    """Tensor shapes that a card implies."""
    n_genes, adaptor, operator = card.genes.n, card.extraction.adaptor, card.extraction.operator
    d, r = adaptor.n_components, adaptor.n_reduced or adaptor.n_components
    k, per_block = operator.n_blocks, operator.n_features or n_genes
    shapes: dict[str, tuple[int, ...]] = {
        "projection": (n_genes, r),
        "offset": (r,),
        "adaptor.weights": (r, k * per_block),
        "adaptor.bias": (k * per_block,),
        "adaptor.mean": (k * per_block,),
        "adaptor.scale": (k * per_block,),
        "panel.anchors": (len(card.panel.anchors), n_genes),
    }
    if stores_operator(card.extraction):
        shapes["operator"] = (k, n_genes, per_block)
    if adaptor.n_landmarks is not None:
        m = adaptor.n_landmarks
        shapes |= {"head.landmarks": (m, r), "head.geodesics": (m, m), "head.coordinates": (m, d)}
    n_classes = {readout.task: len(readout.classes) for readout in card.extraction.readouts}
    for readout in card.extraction.readouts:
        shapes |= readout_shapes(readout, d, n_classes)
    n = len(card.panel.anchors)
    shapes |= {f"comparator.{other.control}.{other.seed}": (n, n) for other in card.untrained}
    shapes |= ruler_shapes(card)
    return shapes | {f"panel.{p.name}.anchors": (len(p.manifest.anchors), n_genes) for p in card.panels}


def panel_tensors(card: Card) -> list[str]:
    """Beginnings of the names of the panels' tensors."""
    return ["panel", *(f"panel.{panel.name}" for panel in card.panels)]


def cell_id_names(card: Card) -> set[str]:
    """Names of the tensors of cell ids that there may be."""
    return {f"{panel}.{kind}" for panel in panel_tensors(card) for kind in KINDS}


def check_shapes(manifold: Manifold) -> None:
    """Refuse tensors that do not fit the card and each other."""
    expected = expected_shapes(manifold.card)
    for panel in panel_tensors(manifold.card):
        CellIds.read(manifold.tensors, panel)
    ids = cell_id_names(manifold.card)
    _compare(TENSORS, {name: array for name, array in manifold.tensors.items() if name not in ids}, expected)
    n = next(iter(manifold.vectors["input"].shape), 0) if "input" in manifold.vectors else 0
    vectors: dict[str, tuple[int, ...]] = {"input": (n, manifold.card.genes.n), "latent": (n, manifold.n_components)}
    for readout in manifold.card.extraction.readouts:
        vectors[vector_of(readout)] = (n, len(readout.classes)) if readout.classes else (n,)
    _compare(VECTORS, manifold.vectors, vectors)
    if len(manifold.genes) != manifold.card.genes.n:
        raise FormatError(f"{GENES} has {len(manifold.genes)} genes, the card says {manifold.card.genes.n}.")
    try:
        # made here so that what cannot place cells is met on loading
        _ = manifold.landmarks
    except BadInputError as error:
        raise FormatError(f"{TENSORS}: {error.message}") from error


def _compare(where: str, tensors: Mapping[str, NDArray[Any]], expected: dict[str, tuple[int, ...]]) -> None:
    """Refuse missing, unknown, misshapen, non-float or non-finite tensors."""
    if set(tensors) != set(expected):
        missing, extra = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
        raise FormatError(f"{where} lacks the tensors {missing} and has the unknown tensors {extra}.")
    for name, shape in expected.items():
        array = tensors[name]
        if array.shape != shape:
            raise FormatError(f"{where}: tensor {name!r} has the shape {array.shape}, the card implies {shape}.")
        if array.dtype not in (np.float32, np.float64) or not np.isfinite(array).all():
            raise FormatError(f"{where}: tensor {name!r} is {array.dtype} or not finite, expected finite floats.")

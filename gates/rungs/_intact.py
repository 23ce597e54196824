"""Rungs 1 and 2: the artifact is intact and consistent, and gives the same numbers here."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ...cards._card import Card
from ...cards._errors import ZooError
from ...cards._evidence import Direction, Record, RungResult, conclude, judge
from ...manifolds._digests import anchors_digest
from ...manifolds._features import fold_projection
from ...manifolds._format import read_verified
from ...manifolds._landmarks import Landmarks
from ...manifolds._manifold import Manifold, encode
from ...manifolds._readouts import vector_of

FOLD_TOLERANCE = 1e-3


def gates_of(card: Card) -> list[tuple[str, Direction | None, float | None]]:
    """Gate, direction and threshold of every check of rung 1; without the latter two for checks without a number."""
    gates: list[tuple[str, Direction | None, float | None]] = [
        ("digests", None, None),
        ("panel_digest", None, None),
        ("ruler_digest", None, None),
        ("projection_is_the_fold", "<=", FOLD_TOLERANCE),
    ]
    by_landmarks = card.extraction.adaptor.n_landmarks is not None
    return [*gates, ("landmarks_are_anchors", "<=", FOLD_TOLERANCE)] if by_landmarks else gates


def outputs_of(card: Card) -> list[tuple[str, Direction, float]]:
    """Gate, direction and threshold of every check of rung 2: the coordinates, and each task."""
    names = ["latent", *(readout.task for readout in card.extraction.readouts)]
    return [(f"test_vectors_{name}", "<=", 1.0) for name in names]


def valid(manifold: Manifold) -> RungResult:
    """Run rung 1: digests, schema, shapes, finite numbers, and parts that agree with each other.

    Schema, shapes and finiteness are enforced when a manifold is made; what is checked here is that the bytes on
    disk still hold, that the card's digests of panel and ruler are those of the panel and ruler it carries, and
    that the folded projection is the fold of operator and adaptor; of a geodesic head also that every landmark is an
    anchor of the panel.
    """
    records = [_digests(manifold), _panel(manifold), _ruler(manifold), _fold(manifold)]
    landmarks = manifold.landmarks
    return conclude(1, records if landmarks is None else [*records, _landmarks(manifold, landmarks)])


def reproduces(manifold: Manifold) -> RungResult:
    """Run rung 2: the shipped test vectors within the card's tolerance on this machine."""
    tolerance, vectors = manifold.card.test_vectors, manifold.vectors
    latent = manifold.project(vectors["input"])
    n = len(latent)
    records = [
        judge(
            "test_vectors_latent", _deviation(latent, vectors["latent"], tolerance.rtol, tolerance.atol), "<=", 1.0, n=n
        )
    ]
    for readout in manifold.card.extraction.readouts:
        got = manifold.read_out(vectors["latent"].astype(np.float32), readout.task)
        off = _deviation(got, vectors[vector_of(readout)], tolerance.rtol, tolerance.atol)
        records.append(judge(f"test_vectors_{readout.task}", off, "<=", 1.0, n=n))
    return conclude(2, records)


def _digests(manifold: Manifold) -> Record:
    """The bytes on disk, or the bytes that saving would write, have the digest of the manifold."""
    if manifold.path is None:
        contents = encode(manifold.card, manifold.genes, manifold.tensors, manifold.vectors)
        return _said("digests", holds=True, reason=f"{len(contents)} files encode; not on disk yet")
    try:
        manifest, _ = read_verified(manifold.path, links_into=manifold.links_into)
    except ZooError as error:
        return _said("digests", holds=False, reason=str(error))
    return _said(
        "digests", holds=manifest.digest == manifold.digest, reason=f"{len(manifest.files)} files match the manifest"
    )


def _panel(manifold: Manifold) -> Record:
    """The anchors that travel in the artifact are those the card's digest names."""
    entries = [anchor.model_dump(mode="json") for anchor in manifold.card.panel.anchors]
    digest = anchors_digest(manifold.tensors["panel.anchors"], entries, manifold.genes.symbols)
    return _said(
        "panel_digest",
        holds=digest == manifold.card.panel.digest,
        reason="anchors match the card's digest of the panel",
    )


def _ruler(manifold: Manifold) -> Record:
    """The ruler of the card has the digest the card gives, and the branches of the anchors are its own."""
    ruler, anchors = manifold.ruler, manifold.card.panel.anchors
    same = ruler.digest == manifold.card.ruler.digest
    own = ruler.branch([anchor.stage for anchor in anchors]) == [anchor.branch for anchor in anchors]
    return _said("ruler_digest", holds=same and own, reason="ruler matches its digest and the branches of the anchors")


def _fold(manifold: Manifold) -> Record:
    """The folded projection is operator times adaptor."""
    projection, offset = fold_projection(
        manifold.operator,
        manifold.tensors["adaptor.weights"],
        manifold.tensors["adaptor.bias"],
        manifold.tensors["adaptor.mean"],
        manifold.tensors["adaptor.scale"],
    )
    # each against its own size: an offset is often ten times the loadings and would hide a change of them
    size = max(float(np.abs(projection).max()), 1e-12)
    off = float(np.abs(manifold.tensors["projection"] - projection).max()) / size
    moved = float(np.abs(manifold.tensors["offset"] - offset).max())
    off = max(off, moved / max(size, float(np.abs(offset).max())))
    return judge("projection_is_the_fold", off, "<=", FOLD_TOLERANCE)


def _landmarks(manifold: Manifold, landmarks: Landmarks) -> Record:
    """Every landmark lies where an anchor of the panel is projected to."""
    tensors = {name: manifold.tensors[name].astype(np.float64) for name in ("panel.anchors", "projection", "offset")}
    projected = tensors["panel.anchors"] @ tensors["projection"] + tensors["offset"]
    off = cdist(landmarks.places, projected).min(axis=1).max()
    size = max(float(np.linalg.norm(projected, axis=1).max()), 1e-12)
    return judge("landmarks_are_anchors", float(off) / size, "<=", FOLD_TOLERANCE, n=len(landmarks.places))


def _deviation(got: NDArray[np.floating], expected: NDArray[np.floating], rtol: float, atol: float) -> float:
    """Largest deviation in units of the tolerance ``atol + rtol |expected|``; at most 1 is within."""
    wide, shipped = got.astype(np.float64), expected.astype(np.float64)
    return float((np.abs(wide - shipped) / (atol + rtol * np.abs(shipped))).max())


def _said(gate: str, *, holds: bool, reason: str) -> Record:
    """A record of a check without a statistic."""
    return Record(gate=gate, status="pass" if holds else "fail", reason=reason if holds else f"not so: {reason}")

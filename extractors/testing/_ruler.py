"""Whether a ruler is one: a metric on stages that a card can hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...manifolds._ruler import StageRuler
from ._conformance import Check, Mismatch, named, run


def check_ruler(ruler: StageRuler) -> None:
    """Check that a ruler is a metric on stages, and survives being written into a card.

    Parameters
    ----------
    ruler
        What an entry point under ``manifoldzoo.rulers`` returns when it is called.

    Raises
    ------
    ConformanceError
        Of the first check that fails: its name, what was found and what was expected.

    See Also
    --------
    ruler_checks : The same one by one, to parametrise tests.

    Notes
    -----
    Whether the distances are those of biology, and do not come from a model, no check can tell.
    """
    run(ruler, ruler_checks())


def ruler_checks() -> Iterator[tuple[str, Check[StageRuler]]]:
    """Yield the checks of ``check_ruler``, each a name and a function of a ruler."""
    yield named("names", _names)
    yield named("stages", _stages)
    yield named("shape", _shape)
    yield named("zero_diagonal", _zero_diagonal)
    yield named("non_negative", _non_negative)
    yield named("symmetric", _symmetric)
    yield named("triangle", _triangle)
    yield named("depth", _depth)
    yield named("branches", _branches)
    yield named("unknown_stage", _unknown_stage)
    yield named("digest", _digest)
    yield named("round_trip", _round_trip)
    yield named("relabelled", _relabelled)


def _names(ruler: StageRuler) -> None:
    """The ruler is a ``StageRuler`` that says its name and version."""
    if not isinstance(ruler, StageRuler):
        raise Mismatch(f"a {type(ruler).__name__}", "a StageRuler")
    for what in ("name", "version"):
        text = getattr(ruler, what)
        if not isinstance(text, str) or not text.strip():
            raise Mismatch(f"{what} {text!r}", "words")


def _stages(ruler: StageRuler) -> None:
    """Stages and steps are of the form that cards take, and say where they come from."""
    if len(ruler.stages) < 2:
        raise Mismatch(f"{len(ruler.stages)} stages", "at least two")
    for stage in ruler.stages:
        if not re.fullmatch(r"[a-z0-9_]+", stage.id) or not stage.label.strip() or not stage.branch.strip():
            raise Mismatch(f"{stage}", "an id of a-z, 0-9 and _, a label and a branch")
        if not re.fullmatch(r"(CL:\d{7})?", stage.ontology_id):
            raise Mismatch(f"ontology id {stage.ontology_id!r} of {stage.id}", "one such as CL:0000037, or nothing")
    for edge in ruler.edges:
        if not edge.source.strip():
            raise Mismatch(f"no source of the step from {edge.parent} to {edge.child}", "where it is taken from")


def _ids(ruler: StageRuler) -> list[str]:
    """All stages."""
    return [stage.id for stage in ruler.stages]


def _matrix(ruler: StageRuler) -> NDArray[np.float64]:
    """Distances between all stages."""
    return np.asarray(ruler.distances(_ids(ruler)))


def _worst(ruler: StageRuler, excess: NDArray[np.float64], what: str, expected: str) -> None:
    """Refuse any positive excess, naming the stages where it is largest."""
    # written so that NaN fails
    if (excess <= 0).all():
        return
    names, place = _ids(ruler), np.unravel_index(int(np.argmax(np.nan_to_num(excess, nan=np.inf))), excess.shape)
    raise Mismatch(f"{what} between {' and '.join(names[index] for index in place)}", expected)


def _shape(ruler: StageRuler) -> None:
    """Distances are float64, one a pair, and repeats are allowed."""
    names = _ids(ruler)
    distances = _matrix(ruler)
    if distances.dtype != np.float64 or distances.shape != (len(names),) * 2:
        raise Mismatch(f"distances of {distances.dtype} and shape {distances.shape}", f"float64 {(len(names),) * 2}")
    chosen = [len(names) - 1, 0, 0]
    some = np.asarray(ruler.distances([names[index] for index in chosen]))
    if not np.array_equal(some, distances[np.ix_(chosen, chosen)]):
        raise Mismatch("other distances for some of the stages, one of them twice", "those among all stages")


def _zero_diagonal(ruler: StageRuler) -> None:
    """A stage lies where it lies."""
    distances = _matrix(ruler)
    _worst(ruler, np.diag(np.abs(np.diagonal(distances))), "a distance other than 0", "0 from a stage to itself")


def _non_negative(ruler: StageRuler) -> None:
    """Different stages are apart."""
    distances = _matrix(ruler)
    apart = (distances > 0) | np.eye(len(distances), dtype=bool)
    _worst(
        ruler, (~apart).astype(np.float64), "a distance that is not positive", "more than 0 between different stages"
    )


def _symmetric(ruler: StageRuler) -> None:
    """There is as far as back."""
    distances = _matrix(ruler)
    _worst(ruler, np.abs(distances - distances.T), "another distance back", "the same both ways")


def _triangle(ruler: StageRuler) -> None:
    """No detour is shorter."""
    distances = _matrix(ruler)
    through = distances.copy()
    for middle in range(len(distances)):
        through = np.minimum(through, distances[:, middle, None] + distances[middle])
    # a metric of square roots is one up to rounding only
    slack = 1e-9 * np.abs(distances).max()
    _worst(ruler, distances - through - slack, "a shorter way over a third stage", "no detour shorter than the way")


def _depth(ruler: StageRuler) -> None:
    """Depth is the distance from the root, where it is 0."""
    names = _ids(ruler)
    depth = np.asarray(ruler.depth(names))
    if ruler.root not in names or depth[names.index(ruler.root)] != 0:
        raise Mismatch(f"root {ruler.root!r} at another depth than 0, or no stage", "a stage of depth 0")
    if not np.array_equal(depth, np.asarray(ruler.distances([ruler.root, *names]))[0, 1:]):
        raise Mismatch("depth that differs from the distance to the root", f"the distance to {ruler.root!r}")


def _branches(ruler: StageRuler) -> None:
    """Every stage has its branch."""
    branches, expected = ruler.branch(_ids(ruler)), [stage.branch for stage in ruler.stages]
    if list(branches) != expected:
        raise Mismatch(
            f"the branches {sorted(set(branches))} for the stages", f"those of `stages`, in order: {expected}"
        )


def _unknown_stage(ruler: StageRuler) -> None:
    """A stage that the ruler lacks is refused, not measured."""
    asked: tuple[tuple[str, Callable[[list[str]], object]], ...] = (
        ("distances", ruler.distances),
        ("depth", ruler.depth),
        ("branch", ruler.branch),
    )
    for what, function in asked:
        try:
            function(["no such stage"])
        except BadInputError:
            continue
        raise Mismatch(f"an answer of `{what}` for 'no such stage'", "BadInputError")


def _digest(ruler: StageRuler) -> None:
    """The digest is a SHA-256 that stays, and that another ruler does not have."""
    digest = ruler.digest
    if not re.fullmatch(r"[0-9a-f]{64}", digest) or ruler.digest != digest:
        raise Mismatch(f"digest {digest!r}, then {ruler.digest!r}", "the same 64 digits of lower-case hex")
    if replace(ruler, version=f"{ruler.version}.1").digest == digest:
        raise Mismatch("the same digest of another version", "one of its own")


def _round_trip(ruler: StageRuler) -> None:
    """JSON and the fields of a card hold all of a ruler."""
    again = StageRuler.from_dict(json.loads(json.dumps(ruler.to_dict())))
    plain = StageRuler(ruler.name, ruler.version, ruler.stages, ruler.edges, ruler.root)
    for read, what in ((again, "read back from JSON"), (plain, "rebuilt from the fields of a card")):
        if read.digest != ruler.digest:
            raise Mismatch(f"another digest when {what}", f"{ruler.digest}")
        if not np.array_equal(read.distances(_ids(read)), _matrix(ruler)):
            raise Mismatch(f"other distances when {what}", "the same, since gates measure with what the card holds")


def _relabelled(ruler: StageRuler) -> None:
    """The null ruler has the same distances between other stages."""
    first, again = (ruler.relabelled(rng=np.random.default_rng(0)) for _ in range(2))
    if first.digest != again.digest:
        raise Mismatch("another relabelled ruler for the same seed", "the same")
    names, distances = _ids(ruler), _matrix(ruler)
    moved = [np.asarray(ruler.relabelled(rng=np.random.default_rng(seed)).distances(names)) for seed in range(8)]
    if not all(np.array_equal(np.sort(other, axis=None), np.sort(distances, axis=None)) for other in moved):
        raise Mismatch("other distances of the relabelled ruler", "the same ones, between other stages")
    # of a few stages a shuffle may leave all where they were
    if len(names) > 2 and all(np.array_equal(other, distances) for other in moved):
        raise Mismatch("the same distances between the same stages", "stages shuffled")

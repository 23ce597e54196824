"""The evidence ladder: climb rung by rung, and say at each what was found."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..cards._card import AnchorEntry, BesidePanel
from ..cards._errors import BadInputError, FormatError, ZooError
from ..cards._evidence import RUNG_NAMES, EvidenceRun, RungResult, conclude, not_run, undecided
from ..manifolds._features import apply_operator
from ..manifolds._let import LetSettings, Schedule
from ..manifolds._manifold import Manifold
from ._as_shipped import as_shipped
from ._comparators import Comparator, comparators
from ._intact import reproduces, valid
from ._model_derived import model_derived
from ._published import GateData, published_gates
from ._refitted import CANNOT_REFIT
from ._specific import specific
from ._transfers import Outside, transfers

Progress = Callable[[str, int, int], None]
N_PERMUTATIONS = 1000
N_BRANCH_PERMUTATIONS = 999


def validate(manifold: Manifold, *, through: int = 3, progress: Progress | None = None) -> EvidenceRun:
    """Recompute the evidence of a manifold up to a rung.

    Everything is computed from the artifact itself: the anchors of its extraction panel travel in it. Seeds come
    from the artifact digest, so that nobody can shop for one and everybody gets the same records.

    Parameters
    ----------
    manifold
        A loaded manifold.
    through
        Highest rung to try, 1 to 6. A rung whose panels or models the artifact does not carry is ``not run``.
    progress
        Called as ``progress(gate, done, total)``.

    Returns
    -------
    The validation run, bound to the artifact digest.

    Raises
    ------
    BadInputError
        If there is no such rung.

    Notes
    -----
    A rung counts as reached only if every rung below it passed; higher ones are tried all the same, because their
    figures inform, except that nothing is fitted on an artifact whose rung 1 fails. A head that was fitted on cells
    cannot be refitted from the artifact: the gates that refit are ``not run``, and rung 2 is the highest it can reach.
    """
    if not 1 <= through <= len(RUNG_NAMES):
        raise BadInputError(f"There is no rung {through}; the ladder has rungs 1 to {len(RUNG_NAMES)}.")
    started, clock = datetime.now(UTC), time.perf_counter()
    # one thread, because the order in which threads add up float32 products moves the third digit of a score
    with threadpool_limits(limits=1):
        rungs: list[RungResult] = [valid(manifold)]
        if through >= 2:
            rungs.append(reproduces(manifold))
        for rung in range(3, through + 1):
            sound = rungs[0].status == "pass"
            rungs.append(_climb(rung, manifold, progress) if sound else not_run(rung, "rung 1 did not pass"))
    return EvidenceRun(
        artifact_digest=manifold.digest,
        reference=f"{manifold.name}@{manifold.version}",
        panel_digest=manifold.card.panel.digest,
        started=started,
        seconds=round(time.perf_counter() - clock, 3),
        software=software(),
        rungs=rungs,
    )


def gate_data(manifold: Manifold) -> GateData:
    """The extraction panel of a manifold as the gates read it."""
    return _as_gates_read(manifold, manifold.tensors["panel.anchors"], manifold.card.panel.anchors)


def let_settings(manifold: Manifold) -> LetSettings:
    """The settings that the head was fitted with, so that every refit is the same procedure.

    Raises
    ------
    FormatError
        If the card does not give them all, or one that there is not.
    BadInputError
        If the head was not fitted on anchors.
    """
    adaptor = manifold.card.extraction.adaptor
    if adaptor.kind != "let-anchor":
        raise BadInputError(f"The head of {manifold.name!r} is {adaptor.kind}: {CANNOT_REFIT}.")
    given: dict[str, float] = {}
    for key in ("alpha", "n_steps", "learning_rate", "scale_floor"):
        value = adaptor.parameters.get(key)
        if not isinstance(value, int | float):
            raise FormatError(f"The card of {manifold.name!r} gives the head the {key} {value!r}, expected a number.")
        given[key] = value
    # cards of format 1 know no other
    told = adaptor.parameters.get("schedule", "constant")
    schedules: dict[Any, Schedule] = {each: each for each in get_args(Schedule)}
    if told not in schedules:
        raise FormatError(f"The card of {manifold.name!r} gives the head the schedule {told!r}.")
    return LetSettings(
        n_components=adaptor.n_components,
        alpha=float(given["alpha"]),
        n_steps=int(given["n_steps"]),
        learning_rate=float(given["learning_rate"]),
        scale_floor=float(given["scale_floor"]),
        schedule=schedules[told],
    )


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("manifoldzoo", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def panel_data(manifold: Manifold, role: str) -> tuple[BesidePanel, GateData] | None:
    """The first panel of a role that travels in the artifact, as the gates read it; ``None`` where there is none."""
    panel = next((panel for panel in manifold.card.panels if panel.role == role), None)
    if panel is None:
        return None
    return panel, _as_gates_read(manifold, manifold.tensors[f"panel.{panel.name}.anchors"], panel.manifest.anchors)


def _as_gates_read(manifold: Manifold, expression: NDArray[np.floating], anchors: Sequence[AnchorEntry]) -> GateData:
    """Anchors under the operator of a manifold."""
    stage = [anchor.stage for anchor in anchors]
    return GateData(
        features=apply_operator(expression, manifold.operator),
        expression=expression,
        stage=stage,
        distances=manifold.ruler.distances(stage),
        branch=[anchor.branch for anchor in anchors],
        donor=[anchor.donor for anchor in anchors],
        tissue=[anchor.tissue for anchor in anchors],
        study=[anchor.study for anchor in anchors],
    )


def _climb(rung: int, manifold: Manifold, progress: Progress | None) -> RungResult:
    """Run one of the rungs that fit heads."""
    data, seed = gate_data(manifold), int(manifold.digest[:8], 16)
    if manifold.card.extraction.adaptor.kind != "let-anchor":
        latent = manifold.project(np.asarray(data.expression))
        outside = _outside(manifold) if rung == 5 else None
        return as_shipped(rung, data, latent, outside, seed=seed, n_permutations=N_PERMUTATIONS)
    try:
        settings = let_settings(manifold)
    except ZooError as error:
        return conclude(rung, [undecided(RUNG_NAMES[rung], str(error))])

    def tell(what: str, total: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(what, done, total)

    if rung == 3:
        advance = tell("permutations, head refitted", N_PERMUTATIONS)
        return published_gates(data, settings, seed=seed, n_permutations=N_PERMUTATIONS, progress=advance)
    if rung == 4:
        found = panel_data(manifold, "negative")
        return specific(
            data,
            manifold.ruler,
            settings,
            seed=seed,
            negative=None if found is None else found[1],
            n_permutations=N_BRANCH_PERMUTATIONS,
            progress=tell("branches permuted, head refitted", N_BRANCH_PERMUTATIONS),
        )
    if rung == 5:
        return transfers(data, _outside(manifold), settings, seed=seed, n_permutations=N_PERMUTATIONS)
    others = _comparators(manifold, data, seed)
    return model_derived(data, others, settings, seed=seed, progress=_counting(tell("comparators", len(others))))


def _outside(manifold: Manifold) -> Outside | None:
    """The external panel under the head as it is."""
    found = panel_data(manifold, "external")
    if found is None:
        return None
    panel, data = found
    latent = manifold.project(np.asarray(data.expression))
    return Outside(data, latent, panel.n_shared_cells, panel.n_shared_donors)


def _comparators(manifold: Manifold, data: GateData, seed: int) -> list[Comparator]:
    """What rung 6 compares with; nothing where no untrained model travels in the artifact."""
    untrained: dict[str, list[NDArray[np.float32]]] = {}
    for other in manifold.card.untrained:
        stored = manifold.tensors[f"comparator.{other.control}.{other.seed}"]
        untrained.setdefault(other.control, []).append(np.asarray(stored, dtype=np.float32))
    if not untrained:
        return []
    rng = np.random.default_rng(seed).spawn(2)[1]
    return comparators(data, manifold.operator, untrained, rng=rng)


def _counting(tell: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Turn increments into totals."""
    if tell is None:
        return None
    told, done = tell, 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        told(done)

    return advance

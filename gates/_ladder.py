"""The evidence ladder: climb rung by rung, and say at each what was found."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata

from threadpoolctl import threadpool_limits

from ..cards._errors import BadInputError, FormatError, ZooError
from ..cards._evidence import RUNG_NAMES, EvidenceRun, RungResult, conclude, not_run, undecided
from ..manifolds._features import apply_operator
from ..manifolds._let import LetSettings
from ..manifolds._manifold import Manifold
from ._intact import reproduces, valid
from ._published import GateData, published_gates

Progress = Callable[[str, int, int], None]
N_PERMUTATIONS = 1000
BUILT = 3
"""Highest rung that this version can run; higher ones are reported as not run."""


def validate(manifold: Manifold, *, through: int = 3, progress: Progress | None = None) -> EvidenceRun:
    """Recompute the evidence of a manifold up to a rung.

    Everything is computed from the artifact itself: the anchors of its extraction panel travel in it. Seeds come
    from the artifact digest, so that nobody can shop for one and everybody gets the same records.

    Parameters
    ----------
    manifold
        A loaded manifold.
    through
        Highest rung to try, 1 to 6. A rung that this version cannot run is reported as ``not run``.
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
    figures inform, except that nothing is fitted on an artifact whose rung 1 fails.
    """
    if not 1 <= through <= len(RUNG_NAMES):
        raise BadInputError(f"There is no rung {through}; the ladder has rungs 1 to {len(RUNG_NAMES)}.")
    started, clock = datetime.now(UTC), time.perf_counter()
    # one thread, because the order in which threads add up float32 products moves the third digit of a score
    with threadpool_limits(limits=1):
        rungs: list[RungResult] = [valid(manifold)]
        if through >= 2:
            rungs.append(reproduces(manifold))
        if through >= 3:
            sound = rungs[0].status == "pass"
            rungs.append(_gates(manifold, progress) if sound else not_run(3, "rung 1 did not pass"))
    rungs += [not_run(rung, "this version cannot run it") for rung in range(BUILT + 1, through + 1)]
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
    anchors = manifold.card.panel.anchors
    return GateData(
        features=apply_operator(manifold.tensors["panel.anchors"], manifold.tensors["operator"]),
        expression=manifold.tensors["panel.anchors"],
        stage=[anchor.stage for anchor in anchors],
        distances=manifold.ruler.distances([anchor.stage for anchor in anchors]),
        branch=[anchor.branch for anchor in anchors],
        donor=[anchor.donor for anchor in anchors],
        tissue=[anchor.tissue for anchor in anchors],
        study=[anchor.study for anchor in anchors],
    )


def let_settings(manifold: Manifold) -> LetSettings:
    """The settings that the head was fitted with, so that every refit is the same procedure.

    Raises
    ------
    FormatError
        If the card does not give them all as numbers.
    """
    adaptor = manifold.card.extraction.adaptor
    given: dict[str, float] = {}
    for key in ("alpha", "n_steps", "learning_rate", "scale_floor"):
        value = adaptor.parameters.get(key)
        if not isinstance(value, int | float):
            raise FormatError(f"The card of {manifold.name!r} gives the head the {key} {value!r}, expected a number.")
        given[key] = value
    return LetSettings(
        n_components=adaptor.n_components,
        alpha=float(given["alpha"]),
        n_steps=int(given["n_steps"]),
        learning_rate=float(given["learning_rate"]),
        scale_floor=float(given["scale_floor"]),
    )


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("manifoldzoo", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _gates(manifold: Manifold, progress: Progress | None) -> RungResult:
    """Run rung 3 on the extraction panel."""

    def permutations(done: int) -> None:
        if progress is not None:
            progress("permutations, head refitted", done, N_PERMUTATIONS)

    try:
        settings = let_settings(manifold)
    except ZooError as error:
        return conclude(3, [undecided(RUNG_NAMES[3], str(error))])
    return published_gates(
        gate_data(manifold),
        settings,
        seed=int(manifold.digest[:8], 16),
        n_permutations=N_PERMUTATIONS,
        progress=permutations,
    )

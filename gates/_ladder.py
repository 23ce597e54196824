"""The evidence ladder: climb rung by rung, and say at each what was found."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
from threadpoolctl import threadpool_limits

from ..cards._errors import BadInputError, ZooError
from ..cards._evidence import RUNG_NAMES, EvidenceRun, RungResult, conclude, not_run, undecided
from ..manifolds._manifold import Manifold
from ._artifact_data import gate_data, let_settings, outside_panel, panel_data, shipped_comparators
from .rungs._as_shipped import as_shipped
from .rungs._intact import reproduces, valid
from .rungs._model_derived import model_derived
from .rungs._published import published_gates
from .rungs._specific import specific
from .rungs._transfers import transfers

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


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("manifoldzoo", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _climb(rung: int, manifold: Manifold, progress: Progress | None) -> RungResult:
    """Run one of the rungs that fit heads."""
    data, seed = gate_data(manifold), int(manifold.digest[:8], 16)
    if manifold.card.extraction.adaptor.kind != "let-anchor":
        latent = manifold.project(np.asarray(data.expression))
        outside = outside_panel(manifold) if rung == 5 else None
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
        return transfers(data, outside_panel(manifold), settings, seed=seed, n_permutations=N_PERMUTATIONS)
    others = shipped_comparators(manifold, data, seed)
    return model_derived(data, others, settings, seed=seed, progress=_counting(tell("comparators", len(others))))


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

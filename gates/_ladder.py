"""The evidence ladder: climb rung by rung, and say at each what was found."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from ..cards._card import Card
from ..cards._errors import BadInputError, ZooError
from ..cards._evidence import (
    PUBLISH_RUNG,
    RUNG_NAMES,
    EvidenceRun,
    RegisteredTest,
    RungResult,
    conclude,
    not_run,
    undecided,
)
from ..cards._evidence_plan import (
    STANDARD_BRANCH_PERMUTATIONS,
    STANDARD_PERMUTATIONS,
    STANDARD_STARTS,
    RunPlan,
    seed_of,
)
from ..manifolds._manifold import Manifold
from ._artifact_data import gate_data, head_settings, outside_panels, panel_data, shipped_comparators
from ._own_cells import TRANSFER, OwnCells, with_own_tests
from ._registered import completed, registered_tests
from .rungs._as_shipped import as_shipped
from .rungs._intact import reproduces, valid
from .rungs._model_derived import model_derived
from .rungs._published import published_gates
from .rungs._specific import specific
from .rungs._transfers import transfers

if TYPE_CHECKING:
    from ..manifolds._own_panel import OwnPanel

Progress = Callable[[str, int, int], None]
N_PERMUTATIONS = STANDARD_PERMUTATIONS
N_BRANCH_PERMUTATIONS = STANDARD_BRANCH_PERMUTATIONS
N_STARTS = STANDARD_STARTS


def validate(
    manifold: Manifold,
    *,
    through: int | None = None,
    panel: OwnPanel | str | Path | None = None,
    progress: Progress | None = None,
) -> EvidenceRun:
    """Recompute the evidence of a manifold up to a rung.

    Everything is computed from the artifact itself: the anchors of its extraction panel travel in it. Seeds come
    from the artifact digest, so that nobody can shop for one and everybody gets the same records. The tests that decide
    are registered before anything is computed, see ``registered_tests``, and travel in the run with its plan.

    Parameters
    ----------
    manifold
        A loaded manifold.
    through
        Highest rung to try, 1 to 6; 3 by default, and 5 with a panel of your own. A rung whose panels or models the
        artifact does not carry is ``not run``.
    panel
        Cells of your own, as ``read_own_panel`` reads them, or the ``.h5ad`` file, read with its defaults. They add
        gates to rung 3, which inform, and to rung 5, which decide; ``own_panel`` of the run says what each rung needed
        of them and what it got.
    progress
        Called as ``progress(gate, done, total)``.

    Returns
    -------
    The validation run, bound to the artifact digest.

    Raises
    ------
    BadInputError
        If there is no such rung.
    PanelError, GeneError, LowCoverageError, ScaleError, NotFoundError
        If the panel cannot be read, as ``read_own_panel``.

    Notes
    -----
    A rung counts as reached only if every rung below it passed; higher ones are tried all the same, because their
    figures inform, except that nothing is fitted on an artifact whose rung 1 fails. A head that was fitted on cells
    cannot be refitted from the artifact: the gates that refit are ``not run``, and rung 2 is the highest it can reach.
    """
    if through is None:
        through = default_rung(own_panel=panel is not None)
    registered = registered_for(manifold.card, through=through, own_panel=panel is not None)
    plan = run_plan(manifold.card, manifold.digest, through=through)
    own = None if panel is None else OwnCells.of(manifold, panel, through=through)
    started, clock = datetime.now(UTC), time.perf_counter()
    # one thread, because the order in which threads add up float32 products moves the third digit of a score
    with threadpool_limits(limits=1):
        rungs: list[RungResult] = [valid(manifold)]
        if through >= 2:
            rungs.append(reproduces(manifold))
        for rung in range(3, through + 1):
            sound = rungs[0].status == "pass"
            result = _tried(rung, manifold, plan, progress) if sound else not_run(rung, "rung 1 did not pass")
            if own is not None and sound:
                result = own.added_to(result, plan, progress=progress)
            rungs.append(result)
    return EvidenceRun(
        evidence_version=2,
        artifact_digest=manifold.digest,
        reference=f"{manifold.name}@{manifold.version}",
        panel_digest=manifold.card.panel.digest,
        started=started,
        seconds=round(time.perf_counter() - clock, 3),
        software=software(),
        rungs=[completed(result, registered) for result in rungs],
        registered=registered,
        plan=plan,
        own_panel=None if own is None else own.report,
    )


def default_rung(*, own_panel: bool) -> int:
    """Highest rung that is tried where none is asked for: with a panel of a user's own the one that it is for."""
    return TRANSFER if own_panel else PUBLISH_RUNG


def registered_for(card: Card, *, through: int, own_panel: bool = False) -> list[RegisteredTest]:
    """List the tests that ``validate`` will decide by, computing none of them.

    Parameters
    ----------
    card
        Of the manifold.
    through
        Highest rung.
    own_panel
        Whether a panel of the user's own is given.

    Raises
    ------
    BadInputError
        If there is no such rung.
    """
    registered = registered_tests(card, through=through)
    return with_own_tests(card, registered, through=through) if own_panel else registered


def run_plan(card: Card, digest: str, *, through: int) -> RunPlan:
    """Fix what a run computes: the plan on the card, or the standard where the card has none.

    Parameters
    ----------
    card, digest
        Of the artifact.
    through
        Highest rung.
    """
    asked = card.evidence
    return RunPlan(
        seed=seed_of(digest),
        through=through,
        n_permutations=N_PERMUTATIONS if asked is None else asked.n_permutations,
        n_branch_permutations=N_BRANCH_PERMUTATIONS if asked is None else asked.n_branch_permutations,
        n_starts=N_STARTS if asked is None else asked.n_starts,
    )


def software() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    packages = ("manifoldzoo", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _tried(rung: int, manifold: Manifold, plan: RunPlan, progress: Progress | None) -> RungResult:
    """Run a rung; what nothing can be fitted to cannot be decided."""
    try:
        return _climb(rung, manifold, plan, progress)
    except BadInputError as error:
        return conclude(rung, [undecided(RUNG_NAMES[rung], str(error))])


def _climb(rung: int, manifold: Manifold, plan: RunPlan, progress: Progress | None) -> RungResult:
    """Run one of the rungs that fit heads."""
    data, seed, n_permutations = gate_data(manifold), plan.seed, plan.n_permutations
    if not manifold.card.extraction.adaptor.fitted_on_anchors:
        latent = manifold.project(np.asarray(data.expression))
        outside = outside_panels(manifold) if rung == 5 else []
        return as_shipped(
            rung,
            data,
            latent,
            outside,
            seed=seed,
            n_permutations=n_permutations,
            genes=manifold.genes.symbols,
            programs=manifold.card.programs,
        )
    try:
        settings = head_settings(manifold)
    except ZooError as error:
        return conclude(rung, [undecided(RUNG_NAMES[rung], str(error))])

    def tell(what: str, total: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(what, done, total)

    if rung == 3:
        return published_gates(
            data,
            settings,
            seed=seed,
            latent=manifold.project(np.asarray(data.expression)),
            n_permutations=n_permutations,
            n_starts=plan.n_starts,
            genes=manifold.genes.symbols,
            programs=manifold.card.programs,
            progress=tell("permutations, head refitted", n_permutations),
        )
    if rung == 4:
        found = panel_data(manifold, "negative")
        return specific(
            data,
            manifold.ruler,
            settings,
            seed=seed,
            negative=None if found is None else found[1],
            n_permutations=plan.n_branch_permutations,
            n_starts=plan.n_starts,
            progress=tell("branches permuted, head refitted", plan.n_branch_permutations),
        )
    if rung == 5:
        return transfers(data, outside_panels(manifold), settings, seed=seed, n_permutations=n_permutations)
    others = shipped_comparators(manifold, data, seed)
    advance = _counting(tell("comparators", len(others)))
    return model_derived(data, others, settings, seed=seed, n_starts=plan.n_starts, progress=advance)


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

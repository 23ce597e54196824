"""The tests of a validation run on the command line, before any of them is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._output import emit, plain, table

if TYPE_CHECKING:
    from rich.console import Console

    from .cards._evidence import RegisteredTest
    from .cards._evidence_plan import RunPlan

List = Annotated[bool, typer.Option("--list", help="Print the tests that would decide, and run none of them.")]


def list_tests(reference: str, *, through: int, own_panel: bool, offline: bool, as_json: bool) -> None:
    """Print the tests that are registered for a manifold, and what fixes their computation.

    Parameters
    ----------
    reference
        Of the manifold.
    through
        Highest rung.
    own_panel
        Whether cells of the user's own would be given.
    offline
        Whether only this machine is looked on.
    as_json
        Whether one JSON document is written, else a table.
    """
    from .gates._ladder import registered_for, run_plan
    from .registry._resolve import load

    manifold = load(reference, offline=offline or None)
    registered = registered_for(manifold.card, through=through, own_panel=own_panel)
    plan = run_plan(manifold.card, manifold.digest, through=through)
    told: dict[str, Any] = {"reference": f"{manifold.name}@{manifold.version}", "digest": manifold.digest}
    told |= {"plan": plan.model_dump(mode="json"), "registered": [test.model_dump(mode="json") for test in registered]}
    emit(told, lambda console: _show(console, registered, plan), as_json=as_json)


def _show(console: Console, registered: list[RegisteredTest], plan: RunPlan) -> None:
    """The tests and the plan, for people."""
    shown = table(">rung", "test", "needed", "family")
    for test in registered:
        needed = "" if test.threshold is None else f"{test.direction} {test.threshold:g}"
        shown.add_row(*plain(test.rung, test.gate, needed if test.decides else "never decides", test.family or ""))
    console.print(shown)
    said = (
        f"seed {plan.seed}, {plan.n_permutations} permutations, {plan.n_branch_permutations} of branches, "
        f"{plan.n_starts} starts, {plan.fdr} over a family"
    )
    console.print(said, markup=False)

"""The tests of the ladder, registered before anything is computed: a pure function of the card."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..cards._card import Card
from ..cards._errors import BadInputError
from ..cards._evidence import RUNG_NAMES, RegisteredTest, RungResult, check_registered, conclude, undecided
from .rungs import _intact, _model_derived, _published, _specific, _transfers

Declared = Sequence[tuple[str, str | None, float | None]]
RUNGS: dict[int, Callable[[Card], Declared]] = {
    1: _intact.gates_of,
    2: _intact.outputs_of,
    3: _published.gates_of,
    4: _specific.gates_of,
    5: _transfers.gates_of,
    6: _model_derived.gates_of,
}
"""What each rung decides by, declared beside the code that runs it: gate, direction, threshold."""
FAMILIES = {6: "comparisons of rung 6"}
"""Rungs whose tests are one family, over which p-values are adjusted."""
NOT_MADE = "registered, and the rung made no record of it"


def registered_tests(card: Card, *, through: int) -> list[RegisteredTest]:
    """List the tests that a card's evidence decides by, each with its threshold, without computing anything.

    Parameters
    ----------
    card
        Its tasks, panels, untrained models and plan decide which tests there are.
    through
        Highest rung.

    Returns
    -------
    In the order of the rungs. A rung that the artifact carries nothing for may have none.

    Raises
    ------
    BadInputError
        If there is no such rung.

    Examples
    --------
    >>> import manifoldzoo as mz
    >>> card = mz.load("hematopoietic").card
    >>> [test.gate for test in registered_tests(card, through=1)]
    ['digests', 'panel_digest', 'ruler_digest', 'projection_is_the_fold']
    """
    if not 1 <= through <= len(RUNG_NAMES):
        raise BadInputError(f"There is no rung {through}; the ladder has rungs 1 to {len(RUNG_NAMES)}.")
    return [
        RegisteredTest.model_validate(
            {
                "rung": rung,
                "gate": gate,
                "direction": direction,
                "threshold": threshold,
                "family": FAMILIES.get(rung),
            }
        )
        for rung in range(1, through + 1)
        for gate, direction, threshold in RUNGS[rung](card)
    ]


def completed(result: RungResult, registered: Sequence[RegisteredTest]) -> RungResult:
    """Give every registered test of a rung a record: one that has none was not run.

    Parameters
    ----------
    result
        Of a rung. One with a single record that says that the whole rung is open stays as it is.
    registered
        Tests of this rung, and of any other.

    Returns
    -------
    The result, or one with more records.

    Raises
    ------
    ValueError
        If the rung decides by a test that was not registered, or by another threshold than the registered one: the
        function in ``RUNGS`` declares something else than the rung does.
    """
    tests = [test.gate for test in registered if test.rung == result.rung and test.decides]
    made = {record.gate for record in result.records}
    lacking = [gate for gate in tests if gate not in made]
    if lacking and len(lacking) < len(tests):
        more = [undecided(gate, NOT_MADE, status="not run") for gate in lacking]
        result = conclude(result.rung, [*result.records, *more])
    check_registered(result, registered)
    return result

"""What every check is made of: a name, a function of one subject, and an error that says what was found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Subject = TypeVar("Subject")
Check = Callable[[Subject], None]
"""Takes what is checked; returns if it conforms, raises ``ConformanceError`` if not."""
NamedChecks = Iterable[tuple[str, Check[Subject]]]


class ConformanceError(AssertionError):
    """A checkpoint, extractor, ruler or reader does not behave as its protocol says.

    Parameters
    ----------
    check
        Name of the check that failed.
    found
        What was found.
    expected
        What the protocol asks for.
    """

    def __init__(self, check: str, found: str, expected: str) -> None:
        super().__init__(check, found, expected)
        self.check = check
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.check}: found {self.found}, expected {self.expected}."


class Mismatch(Exception):
    """What the body of a check raises; ``named`` turns it into a ``ConformanceError``."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(found, expected)
        self.found = found
        self.expected = expected


def named(name: str, body: Callable[[Subject], None]) -> tuple[str, Check[Subject]]:
    """Give a check its name, and make every failure of it a ``ConformanceError``."""

    def check(subject: Subject) -> None:
        try:
            body(subject)
        except ConformanceError:
            raise
        except Mismatch as mismatch:
            raise ConformanceError(name, mismatch.found, mismatch.expected) from mismatch
        # the code under test is a stranger's, and may raise anything
        except Exception as error:
            raise ConformanceError(name, f"{type(error).__name__}: {error}".rstrip(". "), "no error") from error

    check.__name__ = check.__qualname__ = name
    return name, check


def run(subject: Subject, checks: NamedChecks[Subject]) -> None:
    """Run checks one after another; the first failure ends them."""
    for _, check in checks:
        check(subject)

"""Following the instructions of a pickle without a pickle machine: nothing is imported, called or set."""

from __future__ import annotations

import pickletools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class StackMachine(ABC):
    """The stack, marks and memo of a pickle, and the instructions that only move values among them.

    Attributes
    ----------
    plain
        Instructions that push the number, text or bytes written in them.
    steps
        What every other instruction does; those that are not here are refused.
    """

    plain: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "SETITEM": lambda _: self.set_items(len(self.stack) - 2),
            "SETITEMS": lambda _: self.set_items(self.marks.pop()),
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "TUPLE": lambda _: self.make_tuple(self.marks.pop()),
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "BINPUT": self.remember,
            "LONG_BINPUT": self.remember,
            "BINGET": lambda place: self.stack.append(self.memo[place]),
            "LONG_BINGET": lambda place: self.stack.append(self.memo[place]),
            "GLOBAL": lambda name: self.find(*name.split(" ", 1)),
            "STACK_GLOBAL": lambda _: self.find(*self.take(2)),
            "REDUCE": lambda _: self.make(*self.take(2)),
            "PROTO": lambda _: None,
            "FRAME": lambda _: None,
        }

    def run(self, content: bytes) -> None:
        """Follow a pickle to its end."""
        # genops splits a pickle into its instructions and carries none out
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                break
            self.follow(operation.name, argument)

    def follow(self, name: str, argument: object) -> None:
        """Follow one instruction."""
        if name in self.plain:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.make_tuple(len(self.stack) - _TUPLES[name])
        elif name in self.steps:
            self.steps[name](argument)
        else:
            raise self.refusal(name)

    def cut(self, start: int) -> list[Any]:
        """Take all values from ``start`` on, which a mark must not lie above."""
        if start < 0 or (self.marks and start < self.marks[-1]):
            raise ValueError("it takes more values than it holds")
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def take(self, n: int) -> list[Any]:
        """Take the last ``n`` values."""
        return self.cut(len(self.stack) - n)

    def make_tuple(self, start: int) -> None:
        """Join what lies above ``start``."""
        self.stack.append(tuple(self.cut(start)))

    def remember(self, place: int) -> None:
        """Keep the last value for later."""
        self.memo[place] = self.stack[-1]

    @abstractmethod
    def refusal(self, instruction: str) -> Exception:
        """What to raise of an instruction that is not followed."""

    @abstractmethod
    def set_items(self, start: int) -> None:
        """Put the pairs above ``start`` into the dictionary below them."""

    @abstractmethod
    def find(self, module: object, name: object) -> None:
        """Accept the globals that are known, as values that nothing can call."""

    @abstractmethod
    def make(self, target: object, arguments: object) -> None:
        """Stand in for a call."""

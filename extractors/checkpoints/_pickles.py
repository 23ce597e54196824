"""Reading the pickled dictionaries that Geneformer's users have, without a pickle machine."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...cards._errors import CheckpointError
from ._pickle_machine import StackMachine

LARGEST_DICTIONARY = 1 << 23
"""Bytes of the largest dictionary that is read, five times the largest that Geneformer ships; our choice."""
_LARGEST_STACK = 1 << 12
_LARGEST_INTEGER = 1 << 53
_FORMATS = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b"}
_FORMATS |= {"u8": "Q", "u4": "I", "u2": "H", "u1": "B"}
_SCALARS = frozenset({("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar")})
_DTYPE = ("numpy", "dtype")

Item = TypeVar("Item", int, float, str)


def parse_dictionary(path: Path, content: bytes, kind: type[Item]) -> dict[str, Item]:
    """Parse a pickled dictionary from strings to values of one kind.

    Parameters
    ----------
    path
        For messages.
    content
        A pickle of protocol 2 to 5 that holds one dictionary of strings, integers, floats and NumPy scalars.
    kind
        ``int``, ``float`` or ``str``; integers are taken for floats, nothing else is converted.

    Raises
    ------
    CheckpointError
        If the content is damaged, too large, names any global but NumPy's scalars, or holds anything else.

    Notes
    -----
    ``pickletools.genops`` splits a pickle into its instructions and carries none out. The few that such dictionaries
    are made of are followed here, so that nothing can be imported or called. The usual way, an unpickler with a list
    of allowed globals, leaves the machine of ``pickle`` exposed: nine bytes make it allocate gigabytes.
    """
    if len(content) > LARGEST_DICTIONARY:
        raise CheckpointError(
            f"{path} has {len(content)} bytes, more than the {LARGEST_DICTIONARY} of the largest dictionary read.",
            "Check that it is a dictionary of Geneformer.",
        )
    machine = _Machine()
    try:
        entries = machine.read(content)
    except _ForbiddenError as error:
        raise CheckpointError(
            f"{path} asks for {error}, which a dictionary of names and numbers does not need.",
            "It is refused because a pickle can run any code; get the file from the authors of the model.",
        ) from None
    # whatever damaged bytes lead to: short stacks, unknown references, arguments of other types
    except (ValueError, LookupError, struct.error) as error:
        reason = str(error).split("\n", 1)[0][:120]
        raise CheckpointError(f"{path} is not a whole pickled dictionary: {reason}.", "Download it again.") from error
    typed: dict[str, Item] = {}
    for name, value in entries.items():
        if kind is float and type(value) is int and abs(value) < _LARGEST_INTEGER:
            value = float(value)
        if type(value) is not kind:
            raise CheckpointError(
                f"{path}: {name[:40]!r} is {type(value).__name__}, expected a dictionary from str to {kind.__name__}."
            )
        typed[name] = value
    return typed


class _ForbiddenError(Exception):
    """An instruction or global that no dictionary needs."""


@dataclass(frozen=True)
class _Global:
    """One of the globals that are known, as a value on the stack."""

    name: tuple[str, str]


@dataclass
class _ScalarType:
    """``numpy.dtype`` of a scalar; the byte order comes in an instruction of its own."""

    code: str
    order: str = ""

    def set_order(self, state: object) -> None:
        """Take the byte order from the state that NumPy pickles, whose other fields are those of plain scalars."""
        if not (type(state) is tuple and len(state) == 8 and state[1] in ("<", ">", "|")):
            raise ValueError("the state of a dtype is not that of a plain number")
        if state[0] != 3 or state[2:] != (None, None, None, -1, -1, 0):
            raise ValueError("the state of a dtype is not that of a plain number")
        self.order = "<" if state[1] == "|" else state[1]

    def unpack(self, data: object) -> int | float:
        """Turn the bytes of a scalar into a number."""
        if type(data) is not bytes or not self.order:
            raise ValueError("a NumPy scalar is not given as a type and bytes")
        number: int | float = struct.unpack(self.order + _FORMATS[self.code], data)[0]
        return number


class _Machine(StackMachine):
    """What a dictionary of names and numbers is made of."""

    plain = frozenset(
        "BININT BININT1 BININT2 LONG1 BINFLOAT SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES".split()  # noqa: SIM905
    )

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, Any] | None = None
        self.steps |= {"EMPTY_DICT": self.begin_entries, "BUILD": lambda _: self.set_state()}

    def read(self, content: bytes) -> dict[str, Any]:
        """Follow a pickle to its end, and return the one dictionary that it holds."""
        self.run(content)
        if self.entries is None or self.marks or len(self.stack) != 1 or self.stack[0] is not self.entries:
            raise ValueError("it does not hold one dictionary")
        return self.entries

    def follow(self, name: str, argument: object) -> None:
        """Follow one instruction, within the size that a dictionary needs."""
        super().follow(name, argument)
        if len(self.stack) > _LARGEST_STACK:
            raise ValueError("it holds more at a time than a dictionary does")

    def refusal(self, instruction: str) -> Exception:
        """What to raise of an instruction that is not followed."""
        return _ForbiddenError(f"the instruction {instruction}")

    def begin_entries(self, _: object) -> None:
        """Start the dictionary, of which there is one."""
        if self.entries is not None:
            raise _ForbiddenError("a dictionary inside a dictionary")
        self.entries = {}
        self.stack.append(self.entries)

    def set_items(self, start: int) -> None:
        """Put the pairs above ``start`` into the dictionary below them."""
        pairs, entries = self.cut(start), self.entries
        if len(pairs) % 2 or entries is None or not self.stack or self.stack[-1] is not entries:
            raise ValueError("it sets items of something else than its dictionary")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            # strings alone: hashing a tuple of tuples can take for ever
            if type(name) is not str:
                raise _ForbiddenError(f"a key that is {type(name).__name__}")
            entries[name] = value

    def find(self, module: object, name: object) -> None:
        """Accept NumPy's scalars and nothing else."""
        # strings first: comparing or naming a tuple of tuples can take for ever
        if type(module) is not str or type(name) is not str:
            raise _ForbiddenError("a global without a name")
        if (module, name) not in _SCALARS and (module, name) != _DTYPE:
            raise _ForbiddenError(f"{module[:60]}.{name[:60]}")
        self.stack.append(_Global((module, name)))

    def make(self, target: object, arguments: object) -> None:
        """Make a scalar type or a scalar, which is all that may be called."""
        if type(target) is not _Global or type(arguments) is not tuple:
            raise _ForbiddenError("a call of something that is no NumPy scalar")
        if target.name == _DTYPE:
            code = arguments[0] if arguments and type(arguments[0]) is str else "?"
            if code not in _FORMATS or any(type(flag) not in (bool, int) for flag in arguments[1:]):
                raise _ForbiddenError(f"the NumPy type {code[:20]!r}")
            self.stack.append(_ScalarType(code))
            return
        if len(arguments) != 2 or type(arguments[0]) is not _ScalarType:
            raise _ForbiddenError("a NumPy scalar of no plain type")
        self.stack.append(arguments[0].unpack(arguments[1]))

    def set_state(self) -> None:
        """Complete a scalar type."""
        target, state = self.take(2)
        if type(target) is not _ScalarType:
            raise _ForbiddenError(f"the state of {type(target).__name__} to be set")
        target.set_order(state)
        self.stack.append(target)

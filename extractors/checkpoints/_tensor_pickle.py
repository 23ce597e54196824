"""Reading the pickle of a state_dict without a pickle machine: what each tensor is, and where it lies."""

from __future__ import annotations

import pickle
from enum import Enum
from typing import NamedTuple

import torch

from ._pickle_machine import StackMachine

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Storage(NamedTuple):
    """A storage that a pickle refers to: its record's name, and the type of its elements."""

    key: str
    dtype: torch.dtype


class Piece(NamedTuple):
    """A tensor as a pickle describes it; all but the storage is whatever the file says."""

    storage: Storage
    offset: object
    shape: object
    stride: object


class _Maker(Enum):
    """What a state_dict calls to be rebuilt."""

    NAMES = ("collections", "OrderedDict")
    TENSOR = ("torch._utils", "_rebuild_tensor_v2")
    PARAMETER = ("torch._utils", "_rebuild_parameter")


_MAKERS: dict[tuple[str, str], _Maker] = {maker.value: maker for maker in _Maker}


def parse_pieces(content: bytes) -> object:
    """Follow the pickle of a state_dict: a dictionary from names to ``Piece``, unless the file holds something else.

    Raises
    ------
    pickle.UnpicklingError
        If it asks for anything that no state_dict needs.
    ValueError, LookupError
        If it is damaged.

    Notes
    -----
    ``pickletools.genops`` splits a pickle into its instructions and carries none out; those that a state_dict is made
    of are followed here. Nothing is imported or called, and memory stays within a multiple of the content.
    """
    machine = _Machine()
    machine.run(content)
    (result,) = machine.stack
    return result


class _Machine(StackMachine):
    """What a state_dict is made of."""

    plain = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE"})

    def __init__(self) -> None:
        super().__init__()
        self.steps |= {
            "EMPTY_DICT": lambda _: self.stack.append({}),
            "BINPERSID": lambda _: self.refer(self.stack.pop()),
            # The state of an OrderedDict, which holds versions of modules.
            "BUILD": lambda _: self.stack.pop(),
        }

    def refusal(self, instruction: str) -> Exception:
        """What to raise of an instruction that is not followed."""
        return pickle.UnpicklingError(f"it holds the pickle instruction {instruction}")

    def set_items(self, start: int) -> None:
        """Put the pairs above ``start`` into the dictionary below them."""
        pairs = self.cut(start)
        if type(self.stack[-1]) is not dict:
            raise ValueError("it sets items of something else than a dictionary")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # Hashing tuples of tuples of tuples can take for ever.
            if type(key) is not str:
                raise pickle.UnpicklingError("it names a tensor by something else than text")
            self.stack[-1][key] = value

    def find(self, module: object, name: object) -> None:
        """Accept the names that state_dicts are made of."""
        if type(module) is not str or type(name) is not str:
            raise pickle.UnpicklingError("it asks for something without a name")
        if module == "torch" and name in _STORAGE_TYPES:
            self.stack.append(_STORAGE_TYPES[name])
        elif (module, name) in _MAKERS:
            self.stack.append(_MAKERS[module, name])
        else:
            raise pickle.UnpicklingError(f"it asks for {module[:60]}.{name[:60]}")

    def refer(self, target: object) -> None:
        """Replace the description of a storage by what is needed of it."""
        if type(target) is not tuple or len(target) != 5 or type(target[0]) is not str or target[0] != "storage":
            raise pickle.UnpicklingError("it refers to something else than a storage")
        _, dtype, key, _, _ = target
        if not isinstance(dtype, torch.dtype) or type(key) is not str:
            raise pickle.UnpicklingError("it refers to a storage of no known type")
        self.stack.append(Storage(key, dtype))

    def make(self, target: object, arguments: object) -> None:
        """Make an empty dictionary, a tensor's description, or take a parameter for its tensor."""
        if not isinstance(target, _Maker) or type(arguments) is not tuple:
            raise pickle.UnpicklingError("it calls something that no state_dict calls")
        if target is _Maker.NAMES and not arguments:
            self.stack.append({})
        elif target is _Maker.TENSOR and isinstance(arguments[0], Storage):
            storage, offset, shape, stride = arguments[:4]
            self.stack.append(Piece(storage, offset, shape, stride))
        elif target is _Maker.PARAMETER and isinstance(arguments[0], Piece):
            self.stack.append(arguments[0])
        else:
            raise pickle.UnpicklingError(f"it calls {target.value[1]} with other arguments than a state_dict does")

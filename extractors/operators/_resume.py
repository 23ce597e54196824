"""State of an unfinished computation on disk, so that an interruption loses little of it."""

from __future__ import annotations

import hashlib
import json
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import StoreError, ZooWarning
from ...manifolds._files import replacing

SAVE_SECONDS = 30.0
"""Least time between two regular saves."""
_SHARE = 20
"""Computing takes at least this many times as long as saving."""
_MAGIC = b"manifoldzoo unfinished state 1\n"
_CHUNK = 1 << 24


class UnfinishedState:
    """Arrays that grow towards a result, kept in a file from time to time.

    Parameters
    ----------
    path
        The file; its folder is made when it is first saved.
    fingerprint
        All that the arrays depend on. State of another fingerprint is never used.
    arrays
        Written as they are when saved, and filled in place when restored; C-contiguous.

    Notes
    -----
    The file is written beside itself and renamed, so it is whole after any interruption; it is not forced to the
    disk, since a digest tells a file that a power cut truncated.
    """

    def __init__(self, path: Path, fingerprint: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self.path = path
        self.fingerprint = json.loads(json.dumps(dict(fingerprint), sort_keys=True))
        self.arrays = arrays
        self._next_save = time.monotonic() + SAVE_SECONDS

    def restore(self) -> bool:
        """Fill the arrays from the file; tell whether there was one to go on from.

        Warns
        -----
        ZooWarning
            If the file is damaged, cannot be read or belongs to another computation: then the arrays are zero and the
            computation starts over.
        """
        try:
            with self.path.open("rb") as stream:
                problem = self._read(stream)
        except FileNotFoundError:
            return False
        except OSError as error:
            problem = f"cannot be read ({error.strerror or error})"
        if problem is None:
            return True
        for array in self.arrays.values():
            array[...] = 0
        warnings.warn(f"The unfinished state {self.path} {problem}; starting over.", ZooWarning, stacklevel=3)
        return False

    def save_if_due(self) -> None:
        """Save if the last time was long enough ago."""
        if time.monotonic() >= self._next_save:
            self.save()

    def save(self) -> None:
        """Write the arrays.

        Warns
        -----
        ZooWarning
            If they cannot be written; the computation can go on.
        """
        started = time.monotonic()
        try:
            with replacing(self.path) as part, part.open("wb") as stream:
                self._write(stream)
        except StoreError as error:
            warnings.warn(
                f"The unfinished state could not be saved, an interruption would lose it: {error.message}",
                ZooWarning,
                stacklevel=3,
            )
        took = time.monotonic() - started
        self._next_save = time.monotonic() + max(SAVE_SECONDS, _SHARE * took)

    def discard(self) -> None:
        """Remove the file, if there is one."""
        self.path.unlink(missing_ok=True)

    def _header(self) -> bytes:
        """Line that says what follows."""
        shapes = {name: [array.dtype.str, *array.shape] for name, array in self.arrays.items()}
        return json.dumps({"fingerprint": self.fingerprint, "arrays": shapes}, sort_keys=True).encode() + b"\n"

    def _write(self, stream: Any) -> None:
        """Write header, arrays and the digest of both."""
        digest = hashlib.sha256()
        contents: list[bytes | memoryview] = [_MAGIC, self._header(), *map(_bytes_of, self.arrays.values())]
        for content in contents:
            digest.update(content)
            stream.write(content)
        stream.write(digest.digest())

    def _read(self, stream: Any) -> str | None:
        """Fill the arrays, or say what is wrong with the file."""
        if stream.read(len(_MAGIC)) != _MAGIC:
            return "is damaged or no such state"
        line = stream.readline(_CHUNK)
        try:
            there = dict(json.loads(line)["fingerprint"])
        except (ValueError, TypeError, KeyError, RecursionError):
            return "is damaged"
        if there != self.fingerprint:
            keys = sorted(there.keys() | self.fingerprint.keys())
            other = [key for key in keys if there.get(key) != self.fingerprint.get(key)]
            return f"belongs to another computation ({', '.join(other)} differ)"
        if line != self._header():
            return "is damaged"
        digest = hashlib.sha256(_MAGIC + line)
        for content in map(_bytes_of, self.arrays.values()):
            for start in range(0, len(content), _CHUNK):
                part = content[start : start + _CHUNK]
                if stream.readinto(part) != len(part):
                    return "is truncated"
                digest.update(part)
        if stream.read() != digest.digest():
            return "is damaged"
        return None


def _bytes_of(array: NDArray[Any]) -> memoryview:
    """Bytes of a contiguous array, without a copy."""
    if not array.flags.c_contiguous:
        raise ValueError("Only contiguous arrays can be saved in place.")
    return array.reshape(-1).view(np.uint8).data

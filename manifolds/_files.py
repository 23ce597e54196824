"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ..cards._errors import FormatError, PermissionDeniedError, StoreError, ZooError

Tensors = Mapping[str, NDArray[Any]]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``target`` that takes its place on success and vanishes on failure.

    Raises
    ------
    PermissionDeniedError
        If the folder cannot be written.
    StoreError
        If the disk is full or fails.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(handle)
    except PermissionError as error:
        raise PermissionDeniedError(f"{target.parent} cannot be written: {error.strerror}.") from error
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}.") from error
    part = Path(name)
    try:
        yield part
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except ZooError:
        # some of ours are OSErrors too and say more than this function could
        raise
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes(target: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(target) as part, part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def encode_tensors(tensors: Tensors) -> bytes:
    """Encode tensors as safetensors and check that reading them back gives the same values.

    safetensors stores wrong values for arrays that are not C-contiguous, and orders several metadata keys
    at random, which would change the digest: so arrays are made contiguous and no metadata is written.

    Raises
    ------
    FormatError
        If a tensor is empty or holds values that are not finite.
    """
    ready = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    for name, array in ready.items():
        if not array.size or not np.isfinite(array).all():
            raise FormatError(f"Tensor {name!r} of shape {array.shape} is empty or not finite.")
    content = save_safetensors(ready)
    for name, array in decode_tensors(content, where="the tensors just written").items():
        if array.dtype != ready[name].dtype or not np.array_equal(array, ready[name]):
            raise FormatError(f"Tensor {name!r} did not survive writing.")
    return content


def decode_tensors(content: bytes, *, where: str) -> dict[str, NDArray[Any]]:
    """Decode safetensors.

    Raises
    ------
    FormatError
        If the bytes are truncated or not safetensors.
    """
    try:
        return load_safetensors(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{where} is truncated or not a safetensors file ({error}).") from error


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask

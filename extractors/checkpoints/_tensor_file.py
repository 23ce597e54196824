"""Reading named tensors from a file of weights one at a time, in little more memory than they take."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import CheckpointError
from ._files import LFS_POINTER, CheckpointFile, refuse_pointer
from ._tensor_index import StoredTensor, index_safetensors, index_torch

_BLOCK = 1 << 20
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""Pickle of the number that files written before PyTorch 1.6 begin with."""


class TensorFile:
    """An open file of named tensors: safetensors, or a state_dict saved by PyTorch.

    Attributes
    ----------
    path
        Where it lies.
    tensors
        Type, shape and place of each tensor; nothing of their values has been read.

    Parameters
    ----------
    path
        A name that ends in ``.safetensors`` is read as safetensors, any other as PyTorch's.

    Raises
    ------
    CheckpointError
        If the file cannot be read, is damaged, holds anything but named dense tensors, or asks for code to be run.
        On leaving the ``with`` block, if the file changed since it was opened.

    Notes
    -----
    Files are read, not mapped: mapped pages count as memory of the process, would follow later changes of the file,
    and end the process if it is cut. PyTorch's own restricted reader is used for files of before 1.6 alone, because
    it holds all tensors before the first can be converted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._stream: BufferedReader = path.open("rb")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
        try:
            self._before = _state(os.fstat(self._stream.fileno()))
            self._loaded: dict[str, Tensor] = {}
            self.tensors: Mapping[str, StoredTensor] = self._index()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stream:
            if error is None and not self._is_unchanged():
                raise CheckpointError(f"{self.path} changed while it was read.", "Read it again when it is complete.")

    def _is_unchanged(self) -> bool:
        """Whether the open file, and the one of its name now, are what was opened."""
        try:
            return self._before == _state(os.fstat(self._stream.fileno())) == _state(self.path.stat())
        except OSError:
            return False

    def _index(self) -> Mapping[str, StoredTensor]:
        """Find the tensors."""
        start = self._stream.read(len(LFS_POINTER))
        refuse_pointer(self.path, start)
        self._stream.seek(0)
        size = self._before[0]
        if self.path.suffix == ".safetensors":
            return index_safetensors(self.path, self._stream, size)
        if not start.startswith(_LEGACY_START):
            return index_torch(self.path, self._stream, size)
        self._loaded = _load_legacy(self.path, self._stream, size)
        return {
            key: StoredTensor(tensor.dtype, tuple(tensor.shape), tensor.stride(), 0, tensor.numel())
            for key, tensor in self._loaded.items()
        }

    def identity(self) -> CheckpointFile:
        """Name, size and SHA-256 of the file, hashed in blocks."""
        self._stream.seek(0)
        digest = hashlib.file_digest(self._stream, "sha256").hexdigest()
        return CheckpointFile(self.path.name, self._before[0], digest)

    def read(self, key: str) -> Tensor:
        """Read one tensor as contiguous float32.

        Raises
        ------
        CheckpointError
            If it is not of a floating type, holds NaN or infinite values, or the file ends early.
        """
        stored = self.tensors[key]
        if not stored.dtype.is_floating_point:
            raise CheckpointError(f"{self.path}: {key} is {stored.dtype}, expected floating-point weights.")
        if key in self._loaded:
            flat = self._loaded[key].detach().to(torch.float32).contiguous().flatten()
        else:
            flat = self._read_span(stored)
        n_bad = sum(int(block.isfinite().logical_not_().sum()) for block in _blocks(flat))
        if n_bad:
            raise CheckpointError(
                f"{self.path}: {key} holds {n_bad} values that are NaN or infinite.", "Download it again."
            )
        if key in self._loaded:
            return flat.view(stored.shape)
        return flat.as_strided(stored.shape, stored.stride).contiguous()

    def _read_span(self, stored: StoredTensor) -> Tensor:
        """Read the elements from a tensor's first to its last, converted block by block."""
        flat = torch.empty(stored.span, dtype=torch.float32)
        buffer = torch.empty(0 if stored.dtype == torch.float32 else min(_BLOCK, stored.span), dtype=stored.dtype)
        self._stream.seek(stored.start)
        for block in _blocks(flat):
            target = block if stored.dtype == torch.float32 else buffer[: len(block)]
            content: NDArray[np.uint8] = target.view(torch.uint8).numpy()
            if self._stream.readinto(content.data) != content.size:
                raise CheckpointError(f"{self.path} ends early.", "Download it again.")
            if target is not block:
                block.copy_(target)
        return flat


def _blocks(flat: Tensor) -> Iterator[Tensor]:
    """Parts of a tensor, so that what is made of each stays small."""
    for start in range(0, len(flat), _BLOCK):
        yield flat[start : start + _BLOCK]


def _state(status: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or replaced; the size stands first."""
    return status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev


def _load_legacy(path: Path, stream: BufferedReader, size: int) -> dict[str, Tensor]:
    """Load a file written before PyTorch 1.6, restricted to tensors."""
    try:
        weights = torch.load(stream, map_location="cpu", weights_only=True)
    # Damaged bytes make the restricted unpickler fail with nearly any built-in exception.
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as tensors alone: {reason}",
            "Download it again; a file that needs more than tensors is refused because it could run code.",
        ) from error
    if not isinstance(weights, dict) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in weights.items()
    ):
        raise CheckpointError(f"{path} must hold named tensors only, the state_dict of a model.")
    for key, tensor in weights.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.numel() * tensor.element_size() > size:
            raise CheckpointError(f"{path}: {key} of shape {tuple(tensor.shape)} is no dense tensor held in the file.")
    return weights

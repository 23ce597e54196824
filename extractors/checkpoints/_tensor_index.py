"""Finding named tensors in a file of weights without reading their values or running anything."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeGuard

import torch

from ...cards._errors import CheckpointError
from ._tensor_pickle import Piece, parse_pieces

_LARGEST_INDEX = 1 << 24
_MOST_DIMENSIONS = 64
_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class StoredTensor(NamedTuple):
    """Where a tensor lies in a file.

    ``start`` in bytes; ``stride`` in elements; ``span`` counts the elements from its first to its last.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    start: int
    span: int


def index_safetensors(path: Path, stream: BinaryIO, size: int) -> dict[str, StoredTensor]:
    """Find the tensors of a safetensors file.

    Raises
    ------
    CheckpointError
        If the header is damaged, or the tensors do not fill the rest of the file exactly.
    """
    n_header = int.from_bytes(stream.read(8), "little")
    first = 8 + n_header
    if size < first or not 2 <= n_header <= _LARGEST_INDEX:
        raise _damaged(path, f"it has {size} bytes and states a header of {n_header}")
    try:
        header = json.loads(stream.read(n_header).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, "its header is not JSON") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is no JSON object")
    found, ends = {}, [(first, first)]
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        stated = entry.get("dtype") if isinstance(entry, dict) else entry
        dtype = _SAFETENSORS_TYPES.get(stated) if isinstance(stated, str) else None
        if dtype is None or not isinstance(entry, dict):
            raise _damaged(path, f"{key} is of type {str(stated)[:40]!r}")
        shape, offsets = entry.get("shape"), entry.get("data_offsets")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise _damaged(path, f"{key} has no valid shape or place")
        span = _product(shape)
        if offsets[1] - offsets[0] != span * dtype.itemsize:
            raise _damaged(path, f"{key} of shape {tuple(shape)} has {offsets[1] - offsets[0]} bytes")
        found[key] = StoredTensor(dtype, tuple(shape), _contiguous(shape), first + offsets[0], span)
        ends.append((first + offsets[0], first + offsets[1]))
    ends.sort()
    if any(left[1] != right[0] for left, right in zip(ends, [*ends[1:], (size, size)], strict=True)):
        raise _damaged(path, f"its tensors do not fill its {size} bytes")
    return found


def _damaged(path: Path, reason: str) -> CheckpointError:
    """What to say of a file that is not what its name says."""
    return CheckpointError(f"{path} is not a whole safetensors file: {reason}.", "Download it again.")


def _are_sizes(value: object) -> TypeGuard[tuple[int, ...]]:
    """Whether a value is a short list or tuple of whole numbers from zero on that fit 63 bits."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= _MOST_DIMENSIONS
        and all(type(item) is int and 0 <= item < 1 << 63 for item in value)
    )


def _product(shape: Iterable[int]) -> int:
    """Number of elements, without the overflow of fixed-size integers."""
    n = 1
    for size in shape:
        n *= size
    return n


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous tensor."""
    strides = []
    n = 1
    for size in reversed(shape):
        strides.append(n)
        n *= max(size, 1)
    return tuple(reversed(strides))


def index_torch(path: Path, stream: BinaryIO, size: int) -> dict[str, StoredTensor]:
    """Find the tensors of a state_dict saved by ``torch.save`` as a ZIP archive (PyTorch 1.6 and later).

    Raises
    ------
    CheckpointError
        If the archive is damaged, or its pickle asks for anything but named dense tensors.
    """
    try:
        _check_directory(stream, size)
        with zipfile.ZipFile(stream) as archive:
            records = {info.filename: info for info in archive.infolist()}
        names = [name for name in records if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(names) != 1:
            raise pickle.UnpicklingError(f"it holds {len(names)} records named data.pkl")
        prefix = names[0].removesuffix("data.pkl")
        order = records.get(f"{prefix}byteorder")
        if order is not None and _record(stream, order, size) != b"little":
            raise pickle.UnpicklingError("it is not of little-endian byte order")
        content = parse_pieces(_record(stream, records[names[0]], size))
    # What damaged archives and pickles lead to; zipfile raises more kinds than it says.
    except Exception as error:
        reason = str(error).strip().split("\n", 1)[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as tensors alone: {reason}.",
            "Download it again; a file that needs more than tensors is refused because it could run code.",
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(piece, Piece) for key, piece in content.items()
    ):
        raise CheckpointError(f"{path} must hold named tensors only, the state_dict of a model.")
    return {key: _place(path, key, piece, records, prefix, stream, size) for key, piece in content.items()}


def _check_directory(stream: BinaryIO, size: int) -> None:
    """Bound the directory of an archive, which ``zipfile`` reads whole, by the record that ends the file."""
    stream.seek(max(0, size - 42))
    locator, end = (tail := stream.read(42))[:-22], tail[-22:]
    if len(end) < 22 or not end.startswith(b"PK\x05\x06"):
        raise zipfile.BadZipFile("it is no whole ZIP archive")
    n_directory = struct.unpack("<I", end[12:16])[0]
    if n_directory == 0xFFFFFFFF:
        stream.seek(struct.unpack("<Q", locator[8:16])[0])
        n_directory = struct.unpack("<Q", stream.read(56)[40:48])[0]
    if n_directory > _LARGEST_INDEX:
        raise zipfile.BadZipFile(f"its directory states {n_directory} bytes")
    stream.seek(0)


def _record_start(stream: BinaryIO, info: zipfile.ZipInfo, size: int) -> int:
    """Where the bytes of an uncompressed record begin."""
    stream.seek(max(0, info.header_offset))
    header = stream.read(30)
    if len(header) < 30 or not header.startswith(b"PK\x03\x04") or info.compress_type != zipfile.ZIP_STORED:
        raise zipfile.BadZipFile(f"its record {info.filename} is damaged or compressed")
    n_name, n_extra = struct.unpack("<HH", header[26:30])
    start: int = info.header_offset + 30 + n_name + n_extra
    if start + info.file_size > size:
        raise zipfile.BadZipFile(f"its record {info.filename} ends after the file")
    return start


def _record(stream: BinaryIO, info: zipfile.ZipInfo, size: int) -> bytes:
    """Content of a small record."""
    if info.file_size > _LARGEST_INDEX:
        raise zipfile.BadZipFile(f"its record {info.filename} has {info.file_size} bytes")
    stream.seek(_record_start(stream, info, size))
    return stream.read(info.file_size)


def _place(
    path: Path, key: str, piece: Piece, records: dict[str, zipfile.ZipInfo], prefix: str, stream: BinaryIO, size: int
) -> StoredTensor:
    """Turn what a pickle says of a tensor into a place in the file that holds it whole."""
    storage, shape, stride, offsets = piece.storage, piece.shape, piece.stride, (piece.offset,)
    if not (_are_sizes(shape) and _are_sizes(stride) and _are_sizes(offsets)) or len(shape) != len(stride):
        raise CheckpointError(f"{path}: {key} is no dense tensor.")
    (offset,), n_elements = offsets, _product(shape)
    span = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if n_elements else 0
    record = records.get(f"{prefix}data/{storage.key}")
    # A tensor with zero strides would claim any amount of memory from a tiny file.
    if record is None or (offset + span) * storage.dtype.itemsize > record.file_size or n_elements > span:
        raise CheckpointError(f"{path}: {key} of shape {shape} is no dense tensor held in the file.")
    try:
        start = _record_start(stream, record, size)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path} is not a whole file of tensors: {error}.", "Download it again.") from error
    return StoredTensor(storage.dtype, shape, stride, start + offset * storage.dtype.itemsize, span)

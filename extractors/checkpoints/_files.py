"""Reading the files of a checkpoint folder without running anything they hold."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ...cards._errors import CheckpointError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class CheckpointFile:
    """Identity of one file: name, size in bytes, SHA-256 of its content."""

    name: str
    size: int
    sha256: str


def digest_files(files: tuple[CheckpointFile, ...]) -> str:
    """SHA-256 of the canonical JSON (sorted by name and key, no spaces, UTF-8) of the files' identities."""
    entries = sorted((asdict(file) for file in files), key=lambda entry: str(entry["name"]))
    return hashlib.sha256(json.dumps(entries, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def find_file(folder: Path, *names: str) -> Path:
    """Return the first of ``names`` that ``folder`` holds.

    Raises
    ------
    CheckpointError
        If none is there; says what was looked for and what the folder holds.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder.", "Pass the folder that holds the checkpoint's files.")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    hint = "Pass the folder of one checkpoint of the scGPT layout: args.json, vocab.json and the weights."
    if "config.json" in found:
        hint = "A config.json suggests another family of models, which this reader does not read."
    raise CheckpointError(f"{folder} has no {' or '.join(names)}; it holds {shown or 'nothing'}.", hint)


def read_content(path: Path) -> tuple[bytes, CheckpointFile]:
    """Read a file once, so that what is hashed is what is parsed."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if content.startswith(_LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself.", "Run `git lfs pull` in its folder.")
    return content, CheckpointFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def parse_object(path: Path, content: bytes) -> dict[str, object]:
    """Parse a JSON object.

    Raises
    ------
    CheckpointError
        If the content is not UTF-8, not JSON, or not an object.
    """
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not {type(value).__name__}.")
    return value


def parse_weights(path: Path, content: bytes) -> dict[str, Tensor]:
    """Parse named tensors from safetensors, or from a PyTorch file restricted to tensors.

    Raises
    ------
    CheckpointError
        If the content is damaged, holds anything but named dense tensors, or asks for code to be run.
    """
    weights: object
    try:
        if path.suffix == ".safetensors":
            weights = load_safetensors(content)
        else:
            weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}.", "Download it again.") from error
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
        # A tensor with zero strides would claim any amount of memory from a tiny file.
        if tensor.layout != torch.strided or tensor.is_meta or tensor.numel() * tensor.element_size() > len(content):
            raise CheckpointError(f"{path}: {key} of shape {tuple(tensor.shape)} is no dense tensor held in the file.")
    return weights


def as_float32(path: Path, key: str, tensor: Tensor) -> Tensor:
    """Bring one tensor to contiguous float32.

    Raises
    ------
    CheckpointError
        If it is not of a floating type or holds NaN or infinite values.
    """
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {key} is {tensor.dtype}, expected floating-point weights.")
    upcast = tensor.detach().to(torch.float32).contiguous()
    n_bad = int((~upcast.isfinite()).sum())
    if n_bad:
        raise CheckpointError(f"{path}: {key} holds {n_bad} values that are NaN or infinite.", "Download it again.")
    return upcast


def stated_licence(readme: Path) -> str:
    """Take ``license`` from the YAML header that model cards begin with; ``"not stated"`` where there is none."""
    if not readme.is_file():
        return "not stated"
    opening, _, rest = readme.read_text(encoding="utf-8", errors="replace").partition("---\n")
    try:
        metadata = None if opening else yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return "not stated"
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return licence if isinstance(licence, str) else "not stated"

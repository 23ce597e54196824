"""Reading the small files of a checkpoint folder, and naming what was read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from ...cards._errors import CheckpointError
from ._recognise import looks_like

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_LARGEST_JSON = 1 << 26
_README_HEADER = 1 << 16


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


def few(names: Iterable[str]) -> str:
    """First three names of a list, for messages."""
    shown = list(names)
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "")


def find_file(folder: Path, *names: str, hint: str | None = None) -> Path:
    """Return the first of ``names`` that ``folder`` holds.

    Parameters
    ----------
    folder
        Of the model.
    names
        Files that would do.
    hint
        What to do if there is none; by default, what else the folder looks like.

    Raises
    ------
    CheckpointError
        If none is there; says what was looked for, what the folder holds and what it looks like.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder.", "Pass the folder that holds the checkpoint's files.")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    found = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    raise CheckpointError(
        f"{folder} has no {' or '.join(names)}; it holds {shown or 'nothing'}.",
        _other_family(folder, found) if hint is None else hint,
    )


def _other_family(folder: Path, found: list[str]) -> str:
    """Say what a folder without the files of the scGPT layout looks like."""
    if "config.json" not in found:
        return "Pass the folder of one checkpoint of the scGPT layout: args.json, vocab.json and the weights."
    kind = looks_like(folder)
    if kind in ("geneformer", "cell2sentence"):
        return f"Its config.json is that of a {kind} checkpoint, another family of models."
    if kind not in (None, "scgpt"):
        return f"Its config.json states model_type {kind!r}, another family of models."
    return "A config.json suggests another family of models, which this reader does not read."


def find_weights(folder: Path) -> Path:
    """Return ``model.safetensors``, else ``best_model.pt``, else the only ``*.pt`` that ``folder`` holds.

    Raises
    ------
    CheckpointError
        If none is there, or several of other names.
    """
    names = ("model.safetensors", "best_model.pt")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        others = sorted(path.name for path in folder.glob("*.pt") if path.is_file())
        if len(others) == 1:
            return folder / others[0]
        if others:
            raise CheckpointError(
                f"{folder} has no {' or '.join(names)} but {', '.join(others[:8])}.",
                "Rename the file to read to best_model.pt.",
            )
    return find_file(folder, *names)


def read_content(path: Path) -> tuple[bytes, CheckpointFile]:
    """Read a small file once, so that what is hashed is what is parsed."""
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= _LARGEST_JSON else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if size > _LARGEST_JSON:
        raise CheckpointError(f"{path} has {size} bytes, more than the {_LARGEST_JSON} of settings or tokens.")
    refuse_pointer(path, content)
    return content, CheckpointFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def refuse_pointer(path: Path, start: bytes) -> None:
    """Refuse what Git leaves in the place of a large file that was not fetched."""
    if start.startswith(LFS_POINTER):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file itself.", "Run `git lfs pull` in its folder.")


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


def stated_licence(readme: Path) -> str:
    """Take ``license`` from the YAML header that model cards begin with; ``"not stated"`` where there is none."""
    try:
        with readme.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_README_HEADER)
    except OSError:
        return "not stated"
    opening, _, rest = text.partition("---\n")
    try:
        metadata = None if opening else yaml.safe_load(rest.partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):
        return "not stated"
    licence = metadata.get("license") if isinstance(metadata, dict) else None
    return licence if isinstance(licence, str) else "not stated"

"""Names, versions and digests."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from packaging.version import InvalidVersion, Version

from ._errors import ReferenceSyntaxError

NAME_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"
VERSION_PATTERN = r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)$"


def check_name(name: str) -> str:
    """Return ``name`` if it is a manifold name: lower-case letters, digits and single hyphens.

    Raises
    ------
    ReferenceSyntaxError
        If the name holds anything else.
    """
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > 64:
        raise ReferenceSyntaxError(
            f"{name!r} is not a manifold name: expected lower-case letters, digits and single hyphens, at most 64.",
            "See `manifoldzoo list` for the names there are.",
        )
    return name


def parse_version(version: str) -> Version:
    """Parse a semantic version ``MAJOR.MINOR.PATCH``.

    Raises
    ------
    ReferenceSyntaxError
        If it is not three numbers without leading zeros.
    """
    if not re.fullmatch(VERSION_PATTERN, version):
        raise ReferenceSyntaxError(f"{version!r} is not a version: expected MAJOR.MINOR.PATCH such as 0.1.0.")
    try:
        return Version(version)
    except InvalidVersion as error:
        raise ReferenceSyntaxError(f"{version!r} is not a version.") from error


def sha256_bytes(content: bytes) -> str:
    """SHA-256 of bytes as lower-case hex."""
    return hashlib.sha256(content).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as lower-case hex, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(document: Any) -> bytes:
    """Encode JSON with sorted keys, no spaces and UTF-8, so that equal documents have equal digests."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()

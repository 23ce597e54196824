"""Verifying an artifact file by file, without raising for what does not match."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..manifolds._format import MANIFEST, Manifest, check_files
from ._resolve import locate


def verify(reference: str | Path, *, offline: bool | None = None) -> dict[str, Any]:
    """Hold every load-critical file of an artifact against its recorded digest, repairing nothing.

    Parameters
    ----------
    reference
        See ``load``.
    offline
        Use what is on this machine only.

    Returns
    -------
    ``reference``, ``ok`` and ``files``: for each its ``name``, ``status`` (``ok``, ``missing`` or
    ``changed``), ``size`` and ``sha256`` as found.

    Raises
    ------
    NotFoundError, StoreError
        If it cannot be found.
    FormatError, UnsafeFileError, FutureFormatError
        If the folder is not an artifact at all.
    """
    location = locate(reference, offline=offline, check=False)
    files = check_files(location.folder, links_into=location.links_into)
    if location.digest and Manifest.parse((location.folder / MANIFEST).read_bytes()).digest != location.digest:
        files = [replace(check, status="changed") if check.name == MANIFEST else check for check in files]
    return {
        "reference": location.reference,
        "ok": all(check.status == "ok" for check in files),
        "files": [
            {"name": check.name, "status": check.status, "size": check.size, "sha256": check.sha256} for check in files
        ],
    }

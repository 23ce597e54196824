"""Verifying an artifact file by file, without raising for what does not match."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..manifolds._format import check_files
from ._resolve import locate


def verify(reference: str | Path, *, offline: bool | None = None) -> dict[str, Any]:
    """Hold every load-critical file of an artifact against its recorded digest.

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
    location = locate(reference, offline=offline)
    files = check_files(location.folder, links_into=location.links_into)
    return {
        "reference": location.reference,
        "ok": all(check.status == "ok" for check in files),
        "files": [
            {"name": check.name, "status": check.status, "size": check.size, "sha256": check.sha256} for check in files
        ],
    }

"""Examining an installation."""

from __future__ import annotations

import os
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..cards._errors import ZooError
from ..manifolds._format import check_files
from ._folders import bundled_store, local_store
from ._home import home
from ._index import read_index

CORE = ("anndata", "huggingface-hub", "numba", "numpy", "pydantic", "safetensors", "scikit-learn", "scipy", "typer")
EXTRACT = ("torch", "transformers", "scanpy", "matplotlib")


def examine() -> list[dict[str, Any]]:
    """Look at versions, folders, settings and stored artifacts; touches no network.

    Returns
    -------
    Findings, each with ``what``, ``found`` and ``ok``.
    """
    findings = [_finding("python", sys.version.split()[0], ok=sys.version_info >= (3, 11))]
    for package in CORE:
        found = _version(package)
        findings.append(_finding(package, found or "missing: pip install manifoldzoo", ok=found is not None))
    for package in EXTRACT:
        findings.append(_finding(f"{package} [extract]", _version(package) or "not installed", ok=True))
    findings.append(_writable("zoo folder (MANIFOLDZOO_HOME)", home()))
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(os.environ.get("HF_HOME", "~/.cache/huggingface")) / "hub")
    findings.append(_writable("Hub cache (HF_HUB_CACHE)", cache.expanduser()))
    findings.append(_finding("HF_ENDPOINT", os.environ.get("HF_ENDPOINT", "default"), ok=True))
    findings.append(_finding("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "not set"), ok=True))
    try:
        index = read_index()
        findings.append(_finding("index", f"{len(index.entries)} entries, {index.age_days:.0f} days old", ok=True))
    except ZooError as error:
        findings.append(_finding("index", str(error), ok=False))
    for store in (bundled_store(), local_store()):
        for (name, version), folder in store.entries().items():
            try:
                damaged = [check.name for check in check_files(folder) if check.status != "ok"]
                said = f"damaged: {', '.join(damaged)}" if damaged else "every digest holds"
                findings.append(_finding(f"{store.label} {name}@{version}", said, ok=not damaged))
            except ZooError as error:
                findings.append(_finding(f"{store.label} {name}@{version}", str(error), ok=False))
    return findings


def _finding(what: str, found: str, *, ok: bool) -> dict[str, Any]:
    """One finding."""
    return {"what": what, "found": found, "ok": ok}


def _version(package: str) -> str | None:
    """Installed version of a distribution, None where it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown version" if find_spec(package) else None


def _writable(what: str, folder: Path) -> dict[str, Any]:
    """Whether a folder, or the nearest existing one above it, can be written."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            return _finding(what, str(folder), ok=True)
    except OSError as error:
        return _finding(what, f"{folder} cannot be written: {error.strerror}", ok=False)

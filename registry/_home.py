"""Folders of this machine that the zoo writes to."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The zoo's own folder: ``MANIFOLDZOO_HOME``, else ``$XDG_DATA_HOME/manifoldzoo``, else ``~/.local/share``."""
    if given := os.environ.get("MANIFOLDZOO_HOME"):
        return Path(given).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "manifoldzoo"

"""The index of published manifolds: refreshed only when asked, never by a hidden network call."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, ValidationError

from ..cards._errors import FormatError
from ..cards._frozen import Frozen, Sha256
from ..cards._names import NAME_PATTERN, VERSION_PATTERN
from ..cards._ruler_entry import RulerKind
from ._home import home

OWNER = "manifoldzoo"
"""Account whose repositories ``update`` takes names from: any other could claim a name that is not its own."""


class IndexEntry(Frozen):
    """One published version."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    version: Annotated[str, Field(pattern=VERSION_PATTERN)]
    repo_id: str
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    digest: Sha256
    size_bytes: int
    source_model: str
    ruler: RulerKind | None = None
    """Null in an index that was refreshed by a version that knew one kind only."""
    rung: int
    parent: str | None = None


class Index(Frozen):
    """All versions that were on the Hub when the index was refreshed."""

    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)] = 1
    updated: AwareDatetime
    owner: str
    entries: list[IndexEntry]

    @property
    def age_days(self) -> float:
        """Days since the last refresh."""
        return (datetime.now(UTC) - self.updated).total_seconds() / 86_400


def index_path() -> Path:
    """The refreshed index of this machine."""
    return home() / "index.json"


def read_index() -> Index:
    """Read the refreshed index, else the one bundled with the package.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    path = index_path()
    if not path.is_file():
        path = Path(__file__).with_name("index.json")
    try:
        return Index.model_validate(json.loads(path.read_bytes()))
    except (ValueError, ValidationError, RecursionError) as error:
        raise FormatError(f"The index {str(path)!r} is damaged.", "Run `manifoldzoo update`.") from error


def index_owner() -> str:
    """Account that ``update`` reads: ``MANIFOLDZOO_INDEX_OWNER``, else ``manifoldzoo``."""
    return os.environ.get("MANIFOLDZOO_INDEX_OWNER", OWNER)

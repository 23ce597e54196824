"""Lockfiles: a paper's analysis loads the same bytes for ever."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from ..cards._errors import FormatError, IntegrityError, NotFoundError
from ..cards._frozen import Frozen, Sha256
from ..manifolds._files import write_bytes
from ._reference import HubReference, NamedReference
from ._resolve import Location, candidates, choose, locate, read_location


class LockEntry(Frozen):
    """What one reference meant when it was locked."""

    reference: str
    name: str
    version: str
    store: str
    origin: str
    commit: str
    digest: Sha256


class Lockfile(Frozen):
    """The locked references of a project."""

    schema_: Annotated[int, Field(alias="schema", ge=1, le=1)] = 1
    entries: list[LockEntry]


def lock(references: Sequence[str], path: str | Path) -> Lockfile:
    """Resolve references and write what they mean to a lockfile.

    Entries of an existing lockfile for other references are kept.

    Raises
    ------
    NotFoundError, StoreError, IntegrityError, FormatError
        As ``load``.
    """
    path = Path(path)
    kept = (
        [entry for entry in read_lockfile(path).entries if entry.reference not in references] if path.exists() else []
    )
    new = []
    for reference in references:
        location = locate(reference)
        manifold = read_location(location)
        # a folder of this package or machine means nothing elsewhere; name and digest find the bytes again
        origin = location.origin if location.store in ("hub", "folder") else ""
        new.append(
            LockEntry(
                reference=reference,
                name=manifold.name,
                version=manifold.version,
                store=location.store,
                origin=origin,
                commit=location.commit,
                digest=manifold.digest,
            )
        )
    lockfile = Lockfile(entries=sorted([*kept, *new], key=lambda entry: entry.reference))
    document = json.dumps(lockfile.model_dump(mode="json", by_alias=True), indent=1)
    write_bytes(path, document.encode() + b"\n")
    return lockfile


def read_lockfile(path: Path) -> Lockfile:
    """Read a lockfile.

    Raises
    ------
    NotFoundError
        If there is none.
    FormatError
        If it is damaged.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no lockfile {str(path)!r}.", "Write it with `manifoldzoo lock REF`.")
    try:
        return Lockfile.model_validate(json.loads(path.read_bytes()))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{str(path)!r} is not a lockfile.", "Write it again with `manifoldzoo lock REF`.") from error


def locked(reference: str, path: Path, *, offline: bool | None = None) -> Location:
    """Find the bytes that a locked reference meant.

    Raises
    ------
    NotFoundError
        If the lockfile has no such reference.
    IntegrityError
        If what is found now has another digest.
    """
    for entry in read_lockfile(path).entries:
        if entry.reference == reference:
            break
    else:
        raise NotFoundError(
            f"{reference!r} is not locked in {str(path)!r}.", f"Run `manifoldzoo lock {reference} -o {path}`."
        )
    if entry.store == "hub":
        location = locate(str(HubReference(entry.origin, entry.commit)), offline=offline)
    elif entry.store == "folder":
        location = locate(Path(entry.origin))
    else:
        chosen = choose(NamedReference(entry.name, entry.version), candidates())
        location = locate(f"{chosen.name}@{chosen.version}", offline=offline)
    if (digest := read_location(location).digest) != entry.digest:
        raise IntegrityError(
            f"{reference} was locked to the digest {entry.digest[:12]} but {location.origin} holds {digest[:12]}."
        )
    return location

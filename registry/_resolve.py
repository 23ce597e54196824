"""From a reference to verified bytes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from ..cards._errors import IntegrityError, NotFoundError
from ..cards._names import parse_version
from ._folders import bundled_store, local_store
from ._index import read_index
from ._reference import FolderReference, HubReference, NamedReference, parse_reference

if TYPE_CHECKING:
    from ..manifolds._manifold import Manifold


@dataclass(frozen=True)
class Candidate:
    """One version that a name can mean.

    Attributes
    ----------
    store
        ``"bundled"``, ``"local"`` or ``"hub"``.
    folder
        Where it lies on this machine; ``None`` on the Hub.
    repo_id, commit, digest
        Where it lies on the Hub, and what the index says its digest is.
    """

    name: str
    version: Version
    store: str
    folder: Path | None = None
    repo_id: str = ""
    commit: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Location:
    """A reference resolved to files on this machine.

    Attributes
    ----------
    reference
        As it was asked for.
    store
        ``"bundled"``, ``"local"``, ``"folder"`` or ``"hub"``.
    folder
        The artifact.
    links_into
        Where symbolic links in it may lead (Hub cache only).
    origin
        Path, or ``owner/repo``.
    commit
        Hub commit, else empty.
    digest
        Digest that the artifact must have, empty where none is recorded.
    """

    reference: str
    store: str
    folder: Path
    links_into: Path | None = None
    origin: str = ""
    commit: str = ""
    digest: str = ""


def candidates() -> list[Candidate]:
    """Every named version known on this machine: bundled, local, then the index; no network."""
    found: dict[tuple[str, Version], Candidate] = {}
    for store in (bundled_store(), local_store()):
        for (name, version), folder in store.entries().items():
            found.setdefault((name, version), Candidate(name, version, store.label, folder))
    for entry in read_index().entries:
        key = entry.name, parse_version(entry.version)
        found.setdefault(key, Candidate(*key, "hub", None, entry.repo_id, entry.commit, entry.digest))
    return [found[key] for key in sorted(found)]


def locate(
    reference: str | Path, *, offline: bool | None = None, everything: bool = False, check: bool = True
) -> Location:
    """Resolve a reference and bring its files to this machine.

    Parameters
    ----------
    reference
        See ``parse_reference``.
    offline
        Forbid the network; by default as ``HF_HUB_OFFLINE`` says.
    everything
        Also fetch evidence, README and figures from the Hub.
    check
        Verify and repair what came from the Hub; without it the files are left as they are found.

    Raises
    ------
    ReferenceSyntaxError
        If it is malformed.
    NotFoundError
        If nothing has that name, with the nearest names.
    StoreError, PermissionDeniedError, IntegrityError, FormatError
        As ``fetch``.
    """
    parsed = parse_reference(reference)
    if isinstance(parsed, FolderReference):
        try:
            parsed.path.stat()
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise NotFoundError(
                f"There is no artifact folder {str(parsed.path)!r}: {said}.", "Check the path."
            ) from error
        return Location(str(parsed), "folder", parsed.path, origin=str(parsed.path))
    if isinstance(parsed, HubReference):
        return _from_hub(parsed, str(parsed), offline=offline, everything=everything, check=check)
    chosen = choose(parsed, candidates())
    said = f"{chosen.name}@{chosen.version}"
    if chosen.folder is not None:
        return Location(said, chosen.store, chosen.folder, origin=str(chosen.folder))
    return _from_hub(
        HubReference(chosen.repo_id, chosen.commit),
        said,
        offline=offline,
        everything=everything,
        check=check,
        digest=chosen.digest,
    )


def choose(wanted: NamedReference, known: Iterable[Candidate]) -> Candidate:
    """The newest known version that a named reference accepts.

    Raises
    ------
    NotFoundError
        If there is none, naming the nearest names or the versions there are.
    """
    everything = list(known)
    same = [candidate for candidate in everything if candidate.name == wanted.name]
    if not same:
        names = sorted({candidate.name for candidate in everything})
        near = difflib.get_close_matches(wanted.name, names, n=3, cutoff=0.4)
        raise NotFoundError(
            f"There is no manifold named {wanted.name!r}"
            + (
                f"; the nearest names are {', '.join(near)}." if near else f"; there are: {', '.join(names) or 'none'}."
            ),
            "See `manifoldzoo list`, or refresh the index with `manifoldzoo update`.",
        )
    fitting = [candidate for candidate in same if wanted.accepts(candidate.version)]
    if not fitting:
        versions = ", ".join(str(candidate.version) for candidate in same)
        raise NotFoundError(
            f"{wanted.name!r} has no version {wanted.wanted!r}; there are: {versions}.",
            "Refresh the index with `manifoldzoo update`.",
        )
    return max(fitting, key=lambda candidate: candidate.version)


def load(reference: str | Path, /, *, offline: bool | None = None, lockfile: str | Path | None = None) -> Manifold:
    """Load a manifold by name, from the Hub or from a folder; every digest is verified.

    Parameters
    ----------
    reference
        ``name``, ``name@1.2.0``, ``name@1``, ``name@~1.2``, ``owner/repo@revision``,
        ``hf://owner/repo@revision`` or ``./folder``. Without a version, the newest in the index.
    offline
        Use what is on this machine only; by default as ``HF_HUB_OFFLINE`` says.
    lockfile
        File written by ``manifoldzoo lock``: the reference then means the very bytes recorded there.

    Returns
    -------
    The manifold.

    Raises
    ------
    ReferenceSyntaxError, NotFoundError, StoreError, PermissionDeniedError
        If it cannot be found or fetched.
    IntegrityError
        If bytes do not match their digest.
    FormatError
        If it is not a valid artifact of a format that this version reads.

    Examples
    --------
    >>> import manifoldzoo as mz
    >>> mz.load("hematopoietic").n_components
    10
    """
    if lockfile is not None:
        from ._lock import locked

        location = locked(str(reference), Path(lockfile), offline=offline)
    else:
        location = locate(reference, offline=offline)
    return read_location(location)


def read_location(location: Location) -> Manifold:
    """Read the artifact at a location and hold it against the digest recorded for it.

    Raises
    ------
    IntegrityError
        If the artifact is another one than recorded.
    """
    # numpy is loaded here, not above: listing and resolving need none of it
    from ..manifolds._manifold import Manifold

    manifold = Manifold.read(location.folder, reference=location.reference, links_into=location.links_into)
    if location.digest and manifold.digest != location.digest:
        raise IntegrityError(
            f"{location.reference} has the digest {manifold.digest[:12]}, recorded was {location.digest[:12]}.",
            "Somebody changed what the reference means; do not use it.",
        )
    return manifold


def _from_hub(
    parsed: HubReference, said: str, *, offline: bool | None, everything: bool, check: bool, digest: str = ""
) -> Location:
    """Fetch from the Hub."""
    from ._hub import fetch

    snapshot = fetch(parsed, offline=offline, everything=everything, check=check)
    return Location(said, "hub", snapshot.folder, snapshot.links_into, parsed.repo_id, snapshot.commit, digest)

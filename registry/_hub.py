"""The Hugging Face Hub as a store: fetch and repair."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

from ..cards._errors import FormatError, IntegrityError, IntegrityWarning, ZooError
from ..manifolds._files import write_bytes
from ..manifolds._format import CRITICAL, MANIFEST, check_member, read_verified
from ._home import home
from ._hub_errors import RequestError, is_offline, translated
from ._reference import HubReference

_LOAD = [MANIFEST, *CRITICAL]
_ALL = [*_LOAD, "README.md", "evidence/*.json", "figures/*"]
# with force_download the client reports a Hub that cannot be reached as a ValueError
_UNREACHABLE = (HfHubHTTPError, EntryNotFoundError, OfflineModeIsEnabled, RequestError, ValueError)


@dataclass(frozen=True)
class Snapshot:
    """One commit of a Hub repository on this machine.

    Attributes
    ----------
    folder
        Its files (links into the cache).
    links_into
        Where those links may lead.
    commit
        Full commit id.
    """

    folder: Path
    links_into: Path
    commit: str

    def verify(self) -> None:
        """Read every load-critical file; raises as ``read_verified``."""
        read_verified(self.folder, links_into=self.links_into)


def fetch(
    reference: HubReference, *, offline: bool | None = None, everything: bool = False, check: bool = True
) -> Snapshot:
    """Bring one commit into the Hub cache and verify it.

    A pinned reference that is complete in the cache touches no network. A damaged file is fetched again once, its
    bytes kept in ``quarantine`` beside the repository's cache, and named if it is damaged still. Where the cache
    cannot be written a private copy is made instead.

    Parameters
    ----------
    reference
        Repository and revision.
    offline
        Use the cache only; by default as ``HF_HUB_OFFLINE`` says.
    everything
        Also evidence, README and figures.
    check
        Verify and repair; without it the files are left as they are found.

    Raises
    ------
    NotFoundError, PermissionDeniedError, StoreError
        If it cannot be had.
    IntegrityError
        If a file stays damaged; offline, at once.
    FormatError, UnsafeFileError
        If the repository is not an artifact, or holds what an artifact must not.
    """
    forbidden = is_offline() if offline is None else offline
    with translated(str(reference)):
        snapshot = _describe(_snapshot(reference, offline=forbidden, everything=everything))
        if check:
            try:
                snapshot.verify()
            # a damaged manifest may not even parse
            except (IntegrityError, FormatError) as error:
                return _repair(reference, snapshot, error, offline=forbidden)
    return snapshot


def _snapshot(reference: HubReference, *, offline: bool, everything: bool) -> Path:
    """Folder of the snapshot, from the cache alone where that suffices."""
    patterns = _ALL if everything else _LOAD
    if reference.pinned or offline:
        try:
            cached = Path(
                snapshot_download(
                    reference.repo_id, revision=reference.tag, allow_patterns=patterns, local_files_only=True
                )
            )
            if all((cached / name).exists() for name in _LOAD) and (not everything or (cached / "README.md").exists()):
                return cached
        except LocalEntryNotFoundError:
            pass
        if offline:
            raise LocalEntryNotFoundError(f"{reference} is not complete in the cache")
    _check_listing(reference)
    return Path(snapshot_download(reference.repo_id, revision=reference.tag, allow_patterns=patterns))


def _check_listing(reference: HubReference) -> None:
    """Refuse a repository by the names of its files, before any is downloaded."""
    siblings = HfApi(library_name="manifoldzoo").model_info(reference.repo_id, revision=reference.tag).siblings or []
    names = {sibling.rfilename for sibling in siblings}
    if MANIFEST not in names:
        raise FormatError(f"{reference} is not a manifoldzoo artifact: it holds no {MANIFEST}.")
    for name in sorted(names - {".gitattributes"}):
        check_member(name)


def _describe(folder: Path) -> Snapshot:
    """Read commit and blob folder off the layout of the Hub cache."""
    return Snapshot(folder=folder, links_into=folder.parent.parent / "blobs", commit=folder.name)


def _repair(
    reference: HubReference, snapshot: Snapshot, found: IntegrityError | FormatError, *, offline: bool
) -> Snapshot:
    """Fetch damaged files again, in the cache or in a private copy; raises ``found`` where that is impossible."""
    if earlier := _private_copy(reference, snapshot):
        return earlier
    if offline:
        raise found
    try:
        try:
            # a manifest with a flipped digit accuses another file, so it is always among the suspects
            suspects = [*(found.files if isinstance(found, IntegrityError) else ()), MANIFEST]
            changed, aside = _fetch_again(reference, snapshot, list(dict.fromkeys(suspects)))
        except _UNREACHABLE:
            raise
        except OSError:
            return _make_private_copy(reference, snapshot, found)
    except _UNREACHABLE as error:
        raise found from error
    try:
        snapshot.verify()
    except IntegrityError as error:
        raise IntegrityError(
            f"{', '.join(error.files)} of {reference} does not match its recorded digest, fetched again or not.",
            "The Hub serves other bytes than were published: do not use them, tell the owner.",
            files=error.files,
        ) from error
    warnings.warn(
        f"{', '.join(changed)} of {reference} was damaged in the cache and fetched again; "
        f"the damaged bytes are kept in {aside}.",
        IntegrityWarning,
        stacklevel=5,
    )
    return snapshot


def _fetch_again(reference: HubReference, snapshot: Snapshot, names: list[str]) -> tuple[list[str], Path]:
    """Download files once more in place; returns those whose bytes changed, and where the old bytes are kept."""
    aside, changed = snapshot.folder.parent.parent / "quarantine", []
    for name in names:
        path = snapshot.folder / name
        before = path.read_bytes() if path.exists() else None
        hf_hub_download(reference.repo_id, name, revision=snapshot.commit, force_download=True)
        if path.read_bytes() != before:
            changed.append(name)
            if before is not None:
                write_bytes(aside / f"{name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}", before)
    return changed, aside


def _private_copy(reference: HubReference, snapshot: Snapshot) -> Snapshot | None:
    """A sound private copy made earlier, if there is one."""
    try:
        folder = snapshot_download(
            reference.repo_id,
            revision=snapshot.commit,
            allow_patterns=_LOAD,
            cache_dir=home() / "repaired",
            local_files_only=True,
        )
        private = _describe(Path(folder))
        private.verify()
    except (LocalEntryNotFoundError, ZooError):
        return None
    return private


def _make_private_copy(reference: HubReference, snapshot: Snapshot, found: IntegrityError | FormatError) -> Snapshot:
    """Work around a damaged cache that cannot be written."""
    private = home() / "repaired"
    folder = snapshot_download(
        reference.repo_id, revision=snapshot.commit, allow_patterns=_ALL, cache_dir=private, force_download=True
    )
    copy = _describe(Path(folder))
    copy.verify()
    warnings.warn(
        f"The cache of {reference} is damaged and cannot be written; a private copy in {private} is used. "
        + found.message,
        IntegrityWarning,
        stacklevel=6,
    )
    return copy

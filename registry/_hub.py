"""The Hugging Face Hub as a store: fetch, repair, list."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub import constants as hub_constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..cards._card import parse_card
from ..cards._errors import (
    FormatError,
    IntegrityError,
    IntegrityWarning,
    NotFoundError,
    PermissionDeniedError,
    StaleParentError,
    StoreError,
    ZooError,
)
from ..cards._evidence import EvidenceRun, rung_reached
from ..manifolds._files import write_bytes
from ..manifolds._format import CARD, CRITICAL, MANIFEST, Manifest, read_verified
from ._home import home
from ._index import Index, IndexEntry, index_owner, index_path
from ._reference import HubReference

# the base class of every failed request in both supported generations of the client (httpx, then httpx2)
_RequestError = HfHubHTTPError.__mro__[1]
_LOAD = [MANIFEST, *CRITICAL]
_ALL = [*_LOAD, "README.md", "evidence/*.json", "figures/*"]


@dataclass(frozen=True)
class Snapshot:
    """One commit of a Hub repository on this machine.

    Attributes
    ----------
    folder
        Verified files (links into the cache).
    links_into
        Where those links may lead.
    commit
        Full commit id.
    """

    folder: Path
    links_into: Path
    commit: str


def is_offline() -> bool:
    """Whether ``HF_HUB_OFFLINE`` forbids the network."""
    return bool(hub_constants.HF_HUB_OFFLINE)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the Hub client's errors into ours, one sentence and a next step each."""
    try:
        yield
    except ZooError:
        raise
    except GatedRepoError as error:
        raise PermissionDeniedError(f"{what} is gated.", "Ask for access on its page, then `hf auth login`.") from error
    except RevisionNotFoundError as error:
        raise NotFoundError(f"{what} has no such revision.", "See its tags with `manifoldzoo list`.") from error
    except RepositoryNotFoundError as error:
        if http_status(error) in (401, 403) and "/api/repos" in str(error):
            raise PermissionDeniedError(f"{what} cannot be written without a valid token.", "Run `hf auth login`.") from error
        raise NotFoundError(
            f"{what} does not exist on the Hub, or is private and your token does not open it.",
            "Check the name, or run `hf auth login`.",
        ) from error
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        raise StoreError(
            f"{what} is not in the cache and the Hub cannot be reached.",
            "Unset HF_HUB_OFFLINE, check the connection, or fetch it before with `manifoldzoo pull`.",
        ) from error
    except EntryNotFoundError as error:
        raise FormatError(f"{what} is not a manifoldzoo artifact: it lacks a file of the format.") from error
    except HFValidationError as error:
        raise NotFoundError(f"{what} is not a valid repository name.") from error
    except HfHubHTTPError as error:
        status = http_status(error)
        if status in (401, 403):
            raise PermissionDeniedError(f"The Hub refused access to {what} ({status}).", "Run `hf auth login`.") from error
        if status == 412:
            raise StaleParentError(
                f"Somebody committed to {what} while you were publishing.", "Publish again on top of it."
            ) from error
        raise StoreError(f"The Hub answered {status} for {what}.", "Try again later.") from error
    except PermissionError as error:
        raise PermissionDeniedError(
            f"The Hub cache cannot be written: {error.filename}.", "Set HF_HUB_CACHE to a folder you can write."
        ) from error
    except OSError as error:
        raise StoreError(f"{what} could not be fetched: {error}.", "Check the connection and the disk.") from error
    except _RequestError as error:
        raise StoreError(f"The Hub could not be reached for {what}: {error}.", "Check the connection.") from error


def fetch(reference: HubReference, *, offline: bool | None = None, everything: bool = False) -> Snapshot:
    """Bring one commit into the Hub cache and verify it.

    A pinned reference that is complete in the cache touches no network. A damaged file is moved to
    ``quarantine`` beside the repository's cache, fetched again once, and named if it is damaged still. Where
    the cache cannot be written a private copy is made instead.

    Parameters
    ----------
    reference
        Repository and revision.
    offline
        Use the cache only; by default as ``HF_HUB_OFFLINE`` says.
    everything
        Also evidence, README and figures.

    Raises
    ------
    NotFoundError, PermissionDeniedError, StoreError
        If it cannot be had.
    IntegrityError
        If a file stays damaged; offline, at once.
    FormatError
        If the repository is not an artifact.
    """
    forbidden = is_offline() if offline is None else offline
    with translated(str(reference)):
        folder = _snapshot(reference, offline=forbidden, everything=everything)
        snapshot = _describe(folder)
        try:
            read_verified(folder, links_into=snapshot.links_into)
        except IntegrityError as error:
            if forbidden:
                raise
            snapshot = _repair(reference, snapshot, error.files)
            read_verified(snapshot.folder, links_into=snapshot.links_into)
    return snapshot


def refresh_index(owner: str | None = None) -> Index:
    """Read the versions that an account has published and keep them as this machine's index.

    Raises
    ------
    StoreError, PermissionDeniedError
        If the Hub cannot be read or the index not written.
    """
    account = owner or index_owner()
    with translated(f"the account {account!r}"):
        api = HfApi()
        entries = [
            entry
            for model in api.list_models(author=account, filter="manifoldzoo")
            for entry in _published_versions(api, model.id)
        ]
    index = Index(schema=1, updated=datetime.now(UTC), owner=account, entries=entries)
    document = json.dumps(index.model_dump(mode="json", by_alias=True), indent=1)
    write_bytes(index_path(), document.encode() + b"\n")
    return index


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
    folder = Path(snapshot_download(reference.repo_id, revision=reference.tag, allow_patterns=patterns))
    if not (folder / MANIFEST).exists():
        raise FormatError(f"{reference} is not a manifoldzoo artifact: it holds no {MANIFEST}.")
    return folder


def _describe(folder: Path) -> Snapshot:
    """Read commit and blob folder off the layout of the Hub cache."""
    return Snapshot(folder=folder, links_into=folder.parent.parent / "blobs", commit=folder.name)


def _repair(reference: HubReference, snapshot: Snapshot, names: tuple[str, ...]) -> Snapshot:
    """Set damaged files aside and fetch them again, in the cache or in a private copy."""
    listed = ", ".join(names)
    try:
        aside = snapshot.folder.parent.parent / "quarantine"
        aside.mkdir(exist_ok=True)
        for name in names:
            link = snapshot.folder / name
            blob = link.resolve()
            if blob.exists():
                shutil.move(blob, aside / f"{blob.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
            link.unlink(missing_ok=True)
        warnings.warn(
            f"{listed} of {reference} was damaged in the cache; it was moved to {aside} and fetched again.",
            IntegrityWarning,
            stacklevel=4,
        )
        for name in names:
            hf_hub_download(reference.repo_id, name, revision=snapshot.commit, force_download=True)
        return snapshot
    except OSError as error:
        if isinstance(error, (HfHubHTTPError, LocalEntryNotFoundError)):
            raise
        private = home() / "repaired"
        warnings.warn(
            f"{listed} of {reference} is damaged in a cache that cannot be written; a private copy in {private} is used.",
            IntegrityWarning,
            stacklevel=4,
        )
        folder = snapshot_download(
            reference.repo_id, revision=snapshot.commit, allow_patterns=_ALL, cache_dir=private, force_download=True
        )
        return _describe(Path(folder))


def _published_versions(api: HfApi, repo_id: str) -> Iterator[IndexEntry]:
    """Every tagged version of one repository; a repository that is not an artifact is passed over with a warning."""
    for tag in api.list_repo_refs(repo_id).tags:
        reference = HubReference(repo_id, tag.name.removeprefix("v"))
        try:
            read = {
                name: Path(hf_hub_download(repo_id, name, revision=tag.target_commit)).read_bytes()
                for name in (MANIFEST, CARD)
            }
            manifest = Manifest.parse(read[MANIFEST])
            card = parse_card(json.loads(read[CARD]))
            if reference.tag != f"v{card.version}":
                raise FormatError(f"tag {tag.name!r} holds version {card.version}")
            yield IndexEntry(
                name=card.name,
                version=card.version,
                repo_id=repo_id,
                commit=tag.target_commit,
                digest=manifest.digest,
                size_bytes=sum(entry.size for entry in manifest.files),
                source_model=card.source_model.name,
                rung=_rung_on_hub(api, repo_id, tag.target_commit, manifest.digest),
                parent=card.parent,
            )
        except (FormatError, EntryNotFoundError, ValueError) as error:
            warnings.warn(f"{repo_id}@{tag.name} was left out of the index: {error}", IntegrityWarning, stacklevel=2)


def _rung_on_hub(api: HfApi, repo_id: str, commit: str, digest: str) -> int:
    """Highest rung that evidence bound to this digest reached."""
    best = 0
    for name in api.list_repo_files(repo_id, revision=commit):
        if name.startswith("evidence/"):
            run = EvidenceRun.model_validate_json(Path(hf_hub_download(repo_id, name, revision=commit)).read_bytes())
            if run.artifact_digest == digest:
                best = max(best, rung_reached(run.rungs))
    return best


def http_status(error: HfHubHTTPError) -> int | None:
    """HTTP status of a failed request."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)

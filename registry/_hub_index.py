"""Reading what an account has published on the Hub."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from ..cards._card import Card
from ..cards._errors import FormatError, IntegrityError, IntegrityWarning, NotFoundError, PermissionDeniedError
from ..cards._evidence import EvidenceRun, counted_rung
from ..cards._names import sha256_bytes
from ..manifolds._files import write_bytes
from ..manifolds._format import CARD, MANIFEST, Manifest, decode_card
from ._hub_errors import translated
from ._index import Index, IndexEntry, index_owner, index_path


def refresh_index(owner: str | None = None) -> Index:
    """Read the versions that an account has published and keep them as this machine's index.

    Parameters
    ----------
    owner
        Account; by default ``MANIFOLDZOO_INDEX_OWNER``, else ``manifoldzoo``.

    Returns
    -------
    The new index.

    Raises
    ------
    StoreError, PermissionDeniedError
        If the Hub cannot be read or the index not written; the old index stays.

    Warns
    -----
    IntegrityWarning
        For each tag that is left out because it is not a sound version.
    """
    account = owner or index_owner()
    with translated(f"the account {account!r}"):
        api = HfApi(library_name="manifoldzoo")
        entries = [
            entry
            for model in api.list_models(author=account, filter="manifoldzoo")
            for entry in _published_versions(api, model.id)
        ]
    index = Index(updated=datetime.now(UTC), owner=account, entries=entries)
    document = json.dumps(index.model_dump(mode="json", by_alias=True), indent=1)
    write_bytes(index_path(), document.encode() + b"\n")
    return index


def _published_versions(api: HfApi, repo_id: str) -> Iterator[IndexEntry]:
    """Every tagged version of one repository; what is not a version is passed over with a warning."""
    for tag in api.list_repo_refs(repo_id).tags:
        said = f"{repo_id}@{tag.name}"
        try:
            with translated(said):
                entry = _read_version(api, repo_id, tag.name, tag.target_commit)
        # any other StoreError ends it: an index that silently lost entries to the network would be worse than none
        except (FormatError, IntegrityError, NotFoundError, PermissionDeniedError) as error:
            warnings.warn(f"{said} was left out of the index: {error.message}", IntegrityWarning, stacklevel=2)
        else:
            yield entry


def _read_version(api: HfApi, repo_id: str, tag: str, commit: str) -> IndexEntry:
    """What the index says of one tagged commit."""
    card, manifest = _read_card(repo_id, commit)
    if tag != f"v{card.version}":
        raise FormatError(f"The tag {tag!r} holds version {card.version}.")
    return IndexEntry(
        name=card.name,
        version=card.version,
        repo_id=repo_id,
        commit=commit,
        digest=manifest.digest,
        size_bytes=sum(file.size for file in manifest.files),
        source_model=card.source_model.name,
        ruler=card.ruler.kind,
        rung=_rung_on_hub(api, repo_id, commit, manifest.digest),
        parent=card.parent,
    )


def _read_card(repo_id: str, commit: str) -> tuple[Card, Manifest]:
    """Card and manifest of one commit, fetched anew where the cached bytes do not fit each other."""
    for again in (False, True):
        read = {name: _download(repo_id, name, commit, again=again) for name in (MANIFEST, CARD)}
        try:
            manifest = Manifest.parse(read[MANIFEST])
        except FormatError:
            if again:
                raise
            continue
        if sha256_bytes(read[CARD]) == next(file.sha256 for file in manifest.files if file.name == CARD):
            return decode_card(read[CARD], manifest), manifest
    raise IntegrityError(f"{CARD} of {repo_id} does not match its recorded digest.", files=(CARD,))


def _rung_on_hub(api: HfApi, repo_id: str, commit: str, digest: str) -> int:
    """Highest rung that evidence bound to this digest reached."""
    best = 0
    for name in api.list_repo_files(repo_id, revision=commit):
        if name.startswith("evidence/"):
            try:
                run = EvidenceRun.model_validate_json(_download(repo_id, name, commit))
            except ValueError as error:
                raise FormatError(f"{name} of {repo_id} is not a valid validation run.") from error
            if run.artifact_digest == digest:
                best = max(best, counted_rung(run))
    return best


def _download(repo_id: str, name: str, commit: str, *, again: bool = False) -> bytes:
    """One small file, from the cache unless ``again``."""
    try:
        return Path(hf_hub_download(repo_id, name, revision=commit, force_download=again)).read_bytes()
    except ValueError as error:
        # with force_download the client reports a Hub that cannot be reached as a ValueError
        raise LocalEntryNotFoundError(str(error)) from error

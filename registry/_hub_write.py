"""Writing to the Hub: one commit, one tag."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from ..cards._errors import BadInputError, PermissionDeniedError, StaleParentError, VersionConflictError
from ..manifolds._format import CARD, MANIFEST, list_artifact
from ..manifolds._manifold import Manifold
from ._hub_errors import http_status, is_offline, translated


def check_repository(repo_id: str, manifold: Manifold) -> str | None:
    """Say whether a version can be published to a repository, without writing anything.

    Returns
    -------
    The head commit, ``None`` where there is no such repository yet.

    Raises
    ------
    VersionConflictError
        If the version is tagged, or the repository holds a manifold of another name.
    BadInputError
        If the repository holds something else.
    PermissionDeniedError, StoreError
        If the token may not write, or the Hub cannot be reached.
    """
    if is_offline():
        raise PermissionDeniedError(
            f"{repo_id} cannot be written: HF_HUB_OFFLINE forbids the network.", "Unset HF_HUB_OFFLINE."
        )
    with translated(repo_id):
        api = HfApi(library_name="manifoldzoo")
        if api.whoami().get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise PermissionDeniedError(
                f"{repo_id} cannot be written: your token is read-only.", "Run `hf auth login` with one that may write."
            )
        try:
            refs = api.list_repo_refs(repo_id)
        except RepositoryNotFoundError:
            return None
        if f"v{manifold.version}" in {tag.name for tag in refs.tags}:
            raise VersionConflictError(
                f"{repo_id} has version {manifold.version} already; versions are immutable.",
                "Raise the version and publish again.",
            )
        head = str(next(branch.target_commit for branch in refs.branches if branch.name == "main"))
        _check_content(api, repo_id, head, manifold.name)
    return head


def commit_folder(repo_id: str, folder: Path, manifold: Manifold, head: str | None) -> str:
    """Replace the content of a repository by an artifact in one commit on top of ``head``, and tag it.

    Parameters
    ----------
    repo_id
        Repository; created, where ``head`` is ``None``.
    folder
        The artifact.
    manifold
        What the folder holds.
    head
        Commit that must still be the newest.

    Returns
    -------
    The commit.

    Raises
    ------
    StaleParentError
        If the repository moved on from ``head``.
    VersionConflictError
        If somebody tagged the version in the meantime.
    PermissionDeniedError, StoreError
        If the Hub refuses or cannot be reached.
    """
    with translated(repo_id):
        api = HfApi(library_name="manifoldzoo")
        head = head or _create(api, repo_id)
        names = list_artifact(folder)
        obsolete = set(api.list_repo_files(repo_id, revision=head)) - set(names) - {".gitattributes"}
        made = api.create_commit(
            repo_id,
            operations=[
                *(CommitOperationAdd(name, folder / name) for name in names),
                *(CommitOperationDelete(name) for name in sorted(obsolete)),
            ],
            commit_message=f"{manifold.name} {manifold.version}",
            commit_description=f"Artifact digest {manifold.digest}",
            parent_commit=head,
        )
        try:
            api.create_tag(repo_id, tag=f"v{manifold.version}", revision=made.oid)
        except HfHubHTTPError as error:
            if http_status(error) == 409:
                raise VersionConflictError(f"{repo_id} has version {manifold.version} already.") from error
            raise
        return str(made.oid)


def _check_content(api: HfApi, repo_id: str, head: str, name: str) -> None:
    """Refuse to replace what is not an earlier version of the same manifold."""
    names = set(api.list_repo_files(repo_id, revision=head)) - {".gitattributes", "README.md"}
    if {MANIFEST, CARD} <= names:
        held = json.loads(Path(hf_hub_download(repo_id, CARD, revision=head)).read_bytes()).get("name")
        if held != name:
            raise VersionConflictError(
                f"{repo_id} holds the manifold {held!r}, not {name!r}.", "Publish each name to a repository of its own."
            )
    elif names:
        raise BadInputError(
            f"{repo_id} holds {min(names)!r} and is not an artifact; publishing would remove it.",
            "Publish to a new repository.",
        )


def _create(api: HfApi, repo_id: str) -> str:
    """Create a repository and return its first commit."""
    try:
        api.create_repo(repo_id)
    except HfHubHTTPError as error:
        if http_status(error) == 409:
            raise StaleParentError(
                f"Somebody created {repo_id} while you were publishing.", "Publish again on top of it."
            ) from error
        if http_status(error) in (401, 403):
            raise PermissionDeniedError(
                f"{repo_id} cannot be created with your token.", "Run `hf auth login` with one that may write there."
            ) from error
        raise
    return str(next(ref.target_commit for ref in api.list_repo_refs(repo_id).branches if ref.name == "main"))

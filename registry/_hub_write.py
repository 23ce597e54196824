"""Writing to the Hub: one commit, one tag."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError

from ..cards._errors import PermissionDeniedError, VersionConflictError
from ..manifolds._format import list_artifact
from ..manifolds._manifold import Manifold
from ._hub import http_status, is_offline, translated


def prepare_repository(repo_id: str, manifold: Manifold) -> str:
    """Create the repository if it is new, refuse a version that is tagged already, return the head commit.

    Raises
    ------
    VersionConflictError
        If the version is tagged.
    PermissionDeniedError, StoreError
        If the Hub refuses or cannot be reached.
    """
    if is_offline():
        raise PermissionDeniedError(
            f"{repo_id} cannot be written: HF_HUB_OFFLINE forbids the network.", "Unset HF_HUB_OFFLINE."
        )
    with translated(repo_id):
        api = HfApi(library_name="manifoldzoo")
        try:
            api.create_repo(repo_id, exist_ok=True)
        except HfHubHTTPError as error:
            if http_status(error) in (401, 403):
                raise PermissionDeniedError(
                    f"{repo_id} cannot be written without a token that may write there.", "Run `hf auth login`."
                ) from error
            raise
        refs = api.list_repo_refs(repo_id)
        if f"v{manifold.version}" in {tag.name for tag in refs.tags}:
            raise VersionConflictError(
                f"{repo_id} has version {manifold.version} already; versions are immutable.",
                "Raise the version and publish again.",
            )
        return next(branch.target_commit for branch in refs.branches if branch.name == "main")


def commit_folder(repo_id: str, folder: Path, manifold: Manifold, head: str | None) -> str:
    """Replace the content of a repository by an artifact in one commit on top of ``head``, and tag it.

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

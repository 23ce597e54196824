"""Refusals, with the status and the ``X-Error-Code`` from which the client chooses its exception."""

from __future__ import annotations

from collections.abc import Mapping


class HubError(Exception):
    """A request that the hub refuses.

    Parameters
    ----------
    status
        HTTP status, 4xx.
    message
        What the client shows its user.
    code
        ``X-Error-Code``: ``RepoNotFound``, ``RevisionNotFound``, ``EntryNotFound``, ``GatedRepo`` or empty.
    headers
        Further response headers.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


class RepoNotFound(HubError):
    """There is no such repository, or the caller may not know that there is."""

    def __init__(self, status: int = 404) -> None:
        super().__init__(status, "Repository not found", "RepoNotFound")


class RepoExists(HubError):
    """A repository of this name was created before."""

    def __init__(self, repo_id: str) -> None:
        super().__init__(409, f"You already created this model repo: {repo_id}")


class RevisionNotFound(HubError):
    """The repository has no such branch, tag or commit."""

    def __init__(self, revision: str) -> None:
        super().__init__(404, f"Invalid rev id: {revision}", "RevisionNotFound")


class EntryNotFound(HubError):
    """The commit has no such file or folder."""

    def __init__(self, message: str = "Entry not found", *, commit: str = "") -> None:
        # With the commit the client can remember, per commit, that the file does not exist.
        super().__init__(404, message, "EntryNotFound", {"X-Repo-Commit": commit} if commit else None)

"""What every route needs: the storage, the faults, and who is asking."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import unquote

from starlette.requests import Request

from ._errors import HubError, RepoNotFound
from ._faults import Faults
from ._storage import Repo, Storage

USER = "loopback"
WRITE_TOKEN = "loopback-write-token"
READ_TOKEN = "loopback-read-token"

UploadMode = Literal["auto", "regular", "lfs"]
Role = Literal["anonymous", "read", "write"]

_ROLES: dict[str, Role] = {f"Bearer {WRITE_TOKEN}": "write", f"Bearer {READ_TOKEN}": "read"}


@dataclass
class HubState:
    """One hub as its routes see it."""

    storage: Storage
    faults: Faults
    upload_mode: UploadMode = "auto"
    # Signs the links of large file storage, which the client follows without its token.
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)


def state(request: Request) -> HubState:
    """Return the hub that a request reached."""
    return cast(HubState, request.app.state.hub)


def parameter(request: Request, name: str) -> str:
    """Return a part of the request's path, unquoted."""
    return unquote(request.path_params[name])


def role(request: Request) -> Role:
    """Return what the sender may do.

    Raises
    ------
    HubError
        401 for a token that the hub never gave out.
    """
    authorization = request.headers.get("authorization")
    if authorization is None:
        return "anonymous"
    if authorization not in _ROLES:
        message = "Invalid credentials in Authorization header"
        raise HubError(401, message, headers={"X-Error-Message": message})
    return _ROLES[authorization]


def require_write(request: Request, *, code: str = "") -> None:
    """Refuse a request that has no token with 401, one that has a read-only token with 403."""
    match role(request):
        case "anonymous":
            raise HubError(401, "Invalid username or password.", code)
        case "read":
            raise HubError(403, "This token is read-only: it has no permission to write")


def readable(request: Request) -> Repo:
    """Return the repository in the request's path; one that the sender may not see is not found."""
    repo_id = f"{parameter(request, 'namespace')}/{parameter(request, 'name')}"
    anonymous = role(request) == "anonymous"
    try:
        repo = state(request).storage.repo(repo_id)
    except RepoNotFound:
        # The Hub does not tell strangers which names are taken.
        raise RepoNotFound(401 if anonymous else 404) from None
    if repo.private and anonymous:
        raise RepoNotFound(401)
    return repo


def writable(request: Request) -> Repo:
    """Return the repository in the request's path, for a sender who may change it."""
    # The client reads any 401 of a repository route as RepoNotFound, but only over https: the code makes it so here.
    require_write(request, code="RepoNotFound")
    return readable(request)


def downloadable(request: Request) -> Repo:
    """Return the repository in the request's path, for a sender who passes its gate: only its owner does."""
    repo = readable(request)
    if repo.gated and (asking := role(request)) != "write":
        status = 401 if asking == "anonymous" else 403
        raise HubError(status, f"Access to model {repo.id} is restricted", "GatedRepo")
    return repo

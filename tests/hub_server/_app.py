"""The ASGI application: all routes, file downloads, and the two things that concern every request."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import _commits, _lfs, _repos
from ._errors import EntryNotFound, HubError
from ._faults import Faults
from ._state import HubState, downloadable, parameter, state


def build_app(hub: HubState) -> ASGIApp:
    """Return the application that serves a hub."""
    app = Starlette(
        routes=[
            *_repos.ROUTES,
            *_commits.ROUTES,
            *_lfs.ROUTES,
            Route("/{namespace}/{name}/resolve/{revision}/{path:path}", resolve),
        ],
        exception_handlers={HubError: _refuse},
    )
    app.state.hub = hub
    return _Front(app, hub.faults)


async def resolve(request: Request) -> Response:
    """Answer ``HEAD`` and ``GET /{id}/resolve/{r}/{path}``, whole or in ranges.

    Large files are sent from here too, with no redirect to another address: the 2.x client follows a redirect to the
    same host, and would look for ``X-Repo-Commit`` there.
    """
    hub, repo, path = state(request), downloadable(request), parameter(request, "path")
    commit = hub.storage.resolve(repo.id, parameter(request, "revision"))
    if (file := commit.tree.get(path)) is None:
        raise EntryNotFound(commit=commit.oid)
    etag = f'"{file.sha256 if file.lfs else file.oid}"'
    headers = {"ETag": etag, "X-Repo-Commit": commit.oid}
    if file.lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(file.size)}
    content = hub.faults.served(repo.id, path, hub.storage.blob(file.sha256))
    return FileResponse(content, headers=headers, media_type="application/octet-stream")


class _Front:
    """Log every request, fail those that a test wants to fail, and route on the path as the client quoted it."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        # Unquoted, the slash in a revision such as refs%2Fpr%2F1 would look like the next part of the path.
        path = scope["raw_path"].decode("ascii")
        if (status := self._faults.log(scope["method"], path)) is not None:
            failure = JSONResponse({"error": f"Failed on request: {status}"}, status)
            return await failure(scope, receive, send)
        return await self._app({**scope, "path": path}, receive, send)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer with the headers from which the client chooses its exception."""
    assert isinstance(error, HubError)
    message = "".join(character if " " <= character <= "~" else "?" for character in error.message)
    headers = {"X-Error-Message": message.strip(), **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)

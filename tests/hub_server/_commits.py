"""Routes about history and trees: preupload, commit, tags, refs, commits, tree, paths-info."""

from __future__ import annotations

import base64
import fnmatch
import json
from typing import Any, Literal
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import _git
from ._errors import EntryNotFound, HubError, RevisionNotFound
from ._repos import body, iso, lfs_info
from ._state import USER, HubState, parameter, readable, state, writable
from ._storage import BRANCH, Commit, Delete, File, Put, Storage, check_path

# Larger files go to large file storage whatever their name.
REGULAR_LIMIT = 10_000_000


async def preupload(request: Request) -> Response:
    """Answer ``POST .../preupload/{r}``: how shall each file travel, and is it there already."""
    hub, repo = state(request), writable(request)
    _refuse_pull_request(request)
    commit = hub.storage.resolve(repo.id, parameter(request, "revision"))
    attributes = _lfs_patterns(hub.storage, commit)
    files = []
    for asked in (await body(request)).get("files", []):
        path = check_path(asked["path"])
        mode = _upload_mode(hub, path, asked["size"], attributes)
        files.append(
            {
                "path": path,
                "uploadMode": mode,
                "shouldIgnore": False,
                "oid": _known_oid(commit.tree.get(path), mode),
            }
        )
    return JSONResponse({"files": files})


async def commit(request: Request) -> Response:
    """Answer ``POST .../commit/{r}``: newline-delimited JSON, a header and then one operation a line."""
    storage, repo = state(request).storage, writable(request)
    _refuse_pull_request(request)
    if (revision := parameter(request, "revision")) != BRANCH:
        raise RevisionNotFound(revision)
    try:
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        changes = [_change(storage, line["key"], line["value"]) for line in lines if line["key"] != "header"]
        message = header["summary"]
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise HubError(400, f"Malformed commit: {error!r}") from error
    if description := header.get("description"):
        message = f"{message}\n\n{description}"
    made = storage.commit(repo.id, changes, message=message, author=USER, parent=header.get("parentCommit"))
    url = f"{request.base_url}{repo.id}/commit/{made.oid}"
    return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


async def tag(request: Request) -> Response:
    """Answer ``POST .../tag/{r}`` and ``DELETE .../tag/{tag}``."""
    storage, repo, revision = state(request).storage, writable(request), parameter(request, "revision")
    if request.method == "DELETE":
        storage.untag(repo.id, revision)
    else:
        storage.tag(repo.id, str((await body(request)).get("tag", "")), revision)
    return JSONResponse({})


async def refs(request: Request) -> Response:
    """Answer ``GET .../refs``."""
    repo = readable(request)
    tags = [_ref("tags", name, target) for name, target in sorted(repo.tags.items())]
    branches = [_ref("heads", BRANCH, repo.head)]
    return JSONResponse({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})


async def commits(request: Request) -> Response:
    """Answer ``GET .../commits/{r}``, newest first, on one page."""
    history = state(request).storage.history(readable(request).id, parameter(request, "revision"))
    return JSONResponse(
        [
            {
                "id": commit.oid,
                "title": commit.title,
                "message": commit.message.partition("\n\n")[2],
                "authors": [{"user": USER}],
                "date": iso(commit.timestamp),
            }
            for commit in history
        ]
    )


async def tree(request: Request) -> Response:
    """Answer ``GET .../tree/{r}`` and ``GET .../tree/{r}/{folder}``, on one page."""
    commit = state(request).storage.resolve(readable(request).id, parameter(request, "revision"))
    folder = parameter(request, "path").rstrip("/") if "path" in request.path_params else ""
    if folder not in commit.folders:
        raise EntryNotFound(f"{folder} does not exist on this revision", commit=commit.oid)
    recursive = request.query_params.get("recursive", "").lower() in ("true", "1")
    inside = f"{folder}/" if folder else ""
    paths = [path for path in (*commit.tree, *commit.folders) if path.startswith(inside) and path != folder]
    shown = [path for path in paths if recursive or "/" not in path[len(inside) :]]
    return JSONResponse([_entry(commit, path) for path in sorted(shown)])


async def paths_info(request: Request) -> Response:
    """Answer ``POST .../paths-info/{r}``; what does not exist is left out."""
    commit = state(request).storage.resolve(readable(request).id, parameter(request, "revision"))
    asked = parse_qs((await request.body()).decode()).get("paths", [])
    return JSONResponse([_entry(commit, path) for path in asked if path in commit.tree or path in commit.folders])


def _refuse_pull_request(request: Request) -> None:
    """Refuse a commit that wants to become a pull request."""
    if request.query_params.get("create_pr"):
        raise HubError(400, "Pull requests are not served here: commit to main")


def _lfs_patterns(storage: Storage, commit: Commit) -> list[str]:
    """Return the file name patterns that the commit's .gitattributes sends to large file storage."""
    if ".gitattributes" not in commit.tree:
        return []
    lines = storage.blob(commit.tree[".gitattributes"].sha256).read_text("utf-8").splitlines()
    return [line.split()[0] for line in lines if "filter=lfs" in line]


def _upload_mode(hub: HubState, path: str, size: int, patterns: list[str]) -> Literal["regular", "lfs"]:
    """Return how a new file shall travel."""
    if hub.upload_mode != "auto":
        return hub.upload_mode
    _, name = _git.split(path)
    return "lfs" if size > REGULAR_LIMIT or any(fnmatch.fnmatch(name, pattern) for pattern in patterns) else "regular"


def _known_oid(file: File | None, mode: Literal["regular", "lfs"]) -> str | None:
    """Return the id by which the client sees that a file has not changed; it skips the upload then."""
    if file is None or file.lfs != (mode == "lfs"):
        return None
    return file.sha256 if file.lfs else file.oid


def _change(storage: Storage, key: str, value: dict[str, Any]) -> Put | Delete:
    """Return what one line of a commit asks for; its content, where it brings one, is stored at once."""
    match key:
        case "file" if value.get("encoding", "base64") == "base64":
            return Put(value["path"], storage.add(base64.b64decode(value["content"], validate=True)))
        case "lfsFile" if value.get("algo", "sha256") == "sha256":
            return Put(value["path"], storage.add_large(value["oid"]))
        case "deletedFile" | "deletedFolder":
            return Delete(value["path"], folder=key == "deletedFolder")
    raise HubError(400, f"Unknown operation in commit: {key}")


def _ref(kind: Literal["heads", "tags"], name: str, target: str) -> dict[str, str]:
    """Return a branch or tag as refs list it."""
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": target}


def _entry(commit: Commit, path: str) -> dict[str, Any]:
    """Return a file or folder as trees list it."""
    if path in commit.folders:
        return {"type": "directory", "oid": commit.folders[path], "size": 0, "path": path}
    file = commit.tree[path]
    # A large file goes by its digest here and by "oid"; with its blobs in `info`, by "sha256".
    return {"type": "file", "oid": file.oid, "size": file.size, "path": path, **lfs_info(file, digest="oid")}


_MODEL = "/api/models/{namespace}/{name}"

ROUTES = [
    Route(_MODEL + "/preupload/{revision}", preupload, methods=["POST"]),
    Route(_MODEL + "/commit/{revision}", commit, methods=["POST"]),
    Route(_MODEL + "/tag/{revision}", tag, methods=["POST", "DELETE"]),
    Route(_MODEL + "/refs", refs),
    Route(_MODEL + "/commits/{revision}", commits),
    Route(_MODEL + "/tree/{revision}", tree),
    Route(_MODEL + "/tree/{revision}/{path:path}", tree),
    Route(_MODEL + "/paths-info/{revision}", paths_info, methods=["POST"]),
]

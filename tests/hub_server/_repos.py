"""Routes about whole repositories: who am I, create, delete, settings, info, lists, card validation."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import yaml
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import _git
from ._errors import HubError, RepoExists, RepoNotFound
from ._state import USER, HubState, parameter, readable, require_write, role, state, writable
from ._storage import BRANCH, Commit, File, Repo

_FRONT_MATTER = re.compile(r"\A\s*---[ \t]*\n(.*?)\n---[ \t]*(?:\n|\Z)", re.DOTALL)


def iso(timestamp: int) -> str:
    """Return a time as the Hub writes it."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


async def body(request: Request) -> dict[str, Any]:
    """Return the JSON object of a request; 400 for anything else."""
    try:
        value = json.loads(await request.body())
    except ValueError as error:
        raise HubError(400, f"Request body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise HubError(400, "Request body is not a JSON object")
    return value


def lfs_info(file: File, *, digest: str) -> dict[str, Any]:
    """Return the large-file part of a file's entry, which names its digest differently from route to route."""
    if not file.lfs:
        return {}
    pointer = len(_git.lfs_pointer(file.sha256, file.size))
    return {"lfs": {digest: file.sha256, "size": file.size, "pointerSize": pointer}}


async def whoami(request: Request) -> Response:
    """Answer ``GET /api/whoami-v2``."""
    asking = role(request)
    if asking == "anonymous":
        raise HubError(401, "Invalid username or password.")
    token = {"displayName": f"{asking} token", "role": asking}
    return JSONResponse(
        {
            "type": "user",
            "id": USER,
            "name": USER,
            "fullname": USER,
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


async def create(request: Request) -> Response:
    """Answer ``POST /api/repos/create``."""
    require_write(request)
    asked = await body(request)
    repo_id = _named(asked)
    url = f"{request.base_url}{repo_id}"
    # 1.x sends `private`, 2.x `visibility`
    private = bool(asked.get("private")) or asked.get("visibility") == "private"
    try:
        state(request).storage.create(repo_id, private=private, author=USER)
    except RepoExists as error:
        # create_repo(exist_ok=True) reads the address from this answer too
        return JSONResponse({"error": error.message, "url": url}, error.status)
    return JSONResponse({"url": url, "name": repo_id, "id": repo_id})


async def delete(request: Request) -> Response:
    """Answer ``DELETE /api/repos/delete``."""
    require_write(request)
    state(request).storage.delete(_named(await body(request)))
    return JSONResponse({})


async def settings(request: Request) -> Response:
    """Answer ``PUT /api/models/{id}/settings``."""
    repo = writable(request)
    asked = await body(request)
    private = asked["visibility"] == "private" if "visibility" in asked else asked.get("private")
    gated = bool(asked["gated"]) if "gated" in asked else None
    changed = state(request).storage.update(repo.id, private=private, gated=gated)
    return JSONResponse({"private": changed.private, "gated": "auto" if changed.gated else False})


async def info(request: Request) -> Response:
    """Answer ``GET /api/models/{id}`` and ``GET /api/models/{id}/revision/{r}``."""
    repo = readable(request)
    revision = parameter(request, "revision") if "revision" in request.path_params else BRANCH
    commit = state(request).storage.resolve(repo.id, revision)
    return JSONResponse(_info(state(request), repo, commit, blobs="blobs" in request.query_params))


async def models(request: Request) -> Response:
    """Answer ``GET /api/models``: ``search``, ``author``, ``filter`` (all must be tags), ``sort``, ``limit``."""
    hub, query = state(request), request.query_params
    wanted = {*query.getlist("filter"), *query.getlist("pipeline_tag")}
    found = [
        listed
        for repo in hub.storage.repos()
        if not repo.private or role(request) != "anonymous"
        if query.get("search", "").lower() in repo.id.lower()
        if query.get("author", repo.id.partition("/")[0]) == repo.id.partition("/")[0]
        if wanted <= set((listed := _info(hub, repo, hub.storage.resolve(repo.id, BRANCH)))["tags"])
    ]
    if sort := query.get("sort"):
        found.sort(key=lambda model: model.get(sort, 0), reverse=True)
    return JSONResponse(found[: int(query.get("limit", len(found)))])


async def validate_yaml(request: Request) -> Response:
    """Answer ``POST /api/validate-yaml``: may this README be pushed."""
    try:
        card = _front_matter((await body(request)).get("content", ""))
    except yaml.YAMLError as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return JSONResponse({"errors": [], "warnings": warnings})


async def missing(request: Request) -> Response:
    """Answer for names without a namespace, of which there are none."""
    raise RepoNotFound(401 if role(request) == "anonymous" else 404)


def _named(asked: dict[str, Any]) -> str:
    """Return the repository id of a request to create or delete it."""
    if asked.get("type") not in (None, "model"):
        raise HubError(400, f"This hub serves models only, not {asked['type']}")
    return f"{asked.get('organization') or USER}/{asked.get('name')}"


def _info(hub: HubState, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """Return what the Hub tells about a repository at a commit."""
    card = _card(hub, commit)
    library, pipeline = card.get("library_name"), card.get("pipeline_tag")
    tags = [*card.get("tags", []), *filter(None, (library, pipeline))]
    if "license" in card:
        tags.append(f"license:{card['license']}")
    siblings = [
        {"rfilename": path}
        | ({"size": file.size, "blobId": file.oid, **lfs_info(file, digest="sha256")} if blobs else {})
        for path, file in sorted(commit.tree.items())
    ]
    return {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.partition("/")[0],
        "sha": commit.oid,
        "createdAt": iso(repo.created_at),
        "lastModified": iso(commit.timestamp),
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(dict.fromkeys(tags)),
        "library_name": library,
        "pipeline_tag": pipeline,
        "cardData": card or None,
        "siblings": siblings,
        "spaces": [],
    }


def _card(hub: HubState, commit: Commit) -> dict[str, Any]:
    """Return the metadata of a commit's README, empty where it has none."""
    if "README.md" not in commit.tree:
        return {}
    try:
        return _front_matter(hub.storage.blob(commit.tree["README.md"].sha256).read_text("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError):
        return {}


def _front_matter(readme: str) -> dict[str, Any]:
    """Parse the YAML block at the head of a README."""
    block = _FRONT_MATTER.match(readme.replace("\r\n", "\n"))
    value = yaml.safe_load(block[1]) if block else None
    if value is not None and not isinstance(value, dict):
        raise yaml.YAMLError(f"metadata must be a mapping, not {type(value).__name__}")
    # Dates and other YAML types travel as text.
    card: dict[str, Any] = json.loads(json.dumps(value or {}, default=str))
    return card


ROUTES = [
    Route("/api/whoami-v2", whoami),
    Route("/api/validate-yaml", validate_yaml, methods=["POST"]),
    Route("/api/repos/create", create, methods=["POST"]),
    Route("/api/repos/delete", delete, methods=["DELETE"]),
    Route("/api/models", models),
    Route("/api/models/{namespace}/{name}", info),
    Route("/api/models/{namespace}/{name}/revision/{revision}", info),
    Route("/api/models/{namespace}/{name}/settings", settings, methods=["PUT"]),
    Route("/api/models/{name}", missing),
    Route("/{name}/resolve/{rest:path}", missing),
]

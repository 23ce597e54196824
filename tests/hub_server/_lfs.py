"""Large file storage: the batch route, and the upload, verify and download links that it hands out.

The protocol is that of https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md with the ``basic`` transfer.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ._errors import HubError
from ._repos import body
from ._state import HubState, downloadable, parameter, state, writable
from ._storage import Repo

_OID = re.compile(r"[0-9a-f]{64}")

Operation = Literal["upload", "download"]


async def batch(request: Request) -> Response:
    """Answer ``POST /{id}.git/info/lfs/objects/batch``."""
    asked = await body(request)
    operation: Operation = "upload" if asked.get("operation") == "upload" else "download"
    repo = writable(request) if operation == "upload" else downloadable(request)
    objects = [_object(request, repo, operation, item["oid"], item["size"]) for item in asked.get("objects", [])]
    answer = {"transfer": "basic", "hash_algo": "sha256", "objects": objects}
    return JSONResponse(answer, media_type="application/vnd.git-lfs+json")


async def upload(request: Request) -> Response:
    """Take in content, streamed to disk; it is kept only if it has the promised digest and size."""
    hub, oid, size = state(request), parameter(request, "oid"), int(request.query_params.get("size", -1))
    _check_signature(hub, request, "upload", oid)
    blob = hub.storage.blob(oid)
    blob.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=blob.parent, prefix=".incoming-")
    digest, received = hashlib.sha256(), 0
    try:
        with os.fdopen(handle, "wb") as file:
            async for chunk in request.stream():
                digest.update(chunk)
                received += file.write(chunk)
        if (digest.hexdigest(), received) != (oid, size):
            raise HubError(400, f"Uploaded content is not {oid} of {size} bytes")
        Path(temporary).replace(blob)
    except BaseException:
        Path(temporary).unlink()
        raise
    return JSONResponse({})


async def verify(request: Request) -> Response:
    """Confirm that an upload arrived."""
    writable(request)
    asked = await body(request)
    blob = state(request).storage.blob(_checked(asked["oid"]))
    if not blob.exists() or blob.stat().st_size != asked["size"]:
        raise HubError(404, f"No such object: {asked['oid']}")
    return JSONResponse({})


async def download(request: Request) -> Response:
    """Send content by its digest."""
    hub, oid = state(request), parameter(request, "oid")
    _check_signature(hub, request, "download", oid)
    return FileResponse(hub.storage.blob(oid), media_type="application/octet-stream")


def _object(request: Request, repo: Repo, operation: Operation, oid: str, size: int) -> dict[str, Any]:
    """Return what the client is to do about one object; nothing where the upload is there already."""
    hub = state(request)
    item = {"oid": _checked(oid), "size": size, "authenticated": True}
    exists = hub.storage.blob(oid).exists()
    if operation == "download" and not exists:
        return {**item, "error": {"code": 404, "message": f"No such object: {oid}"}}
    if operation == "upload" and exists:
        return item
    query = urlencode({"size": size, "signature": _sign(hub, operation, oid, str(size))})
    link = {"href": f"{request.base_url}lfs/{oid}?{query}"}
    if operation == "download":
        return {**item, "actions": {"download": link}}
    confirm = {"href": f"{request.base_url}{repo.id}.git/info/lfs/verify"}
    return {**item, "actions": {"upload": link, "verify": confirm}}


def _checked(oid: str) -> str:
    """Return a digest that is one: it becomes a file name."""
    if not _OID.fullmatch(oid):
        raise HubError(422, f"Not a SHA-256: {oid}")
    return oid


def _sign(hub: HubState, operation: Operation, oid: str, size: str) -> str:
    """Return the signature that makes a link valid for one operation on one object."""
    return hmac.new(hub.secret, f"{operation}:{oid}:{size}".encode(), hashlib.sha256).hexdigest()


def _check_signature(hub: HubState, request: Request, operation: Operation, oid: str) -> None:
    """Refuse a link that `batch` did not hand out: it is the only credential the client sends along."""
    query = request.query_params
    expected = _sign(hub, operation, oid, query.get("size", ""))
    if not hmac.compare_digest(expected, query.get("signature", "")):
        raise HubError(403, "SignatureDoesNotMatch")


ROUTES = [
    Route("/{namespace}/{name}.git/info/lfs/objects/batch", batch, methods=["POST"]),
    Route("/{namespace}/{name}.git/info/lfs/verify", verify, methods=["POST"]),
    Route("/lfs/{oid}", upload, methods=["PUT"]),
    Route("/lfs/{oid}", download),
]

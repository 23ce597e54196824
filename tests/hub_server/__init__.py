"""A Hub on 127.0.0.1: real sockets and real bytes, for tests that publish to and load from the Hugging Face Hub.

The unmodified ``huggingface_hub`` client (1.x and 2.x) talks to it over HTTP. Everything lies under one folder, so a
test can look at what was stored, break it, stop the server and start it again::

    with serve(tmp_path / "hub") as hub:
        api = hub.api()
        api.create_repo("zoo/hematopoietic")
        api.upload_file(repo_id="zoo/hematopoietic", path_in_repo="a.txt", path_or_fileobj=b"a")
        hub.corrupt("zoo/hematopoietic", "a.txt")

Xet is not served: set ``HF_HUB_DISABLE_XET=1``, or serve with ``upload_mode="regular"``.
"""

from ._errors import HubError
from ._faults import LoggedRequest
from ._server import LoopbackHub, serve
from ._state import READ_TOKEN, USER, WRITE_TOKEN, UploadMode
from ._storage import Commit, Delete, File, Put, Repo, Storage

__all__ = [
    "READ_TOKEN",
    "USER",
    "WRITE_TOKEN",
    "Commit",
    "Delete",
    "File",
    "HubError",
    "LoggedRequest",
    "LoopbackHub",
    "Put",
    "Repo",
    "Storage",
    "UploadMode",
    "serve",
]

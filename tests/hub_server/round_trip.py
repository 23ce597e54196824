"""Publish to a Hub and read it back, with whatever ``huggingface_hub`` runs this file; print what came out as JSON.

The file imports nothing but the client, so that a test can run it in an environment with another version of it::

    subprocess.run([python, round_trip.py, "zoo/demo"], env=hub.environment(home))
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, errors

HEADER = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
TENSORS = len(HEADER).to_bytes(8, "little") + HEADER + bytes(8)


def digests(folder: str) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    root = Path(folder)
    files = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def round_trip(repo_id: str) -> dict[str, object]:
    """Create, commit, tag, commit again, download both states, and load one of them offline."""
    api = HfApi()
    api.create_repo(repo_id, private=True)
    api.create_repo(repo_id, exist_ok=True)
    first = api.create_commit(
        repo_id,
        [
            CommitOperationAdd("model.safetensors", TENSORS),
            CommitOperationAdd("data/note.txt", b"first"),
            CommitOperationAdd("data/gone.txt", b"gone soon"),
        ],
        commit_message="first",
    )
    api.create_tag(repo_id, tag="v1", revision=first.oid)
    second = api.create_commit(
        repo_id,
        [CommitOperationAdd("data/note.txt", b"second"), CommitOperationDelete("data/gone.txt")],
        commit_message="second",
        parent_commit=first.oid,
    )
    stale = 0
    try:
        api.create_commit(
            repo_id, [CommitOperationAdd("late.txt", b"")], commit_message="late", parent_commit=first.oid
        )
    except errors.HfHubHTTPError as error:
        stale = error.response.status_code
    card = ModelCard("---\nlicense: mit\ntags: [zoo]\n---\n# A card\n")
    if huggingface_hub.__version__.startswith("1."):
        # ModelCard.validate of 1.x asks huggingface.co itself, whatever HF_ENDPOINT says.
        api.upload_file(repo_id=repo_id, path_in_repo="README.md", path_or_fileobj=card.content.encode())
    else:
        card.push_to_hub(repo_id)
    tagged = huggingface_hub.snapshot_download(repo_id, revision="v1")
    return {
        "version": huggingface_hub.__version__,
        "first": first.oid,
        "second": second.oid,
        "tag": api.model_info(repo_id, revision="v1").sha,
        "stale": stale,
        "v1": digests(tagged),
        "main": digests(huggingface_hub.snapshot_download(repo_id)),
        "offline": digests(huggingface_hub.snapshot_download(repo_id, revision="v1", local_files_only=True)),
        "card": ModelCard.load(repo_id).data.to_dict(),
        "tensors": sorted(api.get_safetensors_metadata(repo_id).weight_map),
        "found": [model.id for model in api.list_models(filter="zoo", search=repo_id)],
        "missing": _error(lambda: api.model_info(f"{repo_id}-missing")),
        "revision": _error(lambda: api.model_info(repo_id, revision="v9")),
        "entry": _error(lambda: api.hf_hub_download(repo_id, "missing.txt")),
    }


def _error(call: Callable[[], object]) -> str:
    """Return the name of the error that a call raises."""
    try:
        call()
    except errors.HfHubHTTPError as error:
        return type(error).__name__
    return ""


if __name__ == "__main__":
    print(json.dumps(round_trip(sys.argv[1])))

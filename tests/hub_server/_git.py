"""Git object ids, computed as git does, so that an exported repository carries the ids that were served."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath


def object_id(kind: str, body: bytes) -> str:
    """Return the id of a git object: SHA-1 over its header and body."""
    return hashlib.sha1(b"%s %d\0" % (kind.encode(), len(body)) + body, usedforsecurity=False).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    """Return the text that stands in git for a file kept in large file storage."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def tree_ids(blobs: Mapping[str, str]) -> dict[str, str]:
    """Return the tree id of every folder, the root as ``""``, from the blob id of every file."""
    entries: dict[str, list[tuple[bytes, bytes]]] = defaultdict(list)
    for path, blob in blobs.items():
        folder, name = split(path)
        entries[folder].append((name.encode(), b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)))
    ids: dict[str, str] = {}
    for folder in sorted({"", *folders(blobs)}, key=_depth, reverse=True):
        ids[folder] = object_id("tree", b"".join(entry for _, entry in sorted(entries[folder])))
        if folder:
            parent, name = split(folder)
            # git sorts a folder as if its name ended in a slash
            key = name.encode() + b"/"
            entries[parent].append((key, b"40000 " + name.encode() + b"\0" + bytes.fromhex(ids[folder])))
    return ids


def commit_id(*, tree: str, parent: str | None, author: str, timestamp: int, message: str) -> str:
    """Return the id of a commit whose author is also its committer, in UTC."""
    who = f"{author} {timestamp} +0000"
    parents = f"parent {parent}\n" if parent else ""
    return object_id("commit", f"tree {tree}\n{parents}author {who}\ncommitter {who}\n\n{message}".encode())


def folders(paths: Mapping[str, object]) -> set[str]:
    """Return every folder that holds one of the paths, without the root."""
    return {str(parent) for path in paths for parent in PurePosixPath(path).parents} - {"."}


def split(path: str) -> tuple[str, str]:
    """Split a path into folder, ``""`` for the root, and name."""
    folder, _, name = path.rpartition("/")
    return folder, name


def _depth(folder: str) -> int:
    """Count path segments; the root has none."""
    return folder.count("/") + 1 if folder else 0

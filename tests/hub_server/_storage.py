"""What the hub keeps, on disk: file contents by SHA-256, commits as JSON trees, refs and tags.

::

    blobs/ab/abcd...                        contents
    repos/<namespace>/<name>/repo.json      visibility, head of main, tags
    repos/<namespace>/<name>/commits/*.json one commit each, with its whole tree
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from . import _git
from ._errors import EntryNotFound, HubError, RepoExists, RepoNotFound, RevisionNotFound

BRANCH = "main"

# What the Hub puts into every new repository, shortened to the file types that matter here.
LFS_SUFFIXES = ("7z", "bin", "gz", "h5", "h5ad", "npy", "npz", "onnx", "parquet", "pt", "safetensors", "tar", "zip")
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}/[A-Za-z0-9][\w.\-]{0,95}")
_TAG = re.compile(r"[A-Za-z0-9][\w.+\-]*(/[A-Za-z0-9][\w.+\-]*)*")
_COMMIT = re.compile(r"[0-9a-f]{5,40}")


@dataclass(frozen=True)
class File:
    """One file of a commit: its size, the SHA-256 of its content, its git blob id, and whether git holds a pointer."""

    size: int
    sha256: str
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Commit:
    """One commit with its whole tree, path to file."""

    oid: str
    parent: str | None
    message: str
    author: str
    timestamp: int
    tree: dict[str, File] = field(repr=False)

    @property
    def title(self) -> str:
        """First line of the message."""
        return self.message.partition("\n")[0]

    @cached_property
    def folders(self) -> dict[str, str]:
        """Folder to git tree id; the root is ``""``."""
        return _git.tree_ids({path: file.oid for path, file in self.tree.items()})


@dataclass(frozen=True)
class Repo:
    """The state of one repository: everything about it that can change."""

    id: str
    private: bool
    gated: bool
    created_at: int
    head: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Put:
    """Set one file of the next commit."""

    path: str
    file: File


@dataclass(frozen=True)
class Delete:
    """Remove one file, or one folder and all below it, in the next commit."""

    path: str
    folder: bool = False


class Storage:
    """Repositories under one folder; every method may be called from any thread.

    Parameters
    ----------
    root
        Folder, created where absent. A second `Storage` on the same folder finds everything again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._repos = root / "repos"
        self._lock = threading.RLock()
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._repos.mkdir(parents=True, exist_ok=True)

    # contents

    def blob(self, sha256: str) -> Path:
        """Return where the content with this digest lies, or would lie."""
        return self._blobs / sha256[:2] / sha256

    def add(self, content: bytes) -> File:
        """Store a file that git holds itself."""
        sha256 = hashlib.sha256(content).hexdigest()
        if not self.blob(sha256).exists():
            _write(self.blob(sha256), content)
        return File(len(content), sha256, _git.object_id("blob", content), lfs=False)

    def add_large(self, sha256: str) -> File:
        """Refer to content that was uploaded before, as a file for which git holds a pointer.

        Raises
        ------
        HubError
            400 where no such content was uploaded.
        """
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not self.blob(sha256).exists():
            raise HubError(400, f"LFS pointer points to a file that was not uploaded: {sha256}")
        size = self.blob(sha256).stat().st_size
        return File(size, sha256, _git.object_id("blob", _git.lfs_pointer(sha256, size)), lfs=True)

    # repositories

    def create(self, repo_id: str, *, private: bool = False, author: str) -> Repo:
        """Create a repository with the Hub's first commit.

        Raises
        ------
        HubError
            400 where the name is malformed, 409 where the repository exists.
        """
        if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
            raise HubError(400, f"Invalid repository name: {repo_id}")
        with self._lock:
            if (self._folder(repo_id) / "repo.json").exists():
                raise RepoExists(repo_id)
            tree = {".gitattributes": self.add(GITATTRIBUTES)}
            first = self._write_commit(repo_id, tree, parent=None, message="initial commit", author=author)
            repo = Repo(repo_id, private, gated=False, created_at=first.timestamp, head=first.oid)
            return self._save(repo)

    def delete(self, repo_id: str) -> None:
        """Remove a repository; contents stay, other repositories may share them."""
        with self._lock:
            self.repo(repo_id)
            shutil.rmtree(self._folder(repo_id))

    def repo(self, repo_id: str) -> Repo:
        """Return the state of a repository.

        Raises
        ------
        HubError
            404 ``RepoNotFound``.
        """
        state = self._folder(repo_id) / "repo.json"
        # The name comes from a URL: only one that could have been created may reach the disk.
        if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or not state.exists():
            raise RepoNotFound()
        return Repo(**_read(state))

    def repos(self) -> list[Repo]:
        """Return all repositories, by name."""
        return [Repo(**_read(state)) for state in sorted(self._repos.glob("*/*/repo.json"))]

    def update(self, repo_id: str, *, private: bool | None = None, gated: bool | None = None) -> Repo:
        """Change who may see or download a repository; None leaves a setting alone."""
        with self._lock:
            repo = self.repo(repo_id)
            return self._save(
                replace(
                    repo,
                    private=repo.private if private is None else private,
                    gated=repo.gated if gated is None else gated,
                )
            )

    # history

    def commit(
        self, repo_id: str, changes: Sequence[Put | Delete], *, message: str, author: str, parent: str | None = None
    ) -> Commit:
        """Add one commit to main: all changes, in order, or none.

        Parameters
        ----------
        repo_id
            Repository.
        changes
            Files to set and to remove.
        message
            Title, and after an empty line the description.
        author
            Name of the user.
        parent
            Commit, full or abbreviated, that main must still point to; None takes any.

        Raises
        ------
        HubError
            412 where main has moved on from `parent`, 400 for a path that git could not hold, 404 for a removal of
            what is not there.
        """
        with self._lock:
            repo = self.repo(repo_id)
            if parent is not None and not repo.head.startswith(parent.lower()):
                raise HubError(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(self.resolve(repo_id, repo.head).tree)
            for change in changes:
                _apply(change, tree)
            made = self._write_commit(repo_id, tree, parent=repo.head, message=message, author=author)
            self._save(replace(repo, head=made.oid))
            return made

    def resolve(self, repo_id: str, revision: str) -> Commit:
        """Return the commit that a branch, a tag, or a full or abbreviated commit id names.

        Raises
        ------
        HubError
            404 ``RevisionNotFound``, also for an ambiguous abbreviation.
        """
        repo = self.repo(repo_id)
        oid = repo.head if revision == BRANCH else repo.tags.get(revision, revision)
        found = list(self._commits(repo_id).glob(f"{oid}*.json")) if _COMMIT.fullmatch(oid) else []
        if len(found) != 1:
            raise RevisionNotFound(revision)
        stored = _read(found[0])
        tree = {path: File(**file) for path, file in stored.pop("tree").items()}
        return Commit(**stored, tree=tree)

    def history(self, repo_id: str, revision: str = BRANCH) -> Iterator[Commit]:
        """Yield a commit and its ancestors, newest first."""
        oid: str | None = revision
        while oid is not None:
            commit = self.resolve(repo_id, oid)
            yield commit
            oid = commit.parent

    def tag(self, repo_id: str, tag: str, revision: str) -> Repo:
        """Point a new tag at a revision.

        Raises
        ------
        HubError
            400 for a malformed name, 409 where the tag exists, 404 where the revision does not.
        """
        if not _TAG.fullmatch(tag) or ".." in tag or tag.endswith((".", ".lock")) or tag == BRANCH:
            raise HubError(400, f"Invalid tag name: {tag}")
        with self._lock:
            target = self.resolve(repo_id, revision).oid
            repo = self.repo(repo_id)
            if tag in repo.tags:
                raise HubError(409, f"Tag reference exists already: {tag}")
            return self._save(replace(repo, tags={**repo.tags, tag: target}))

    def untag(self, repo_id: str, tag: str) -> Repo:
        """Remove a tag; 404 ``RevisionNotFound`` where there is none."""
        with self._lock:
            repo = self.repo(repo_id)
            if tag not in repo.tags:
                raise RevisionNotFound(tag)
            return self._save(replace(repo, tags={name: oid for name, oid in repo.tags.items() if name != tag}))

    def _folder(self, repo_id: str) -> Path:
        """Return the folder of a repository."""
        return self._repos / repo_id

    def _commits(self, repo_id: str) -> Path:
        """Return the folder of a repository's commits."""
        return self._folder(repo_id) / "commits"

    def _save(self, repo: Repo) -> Repo:
        """Store the state of a repository."""
        _write(self._folder(repo.id) / "repo.json", _dump(asdict(repo)))
        return repo

    def _write_commit(
        self, repo_id: str, tree: dict[str, File], *, parent: str | None, message: str, author: str
    ) -> Commit:
        """Store a commit; main does not point to it yet."""
        timestamp = int(time.time())
        draft = Commit("", parent, message, f"{author} <{author}@localhost>", timestamp, tree)
        oid = _git.commit_id(
            tree=draft.folders[""], parent=parent, author=draft.author, timestamp=timestamp, message=message
        )
        commit = replace(draft, oid=oid)
        _write(self._commits(repo_id) / f"{oid}.json", _dump(asdict(commit)))
        return commit


def check_path(path: str) -> str:
    """Return the path of a file in a repository, or refuse with 400 one that would leave it or that git cannot hold."""
    parts = path.split("/")
    if (
        not path.isprintable()
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(character in path for character in '\\"')
        or re.match("[A-Za-z]:", path)
    ):
        raise HubError(400, f"Invalid path in commit: {path!r}")
    return path


def _apply(change: Put | Delete, tree: dict[str, File]) -> None:
    """Apply one change to a tree in place."""
    path = check_path(change.path.rstrip("/") if isinstance(change, Delete) else change.path)
    inside = [other for other in tree if other.startswith(f"{path}/")]
    if isinstance(change, Put):
        if inside or any(parent in tree for parent in _git.folders({path: None})):
            raise HubError(400, f"Invalid path in commit: {path!r} is a file and a folder")
        tree[path] = change.file
        return
    doomed = inside if change.folder else [path]
    if not doomed or any(other not in tree for other in doomed):
        raise EntryNotFound(f"A file with this name doesn't exist: {path}")
    for other in doomed:
        del tree[other]


def _dump(value: Any) -> bytes:
    """Return a value as JSON that does not depend on the order of keys."""
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _read(path: Path) -> dict[str, Any]:
    """Read what `_dump` wrote."""
    value: dict[str, Any] = json.loads(path.read_bytes())
    return value


def _write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".incoming-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    Path(temporary).replace(path)

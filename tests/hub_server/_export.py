"""A repository as a git checkout, commit for commit, for other servers and tools that read git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from . import _git
from ._storage import BRANCH, Commit, Storage


def export_git(storage: Storage, repo_id: str, dest: Path) -> Path:
    """Write a repository as ``git clone`` with git-lfs would: same commit ids, tags, plain files in the work tree.

    Parameters
    ----------
    storage
        Where the repository lies.
    repo_id
        Repository.
    dest
        Folder, must not exist.

    Returns
    -------
    `dest`. Large files are pointers in git, and lie under ``.git/lfs/objects``; git-lfs itself is not needed.
    """
    dest.mkdir(parents=True)
    commits = list(storage.history(repo_id))[::-1]
    _run_git(dest, "init", "--quiet", f"--initial-branch={BRANCH}")
    _run_git(dest, "fast-import", "--quiet", stdin=b"".join(_stream(storage, commits, storage.repo(repo_id).tags)))
    _run_git(dest, "read-tree", "HEAD")
    for commit in commits:
        for file in commit.tree.values():
            if file.lfs:
                _copy(storage.blob(file.sha256), dest / ".git/lfs/objects" / _fan_out(file.sha256))
    for path, file in commits[-1].tree.items():
        _copy(storage.blob(file.sha256), dest / path)
    return dest


def _stream(storage: Storage, commits: list[Commit], tags: dict[str, str]) -> Iterator[bytes]:
    """Yield the history in git's fast-import format."""
    marks = {commit.oid: f":{n}" for n, commit in enumerate(commits, start=1)}
    for commit in commits:
        message = commit.message.encode()
        yield f"commit refs/heads/{BRANCH}\nmark {marks[commit.oid]}\n".encode()
        yield f"committer {commit.author} {commit.timestamp} +0000\n".encode()
        yield b"data %d\n%s\n" % (len(message), message)
        if commit.parent:
            yield f"from {marks[commit.parent]}\n".encode()
        yield b"deleteall\n"
        for path, file in commit.tree.items():
            content = _git.lfs_pointer(file.sha256, file.size) if file.lfs else storage.blob(file.sha256).read_bytes()
            yield f"M 100644 inline {path}\n".encode()
            yield b"data %d\n%s\n" % (len(content), content)
    for name, target in tags.items():
        yield f"reset refs/tags/{name}\nfrom {marks[target]}\n\n".encode()


def _run_git(folder: Path, *arguments: str, stdin: bytes = b"") -> None:
    """Run git without the settings of the user and the machine: their hooks and filters must not change the outcome."""
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(["git", "-C", str(folder), *arguments], input=stdin, capture_output=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"git {arguments[0]} failed in {folder}: {done.stderr.decode(errors='replace').strip()}")


def _copy(source: Path, target: Path) -> None:
    """Copy a file into a folder that need not exist."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _fan_out(sha256: str) -> Path:
    """Return where git-lfs keeps an object."""
    return Path(sha256[:2]) / sha256[2:4] / sha256

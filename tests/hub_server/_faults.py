"""What tests of integrity need: a log of all requests, failures to come, and files served with a flipped byte."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple


class LoggedRequest(NamedTuple):
    """One request as it came in: ``HEAD``, ``/zoo/a/resolve/main/card.json`` (still quoted, without the query)."""

    method: str
    path: str


class Faults:
    """The request log and the faults to inject.

    Parameters
    ----------
    folder
        Where corrupted copies are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[LoggedRequest] = []
        self._folder = folder
        self._lock = threading.Lock()
        self._failures: deque[int] = deque()
        self._corrupted: dict[tuple[str, str], int | None] = {}

    def fail_next(self, n: int, status: int) -> None:
        """Answer the next `n` requests with `status`, after those promised before."""
        with self._lock:
            self._failures.extend([status] * n)

    def corrupt(self, repo_id: str, path: str, at: int | None) -> None:
        """Serve a file with one byte flipped, the middle one where `at` is None."""
        with self._lock:
            self._corrupted[repo_id, path] = at

    def heal(self) -> None:
        """Forget all faults that were to come."""
        with self._lock:
            self._failures.clear()
            self._corrupted.clear()

    def log(self, method: str, path: str) -> int | None:
        """Log a request; return the status with which it shall fail, if it shall."""
        with self._lock:
            self.requests.append(LoggedRequest(method, path))
            return self._failures.popleft() if self._failures else None

    def served(self, repo_id: str, path: str, blob: Path) -> Path:
        """Return the file to send for `blob`: itself, or a copy with one byte flipped."""
        with self._lock:
            if (repo_id, path) not in self._corrupted:
                return blob
            content = bytearray(blob.read_bytes())
            at = self._corrupted[repo_id, path]
            content[len(content) // 2 if at is None else at] ^= 0xFF
            self._folder.mkdir(parents=True, exist_ok=True)
            copy = self._folder / f"{blob.name}-{at}"
            copy.write_bytes(content)
            return copy

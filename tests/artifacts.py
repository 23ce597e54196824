"""Tiny artifacts on disk, and evidence for them, for the tests of stores and of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tiny import tiny_manifold

from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge
from manifoldzoo.manifolds._format import CRITICAL, MANIFEST
from manifoldzoo.manifolds._manifold import Manifold

FILES = (MANIFEST, *CRITICAL)


def write_tiny(folder: Path, name: str = "tiny", version: str = "0.1.0", **changes: object) -> Path:
    """The tiny manifold as an artifact folder; equal arguments give equal bytes."""
    return tiny_manifold(name=name, version=version, **changes).save(folder)


def passing_run(manifold: Manifold, *, rung: int = 3, through: int | None = None) -> EvidenceRun:
    """A validation run that reaches a rung and no higher, without its cost; the real ladder has tests of its own."""
    values = dict.fromkeys(range(1, (through or rung) + 1), 0.1) | dict.fromkeys(range(1, rung + 1), 1.0)
    return EvidenceRun(
        artifact_digest=manifold.digest,
        reference=f"{manifold.name}@{manifold.version}",
        started=datetime.now(UTC),
        seconds=0.0,
        software={"python": "3"},
        rungs=[conclude(number, [judge("made up", value, ">=", 0.5)]) for number, value in sorted(values.items())],
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path, at: int | None = None) -> None:
    """Flip one bit of a file, through a link where it is one; in the middle where ``at`` is None."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.resolve().write_bytes(content)

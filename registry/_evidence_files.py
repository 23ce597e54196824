"""Evidence beside an artifact: reading, adding, and the figures and README that go with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..cards._errors import FormatError
from ..cards._evidence import EvidenceRun, counted_rung
from ..cards._readme import render_readme
from ..gates._stored import Contradiction, contradictions
from ..manifolds._files import write_bytes
from ..manifolds._format import README

if TYPE_CHECKING:
    from ..manifolds._manifold import Manifold


def read_evidence(folder: Path, digest: str) -> list[EvidenceRun]:
    """Read the validation runs beside an artifact that are bound to its digest, oldest first.

    Raises
    ------
    FormatError
        If a file is not a validation run, or its statuses contradict its own numbers.
    """
    runs = [run for run in read_evidence_files(folder).values() if run.artifact_digest == digest]
    return sorted(runs, key=lambda run: run.started)


def read_evidence_files(folder: Path) -> dict[Path, EvidenceRun]:
    """Read every validation run beside an artifact, whatever its digest, by file.

    Raises
    ------
    FormatError
        If a file is not a validation run, or its statuses contradict its own numbers.
    """
    runs = {}
    for path in sorted((folder / "evidence").glob("*.json")):
        try:
            runs[path] = EvidenceRun.model_validate(json.loads(path.read_bytes()))
        except (ValueError, RecursionError) as error:
            detail = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise FormatError(
                f"evidence/{path.name} is not a valid validation run: {detail}.",
                "Delete it and run `manifoldzoo validate`.",
            ) from error
    return runs


def add_evidence(folder: Path, run: EvidenceRun) -> Path:
    """Write a validation run to ``evidence/`` under a name made of its start and digest."""
    name = f"{run.started:%Y%m%dT%H%M%S.%fZ}-{run.artifact_digest[:12]}.json"
    path = folder / "evidence" / name
    write_bytes(path, json.dumps(run.model_dump(mode="json"), indent=1, allow_nan=False).encode() + b"\n")
    return path


def contradicted_evidence(folder: Path, run: EvidenceRun) -> dict[Path, list[Contradiction]]:
    """Find the stored runs that say otherwise than one that was just made, with what they say.

    Raises
    ------
    FormatError
        If a file is not a validation run, or its statuses contradict its own numbers.
    """
    found = {path: contradictions(run, stored) for path, stored in read_evidence_files(folder).items()}
    return {path: said for path, said in found.items() if said}


def highest_rung(folder: Path, digest: str) -> int:
    """Highest rung that any run bound to the digest reached, but for runs on cells of its user's own."""
    return max((counted_rung(run) for run in read_evidence(folder, digest)), default=0)


def write_readme(folder: Path, manifold: Manifold) -> Path:
    """Render the README from the card and the evidence beside it."""
    figures = sorted(path.name for path in (folder / "figures").glob("*") if path.suffix in (".png", ".svg"))
    text = render_readme(manifold.card, manifold.digest, read_evidence(folder, manifold.digest), figures)
    write_bytes(folder / README, text.encode())
    return folder / README

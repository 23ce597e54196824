"""What there is: the list of manifolds, and all that is known of one."""

from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path
from typing import Any

from ..cards._errors import IntegrityWarning, ZooError
from ..cards._evidence import counted_rung
from ..manifolds._format import read_card
from ._evidence_files import highest_rung, read_evidence
from ._index import read_index
from ._resolve import candidates, locate


def list_manifolds(pattern: str = "*") -> list[dict[str, Any]]:
    """List every version known on this machine: bundled, local, and in the index; no network.

    Parameters
    ----------
    pattern
        Shell pattern on the name; a plain word also matches inside names.

    Returns
    -------
    One mapping each, sorted by name and version: ``name``, ``version``, ``title``, ``rung`` (highest reached),
    ``size_bytes``, ``source_model``, ``ruler`` (its kind), ``parent``, ``store``, ``digest``.

    Warns
    -----
    IntegrityWarning
        For an artifact that is damaged and left out.
    """
    glob = pattern if any(character in pattern for character in "*?[") else f"*{pattern}*"
    indexed = {(entry.name, entry.version): entry for entry in read_index().entries}
    rows = []
    for found in candidates():
        if not fnmatch.fnmatchcase(found.name, glob):
            continue
        row: dict[str, Any] = {"name": found.name, "version": str(found.version), "store": found.store}
        if found.folder is not None:
            try:
                card, manifest = read_card(found.folder)
                rung = highest_rung(found.folder, manifest.digest)
            except ZooError as error:
                # one damaged artifact must not hide the others
                warnings.warn(
                    f"{found.name}@{found.version} is left out of the list: {error}", IntegrityWarning, stacklevel=2
                )
                continue
            row |= {
                "title": card.title,
                "rung": rung,
                "size_bytes": sum(entry.size for entry in manifest.files),
                "source_model": card.source_model.name,
                "ruler": card.ruler.kind,
                "parent": card.parent,
                "digest": manifest.digest,
            }
        else:
            entry = indexed[found.name, str(found.version)]
            shown = {"rung", "size_bytes", "source_model", "ruler", "parent", "digest"}
            row |= {"title": entry.repo_id, **entry.model_dump(include=shown)}
        rows.append(row)
    return rows


def info(reference: str | Path, *, offline: bool | None = None) -> dict[str, Any]:
    """Tell all that is known of a manifold without loading its tensors.

    Parameters
    ----------
    reference
        See ``load``.
    offline
        Use what is on this machine only.

    Returns
    -------
    ``reference``, ``store``, ``origin``, ``commit``, ``digest``, ``rung``, ``ruler`` (its kind), ``size_bytes``,
    ``files``, ``index_age_days``, ``card`` and ``evidence`` (all runs bound to the digest).

    Raises
    ------
    NotFoundError, StoreError, FormatError, IntegrityError
        As ``load``.
    """
    location = locate(reference, offline=offline, everything=True)
    card, manifest = read_card(location.folder, links_into=location.links_into)
    evidence = read_evidence(location.folder, manifest.digest)
    return {
        "reference": f"{card.name}@{card.version}",
        "store": location.store,
        "origin": location.origin,
        "commit": location.commit,
        "digest": manifest.digest,
        "rung": max((counted_rung(run) for run in evidence), default=0),
        "ruler": card.ruler.kind,
        "size_bytes": sum(entry.size for entry in manifest.files),
        "files": [{"name": entry.name, "size": entry.size, "sha256": entry.sha256} for entry in manifest.files],
        "index_age_days": round(read_index().age_days, 2),
        "card": card.model_dump(mode="json"),
        "evidence": [run.model_dump(mode="json") for run in evidence],
    }

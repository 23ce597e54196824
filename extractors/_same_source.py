"""Whether files and panels are those that a card names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..cards._card import BesidePanel, PanelFileEntry
from ..cards._errors import PanelError
from ..cards._names import sha256_file
from ..manifolds._panel_spec import PanelSet, find_panel_files


def match_files(entries: Sequence[PanelFileEntry], paths: Sequence[Path]) -> list[Path]:
    """Put files into the order of a card.

    Parameters
    ----------
    entries
        Files of the extraction panel, as the card names them.
    paths
        The same files in any order.

    Returns
    -------
    The paths in the order of the entries.

    Raises
    ------
    PanelError
        If a file was changed or renamed, is none of the card's, or one of these is missing.
    """
    digests = {path: sha256_file(path) for path in paths}
    wanted = {entry.sha256: entry.name for entry in entries}
    for path, digest in digests.items():
        if digest in wanted and path.name != wanted[digest]:
            raise PanelError(
                f"{str(path)!r} is {wanted[digest]!r} of the card under another name, and the name is on the card too.",
                f"Call it {wanted[digest]!r} again.",
            )
    for entry in entries:
        namesake = next((path for path in paths if path.name == entry.name), None)
        if entry.sha256 in digests.values():
            continue
        if namesake is None:
            raise PanelError(
                f"The card's file {entry.name!r} with the SHA-256 {entry.sha256[:12]} is not among those given.",
                f"Name it with --cells; the card says it is from {entry.source or 'an unknown source'}.",
            )
        _refuse_changed(namesake, digests[namesake], entry)
    found: dict[str, Path] = {}
    for path in paths:
        if digests[path] not in wanted:
            raise PanelError(f"{str(path)!r} is none of the card's files.", "Leave it out.")
        if digests[path] in found:
            raise PanelError(f"{str(path)!r} was given twice.", "Name it once.")
        found[digests[path]] = path
    return [found[entry.sha256] for entry in entries]


def check_panels(entries: Sequence[BesidePanel], spec: PanelSet | None, data: Path | None) -> None:
    """Refuse a specification whose panels are not those that travel with an artifact.

    Parameters
    ----------
    entries
        Panels beside the extraction panel, as the card names them.
    spec, data
        Specification and folder of its files; ``None`` where there is none.

    Raises
    ------
    PanelError
        If panels are missing or too many, are specified otherwise, or a file is missing or was changed.
    """
    beside = () if spec is None else tuple(panel for panel in spec.panels if panel.role != "extraction")
    given, wanted = [panel.name for panel in beside], [entry.name for entry in entries]
    if given != wanted:
        hint = "Name their specification with --panels SPEC." if wanted else "Leave --panels out."
        said = "and no specification was given" if spec is None else f"the specification {given}"
        raise PanelError(f"The card has the panels {wanted} beside its own, {said}.", hint)
    folder = Path() if spec is None else spec.folder
    for panel, entry in zip(beside, entries, strict=True):
        if panel.digest != entry.specification:
            raise PanelError(
                f"The panel {panel.name!r} is specified otherwise than that of the card: its specification has the "
                f"SHA-256 {panel.digest[:12]}, the card's {entry.specification[:12]}.",
                "Use the specification that the artifact was extracted with.",
            )
        paths = find_panel_files(panel, folder, data)
        for path, file in zip(paths, entry.manifest.files, strict=True):
            _refuse_changed(path, sha256_file(path), file)


def _refuse_changed(path: Path, digest: str, entry: PanelFileEntry) -> None:
    """Refuse a file with another digest than the card's."""
    if digest != entry.sha256:
        raise PanelError(
            f"{str(path)!r} was changed: it has the SHA-256 {digest[:12]}, the artifact was extracted from "
            f"{entry.sha256[:12]}.",
            "Download it again, or use the version that the card names.",
        )

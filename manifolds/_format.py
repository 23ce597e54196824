"""Artifact format 4: one folder, a manifest, and checks that come before any parsing."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..cards._card import Card, parse_card
from ..cards._errors import FormatError, FutureFormatError, IntegrityError, NotFoundError, UnsafeFileError
from ..cards._names import canonical_json, sha256_bytes

FORMAT_VERSION = 4
WITH_CELL_IDS = 3
"""The first format that holds the plan of the evidence and hashed cell ids."""
MANIFEST = "MANIFEST.json"
TENSORS = "manifold.safetensors"
CARD = "card.json"
GENES = "genes.tsv"
VECTORS = "test_vectors.safetensors"
CRITICAL = (CARD, GENES, TENSORS, VECTORS)
README = "README.md"
MAX_FILE_SIZE = 2**31
MAX_TEXT_SIZE = 2**24

_BESIDE = re.compile(r"^(README\.md|evidence/[A-Za-z0-9._-]+\.json|figures/[A-Za-z0-9._-]+\.(png|svg))$")
_IGNORED = frozenset({".gitattributes"})
_PICKLES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib", ".npy", ".npz", ".h5ad", ".ckpt"})

MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    # format 2 only added to the card, panels and choice among others; what is absent has a default
    1: lambda card: card | {"card_version": 2} if card.get("card_version") == 1 else card,
    # format 3 added the plan of the evidence to the card, and hashed cell ids to the tensors; both may be absent
    2: lambda card: card | {"card_version": 3} if card.get("card_version") == 2 else card,
    # format 4 added other kinds of rulers and heads, gene programs and scored labels; what is absent has a default
    3: lambda card: card | {"card_version": 4} if card.get("card_version") == 3 else card,
}
"""Card migrations by the format version they start from. To bump the format: raise ``FORMAT_VERSION``, add the
step from the old version here, and add a golden artifact of the old version to the tests."""


_ADDED: dict[int, dict[str, tuple[tuple[str, Any], ...]]] = {
    3: {"": (("evidence", None),)},
    4: {
        "": (("programs", []), ("scored_labels", None)),
        "ruler": (("kind", "stage-graph"), ("interaction", None)),
        "extraction.adaptor": (("n_reduced", None), ("n_landmarks", None), ("n_pieces", None)),
        "extraction.choice.candidates": (("adaptor", None), ("n_neighbours", None)),
    },
}
"""What each format added to the card of the one before: by the place of a table or list of tables, names and what
absence means."""


@dataclass(frozen=True)
class FileEntry:
    """One load-critical file as the manifest lists it."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The load-critical files of an artifact; the digest of its canonical JSON is the artifact's identity."""

    files: tuple[FileEntry, ...]
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        listed = [
            {"name": f.name, "size": f.size, "sha256": f.sha256} for f in sorted(self.files, key=lambda f: f.name)
        ]
        return canonical_json({"format_version": self.format_version, "files": listed})

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return sha256_bytes(self.to_bytes())

    @classmethod
    def of(cls, contents: Mapping[str, bytes], format_version: int = FORMAT_VERSION) -> Manifest:
        """Manifest of load-critical contents by file name."""
        entries = (FileEntry(name, len(contents[name]), sha256_bytes(contents[name])) for name in sorted(contents))
        return cls(tuple(entries), format_version)

    @classmethod
    def parse(cls, content: bytes) -> Manifest:
        """Parse and check a manifest.

        Raises
        ------
        FutureFormatError
            If a newer version wrote it.
        UnsafeFileError
            If a name leaves the folder.
        FormatError
            If anything else is wrong with it.
        """
        try:
            document = json.loads(content)
            version = document["format_version"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise FormatError(f"{MANIFEST} is not a manifest: {error!r}.") from error
        if type(version) is not int or version < 1:
            raise FormatError(f"{MANIFEST} has format_version {version!r}, expected a positive integer.")
        if version > FORMAT_VERSION:
            raise FutureFormatError(
                f"The artifact has format {version}, this manifoldzoo reads up to {FORMAT_VERSION}.",
                "Run `pip install --upgrade manifoldzoo`.",
            )
        files = document.get("files")
        if not isinstance(files, list):
            raise FormatError(f"{MANIFEST} lists no files.")
        entries = tuple(_parse_entry(entry) for entry in files)
        names = sorted(entry.name for entry in entries)
        if names != sorted(CRITICAL):
            raise FormatError(f"{MANIFEST} lists {names}, expected exactly {sorted(CRITICAL)}.")
        manifest = cls(entries, version)
        if manifest.to_bytes() != content:
            raise FormatError(f"{MANIFEST} is not canonical JSON, so its digest would not be the artifact's.")
        return manifest


@dataclass(frozen=True)
class FileCheck:
    """Outcome of holding one file against the manifest: ``ok``, ``missing`` or ``changed``."""

    name: str
    status: str
    size: int | None
    sha256: str | None


def check_path(name: str) -> PurePosixPath:
    """Return a safe relative POSIX path.

    Raises
    ------
    UnsafeFileError
        For absolute paths, ``..``, backslashes, drive letters, control characters and empty parts.
    """
    path = PurePosixPath(name)
    bad = (
        not name
        or name.startswith("/")
        or "\\" in name
        or ":" in name
        or any(part in ("", ".", "..") for part in name.split("/"))
        or any(ord(character) < 32 for character in name)
    )
    if bad:
        raise UnsafeFileError(f"{name!r} is not a safe file name inside an artifact.")
    return path


def list_artifact(folder: Path, *, links_into: Path | None = None) -> list[str]:
    """List the files of an artifact folder after checking every name, without opening any.

    Parameters
    ----------
    folder
        The artifact.
    links_into
        A folder that symbolic links may lead into: the blobs of the Hub cache. Otherwise links are refused.

    Raises
    ------
    NotFoundError
        If there is no such folder.
    UnsafeFileError
        For links, pickles, code and devices.
    FormatError
        For any other file that the format does not know.
    """
    if not folder.is_dir():
        raise NotFoundError(f"There is no artifact folder {str(folder)!r}.", "Check the path.")
    found = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in _IGNORED or name.startswith(".cache/huggingface/") or name in (".cache", ".cache/huggingface"):
            continue
        if path.is_symlink():
            if links_into is None or not _leads_into(path, links_into):
                raise UnsafeFileError(f"{name!r} is a symbolic link; artifacts hold plain files only.")
        elif path.is_dir():
            if name not in ("evidence", "figures"):
                raise FormatError(f"{name!r} is not a folder that the artifact format knows.")
            continue
        elif not stat.S_ISREG(path.lstat().st_mode):
            raise UnsafeFileError(f"{name!r} is not a plain file.")
        check_member(name)
        found.append(name)
    return found


def check_member(name: str) -> None:
    """Refuse a file that has no place in an artifact, by its name.

    Raises
    ------
    UnsafeFileError
        For unsafe paths and for formats that can carry code.
    FormatError
        For any other unknown name.
    """
    path = check_path(name)
    if name == MANIFEST or name in CRITICAL or _BESIDE.match(name):
        return
    if path.suffix.lower() in _PICKLES or path.suffix.lower() in (".py", ".sh", ".so", ".js", ".html"):
        raise UnsafeFileError(
            f"{name!r} can carry code; artifacts hold safetensors, JSON, TSV, Markdown and figures only."
        )
    raise FormatError(f"{name!r} is not a file that the artifact format knows.")


def read_verified(folder: Path, *, links_into: Path | None = None) -> tuple[Manifest, dict[str, bytes]]:
    """Read the load-critical files and return them only if every digest holds.

    The bytes that were hashed are the bytes returned, so nothing can change in between.

    Raises
    ------
    IntegrityError
        If a file is missing or differs; ``error.files`` names all of them.
    FormatError, UnsafeFileError, FutureFormatError, NotFoundError
        As ``list_artifact`` and ``Manifest.parse``.
    """
    names, manifest = _open(folder, links_into)
    contents, damaged = {}, []
    for entry in manifest.files:
        path = folder / entry.name
        if entry.name not in names or path.stat().st_size != entry.size:
            damaged.append(entry.name)
            continue
        content = _read(path, MAX_FILE_SIZE)
        if sha256_bytes(content) != entry.sha256:
            damaged.append(entry.name)
        contents[entry.name] = content
    if damaged:
        raise IntegrityError(
            f"{', '.join(damaged)} in {str(folder)!r} does not match its recorded digest.",
            "Fetch the artifact again; do not use this copy.",
            files=tuple(damaged),
        )
    if not _agree(manifest, contents[CARD]):
        raise FormatError(f"{MANIFEST} gives format {manifest.format_version}, which is not that of {CARD}.")
    return manifest, contents


def check_files(folder: Path, *, links_into: Path | None = None) -> list[FileCheck]:
    """Hold every file against the manifest, without raising for a mismatch."""
    names, manifest = _open(folder, links_into)
    card = _read(folder / CARD, MAX_TEXT_SIZE) if CARD in names else b""
    recorded = next(entry.sha256 for entry in manifest.files if entry.name == CARD)
    # a card that was changed itself says nothing of the manifest
    status = "changed" if sha256_bytes(card) == recorded and not _agree(manifest, card) else "ok"
    # a manifest that parses is canonical, so these are the bytes of the file
    checks = [FileCheck(MANIFEST, status, len(manifest.to_bytes()), manifest.digest)]
    for entry in manifest.files:
        if entry.name not in names:
            checks.append(FileCheck(entry.name, "missing", None, None))
            continue
        found = _read(folder / entry.name, MAX_FILE_SIZE)
        digest = sha256_bytes(found)
        checks.append(FileCheck(entry.name, "ok" if digest == entry.sha256 else "changed", len(found), digest))
    return checks


def read_card(folder: Path, *, links_into: Path | None = None) -> tuple[Card, Manifest]:
    """Read the card and the manifest alone, the card verified: what listing needs, without loading tensors.

    Raises
    ------
    IntegrityError
        If the card differs from its digest.
    FormatError, UnsafeFileError, FutureFormatError, NotFoundError
        As ``read_verified``.
    """
    names, manifest = _open(folder, links_into)
    entry = next(entry for entry in manifest.files if entry.name == CARD)
    content = _read(folder / CARD, MAX_TEXT_SIZE) if CARD in names else b""
    if sha256_bytes(content) != entry.sha256:
        raise IntegrityError(
            f"{CARD} in {str(folder)!r} does not match its recorded digest.", "Fetch the artifact again.", files=(CARD,)
        )
    if not _agree(manifest, content):
        raise FormatError(f"{MANIFEST} gives format {manifest.format_version}, which is not that of {CARD}.")
    return decode_card(content, manifest), manifest


def decode_card(content: bytes, manifest: Manifest) -> Card:
    """Parse a card of any format up to the current one.

    Raises
    ------
    FormatError
        If it is not JSON or fails the schema.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{CARD} is not JSON: {error}.") from error
    return parse_card(migrate(document, manifest.format_version) if isinstance(document, dict) else document)


def migrate(card: dict[str, Any], version: int) -> dict[str, Any]:
    """Bring a card document of an older format to the current one."""
    for step in range(version, FORMAT_VERSION):
        card = MIGRATIONS[step](card)
    return card


def _agree(manifest: Manifest, card: bytes) -> bool:
    """Whether a card is of the manifest's format, as far as it says: nothing else tells a version that was altered."""
    try:
        document = json.loads(card)
    except (ValueError, RecursionError):
        return True
    told = document.get("card_version") if isinstance(document, dict) else None
    return type(told) is not int or told == manifest.format_version


def written_as(version: int) -> int:
    """Format that an artifact read from a format is written in: its own, or the current one where it is too old."""
    return version if version >= 2 else FORMAT_VERSION


def card_as_of(document: dict[str, Any], version: int) -> dict[str, Any]:
    """Bring a card document of the current format to an older one that is still written.

    Raises
    ------
    FormatError
        If it says what that format has no field for.
    """
    if version == FORMAT_VERSION:
        return document
    older = deepcopy(document) | {"card_version": version}
    for added in (fields for step, fields in _ADDED.items() if step > version):
        for place, names in added.items():
            for table in _tables(older, place):
                for name, absent in names:
                    if table.pop(name) != absent:
                        raise FormatError(
                            f"A card of format {version} has no field {name!r}.", "Extract the manifold again."
                        )
    return older


def _tables(document: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """Tables at a place of a card; none where it is null."""
    here: Any = document
    for step in filter(None, place.split(".")):
        here = here and here[step]
    return here if isinstance(here, list) else [here] if here else []


def _open(folder: Path, links_into: Path | None) -> tuple[list[str], Manifest]:
    """Names of the files of an artifact, checked, and its manifest."""
    names = list_artifact(folder, links_into=links_into)
    if MANIFEST not in names:
        raise FormatError(f"{str(folder)!r} holds no {MANIFEST}: it is not an artifact.")
    return names, Manifest.parse(_read(folder / MANIFEST, MAX_TEXT_SIZE))


def _parse_entry(entry: Any) -> FileEntry:
    """One entry of the manifest, checked."""
    if not isinstance(entry, dict) or set(entry) != {"name", "size", "sha256"}:
        raise FormatError(f"{MANIFEST} has the entry {entry!r}, expected name, size and sha256.")
    name, size, digest = entry["name"], entry["size"], entry["sha256"]
    if not isinstance(name, str):
        raise FormatError(f"{MANIFEST} has the name {name!r}, expected text.")
    check_path(name)
    if type(size) is not int or not 0 <= size <= MAX_FILE_SIZE:
        raise FormatError(f"{MANIFEST} gives {name!r} the size {size!r}, expected 0 to {MAX_FILE_SIZE}.")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise FormatError(f"{MANIFEST} gives {name!r} a digest that is not SHA-256.")
    return FileEntry(name, size, digest)


def _leads_into(link: Path, folder: Path) -> bool:
    """Whether a link ends at a plain file inside ``folder``."""
    try:
        target = link.resolve(strict=True)
    # Python before 3.13 raises RuntimeError for a link that leads to itself
    except (OSError, RuntimeError):
        return False
    return target.is_relative_to(folder.resolve()) and target.is_file()


def _read(path: Path, limit: int) -> bytes:
    """Read a file unless it is larger than an artifact's may be."""
    if path.stat().st_size > limit:
        raise FormatError(f"{path.name} is larger than {limit} bytes.")
    return path.read_bytes()

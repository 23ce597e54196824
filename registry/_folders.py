"""Stores that are folders: the bundled artifacts and the local store."""

from __future__ import annotations

import errno
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from ..cards._errors import PermissionDeniedError, StoreError, VersionConflictError
from ..cards._names import check_name, parse_version
from ._home import home


@dataclass(frozen=True)
class FolderStore:
    """Artifacts at ``root/<name>/<version>``.

    Attributes
    ----------
    label
        ``"bundled"`` or ``"local"``.
    root
        Where the artifacts lie.
    """

    label: str
    root: Path

    def entries(self) -> dict[tuple[str, Version], Path]:
        """Folder of every artifact by name and version."""
        found = {}
        for folder in sorted(self.root.glob("*/*")):
            if (folder / "MANIFEST.json").is_file():
                try:
                    found[check_name(folder.parent.name), parse_version(folder.name)] = folder
                except ValueError:
                    continue
        return found

    def put(self, source: Path, name: str, version: str) -> Path:
        """Copy a checked artifact folder in, whole or not at all.

        Raises
        ------
        VersionConflictError
            If that version is there already.
        PermissionDeniedError, StoreError
            If the store cannot be written.
        """
        target = self.root / name / version
        if target.exists():
            raise VersionConflictError(
                f"{name}@{version} exists already in {self.root}; versions are immutable.",
                "Raise the version and publish again.",
            )
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{version}.") as part:
                shutil.copytree(source, Path(part) / "artifact")
                (Path(part) / "artifact").rename(target)
        except PermissionError as error:
            raise PermissionDeniedError(f"{self.root} cannot be written: {error.strerror}.") from error
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and target.exists():
                raise VersionConflictError(
                    f"{name}@{version} was just published to {self.root} by somebody else."
                ) from error
            raise StoreError(f"{self.root} cannot be written: {error}.") from error
        return target


def bundled_store() -> FolderStore:
    """The artifacts inside the installed package."""
    return FolderStore("bundled", Path(__file__).resolve().parents[1] / "manifolds" / "bundled")


def local_store() -> FolderStore:
    """The artifacts published to this machine."""
    return FolderStore("local", home() / "store")

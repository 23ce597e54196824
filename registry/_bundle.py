"""Carrying artifacts to a machine without a network: one tar file."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..cards._errors import FormatError, NotFoundError, UnsafeFileError
from ..cards._names import check_name, parse_version
from ..manifolds._files import replacing
from ..manifolds._format import MAX_FILE_SIZE, check_member, list_artifact
from ..manifolds._manifold import Manifold
from ._folders import local_store
from ._resolve import locate, read_location


def bundle(references: Sequence[str], path: Path) -> list[str]:
    """Write verified artifacts with their evidence to one tar file; equal input gives equal bytes.

    Returns
    -------
    ``name@version`` of each.

    Raises
    ------
    NotFoundError, StoreError, IntegrityError, FormatError
        As ``load``.
    """
    packed = []
    with replacing(path) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for reference in references:
            location = locate(reference, everything=True)
            manifold = read_location(location)
            for name in list_artifact(location.folder, links_into=location.links_into):
                content = (location.folder / name).read_bytes()
                member = tarfile.TarInfo(f"{manifold.name}/{manifold.version}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            packed.append(f"{manifold.name}@{manifold.version}")
    return packed


def unbundle(path: Path) -> list[str]:
    """Unpack a bundle into the local store; every name is checked and every digest verified first.

    Returns
    -------
    ``name@version`` of each artifact that is now in the store; one that was there already with the same
    bytes is left alone.

    Raises
    ------
    NotFoundError
        If there is no such file.
    UnsafeFileError
        If a member is a link or leaves its folder.
    FormatError, IntegrityError
        If it is not a sound bundle.
    VersionConflictError
        If the store has the version with other bytes.
    """
    if not path.is_file():
        raise NotFoundError(f"There is no bundle {str(path)!r}.", "Check the path.")
    with tempfile.TemporaryDirectory(prefix="manifoldzoo-") as staging:
        folders = _extract(path, Path(staging))
        if not folders:
            raise FormatError(f"{str(path)!r} holds no artifact.")
        store, stored = local_store(), []
        for (name, version), folder in sorted(folders.items()):
            manifold = Manifold.read(folder)
            if (manifold.name, manifold.version) != (name, version):
                raise FormatError(f"{name}/{version} in the bundle holds {manifold.name}@{manifold.version}.")
            existing = store.entries().get((name, parse_version(version)))
            if existing is None or Manifold.read(existing).digest != manifold.digest:
                store.put(folder, name, version)
            stored.append(f"{name}@{version}")
    return stored


def _extract(path: Path, staging: Path) -> dict[tuple[str, str], Path]:
    """Write the members of a bundle below ``staging`` after checking each."""
    folders = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                parts = PurePosixPath(member.name).parts
                if not member.isreg() or len(parts) < 3 or member.size > MAX_FILE_SIZE:
                    raise UnsafeFileError(f"{member.name!r} in the bundle is not a plain file of an artifact.")
                name, version, inner = check_name(parts[0]), str(parse_version(parts[1])), "/".join(parts[2:])
                check_member(inner)
                target = staging / name / version / inner
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = archive.extractfile(member)
                target.write_bytes(stream.read() if stream else b"")
                folders[name, version] = staging / name / version
    except tarfile.TarError as error:
        raise FormatError(f"{str(path)!r} is not a tar file: {error}.") from error
    return folders

"""Carrying artifacts to a machine without a network: one tar file."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..cards._errors import FormatError, NotFoundError, UnsafeFileError, VersionConflictError
from ..cards._names import check_name, parse_version
from ..manifolds._files import replacing
from ..manifolds._format import check_member, check_path, list_artifact
from ..manifolds._manifold import Manifold
from ._folders import bundled_store, local_store
from ._resolve import Location, locate, read_location


def bundle(references: Sequence[str], path: str | Path) -> list[str]:
    """Write verified artifacts with their evidence to one tar file; equal input gives equal bytes.

    Returns
    -------
    ``name@version`` of each.

    Raises
    ------
    NotFoundError, StoreError, IntegrityError, FormatError
        As ``load``.
    """
    packed: dict[str, Location] = {}
    for reference in references:
        location = locate(reference, everything=True)
        manifold = read_location(location)
        packed.setdefault(f"{manifold.name}@{manifold.version}", location)
    with replacing(Path(path)) as part, tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as archive:
        for identity, location in packed.items():
            for name in list_artifact(location.folder, links_into=location.links_into):
                content = (location.folder / name).read_bytes()
                member = tarfile.TarInfo(f"{identity.replace('@', '/')}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return list(packed)


def unbundle(path: str | Path) -> list[str]:
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
    path = Path(path)
    if not path.is_file():
        raise NotFoundError(f"There is no bundle {str(path)!r}.", "Check the path.")
    with tempfile.TemporaryDirectory(prefix="manifoldzoo-") as staging:
        folders = _extract(path, Path(staging))
        if not folders:
            raise FormatError(f"{str(path)!r} holds no artifact.")
        new = {}
        for (name, version), folder in sorted(folders.items()):
            manifold = Manifold.read(folder)
            if (manifold.name, manifold.version) != (name, version):
                raise FormatError(f"{name}/{version} in the bundle holds {manifold.name}@{manifold.version}.")
            if not _is_here(manifold):
                new[name, version] = folder
        # nothing is stored before everything was found sound
        for (name, version), folder in new.items():
            local_store().put(folder, name, version)
    return [f"{name}@{version}" for name, version in sorted(folders)]


def _is_here(manifold: Manifold) -> bool:
    """Whether a store of this machine has the same artifact; refuse where it has another of that version."""
    for store in (bundled_store(), local_store()):
        folder = store.entries().get((manifold.name, parse_version(manifold.version)))
        if folder is not None:
            if Manifold.read(folder).digest != manifold.digest:
                raise VersionConflictError(
                    f"{manifold.name}@{manifold.version} exists already in {folder} with other bytes.",
                    "Versions are immutable: ask who made the bundle to raise the version.",
                )
            return True
    return False


def _extract(path: Path, staging: Path) -> dict[tuple[str, str], Path]:
    """Write the members of a bundle below ``staging`` after checking each."""
    folders = {}
    with path.open("rb") as end:
        # tarfile takes an archive that was cut off between two members for a whole one
        end.seek(max(0, path.stat().st_size - 1024))
        if end.read() != bytes(1024):
            raise FormatError(f"{str(path)!r} is truncated or not a tar file.", "Copy it again.")
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                parts = check_path(member.name).parts
                # a sparse member may claim any size, a plain one no more than the archive has
                if not member.isreg() or len(parts) < 3 or member.size > path.stat().st_size:
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

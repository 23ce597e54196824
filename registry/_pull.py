"""Fetching an artifact whole, and copying it out of the cache."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..cards._errors import BadInputError, PermissionDeniedError, StoreError
from ..manifolds._format import list_artifact
from ._resolve import locate, read_location


def pull(reference: str | Path, to: str | Path | None = None) -> dict[str, Any]:
    """Fetch and verify an artifact with its evidence and figures.

    Parameters
    ----------
    reference
        See ``load``.
    to
        New folder to copy it to, as plain files, whole or not at all.

    Returns
    -------
    ``reference``, ``digest``, ``store`` and ``folder``.

    Raises
    ------
    BadInputError
        If ``to`` exists.
    NotFoundError, StoreError, PermissionDeniedError, IntegrityError, FormatError
        As ``load``.
    """
    to = None if to is None else Path(to)
    if to is not None and to.exists():
        raise BadInputError(f"{str(to)!r} exists already.", "Choose a new folder.")
    location = locate(reference, everything=True)
    manifold = read_location(location)
    if to is not None:
        try:
            to.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as part:
                staged = Path(part) / "artifact"
                for name in list_artifact(location.folder, links_into=location.links_into):
                    (staged / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(location.folder / name, staged / name)
                staged.rename(to)
        except PermissionError as error:
            raise PermissionDeniedError(f"{to} cannot be written: {error.strerror}.") from error
        except OSError as error:
            raise StoreError(f"{to} cannot be written: {error}.") from error
    return {
        "reference": f"{manifold.name}@{manifold.version}",
        "digest": manifold.digest,
        "store": location.store,
        "folder": str(to or location.folder),
    }

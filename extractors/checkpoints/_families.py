"""Finding the reader for a folder, among those of installed packages."""

from __future__ import annotations

import warnings
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from ...cards._errors import CheckpointError, PluginError, ZooWarning
from .._plugins import find_plugin
from ._interface import Checkpoint
from ._recognise import looks_like

FAMILIES = "manifoldzoo.checkpoints"
"""Entry points of readers: each is called without arguments and gives a ``CheckpointReader`` of its own name."""
_NOUN = "family of checkpoints"


class CheckpointReader(Protocol):
    """Reads the checkpoints of one family.

    Attributes
    ----------
    name
        Name of the family, the same as that of the entry point.
    """

    name: str

    def recognises(self, folder: Path) -> bool:
        """Tell from small files alone whether a folder seems to hold such a checkpoint; the folder exists."""

    def read(self, folder: Path) -> Checkpoint:
        """Read the checkpoint in a folder.

        Raises
        ------
        CheckpointError
            If it cannot be read.
        """


class ScGPTReader:
    """scGPT and its predecessor; see ``read_scgpt``."""

    name = "scgpt"

    def recognises(self, folder: Path) -> bool:
        """Tell from the names of its files."""
        return looks_like(folder) == self.name

    def read(self, folder: Path) -> Checkpoint:
        """Read the checkpoint in a folder."""
        from ._scgpt import read_scgpt

        return read_scgpt(folder)


class GeneformerReader:
    """Geneformer; see ``read_geneformer``."""

    name = "geneformer"

    def recognises(self, folder: Path) -> bool:
        """Tell from the type of model in ``config.json``."""
        return looks_like(folder) == self.name

    def read(self, folder: Path) -> Checkpoint:
        """Read the checkpoint in a folder."""
        from ._geneformer import read_geneformer

        return read_geneformer(folder)


class Cell2SentenceReader:
    """Cell2Sentence; see ``read_cell2sentence``."""

    name = "cell2sentence"

    def recognises(self, folder: Path) -> bool:
        """Tell from the type of model in ``config.json``."""
        return looks_like(folder) == self.name

    def read(self, folder: Path) -> Checkpoint:
        """Read the checkpoint in a folder."""
        from ._cell2sentence import read_cell2sentence

        return read_cell2sentence(folder)


def read_checkpoint(folder: str | Path, *, family: str | None = None) -> Checkpoint:
    """Read a checkpoint of any family that an installed package reads.

    Parameters
    ----------
    folder
        Of the model, as its authors publish it.
    family
        Name of the reader, such as ``"scgpt"``, ``"geneformer"`` or ``"cell2sentence"``; by default the one that
        recognises the folder.

    Raises
    ------
    CheckpointError
        If no reader or more than one recognises the folder, or the checkpoint cannot be read.
    NotFoundError
        If there is no such family.
    PluginError
        If two packages offer the same family, or the one asked for cannot be used.

    Warns
    -----
    ZooWarning
        If a package that was not asked for by name offers a reader that cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder.", "Pass the folder that holds the checkpoint's files.")
    if family is not None:
        return _reader(family).read(folder)
    names = sorted({point.name for point in entry_points(group=FAMILIES)})
    found: list[CheckpointReader] = []
    broken: list[str] = []
    for name in names:
        reader = _usable(name, broken)
        if reader is not None and _recognises(reader, folder, broken):
            found.append(reader)
    if len(found) == 1:
        for problem in broken:
            warnings.warn(problem, ZooWarning, stacklevel=2)
        return found[0].read(folder)
    if found:
        raise CheckpointError(
            f"{folder} is recognised by {' and '.join(reader.name for reader in found)}.", "Name the family to read."
        )
    raise CheckpointError(
        f"{folder} is no checkpoint of a known family ({', '.join(names) or 'there are none'}); {_content(folder)}.",
        " ".join(broken) or "Name the family if you know it, or install a package that reads it.",
    )


def _reader(name: str) -> CheckpointReader:
    """Load the reader of a family."""
    offered = find_plugin(FAMILIES, name, _NOUN)
    # anything may go wrong inside another's class
    try:
        reader: CheckpointReader = offered()
        stated = reader.name
        usable = callable(reader.recognises) and callable(reader.read)
    except Exception as error:
        raise PluginError(
            f"The {_NOUN} {name!r} cannot be used: {type(error).__name__}: {error}",
            f"Update or uninstall the package that offers {name!r}.",
        ) from error
    if not usable or stated != name:
        raise PluginError(f"The {_NOUN} {name!r} is no reader of that name.", "Update or uninstall its package.")
    return reader


def _usable(name: str, broken: list[str]) -> CheckpointReader | None:
    """Load a reader unless it is broken, which must not keep others from reading."""
    offers = {
        (point.value, point.dist.name if point.dist else "")
        for point in entry_points(group=FAMILIES)
        if point.name == name
    }
    try:
        return _reader(name)
    except PluginError as error:
        if len(offers) > 1:
            raise
        broken.append(error.message)
        return None


def _recognises(reader: CheckpointReader, folder: Path, broken: list[str]) -> bool:
    """Ask a reader, whose failure must not keep others from reading."""
    try:
        return bool(reader.recognises(folder))
    except Exception as error:
        broken.append(f"The {_NOUN} {reader.name!r} failed to look at {folder}: {type(error).__name__}: {error}")
        return False


def _content(folder: Path) -> str:
    """Say what a folder looks like."""
    kind = looks_like(folder)
    if kind is not None:
        return f"its config.json states model_type {kind!r}"
    held = sorted(path.name for path in folder.iterdir())
    return f"it holds {', '.join(held[:8]) or 'nothing'}" + (f" and {len(held) - 8} more" if len(held) > 8 else "")

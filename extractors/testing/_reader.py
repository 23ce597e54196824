"""Whether a reader of a family recognises, reads and refuses folders as it should."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ...cards._errors import CheckpointError
from ...cards._names import sha256_file
from ..checkpoints._families import CheckpointReader
from ..checkpoints._interface import Checkpoint
from ._checkpoint import checkpoint_checks
from ._conformance import Check, Mismatch, named, run


def check_reader(
    reader: CheckpointReader,
    folder: str | Path,
    *,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    several_tokens: bool = False,
) -> None:
    """Check that a reader reads its folders, leaves others to others, and that what it reads conforms.

    Parameters
    ----------
    reader
        What an entry point under ``manifoldzoo.checkpoints`` returns when it is called.
    folder
        A small checkpoint of the family. It is copied, and the copies are damaged.
    genes, seed, several_tokens
        As in ``check_checkpoint``.

    Raises
    ------
    ConformanceError
        Of the first check that fails: its name, what was found and what was expected.

    See Also
    --------
    reader_checks : The same one by one, to parametrise tests.
    """
    run(reader, reader_checks(folder, genes=genes, seed=seed, several_tokens=several_tokens))


def reader_checks(
    folder: str | Path, *, genes: Sequence[str] | None = None, seed: int = 0, several_tokens: bool = False
) -> Iterator[tuple[str, Check[CheckpointReader]]]:
    """Yield the checks of ``check_reader``, each a name and a function of a reader.

    Parameters are those of ``check_reader``. The checks of a checkpoint follow those of the reader.
    """
    place = Path(folder)

    def of_what_is_read(check: Check[Checkpoint]) -> Callable[[CheckpointReader], None]:
        return lambda reader: check(reader.read(place))

    yield named("reader", _reader)
    yield named("recognises", partial(_recognises, folder=place))
    yield named("read", partial(_read, folder=place, genes=genes))
    yield named("folder_untouched", partial(_folder_untouched, folder=place))
    yield named("no_checkpoint", _no_checkpoint)
    yield named("damaged_files", partial(_damaged_files, folder=place, genes=genes, seed=seed))
    for name, check in checkpoint_checks(genes=genes, seed=seed, several_tokens=several_tokens):
        yield named(f"checkpoint {name}", of_what_is_read(check))


def _reader(reader: CheckpointReader) -> None:
    """The reader has a name and two functions."""
    if not isinstance(reader.name, str) or not reader.name.strip():
        raise Mismatch(f"name {reader.name!r}", "the name of the entry point")
    for what in ("recognises", "read"):
        if not callable(getattr(reader, what)):
            raise Mismatch(f"{what} of type {type(getattr(reader, what)).__name__}", "a function of a folder")


def _recognises(reader: CheckpointReader, *, folder: Path) -> None:
    """Its own folder is recognised, others are not."""
    if reader.recognises(folder) is not True:
        raise Mismatch(f"{reader.recognises(folder)!r} for its own folder", "True")
    with tempfile.TemporaryDirectory() as name:
        other = Path(name)
        for what in ("an empty folder", "a folder with a README.md", "a folder of an unknown type of model"):
            if what != "an empty folder":
                (other / "README.md").write_text("# A model\n", encoding="utf-8")
            if what == "a folder of an unknown type of model":
                (other / "config.json").write_text(json.dumps({"model_type": "no-such-type"}), encoding="utf-8")
                (other / "model.safetensors").write_bytes(b"")
            if reader.recognises(other) is not False:
                raise Mismatch(f"{reader.recognises(other)!r} for {what}", "False: another reader's")


def _read(reader: CheckpointReader, *, folder: Path, genes: Sequence[str] | None) -> None:
    """What is read is of the family, and has the same identity wherever the folder lies."""
    checkpoint = reader.read(folder)
    if checkpoint.family != reader.name:
        raise Mismatch(f"a checkpoint of the family {checkpoint.family!r}", repr(reader.name))
    with tempfile.TemporaryDirectory() as name:
        moved = reader.read(Path(shutil.copytree(folder, Path(name) / "moved")))
        if moved.digest != checkpoint.digest:
            raise Mismatch("another digest for a copy of the folder", "one of weights, vocabulary and settings")
        if not _same_numbers(moved, checkpoint, genes):
            raise Mismatch("other genes or weights for a copy of the folder", "the same")


def _folder_untouched(reader: CheckpointReader, *, folder: Path) -> None:
    """Looking at a folder and reading it writes nothing there."""
    before = _content(folder)
    reader.recognises(folder)
    reader.read(folder)
    changed = sorted(set(_content(folder)) ^ set(before))
    if changed:
        raise Mismatch(f"{changed[0][0]} written or removed", "the folder left as it was")


def _no_checkpoint(reader: CheckpointReader) -> None:
    """A folder that is empty, or that there is not, cannot be read."""
    with tempfile.TemporaryDirectory() as name:
        for place, what in ((Path(name), "an empty folder"), (Path(name) / "nowhere", "a folder that there is not")):
            if _attempt(reader, place, what) is not None:
                raise Mismatch(f"a checkpoint read from {what}", "CheckpointError")


def _damaged_files(reader: CheckpointReader, *, folder: Path, genes: Sequence[str] | None, seed: int) -> None:
    """Without a file, or with another in its place: an error, or a checkpoint that did not need it."""
    whole, rng, refused = reader.read(folder), np.random.default_rng(seed), 0
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for file in files:
        content = (folder / file).read_bytes()
        for what, damaged in (
            ("taken away", None),
            ("emptied", b""),
            ("cut in half", content[: len(content) // 2]),
            ("overwritten", rng.bytes(len(content))),
        ):
            with tempfile.TemporaryDirectory() as name:
                copy = Path(shutil.copytree(folder, Path(name) / folder.name))
                if damaged is None:
                    (copy / file).unlink()
                else:
                    (copy / file).write_bytes(damaged)
                read = _attempt(reader, copy, f"a folder with {file} {what}")
                refused += read is None
                if read is not None and read.digest == whole.digest and not _same_numbers(read, whole, genes):
                    raise Mismatch(
                        f"other genes or weights under the same digest with {file} {what}", "CheckpointError"
                    )
    if not refused:
        raise Mismatch(f"no error for any damage to {len(files)} files", "CheckpointError for weights cut in half")


def _attempt(reader: CheckpointReader, folder: Path, what: str) -> Checkpoint | None:
    """Read a folder; ``None`` if it is refused as it should be."""
    try:
        return reader.read(folder)
    except CheckpointError:
        return None
    # a stranger's code may raise anything, and this is what is looked for
    except Exception as error:
        raise Mismatch(f"{type(error).__name__} ({error}) for {what}", "CheckpointError") from error


def _same_numbers(one: Checkpoint, other: Checkpoint, genes: Sequence[str] | None) -> bool:
    """Whether two checkpoints show the same genes and weights."""
    if one.genes != other.genes or (one.n_layers, one.n_heads) != (other.n_layers, other.n_heads):
        return False
    if genes is not None:
        one, other = one.with_genes(list(genes)), other.with_genes(list(genes))
    pairs = [(one.embedding(), other.embedding())]
    for layer in range(one.n_layers):
        mine, its = one.heads(layer), other.heads(layer)
        pairs += [(mine.query, its.query), (mine.key, its.key), (mine.value, its.value), (mine.output, its.output)]
    return all(torch.equal(found, expected) for found, expected in pairs)


def _content(folder: Path) -> list[tuple[str, str]]:
    """Name and SHA-256 of all files below a folder."""
    return [
        (path.relative_to(folder).as_posix(), sha256_file(path)) for path in sorted(folder.rglob("*")) if path.is_file()
    ]

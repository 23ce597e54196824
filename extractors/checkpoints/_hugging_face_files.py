"""Reading ``config.json`` and the weights beside it, as the ``transformers`` library lays them out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...cards._errors import CheckpointError, MissingExtraError
from ._files import CheckpointFile, few, find_file, parse_object, read_content
from ._tensor_file import TensorFile

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_MOST = 1 << 20


@dataclass(frozen=True)
class Settings:
    """What ``config.json`` says, taken piece by piece with its type and bounds checked.

    Attributes
    ----------
    path, values
        Where it lies and all that it holds.
    """

    path: Path
    values: dict[str, object]

    def count(self, key: str, *, default: int | None = None) -> int:
        """Take a whole number of at least 1, and of at most a million: nothing here has more of anything."""
        value = self.values.get(key, default)
        if type(value) is not int or not 1 <= value <= _MOST:
            raise self.error(key, f"a whole number from 1 to {_MOST}")
        return value

    def number(self, key: str, *, default: float, above: float, most: float) -> float:
        """Take a number that is larger than ``above`` and at most ``most``."""
        value = self.values.get(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not above < value <= most:
            raise self.error(key, f"a number above {above:g} and at most {most:g}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def activation(self, key: str, default: str) -> str:
        """Take the name of an activation that the library knows."""
        from transformers.activations import ACT2FN

        value = self.values.get(key, default)
        if not isinstance(value, str) or value not in ACT2FN:
            raise self.error(key, "the name of an activation, such as 'gelu'")
        return value

    def expect(self, key: str, harmless: str) -> None:
        """Refuse a setting that would change what the model computes."""
        if self.values.get(key) not in (None, harmless):
            raise self.error(key, repr(harmless))

    def expect_not(self, *keys: str) -> None:
        """Refuse settings that would change what the model computes if they were anything but null or false."""
        for key in keys:
            if self.values.get(key) not in (None, False):
                raise self.error(key, "nothing: it would change what the model computes")

    def error(self, key: str, expected: str) -> CheckpointError:
        """Say what a setting is and what was expected."""
        if key not in self.values:
            return CheckpointError(f"{self.path} states no {key}, expected {expected}.")
        return CheckpointError(f"{self.path} states {key} {self.values[key]!r:.60}, expected {expected}.")


def require_transformers() -> None:
    """Say how to install the library where it is missing.

    Raises
    ------
    MissingExtraError
        If ``transformers`` cannot be imported.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            "Models of this family need transformers, which is not installed.",
            "Run `pip install 'manifoldzoo[extract]'`.",
        ) from error


def read_settings(folder: Path, model_types: tuple[str, ...]) -> tuple[Settings, CheckpointFile]:
    """Read ``config.json`` of a model of one of the types.

    Raises
    ------
    CheckpointError
        If it is missing, damaged, or that of another type of model.
    """
    path = find_file(folder, CONFIG, hint="")
    content, file = read_content(path)
    settings = Settings(path, parse_object(path, content))
    model_type = settings.values.get("model_type")
    if model_type not in model_types:
        raise CheckpointError(
            f"{path} states model_type {model_type!r:.60}, expected {' or '.join(map(repr, model_types))}.",
            "Name the family of the model, or let it be seen from the files.",
        )
    settings.expect_not("quantization_config")
    return settings, file


@dataclass(frozen=True)
class Weights:
    """Named tensors of one file or several, by their names without the prefix that some files have.

    Attributes
    ----------
    path
        The file, or the index of the files.
    places
        File of each tensor and its name there.
    ignored
        Names, as the files have them, of tensors that are known and not needed.
    files
        Identities of all files read.
    """

    path: Path
    places: dict[str, tuple[TensorFile, str]]
    ignored: tuple[str, ...]
    files: tuple[CheckpointFile, ...]

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Shape of a tensor, ``None`` where there is none of that name."""
        if key not in self.places:
            return None
        file, name = self.places[key]
        return file.tensors[name].shape

    def read(self, key: str) -> Tensor:
        """Read a tensor as float32."""
        file, name = self.places[key]
        return file.read(name)

    def check(self, expected: dict[str, tuple[int, ...]]) -> None:
        """Compare names and shapes with those of the architecture.

        Raises
        ------
        CheckpointError
            Naming what is missing, unknown or of another shape.
        """
        missing, unknown = sorted(expected.keys() - self.places.keys()), sorted(self.places.keys() - expected.keys())
        if missing:
            raise CheckpointError(f"{self.path} lacks {len(missing)} weights: {few(missing)}.")
        if unknown:
            raise CheckpointError(
                f"{self.path} holds {len(unknown)} weights that this reader does not know: {few(unknown)}.",
                "They may change what the model computes, so they are not skipped.",
            )
        for key, shape in expected.items():
            if self.shape(key) != shape:
                raise CheckpointError(
                    f"{self.path}: {key} has shape {self.shape(key)}, expected {shape} after {CONFIG}."
                )


@contextmanager
def open_weights(folder: Path, *, prefix: str, ignored: re.Pattern[str]) -> Iterator[Weights]:
    """Open the weights of a folder: one file or several with an index, safetensors before PyTorch's.

    Parameters
    ----------
    folder
        Of the model.
    prefix
        What the names of the model begin with where the file holds more than the model.
    ignored
        Names, without the prefix, of tensors that are known and not needed.

    Raises
    ------
    CheckpointError
        If files are missing or damaged, ask for code to be run, or hold a tensor twice.
    """
    path = find_file(folder, *WEIGHTS, hint="Pass the folder that holds config.json and the weights.")
    with ExitStack() as stack:
        if path.suffix == ".json":
            content, index = read_content(path)
            names = _shards(path, parse_object(path, content))
            opened = [stack.enter_context(TensorFile(folder / name)) for name in sorted(set(names.values()))]
            _check_shards(path, names, opened)
            files = (index, *(file.identity() for file in opened))
        else:
            opened = [stack.enter_context(TensorFile(path))]
            files = (opened[0].identity(),)
        places: dict[str, tuple[TensorFile, str]] = {}
        skipped = []
        for file in opened:
            for name in file.tensors:
                key = name.removeprefix(prefix)
                if ignored.fullmatch(key):
                    skipped.append(name)
                elif key in places:
                    raise CheckpointError(f"{path} holds {key} twice.")
                else:
                    places[key] = (file, name)
        yield Weights(path, places, tuple(sorted(skipped)), files)


def _shards(path: Path, index: dict[str, object]) -> dict[str, str]:
    """Take the file of each tensor from an index."""
    entries = index.get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CheckpointError(f"{path} has no weight_map from tensors to files.")
    names: dict[str, str] = {}
    for key, name in entries.items():
        plain = isinstance(name, str) and name == Path(name).name and "\\" not in name
        if not plain or not str(name).endswith((".safetensors", ".bin")):
            raise CheckpointError(f"{path} places {key[:60]} in {name!r:.60}, expected a file of weights beside it.")
        if not (path.parent / name).is_file():
            raise CheckpointError(f"{path} places {key[:60]} in {name[:60]}, which is missing.", "Download it.")
        names[key] = name
    return names


def _check_shards(path: Path, names: dict[str, str], opened: list[TensorFile]) -> None:
    """Compare an index with the files."""
    for file in opened:
        stated = {key for key, name in names.items() if name == file.path.name}
        differing = sorted(stated ^ file.tensors.keys())
        if differing:
            raise CheckpointError(f"{path} and {file.path.name} disagree on {few(differing)}.", "Download both again.")

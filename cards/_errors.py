"""The error tree: every error a user can meet, its exit status, and a next step."""

from __future__ import annotations


class ZooError(Exception):
    """Base of all errors that manifoldzoo raises on purpose.

    Parameters
    ----------
    message
        One sentence: what is wrong, with the offending value and what was expected.
    hint
        The next step, a command to paste where there is one.
    """

    exit_code = 2

    def __init__(self, message: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInputError(ZooError, ValueError):
    """A file, table or argument given by the user cannot be used."""


class GeneError(BadInputError):
    """The genes of the input cannot be matched to the genes of the manifold."""


class LowCoverageError(GeneError):
    """Too little of the projection's loading is covered by the genes present."""

    def __init__(self, message: str = "", hint: str = "", *, coverage: float = 0.0, floor: float = 0.0) -> None:
        super().__init__(message, hint)
        self.coverage = coverage
        self.floor = floor


class ScaleError(BadInputError):
    """Values are not on the scale asked for, or not finite."""


class ReferenceSyntaxError(BadInputError):
    """A name, version or reference is malformed."""


class FormatError(BadInputError):
    """An artifact, card or manifest does not follow the format."""


class UnsafeFileError(FormatError):
    """A file that an artifact must never hold: a pickle, a link, a path that leaves the folder."""


class FutureFormatError(FormatError):
    """The artifact was written by a newer format than this version reads."""


class CheckpointError(BadInputError):
    """A foundation-model checkpoint cannot be read."""


class PanelError(BadInputError):
    """Cells, labels or anchors do not make a usable panel."""


class PluginError(ZooError, ImportError):
    """An installed package offers something that cannot be used."""


class MissingExtraError(ZooError, ImportError):
    """A feature needs an optional dependency that is not installed."""


class IntegrityError(ZooError, OSError):
    """Bytes do not match their recorded digest."""

    exit_code = 1

    def __init__(self, message: str = "", hint: str = "", *, files: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint)
        self.files = files


class GateError(ZooError, RuntimeError):
    """A gate or check said no."""

    exit_code = 1


class NotFoundError(ZooError, LookupError):
    """A name, version, repository or file does not exist where it was looked for."""

    exit_code = 3


class VersionConflictError(ZooError, FileExistsError):
    """The version exists already; versions are immutable."""

    exit_code = 3


class StoreError(ZooError, OSError):
    """A store cannot be read or written: network, permission, disk."""

    exit_code = 3


class PermissionDeniedError(StoreError):
    """The store refused access: no token, a wrong token, or a read-only folder."""


class StaleParentError(StoreError):
    """Somebody else committed to the repository in the meantime."""


class ZooWarning(UserWarning):
    """Base of the warnings of manifoldzoo."""


class CoverageWarning(ZooWarning):
    """Part of the manifold's genes is missing from the input."""


class ScaleWarning(ZooWarning):
    """The values look as if they were on another scale than declared."""


class IntegrityWarning(ZooWarning):
    """A damaged file was found and repaired or worked around."""

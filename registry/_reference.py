"""References: how a user names an artifact."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ..cards._errors import ReferenceSyntaxError
from ..cards._names import VERSION_PATTERN, check_name

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_WANTED = re.compile(r"(N(\.N){0,2}|~N\.N(\.N)?)".replace("N", "(0|[1-9][0-9]*)"))
_HELP = "Write NAME, NAME@1.2.0, NAME@1, NAME@~1.2, OWNER/REPO@REVISION, hf://OWNER/REPO@REVISION or ./FOLDER."


@dataclass(frozen=True)
class NamedReference:
    """``name``, ``name@1.2.0``, ``name@1`` or ``name@~1.2``."""

    name: str
    wanted: str = ""

    def accepts(self, version: Version) -> bool:
        """Whether a version satisfies the reference."""
        return version in self._specifier

    @property
    def exact(self) -> bool:
        """Whether the reference names one version."""
        return bool(re.fullmatch(VERSION_PATTERN, self.wanted))

    @property
    def _specifier(self) -> SpecifierSet:
        if not self.wanted:
            return SpecifierSet()
        if self.wanted.startswith("~"):
            # ~1.2 accepts 1.2 and later within 1; ~1.2.3 accepts 1.2.3 and later within 1.2
            return SpecifierSet(f"~={self.wanted[1:]}")
        return SpecifierSet(f"=={self.wanted}" if self.exact else f"=={self.wanted}.*")

    def __str__(self) -> str:
        return f"{self.name}@{self.wanted}" if self.wanted else self.name


@dataclass(frozen=True)
class HubReference:
    """``owner/repo`` at a version, tag, branch or commit; the default branch where there is none."""

    repo_id: str
    revision: str = ""

    @property
    def tag(self) -> str:
        """The revision as the Hub knows it: versions are tagged ``v1.2.0``."""
        return f"v{self.revision}" if re.fullmatch(VERSION_PATTERN, self.revision) else self.revision or "main"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a version or a commit, which never change."""
        return bool(re.fullmatch(VERSION_PATTERN + r"|^[0-9a-f]{40}$", self.revision.removeprefix("v")))

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


@dataclass(frozen=True)
class FolderReference:
    """A folder on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Reference = NamedReference | HubReference | FolderReference


def parse_reference(reference: str | Path) -> Reference:
    """Parse a reference.

    Text that starts with ``.``, ``/`` or ``~`` is a folder; text with one slash or ``hf://`` a Hub
    repository; anything else a name.

    Raises
    ------
    ReferenceSyntaxError
        If it is none of them.

    Examples
    --------
    >>> parse_reference("hematopoietic@~1.2")
    NamedReference(name='hematopoietic', wanted='~1.2')
    >>> parse_reference("lab/blood@1.0.0").tag
    'v1.0.0'
    """
    if isinstance(reference, Path):
        return _folder(reference)
    if reference.startswith((".", "/", "~")):
        return _folder(Path(reference))
    on_hub = reference.startswith("hf://")
    body, at, revision = reference.removeprefix("hf://").partition("@")
    if at and not revision:
        raise ReferenceSyntaxError(f"{reference!r} ends in '@' without a version.", _HELP)
    if on_hub or "/" in body:
        if not _REPO.fullmatch(body) or (revision and (not _REVISION.fullmatch(revision) or ".." in revision)):
            raise ReferenceSyntaxError(f"{reference!r} is not a Hub reference.", _HELP)
        return HubReference(body, revision)
    check_name(body)
    if revision and not _WANTED.fullmatch(revision):
        raise ReferenceSyntaxError(f"{revision!r} in {reference!r} is not a version or range.", _HELP)
    return NamedReference(body, revision)


def _folder(path: Path) -> FolderReference:
    """A folder, ``~`` resolved."""
    try:
        return FolderReference(path.expanduser())
    except RuntimeError as error:
        raise ReferenceSyntaxError(f"{str(path)!r} names the home of a user there is not.", _HELP) from error

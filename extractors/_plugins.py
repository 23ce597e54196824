"""What installed packages offer under entry points."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from ..cards._errors import NotFoundError, PluginError


def find_plugin(group: str, name: str, noun: str) -> Any:
    """Load what an installed package offers under a name.

    Parameters
    ----------
    group
        Group of entry points, such as ``manifoldzoo.extractors``.
    name
        Of the entry point.
    noun
        What it is, for messages.

    Raises
    ------
    NotFoundError
        If there is none, naming those there are.
    PluginError
        If two packages offer the name, or the one that does cannot be imported.
    """
    points = entry_points(group=group)
    # a package found twice on the path, as an editable install and a folder, offers the same thing twice
    found = {(point.value, point.dist.name if point.dist else ""): point for point in points if point.name == name}
    if not found:
        offered = ", ".join(sorted({point.name for point in points})) or "none"
        raise NotFoundError(
            f"There is no {noun} {name!r}; there are: {offered}.",
            f"Install the package that offers it under the entry point {group!r}.",
        )
    if len(found) > 1:
        packages = ", ".join(sorted(package or value for value, package in found))
        raise PluginError(f"The {noun} {name!r} is offered by {packages}.", "Uninstall all but one of them.")
    point = next(iter(found.values()))
    try:
        return point.load()
    # anything may go wrong while another's module is imported
    except Exception as error:
        package = point.dist.name if point.dist else point.value
        raise PluginError(
            f"The {noun} {name!r} of {package} cannot be imported: {type(error).__name__}: {error}",
            f"Update or uninstall {package}.",
        ) from error

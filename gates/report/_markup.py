"""HTML that escapes whatever was not made here."""

from __future__ import annotations

import re
from html import escape

_VOID = frozenset({"img", "meta"})
# characters that no HTML document may hold, and those that turn the direction of what follows
_FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str | None) -> Html:
    """Make an element.

    Parameters
    ----------
    name
        Of the element.
    content
        What stands in it; all that is no ``Html`` is escaped.
    attributes
        By name, where ``class_`` means ``class`` and ``aria_label`` ``aria-label``; escaped; ``None`` leaves one out.
    """
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_safe(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{told}>" + ("" if name in _VOID else f"{together(*content)}</{name}>"))


def together(*content: str) -> Html:
    """Put parts one after the other; all that is no ``Html`` is escaped."""
    return Html("".join(part if isinstance(part, Html) else _safe(part) for part in content))


def _safe(text: str) -> str:
    """Text that stays text; characters that cannot stand in a document are replaced."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)

"""Text in Markdown."""

from __future__ import annotations


def cell(text: str) -> str:
    """Text that cannot break out of a table cell."""
    # backslashes first: one before a pipe would turn the escaped pipe into a delimiter again
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())

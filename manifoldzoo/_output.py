"""The one place where the command line writes: data to standard output, everything else to standard error."""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SCHEMA = 1


def data_console() -> Console:
    """Console for data people read; plain and wide enough not to cut anything where it is no terminal."""
    return Console(
        width=None if sys.stdout.isatty() else 200, soft_wrap=not sys.stdout.isatty(), highlight=False, emoji=False
    )


def message_console() -> Console:
    """Console for warnings, errors and progress."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


def emit(document: dict[str, Any], render: Callable[[Console], None], *, as_json: bool) -> None:
    """Write one result: as a JSON document, or by ``render`` for people."""
    if as_json:
        text = json.dumps({"schema": SCHEMA, **_without_nan(document)}, indent=1, allow_nan=False, default=str)
        sys.stdout.write(text + "\n")
    else:
        render(data_console())


def table(*columns: str) -> Table:
    """A table in the house style; numbers are right-aligned by a leading ``>``."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(
            column.removeprefix(">"), justify="right" if column.startswith(">") else "left", overflow="fold"
        )
    return made


def plain(*values: object) -> list[Text]:
    """Cells shown as they are: what comes from a file is never read as markup."""
    return [Text(str(value)) for value in values]


def size(n_bytes: int) -> str:
    """Bytes in units people read."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


@contextmanager
def reporting(description: str) -> Iterator[Callable[..., None]]:
    """Show progress on a terminal and nothing elsewhere.

    Yields ``progress(label, done, total)``.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=message_console(), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(description, total=None)

        def progress(label: str, done: int, total: int) -> None:
            bar.update(task, description=f"{description}: {label}", completed=done, total=total)

        yield progress


def show_warnings() -> None:
    """Print warnings of the zoo as one plain line each; leave others to Python's own filters."""
    plain = warnings.showwarning

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *rest: Any, **named: Any
    ) -> None:
        from .cards._errors import ZooWarning

        if issubclass(category, ZooWarning):
            message_console().print("[yellow]warning:[/]", escape(str(message)))
        elif os.environ.get("PYTHONWARNINGS"):
            plain(message, category, filename, lineno, *rest, **named)

    warnings.showwarning = show


def _without_nan(value: Any) -> Any:
    """The same document with numbers of numpy as Python's, and those that JSON cannot hold as null."""
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return value

"""Write ``docs/cli.md`` from the command line's own help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def render() -> str:
    """Markdown of ``--help`` for the program and every command."""
    pages = ["# Command line\n", "Written by `make docs` from the program's own help.\n"]
    for command in ["", *_commands()]:
        arguments = [*command.split(), "--help"]
        pages.append(f"## manifoldzoo {command}".rstrip() + "\n\n```\n" + _help(arguments) + "\n```\n")
    return "\n".join(pages)


def _commands() -> list[str]:
    """Names of the commands, in the order of the program's help."""
    from manifoldzoo._commands import app

    return [command.name or command.callback.__name__ for command in app.registered_commands]


def _help(arguments: list[str]) -> str:
    """Help text, plain and of fixed width."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    run = subprocess.run(
        [sys.executable, "-m", "manifoldzoo", *arguments], capture_output=True, text=True, check=True, env=environment
    )
    return "\n".join(line.rstrip() for line in run.stdout.strip().splitlines())


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(render(), encoding="utf-8")

"""The command line: ``manifoldzoo`` and ``python -m manifoldzoo``."""

from __future__ import annotations

import json
import os
import sys
import traceback

USAGE, BUG, INTERRUPTED = 2, 70, 130


def main() -> None:
    """Run the command line and exit with the status that the design gives each outcome."""
    if not sys.stderr.isatty():
        # the Hub client draws its progress bars everywhere unless told before it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        # between the lines of `run` that catch it
        status = INTERRUPTED
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command; returns the exit status. Errors are one sentence, or JSON with ``--json``."""
    import typer

    from ._commands import app
    from ._output import show_warnings
    from .cards._errors import ZooError

    show_warnings()
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="manifoldzoo", standalone_mode=False)
        sys.stdout.flush()
        if status == INTERRUPTED:
            # typer turns Ctrl-C into a silent exit status
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except ZooError as error:
        return _fail(arguments, type(error).__name__, error.message or str(error), error.hint, error.exit_code)
    except typer.TyperException as error:
        hint = "See `manifoldzoo --help`."
        return _fail(arguments, type(error).__name__, error.format_message(), hint, USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(arguments, "Interrupted", "Interrupted; nothing half-written was left behind.", "", INTERRUPTED)
    except (BrokenPipeError, SystemExit):
        # the reader of our output went away, for which typer exits with 1, the status of a failed gate;
        # Python would complain once more while flushing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return 0
    except Exception as error:
        hint = "This is a bug of manifoldzoo; run again with --debug and report what it prints."
        return _fail(arguments, type(error).__name__, str(error) or repr(error), hint, BUG)


def _fail(arguments: list[str], kind: str, message: str, hint: str, status: int) -> int:
    """Tell the error where the caller looks for it."""
    if "--debug" in arguments:
        traceback.print_exc()
    if "--json" in arguments:
        document = {"schema": 1, "error": {"type": kind, "message": message, "hint": hint}}
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
    else:
        sys.stderr.write(f"error: {message}" + (f"\n{hint}" if hint else "") + "\n")
    return status


if __name__ == "__main__":
    main()

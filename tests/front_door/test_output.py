from __future__ import annotations

import io
import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from manifoldzoo._output import data_console, emit, message_console, plain, reporting, show_warnings, size, table
from manifoldzoo.cards._errors import IntegrityWarning


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def nothing(console: Console) -> None:
    raise AssertionError("not for people")


def test_json_has_a_schema_and_null_for_nan(capsys: pytest.CaptureFixture[str]) -> None:
    given = {
        "a": math.nan,
        "b": [1.5, math.inf, (-math.inf,)],
        "c": {"d": np.float64("nan")},
        "e": Path("x"),
        "f": "\u00e4",
    }
    emit(given, nothing, as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "schema": 1,
        "a": None,
        "b": [1.5, None, [None]],
        "c": {"d": None},
        "e": "x",
        "f": "\u00e4",
    }
    assert out.endswith("}\n")
    assert err == ""
    assert math.isnan(given["a"])  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.float32(0.5), np.float32("nan"), np.int64(3), np.bool_(True)])
def test_numbers_of_numpy_stay_numbers(capsys: pytest.CaptureFixture[str], value: np.generic) -> None:
    emit({"value": value}, nothing, as_json=True)
    found = json.loads(capsys.readouterr().out)["value"]
    assert found == (None if value != value else value.item())
    assert not isinstance(found, str)


def test_people_see_the_rendering(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": 1}, lambda console: console.print("one"), as_json=False)
    assert capsys.readouterr() == ("one\n", "")


def test_values_are_never_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    strange = "[bold]x[/] [/nope] :warning: [red]"
    shown = table("name", ">value")
    shown.add_row(*plain(strange, 1))
    data_console().print(shown)
    data_console().print(strange, markup=False)
    out = capsys.readouterr().out
    assert out.count(strange) == 2
    assert "\x1b" not in out


def test_nothing_is_cut_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    data_console().print("x" * 500)
    message_console().print("y" * 500)
    out, err = capsys.readouterr()
    assert out == "x" * 500 + "\n"
    assert err == "y" * 500 + "\n"


def test_progress_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with reporting("work") as progress:
        progress("step", 1, 2)
    assert capsys.readouterr() == ("", "")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with reporting("work") as progress:
        progress("step", 1, 2)
    assert "work: step" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_warnings_are_one_plain_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # show_warnings replaces the hook for the length of a process
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    show_warnings()
    warnings.showwarning(IntegrityWarning("[/x] a[0] is :bug:"), IntegrityWarning, "file.py", 1)
    warnings.showwarning(UserWarning("somebody else's"), UserWarning, "file.py", 1)
    assert capsys.readouterr() == ("", "warning: [/x] a[0] is :bug:\n")


@pytest.mark.parametrize(
    ("n_bytes", "shown"), [(0, "0.0 kB"), (1234, "1.2 kB"), (99_999, "100.0 kB"), (12_345_678, "12.3 MB")]
)
def test_size(n_bytes: int, shown: str) -> None:
    assert size(n_bytes) == shown

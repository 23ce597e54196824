"""The tutorial runs from the first cell to the last, and shows what it ran."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "tutorial.ipynb"


@pytest.fixture(scope="module")
def kept():
    return nbformat.read(NOTEBOOK, as_version=4)


def shown(notebook):
    """Text that each cell printed or returned; what may differ from machine to machine is left to ``numbers``."""
    return [
        "".join(
            output.get("text", "") or output.get("data", {}).get("text/plain", "")
            for output in cell.get("outputs", [])
            if output.output_type in ("stream", "execute_result") and output.get("name") != "stderr"
        )
        for cell in notebook.cells
    ]


def test_it_runs_and_shows_what_the_page_shows(kept, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    # where Jupyter keeps what it keeps
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(again, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    number = re.compile(r"-?\d+\.\d+")
    for before, after in zip(shown(kept), shown(again), strict=True):
        assert number.sub("#", " ".join(after.split())) == number.sub("#", " ".join(before.split()))
        values = [[float(found) for found in number.findall(text)] for text in (before, after)]
        assert values[1] == pytest.approx(values[0], abs=0.03)


def test_it_is_kept_as_it_ran(kept):
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5
    assert NOTEBOOK.stat().st_size < 2_000_000


def test_pages_that_it_names_are_there(kept):
    text = "\n".join(cell.source for cell in kept.cells if cell.cell_type == "markdown")
    linked = re.findall(r"\]\(([\w./-]+\.md)\)", text)
    assert len(linked) >= 4
    assert all((NOTEBOOK.parent / page).is_file() for page in linked)

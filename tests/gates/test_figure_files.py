"""Figures of a validation run as files."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from matplotlib import pyplot
from tiny import tiny_manifold

from manifoldzoo.cards._errors import StoreError
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates.report._figure_files import draw_run

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def no_screen():
    with mpl.rc_context({"backend": "agg"}):
        yield


@pytest.fixture(scope="module")
def run():
    return validate(tiny_manifold(), through=3)


def test_gates_and_nulls_become_files_and_no_figure_stays_open(run, tmp_path):
    written = draw_run(run, tmp_path / "figures")
    assert [path.name for path in written] == ["gates.png", "null.png"]
    assert all(path.read_bytes().startswith(PNG) for path in written)
    assert not pyplot.get_fignums()


def test_equal_runs_make_equal_files(run, tmp_path):
    first = [path.read_bytes() for path in draw_run(run, tmp_path / "first")]
    again = draw_run(run, tmp_path / "again")
    assert [path.read_bytes() for path in again] == first
    assert [path.read_bytes() for path in draw_run(run, tmp_path / "again")] == first


def test_what_a_run_lacks_is_not_drawn(run, tmp_path):
    intact = run.model_copy(update={"rungs": run.rungs[:2]})
    assert [path.name for path in draw_run(intact, tmp_path)] == ["gates.png"]
    assert draw_run(run.model_copy(update={"rungs": []}), tmp_path / "none") == []


def test_a_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(StoreError, match="figures"):
        draw_run(run, tmp_path / "figures")

"""Figures of a validation run as files."""

from __future__ import annotations

import matplotlib as mpl
import pytest
from figures import run_of
from matplotlib import pyplot
from tiny import tiny_manifold

from manifoldzoo.cards._errors import StoreError
from manifoldzoo.cards._evidence import conclude, judge
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates.report._figure_files import MOST_ROWS, draw_run, figures_of

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def no_screen():
    with mpl.rc_context({"backend": "agg"}):
        yield


@pytest.fixture(scope="module")
def run():
    return validate(tiny_manifold(), through=3)


def test_what_a_run_shows_becomes_files_and_no_figure_stays_open(run, tmp_path):
    written = draw_run(run, tmp_path / "figures")
    assert [path.name for path in written] == ["gates.png", "holdouts.png", "null.png"]
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


def test_a_run_with_rung_six_has_its_controls_drawn(tmp_path):
    compared = judge("beats_raw", 0.01, "<", 0.05, details={"own": 0.9, "other": 0.8})
    parts = judge("branch_holdout", 0.5, ">=", 0.2, parts={"left": 0.4, "right": 0.6})
    both = run_of(conclude(3, [parts]), conclude(6, [compared]))
    assert [path.name for path in draw_run(both, tmp_path)] == ["gates.png", "holdouts.png", "controls.png"]
    assert [figure.name for figure in figures_of(run_of(conclude(6, [compared])))] == ["gates", "controls"]


def test_what_nobody_could_read_is_not_drawn():
    many = [judge(f"gate_{i}", 0.5, ">=", 0.2, parts={"left": 0.5}) for i in range(MOST_ROWS + 1)]
    assert [figure.name for figure in figures_of(run_of(conclude(3, many[:-1])))] == ["gates", "holdouts"]
    assert figures_of(run_of(conclude(3, many))) == []


def test_a_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "figures").write_text("a file")
    with pytest.raises(StoreError, match="figures"):
        draw_run(run, tmp_path / "figures")

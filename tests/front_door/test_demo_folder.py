"""The demo clears away what an earlier demo left, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifoldzoo.cards._errors import BadInputError

pytest.importorskip("torch")
from manifoldzoo._demo import _clear


def test_a_folder_that_no_demo_made_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "zoo"
    mine.mkdir()
    (mine / "precious").write_text("data")
    with pytest.raises(BadInputError, match="zoo"):
        _clear(tmp_path, (mine,))
    assert (mine / "precious").read_text() == "data"


def test_what_an_earlier_demo_left_is_replaced(tmp_path: Path) -> None:
    _clear(tmp_path, (tmp_path / "zoo",))
    (tmp_path / "zoo").mkdir()
    _clear(tmp_path, (tmp_path / "zoo",))
    assert not (tmp_path / "zoo").exists()

"""What the card takes from tables beside a recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from manifoldzoo.cards._errors import FormatError

pytest.importorskip("torch")

from manifoldzoo.extractors._fill_card import _programs

TABLE = "name\tlabel\tgenes\tsource\nlipid\tLipid metabolism\tLPL, FASN\tbook\n"


def job(folder: Path, labels: str = "labels.tsv") -> SimpleNamespace:
    return SimpleNamespace(labels=folder / labels)


def test_programs_beside_the_labels_are_on_the_card(tmp_path):
    assert _programs(job(tmp_path)) == []
    (tmp_path / "programs.tsv").write_text(TABLE)
    (program,) = _programs(job(tmp_path))
    assert (program.name, program.genes) == ("lipid", ["LPL", "FASN"])


def test_programs_that_cells_are_scored_by_describe_no_axis(tmp_path):
    (tmp_path / "programs.tsv").write_text(TABLE)
    assert _programs(job(tmp_path, "programs.tsv")) == []


def test_a_table_that_is_none_is_refused(tmp_path):
    (tmp_path / "programs.tsv").write_text("name\n")
    with pytest.raises(FormatError, match="has no programs"):
        _programs(job(tmp_path))

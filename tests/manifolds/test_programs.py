"""Tables of gene programs."""

from __future__ import annotations

import pytest

from manifoldzoo.cards._errors import FormatError
from manifoldzoo.manifolds._programs import read_programs

HEAD = "name\tlabel\tgenes\tsource\n"


def written(tmp_path, text: str):
    path = tmp_path / "programs.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_read_in_order_with_any_separator_and_comments(tmp_path):
    text = "# curated\n" + HEAD + "g1_s\tG1/S\tPCNA, MCM5 ;TYMS\tdoi:1\nlipid\tLipid\tLPL FASN\tdoi:2\n"
    first, second = read_programs(written(tmp_path, text))
    assert (first.name, first.label, first.genes, first.source) == ("g1_s", "G1/S", ["PCNA", "MCM5", "TYMS"], "doi:1")
    assert second.genes == ["LPL", "FASN"]


def test_other_columns_are_left_alone(tmp_path):
    text = "note\tname\tlabel\tgenes\tsource\nx\ta\tA\tG1,G2\ts\n"
    (only,) = read_programs(written(tmp_path, text))
    assert only.genes == ["G1", "G2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no programs"),
        (HEAD, "has no programs"),
        ("name\tgenes\na\tG1\n", "lacks the columns label, source"),
        (HEAD + "a\tA\tG1,G1\ts\n", "Row 1 of .* lists the gene 'G1' twice"),
        (HEAD + "a\tA\t \ts\n", "Row 1 of .* fails at 'genes'"),
        (HEAD + "a\tA\tG1\n", "Row 1 of .* fails at 'source'"),
        (HEAD + "A b\tA\tG1\ts\n", "Row 1 of .* fails at 'name'"),
        (HEAD + "a\tA\tG1\ts\na\tB\tG2\ts\n", "names the program 'a' more than once"),
    ],
)
def test_what_is_no_table_of_programs_is_refused(tmp_path, text, said):
    with pytest.raises(FormatError, match=said):
        read_programs(written(tmp_path, text))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FormatError, match="There is no"):
        read_programs(tmp_path / "none.tsv")
    (tmp_path / "programs.tsv").write_bytes(b"\xff\xfe name")
    with pytest.raises(FormatError, match="is not UTF-8"):
        read_programs(tmp_path / "programs.tsv")

"""What a README says of labels that were scored."""

from __future__ import annotations

from tiny import tiny_document

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._programs import GeneProgram, ScoredLabels, ScoredStudy
from manifoldzoo.cards._readme import render_readme
from manifoldzoo.cards._readme_labels import labels_in_words


def scored(**changes) -> ScoredLabels:
    """Two programs that share a gene, and a study."""
    programs = [
        GeneProgram(name="left_1", label="Left", genes=["A", "B", "C"], source="made up"),
        GeneProgram(name="right_1", label="Right", genes=["C", "D"], source="made up"),
    ]
    study = ScoredStudy(
        study="one",
        n_cells=1500,
        n_not_expressed=1100,
        n_unclear=150,
        n_leading={"left_1": 200, "right_1": 50},
        n_measured_genes={"left_1": 3, "right_1": 2},
    )
    given = {"method": "by the mean", "programs": programs, "n_excluded_genes": 3, "studies": [study]}
    return ScoredLabels(**(given | {"parameters": {"exclude_genes": True}} | changes))


def test_cells_with_a_stage_and_cells_without_are_told():
    said = labels_in_words(scored())
    assert "by 2 gene programs of 4 genes: by the mean; 3 of them" in said
    assert "one: 250 of 1,500 cells have a stage" in said
    assert "in 1,100 no program is above its controls, in 150 none leads." in said


def test_a_head_that_may_read_its_labels_is_told_of():
    said = labels_in_words(scored(parameters={"exclude_genes": False}, n_excluded_genes=0))
    assert "not kept from the gene axis, so that the head may read the labels" in said


def test_the_readme_says_it_where_labels_were_scored_and_only_there():
    plain = parse_card(tiny_document())
    assert "- Labels:" not in render_readme(plain, "0" * 64, [])
    document = tiny_document(scored_labels=scored().model_dump(mode="json"))
    told = render_readme(parse_card(document), "0" * 64, [])
    assert labels_in_words(scored()) in told

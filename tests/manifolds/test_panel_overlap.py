"""Overlap of panels: cells and donors by id, copies under other names, and what is refused in which role."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifoldzoo.cards._errors import PanelError, ZooWarning
from manifoldzoo.manifolds._panel_overlap import (
    LookAlike,
    OverlapReport,
    PanelMembers,
    barcode_of,
    check_overlap,
)


@dataclass(frozen=True)
class Made:
    name: str
    role: str
    members: PanelMembers


def made(name: str, role: str, cells: list[tuple[str, str, str]]) -> Made:
    """A panel of (study, donor, id)."""
    return Made(name, role, PanelMembers(*zip(*cells, strict=True)))


def barcodes(n: int, seed: int, length: int = 16) -> list[str]:
    letters = np.random.default_rng(seed).choice(list("ACGT"), (n, length))
    return ["".join(row) for row in letters]


def library(study: str, donor: str, seed: int, n: int = 30, form: str = "{}-1") -> list[tuple[str, str, str]]:
    return [(study, donor, form.format(barcode)) for barcode in barcodes(n, seed)]


def only(panels: list[Made]):
    (pair,) = check_overlap(panels).pairs
    return pair


OTHERS = ("external", "zero-shot", "negative")


def test_strangers_are_clear():
    pair = only([made("a", "extraction", library("one", "d1", 0)), made("b", "external", library("two", "d1", 1))])
    assert (pair.verdict, pair.n_cells, pair.n_donors, pair.look_alikes) == ("clear", 0, 0, ())
    assert pair.line == "'a' (extraction) and 'b' (external) share no cell and no donor: clear."


@pytest.mark.parametrize("role", OTHERS)
@pytest.mark.parametrize("turned", [False, True])
def test_a_shared_cell_is_refused_against_the_extraction_panel(role, turned):
    shared = ("one", "d1", "AAACCCAAGAAACACT-1")
    panels = [
        made("a", "extraction", [*library("one", "d1", 0), shared]),
        made("b", role, [*library("one", "d2", 1), ("one", "d3", shared[2])]),
    ]
    report = check_overlap(panels[::-1] if turned else panels)
    pair = report.pairs[0]
    assert (pair.verdict, pair.n_cells, pair.cells, pair.n_donors) == ("refused", 1, ("one:AAACCCAAGAAACACT-1",), 0)
    with pytest.raises(PanelError, match=r"share 1 cells \(one:AAACCCAAGAAACACT-1\): refused"):
        report.require()


@pytest.mark.parametrize(("role", "verdict"), zip(OTHERS, ("refused", "reported", "reported"), strict=True))
def test_a_shared_donor_is_refused_for_external_panels_alone(role, verdict):
    panels = [made("a", "extraction", library("one", "d1", 0)), made("b", role, library("one", "d1", 1))]
    report = check_overlap(panels)
    pair = report.pairs[0]
    assert (pair.verdict, pair.n_cells, pair.n_donors, pair.donors) == (verdict, 0, 1, ("one:d1",))
    if verdict == "refused":
        with pytest.raises(PanelError, match="one:d1") as caught:
            report.require()
        assert "exclude_donors" in caught.value.hint
    else:
        assert report.require() is report


def test_a_donor_number_of_another_study_is_another_donor():
    pair = only([made("a", "extraction", library("one", "1", 0)), made("b", "external", library("two", "1", 1))])
    assert (pair.n_donors, pair.verdict) == (0, "clear")


@pytest.mark.parametrize("roles", [("external", "zero-shot"), ("external", "external"), ("extraction", "extraction")])
def test_other_pairs_are_reported(roles):
    cells = library("one", "d1", 0)
    pair = only([made("a", roles[0], cells), made("b", roles[1], cells)])
    assert (pair.n_cells, pair.n_donors, pair.verdict) == (30, 1, "reported")
    assert len(pair.cells) == 5
    assert ", ..." in pair.line


@pytest.mark.parametrize(
    "form",
    ["{}", "{}-1", "{}-1-0", "L5_{}", "L5_{}-1", "sample#{}-1", "{}.1", "HCA13_HCA17_{}-1", "{}_sampleB", "x:{}"],
)
def test_a_copy_under_another_name_is_warned_about(form):
    """The same barcodes with another study's name and other decoration, beside cells of their own."""
    copied = [("copy", "z", form.format(barcode)) for barcode in barcodes(40, 0)[:16]]
    panels = [
        made("a", "extraction", library("one", "d1", 0, n=40)),
        made("b", "external", copied + library("copy", "z", 5, n=15)),
    ]
    report = check_overlap(panels)
    pair = report.pairs[0]
    assert (pair.n_cells, pair.n_donors, pair.verdict) == (0, 0, "warned")
    assert pair.look_alikes == (LookAlike(("one", "copy"), 16, 31, tuple(sorted(barcodes(40, 0)[:16])[:5])),)
    with pytest.warns(ZooWarning, match="16 of 31 barcodes of one and copy"):
        report.require()


def test_half_of_the_barcodes_is_not_more_than_half():
    panels = [
        made("a", "extraction", library("one", "d1", 0, n=40)),
        made("b", "external", library("copy", "z", 0, n=15) + library("copy", "z", 5, n=15)),
    ]
    assert only(panels).verdict == "clear"


def test_a_copied_study_among_others_is_found():
    """A third of the external panel: too little of the whole, all of one study."""
    others = [cell for seed in range(3, 6) for cell in library(f"own{seed}", "z", seed)]
    panels = [
        made("a", "extraction", library("one", "d1", 0)),
        made("b", "external", others + library("copy", "z", 0, form="run7_{}")),
    ]
    (alike,) = only(panels).look_alikes
    assert (alike.studies, alike.n_shared, alike.n_smaller) == (("one", "copy"), 30, 30)


def test_the_same_study_with_other_suffixes_is_warned_about():
    """The ids differ, the barcodes do not; cells that are the same by id are counted as such."""
    panels = [
        made("a", "extraction", library("one", "d1", 0)),
        made("b", "zero-shot", library("one", "d2", 0, form="{}-2")),
    ]
    assert only(panels).look_alikes[0].n_shared == 30
    same = only([panels[0], made("b", "zero-shot", library("one", "d2", 0))])
    assert (same.n_cells, same.look_alikes, same.verdict) == (30, (), "refused")


@pytest.mark.parametrize(("n", "verdict"), [(4, "clear"), (5, "warned")])
def test_a_handful_of_shared_barcodes_says_nothing(n, verdict):
    copied = library("copy", "z", 0)[:n]
    assert only([made("a", "extraction", library("one", "d", 0)), made("b", "external", copied)]).verdict == verdict


def test_row_numbers_are_no_barcodes():
    panels = [
        made("a", "extraction", [("one", "d", f"cell{i}") for i in range(50)]),
        made("b", "external", [("two", "d", f"cell{i}") for i in range(50)]),
    ]
    assert only(panels).verdict == "clear"


def test_barcodes_that_large_studies_share_by_chance_are_no_copies():
    """Drawn from one kit of 737,280 barcodes: 60% in common by chance, 100% in a copy."""
    kit = np.arange(737_280)
    rng = np.random.default_rng(0)
    names = np.array([f"{number:015b}".replace("0", "A").replace("1", "C").rjust(20, "G") for number in kit])

    def cells(study: str, picked: np.ndarray) -> list[tuple[str, str, str]]:
        return [(study, "d", f"{name}-1") for name in names[picked]]

    large, small = rng.choice(kit, 442_368, replace=False), rng.choice(kit, 2000, replace=False)
    one = made("a", "extraction", cells("one", large))
    pair = only([one, made("b", "external", cells("two", small))])
    assert np.isin(small, large).mean() > 0.55
    assert pair.verdict == "clear"
    (alike,) = only([one, made("b", "external", cells("two", large[:2000]))]).look_alikes
    assert (alike.n_shared, alike.n_smaller) == (2000, 2000)


def test_a_warning_does_not_hide_a_refusal():
    cells = library("one", "d1", 0)
    panels = [
        made("a", "extraction", cells),
        made("copy", "zero-shot", library("two", "d1", 0)),
        made("c", "external", cells[:1] + library("three", "d1", 7)),
    ]
    report = check_overlap(panels)
    assert [pair.panels for pair in report.pairs] == [("a", "copy"), ("a", "c"), ("copy", "c")]
    assert [pair.verdict for pair in report.pairs] == ["warned", "refused", "clear"]
    assert report.verdict == "refused"
    assert len(report.lines) == 3
    with pytest.raises(PanelError, match=r"'a' \(extraction\) and 'c'"):
        report.require()


def test_the_gravest_verdict_counts():
    clear = check_overlap(
        [made("a", "extraction", library("one", "d", 0)), made("b", "external", library("x", "d", 1))]
    )
    assert (clear.verdict, OverlapReport(()).verdict) == ("clear", "clear")
    assert check_overlap([]).pairs == ()


def test_two_panels_of_one_name_are_refused():
    with pytest.raises(PanelError, match="Two panels are named 'a'"):
        check_overlap([made("a", "extraction", library("one", "d", 0)), made("a", "external", library("x", "d", 1))])


@given(
    st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("de"), st.sampled_from("abcdefgh")), min_size=1),
    st.lists(st.tuples(st.sampled_from("st"), st.sampled_from("de"), st.sampled_from("abcdefgh")), min_size=1),
)
def test_counts_are_those_of_a_double_loop(first, second):
    pair = only([made("a", "extraction", first), made("b", "external", second)])
    cells = {f"{s}:{i}" for s, _, i in first for t, _, j in second if (s, i) == (t, j)}
    donors = {f"{s}:{d}" for s, d, _ in first for t, e, _ in second if (s, d) == (t, e)}
    assert (pair.n_cells, pair.n_donors) == (len(cells), len(donors))
    assert set(pair.cells) <= cells and set(pair.donors) <= donors
    assert pair.verdict == ("refused" if cells or donors else "clear")


@pytest.mark.parametrize(
    ("name", "barcode"),
    [
        ("AAACCTGCACAGACTT-1_1", "AAACCTGCACAGACTT"),
        ("ATGTAAACGTTTGG.1", "ATGTAAACGTTTGG"),
        ("4602STDY7090428_CGTGTCTAGTCACGCC-1", "CGTGTCTAGTCACGCC"),
        ("AAACCTGCACAGACTT_ACGTACGTACGTACGTACGT", "ACGTACGTACGTACGTACGT"),
        ("Run4_120703408880541", "120703408880541"),
        ("donor1-cell-00001234-12", "00001234"),
        ("plate7_A12", "A12"),
        ("cell7", "cell7"),
        ("7", "7"),
        ("", ""),
    ],
)
def test_the_barcode_of_a_name(name, barcode):
    assert barcode_of(name) == barcode


@given(st.text(max_size=30))
def test_a_barcode_is_part_of_the_name(name):
    assert barcode_of(name) in name
    assert not re.search(r"[_#/| ]", barcode_of(name))


def test_members_have_a_digest_of_their_own():
    members = PanelMembers(("one", "one", "two"), ("d", "e", "d"), ("a", "b", "a"))
    assert members.cell_ids == ["one:a", "one:b", "two:a"]
    assert members.donors == {"one:d", "one:e", "two:d"}
    turned = PanelMembers(("two", "one", "one"), ("d", "d", "e"), ("a", "a", "b"))
    assert turned.digest == members.digest
    assert PanelMembers(("one", "one", "two"), ("d", "d", "d"), ("a", "b", "a")).digest != members.digest

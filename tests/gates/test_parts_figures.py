"""Figures of holdouts and controls: what is missed is seen by name, and what decides is told from what informs."""

from __future__ import annotations

import sys

import matplotlib as mpl
import pytest
from figures import assert_readable, run_of

mpl.use("Agg")

from matplotlib import pyplot

from manifoldzoo.cards._errors import BadInputError, MissingExtraError
from manifoldzoo.cards._evidence import EvidenceRun, Record, conclude, judge, undecided
from manifoldzoo.gates.report._figure_controls import controls, controls_in_words, has_controls
from manifoldzoo.gates.report._figure_holdouts import (
    MOST_LEFT_OUT,
    MOST_NAMED,
    has_parts,
    holdouts,
    holdouts_in_words,
    skipped_parts,
)
from manifoldzoo.gates.report._statuses import COLOURS, MARKS

BRANCHES = {"T cell": 0.81, "B cell": -0.3, "erythroid": 0.25}
COMPARED = {"own": 0.8, "n_seeds": 1, "seed_sd": None, "interval_low": -0.05, "interval_high": 0.09}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def run() -> EvidenceRun:
    """Holdouts that pass and fail, with parts named, drawn and left out; comparisons of every kind."""
    draws = {f"random {i + 1}": value for i, value in enumerate([0.5, 0.1, 0.7, 0.6])}
    left_out = {"skipped": "NK: too few pairs; mast: no variance in distance", "n_folds": 3}
    return run_of(
        conclude(
            3,
            [
                judge("trustworthiness", 0.9, ">=", 0.8),
                judge("random_holdout", 0.475, ">=", 0.2, parts=draws),
                judge("branch_holdout", 0.253, ">=", 0.3, parts=BRANCHES, details=left_out),
                Record(
                    gate="study_holdout",
                    status="cannot decide",
                    reason="1 usable folds",
                    details={"skipped": "s1: alone"},
                    decides=False,
                ),
            ],
        ),
        conclude(
            6,
            [
                judge("beats_raw", 0.4, "<", 0.05, details={**COMPARED, "other": 0.78}, parts={"donor a": 0.02}),
                judge("beats_random_init", 0.001, "<", 0.05, details={**COMPARED, "other": 0.6, "seed_sd": 0.02}
                      | {"n_seeds": 5, "interval_low": 0.1, "interval_high": 0.3}),
                undecided("beats_shuffled_weights", "3 seeds, expected at least 5"),
                Record(gate="verdict_beats_expression", status="fail", reason="beats_raw: 0.4", decides=False),
                Record(gate="label_lookup", status="cannot decide", reason="shown beside", decides=False,
                       details={"own": 0.8, "other": 0.99}),
            ],
        ),
    )  # fmt: skip


def by_gid(ax) -> dict[str, object]:
    return {line.get_gid(): line for line in ax.lines if line.get_gid()}


def row_of(ax, name: str) -> float:
    names = [label.get_text() for label in ax.get_yticklabels()]
    return ax.get_yticks()[names.index(name)]


def test_every_part_stands_at_its_value_lowest_first_and_misses_are_seen(run):
    ax = holdouts(run)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [
        *("rung 3: random holdout", "random 2", "3 random draws"),
        *("rung 3: branch holdout", "B cell", "erythroid", "T cell", "NK", "mast"),
        *("rung 3: study holdout", "s1"),
    ]
    assert (ax.get_yticks()[1:] > ax.get_yticks()[:-1]).all()
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    drawn = by_gid(ax)
    for name, value in BRANCHES.items():
        dot = drawn[f"part branch_holdout {name}"]
        assert dot.get_xdata() == [value]
        assert dot.get_ydata() == [row_of(ax, name)]
        # the mean decides, each part is only held against the same line
        missed = value < 0.3
        assert dot.get_marker() == MARKS["fail" if missed else "pass"]
        assert dot.get_color() == COLOURS["fail" if missed else "pass"]
    assert list(drawn["part random_holdout 3 random draws"].get_xdata()) == [0.5, 0.6, 0.7]
    mean = drawn["mean branch_holdout rung 3: branch holdout"]
    assert (mean.get_xdata(), mean.get_marker()) == ([0.253], MARKS["fail"])
    assert mean.get_markersize() > drawn["part branch_holdout T cell"].get_markersize()
    low, high = ax.get_xlim()
    assert low < -0.3
    assert high >= 1


def test_the_threshold_spans_its_own_block_and_no_words(run):
    ax = holdouts(run)
    lines = by_gid(ax)
    for gate, threshold, first, last in (
        ("random_holdout", 0.2, "rung 3: random holdout", "3 random draws"),
        ("branch_holdout", 0.3, "rung 3: branch holdout", "T cell"),
    ):
        line = lines[f"threshold {gate}"]
        assert set(line.get_xdata()) == {threshold}
        assert list(line.get_ydata()) == [row_of(ax, first) - 0.5, row_of(ax, last) + 0.5]
    assert "threshold study_holdout" not in lines


def test_what_was_left_out_is_named_with_the_reason(run):
    said = [text.get_text() for text in holdouts(run).texts]
    assert {"left out: too few pairs", "left out: no variance in distance", "left out: alone"} <= set(said)
    assert any(text.startswith("fail: 0.253, needed >= 0.3") for text in said)
    assert any("cannot decide: 1 usable folds (informs only)" in text for text in said)
    assert skipped_parts(run.rungs[0].records[2]) == [("NK", "too few pairs"), ("mast", "no variance in distance")]
    odd = Record(gate="x", status="cannot decide", reason="y", details={"skipped": "no colon in here"})
    assert skipped_parts(odd) == [("left out", "no colon in here")]
    assert skipped_parts(judge("x", 1.0, ">=", 0.0)) == []


def test_of_very_many_parts_the_lowest_are_named():
    parts = {f"donor {i}": i / 400 for i in range(300)}
    skipped = "; ".join(f"left {i}: too few" for i in range(40))
    long = {"a name of many words " * 9: 0.5, "x" * 200: 0.6}
    many = run_of(
        conclude(
            3,
            [
                judge("donor_holdout", 0.37, ">=", 0.2, parts=parts, details={"skipped": skipped}),
                judge("branch_holdout", 0.55, ">=", 0.2, parts=long, details={"skipped": "why: " + "so " * 99}),
            ],
        )
    )
    ax = holdouts(many)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[1 : MOST_NAMED + 2] == [*(f"donor {i}" for i in range(MOST_NAMED)), f"{300 - MOST_NAMED} others"]
    assert names[MOST_NAMED + 2 :][MOST_LEFT_OUT - 1] == f"{40 - MOST_LEFT_OUT + 1} more"
    missed = by_gid(ax)[f"part donor_holdout {300 - MOST_NAMED} others"]
    assert missed.get_color() == COLOURS["fail"]
    assert len(missed.get_xdata()) == 80 - MOST_NAMED
    assert_readable(ax.figure)


def test_older_evidence_that_kept_no_parts_says_so(run):
    without = judge("donor_holdout", 0.5, ">=", 0.2, details={"n_folds": 5})
    mixed = run_of(conclude(3, [*run.rungs[0].records, without]))
    assert any("not recorded" in text.get_text() for text in holdouts(mixed).texts)
    alone = run_of(conclude(3, [without]))
    assert not has_parts(alone)
    with pytest.raises(BadInputError, match="values of its parts"):
        holdouts(alone)


def test_scores_differences_and_intervals_stand_where_the_record_says(run):
    scores, differences = controls(run)
    names = [label.get_text() for label in scores.get_yticklabels()]
    # what sums up stands below
    assert names == ["raw", "random init (5 seeds)", "shuffled weights", "label lookup", "beats expression"]
    drawn, gaps = by_gid(scores), by_gid(differences)
    for row, (gate, other) in enumerate((("beats_raw", 0.78), ("beats_random_init", 0.6))):
        assert set(drawn[f"own {gate}"].get_xdata()) == {0.8}
        mark = drawn[f"other {gate}"]
        assert (mark.get_xdata(), mark.get_ydata()) == ([other], [row])
        assert gaps[f"difference {gate}"].get_xdata() == [pytest.approx(0.8 - other)]
    assert gaps["interval beats_random_init"].get_xdata().tolist() == [0.1, 0.3]
    assert drawn["seeds beats_random_init"].get_xdata().tolist() == pytest.approx([0.58, 0.62])
    assert "seeds beats_raw" not in drawn
    for panel, lines in ((scores, drawn), (differences, gaps)):
        low, high = panel.get_xlim()
        at = [x for name, line in lines.items() if not name.startswith("mark ") for x in line.get_xdata()]
        assert low <= min(at) and max(at) <= high
    assert scores.get_ylim()[0] > scores.get_ylim()[1]


def test_the_ceiling_is_hollow_and_what_could_not_be_compared_has_no_mark(run):
    scores, differences = controls(run)
    ceiling, decided = by_gid(scores)["other label_lookup"], by_gid(scores)["other beats_raw"]
    assert ceiling.get_markerfacecolor() == "white"
    assert decided.get_markerfacecolor() == decided.get_color() == COLOURS["fail"]
    assert "other beats_shuffled_weights" not in by_gid(scores)
    said = [text.get_text() for text in differences.texts]
    assert said == [
        "q = 0.4: fail",
        "q = 0.001: pass",
        "cannot decide: 3 seeds, expected at least 5",
        "a ceiling, informs only",
        "fail",
    ]
    marks = {gid: line for gid, line in by_gid(differences).items() if gid.startswith("mark ")}
    assert marks["mark beats_shuffled_weights"].get_marker() == MARKS["cannot decide"]
    assert marks["mark verdict_beats_expression"].get_color() == COLOURS["fail"]


def test_details_that_are_no_numbers_are_not_drawn():
    told = {"own": 0.9, "other": 0.8, "interval_low": "low", "interval_high": 10**400, "seed_sd": None}
    scores, differences = controls(run_of(conclude(6, [judge("beats_pca", 0.01, "<", 0.05, details=told)])))
    assert set(by_gid(scores)) == {"own beats_pca", "other beats_pca"}
    assert set(by_gid(differences)) == {"difference beats_pca", "mark beats_pca"}


def test_older_evidence_has_no_interval():
    old = judge("beats_pca", 0.01, "<", 0.05, details={"own": 0.9, "other": 0.8, "difference": 0.1})
    scores, differences = controls(run_of(conclude(6, [old])))
    assert not [gid for gid in by_gid(differences) if gid.startswith("interval")]
    key = [text.get_text() for text in scores.figure.axes[0].get_legend().get_texts()]
    assert key == ["own score", "beaten"]


def test_figures_are_readable_on_real_and_on_made_evidence(run):
    from manifoldzoo.registry._evidence_files import read_evidence
    from manifoldzoo.registry._resolve import load

    manifold = load("hematopoietic")
    real = read_evidence(manifold.path, manifold.digest)[-1]
    assert has_controls(real)
    for one in (real, run):
        assert_readable(controls(one)[0].figure)
    assert_readable(holdouts(run).figure)


def test_panels_share_the_place_of_axes_given(run):
    _, (ax, other) = pyplot.subplots(1, 2, figsize=(18, 6), layout="constrained")
    panels = controls(run, ax=ax)
    assert holdouts(run, ax=other) is other
    assert pyplot.get_fignums() == [1]
    ax.figure.draw_without_rendering()
    frame = ax.get_window_extent()
    left, right = (panel.get_window_extent() for panel in panels)
    assert frame.x0 - 1 <= left.x0 < left.x1 < right.x0 < right.x1 <= frame.x1 + 1


def test_words_say_what_the_figures_show(run):
    assert holdouts_in_words(run) == (
        "rung 3: random holdout: pass, 0.475 >= 0.2; lowest of 4 parts random 2 at 0.10; 1 below the threshold on "
        "their own. rung 3: branch holdout: fail, 0.253, needed >= 0.3; lowest of 3 parts B cell at -0.30; 2 below the "
        "threshold on their own; left out: NK, mast. "
        "rung 3: study holdout: cannot decide, 1 usable folds; left out: s1."
    )
    assert controls_in_words(run) == (
        "raw: own 0.800, comparator 0.780, q = 0.4: fail. "
        "random init (5 seeds): own 0.800, comparator 0.600, q = 0.001: pass. "
        "shuffled weights: cannot decide: 3 seeds, expected at least 5. "
        "label lookup: own 0.800, comparator 0.990, a ceiling, informs only. "
        "beats expression: fail."
    )


def test_runs_with_nothing_to_draw_are_refused():
    nothing = run_of(conclude(3, [judge("trustworthiness", 0.9, ">=", 0.8)]))
    for draw, rung in ((holdouts, 3), (controls, 6)):
        with pytest.raises(BadInputError, match=f"through {rung}"):
            draw(nothing)
    assert not has_parts(nothing)
    assert not has_controls(nothing)
    assert pyplot.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (holdouts, controls):
        with pytest.raises(MissingExtraError, match=r"manifoldzoo\[plot\]"):
            draw(run)

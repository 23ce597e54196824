"""Figures of evidence: bars end at the statistic, lines stand at the threshold, marks say what was decided."""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np
import pytest
from figures import assert_readable, run_of
from hypothesis import given
from hypothesis import strategies as st

mpl.use("Agg")

from matplotlib import pyplot
from matplotlib.colors import same_color, to_rgb

from manifoldzoo.cards._errors import BadInputError, MissingExtraError
from manifoldzoo.cards._evidence import EvidenceRun, NullSummary, Record, conclude, judge, not_run, undecided
from manifoldzoo.gates.nulls._permutation import null_summary
from manifoldzoo.gates.report._figure_gates import gates, gates_in_words
from manifoldzoo.gates.report._figure_null import null, null_histogram, null_in_words
from manifoldzoo.gates.report._statuses import COLOURS, MARKS

SUMMARY = NullSummary(
    kind="labels exchanged",
    n=999,
    mean=0.1,
    sd=0.1,
    minimum=-0.2,
    maximum=0.4,
    quantiles={"0.5": 0.1, "0.05": -0.1, "0.95": 0.3},
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def run() -> EvidenceRun:
    """A run with every status, direction and kind of record."""
    return run_of(
        conclude(1, [Record(gate="digests", status="pass", reason="4 files match")]),
        conclude(2, [judge("latent", 0.0, "<=", 1.0), judge("fold", 1e-7, "<=", 1e-3)]),
        conclude(
            3,
            [
                judge("random_holdout", 0.7, ">=", 0.2),
                judge("donor_holdout", -0.3, ">=", 0.2),
                judge("study_holdout", 0.1, ">=", 0.2, decides=False),
                judge("permutation", 0.25, "<=", 0.001, null=SUMMARY, details={"observed": 0.15}),
                judge("permutation_fixed_head", 0.001, "<=", 0.001, null=SUMMARY, decides=False),
                judge("trust", float("nan"), ">=", 0.8),
                undecided("branch_holdout", "one branch only"),
            ],
        ),
        not_run(4, "rung 3 did not pass"),
    )


def rows(panel) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def bars(panel) -> dict[str, object]:
    """The bar of each row."""
    return {
        name: next(bar for bar in panel.patches if bar.get_y() < row < bar.get_y() + bar.get_height())
        for row, name in enumerate(rows(panel))
    }


def test_every_record_has_a_row_in_its_panel(run):
    reach, stay, bare = gates(run)
    assert rows(reach) == ["rung 3: random holdout", "rung 3: donor holdout", "rung 3: study holdout"]
    assert rows(stay) == [
        *("rung 2: latent", "rung 2: fold", "rung 3: permutation", "rung 3: permutation fixed head"),
    ]
    assert rows(bare) == ["rung 1: digests", "rung 3: trust", "rung 3: branch holdout", "rung 4: specific"]
    # the first row is the top one
    assert all(panel.get_ylim()[0] > panel.get_ylim()[1] for panel in (reach, stay, bare))
    assert any("4 files match" in text.get_text() for text in bare.texts)


def test_bars_end_at_statistics_and_lines_stand_at_thresholds(run):
    reach, stay, _ = gates(run)
    assert [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(reach).values()] == [
        pytest.approx(ends) for ends in ((0, 0.7), (0, -0.3), (0, 0.1))
    ]
    assert stay.get_xscale() == "log"
    ends = [bar.get_x() + bar.get_width() for bar in bars(stay).values()]
    assert ends[1:] == pytest.approx([1e-7, 0.25, 0.001])
    # there is no place for 0 on a logarithmic axis, and no bar
    assert bars(stay)["rung 2: latent"].get_width() == 0
    for panel, thresholds in ((reach, [0.2] * 3), (stay, [1, 1e-3, 1e-3, 1e-3])):
        lines = [line for line in panel.lines if len(line.get_xdata()) == 2]
        assert [line.get_xdata()[0] for line in lines] == pytest.approx(thresholds)
        assert [np.mean(line.get_ydata()) for line in lines] == pytest.approx(range(len(thresholds)))
        low, high = panel.get_xlim()
        assert all(low <= x <= high for line in lines for x in line.get_xdata())
    assert reach.get_xlim()[0] < -0.3


def test_marks_and_colours_say_what_was_decided(run):
    panels = gates(run)
    marks = {
        line.get_gid(): (line.get_marker(), line.get_color())
        for panel in panels
        for line in panel.lines
        if (line.get_gid() or "").startswith("mark ")
    }
    for result in run.rungs:
        for record in result.records:
            assert marks[f"mark {record.gate}"] == (MARKS[record.status], COLOURS[record.status])
    assert same_color(bars(panels[0])["rung 3: random holdout"].get_facecolor(), COLOURS["pass"])
    assert same_color(bars(panels[0])["rung 3: donor holdout"].get_facecolor(), COLOURS["fail"])
    assert bars(panels[0])["rung 3: study holdout"].get_hatch()
    assert not bars(panels[0])["rung 3: donor holdout"].get_hatch()
    said = [text.get_text() for text in panels[0].figure.axes[0].get_legend().get_texts()]
    assert said == ["pass", "fail", "cannot decide", "not run", "threshold", "informs only"]


def test_marks_differ_and_colours_differ_for_the_colour_blind():
    assert len(set(MARKS.values())) == len(MARKS) == len(COLOURS)
    # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
    sees = {
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    }
    for matrix in (*sees.values(), np.eye(3)):
        shown = {}
        for status in ("pass", "fail"):
            channels = np.array(to_rgb(COLOURS[status]))
            linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
            shown[status] = np.clip(np.array(matrix) @ linear, 0, 1) ** (1 / 2.2)
        assert np.linalg.norm(shown["pass"] - shown["fail"]) > 0.35


def test_panels_share_the_place_of_axes_given(run):
    _, (ax, other) = pyplot.subplots(1, 2, figsize=(18, 6), layout="constrained")
    panels = gates(run, ax=ax)
    assert pyplot.get_fignums() == [1]
    ax.figure.draw_without_rendering()
    frame, bottom = ax.get_window_extent(), np.inf
    for panel in panels:
        box = panel.get_window_extent()
        assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1
        assert frame.y0 - 1 <= box.y0 and box.y1 <= frame.y1 + 1
        assert box.y1 < bottom
        bottom = box.y0
    assert not other.texts


def test_a_run_of_one_kind_has_one_panel():
    (panel,) = gates(run_of(conclude(3, [judge("random_holdout", 0.7, ">=", 0.2)])))
    assert rows(panel) == ["rung 3: random holdout"]
    (panel,) = gates(run_of(conclude(3, [judge("strain", 0.0, "<", 0.0), judge("stress", -2.0, "<", 1.0)])))
    assert panel.get_xscale() == "linear"
    assert panel.get_xlim()[0] < -2
    (panel,) = gates(run_of(conclude(3, [judge("random_holdout", 0.0, ">=", 0.0)])))
    assert panel.get_xlim() == (0, 1)


def test_the_bundled_evidence_is_readable():
    from manifoldzoo.registry._evidence_files import read_evidence
    from manifoldzoo.registry._resolve import load

    manifold = load("hematopoietic")
    real = read_evidence(manifold.path, manifold.digest)[-1]
    panels = gates(real)
    assert sum(len(rows(panel)) for panel in panels) == sum(len(result.records) for result in real.rungs)
    assert_readable(panels[0].figure)
    assert_readable(null(real).figure)


def test_every_status_is_readable(run):
    assert_readable(gates(run)[0].figure)
    assert_readable(null(run).figure)


def test_nulls_are_drawn_with_what_was_observed(run):
    ax = null(run)
    assert len(ax.get_yticks()) == 2
    first, second = (label.get_text() for label in ax.get_yticklabels())
    assert first.startswith("rung 3: permutation\n999 draws, labels exchanged")
    assert second.startswith("rung 3: permutation fixed head")
    assert ax.get_yticks()[0] > ax.get_yticks()[1]
    lines = {line.get_gid(): line for line in ax.lines if line.get_gid()}
    # the record of the fixed head names no observed value, and its statistic is a p-value
    assert list(lines) == ["observed permutation"]
    assert lines["observed permutation"].get_xdata().tolist() == [0.15, 0.15]
    assert lines["observed permutation"].get_color() == COLOURS["fail"]
    said = [text.get_text() for text in ax.texts]
    assert said == ["observed 0.150, p = 0.25: fail", "not recorded"]
    steps = [patch.get_data() for patch in ax.patches]
    assert [step.edges.tolist() for step in steps] == [[-0.2, -0.1, 0.1, 0.3, 0.4]] * 2
    assert ax.patches[1].get_hatch() and not ax.patches[0].get_hatch()
    ranges = [line.get_xdata() for line in ax.lines if line.get_marker() == "|"]
    assert [list(ends) for ends in ranges] == [[-0.2, 0.4]] * 2


def test_a_statistic_that_has_to_reach_is_itself_what_was_observed():
    plain = SUMMARY.model_copy(update={"quantiles": {}})
    ax = null(run_of(conclude(4, [judge("relabelled", 0.8, ">=", 0.5, null=plain)])))
    (line,) = [line for line in ax.lines if line.get_gid()]
    assert line.get_xdata().tolist() == [0.8, 0.8]
    # without quantiles, mean and standard deviation
    (box,) = ax.patches
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((0.0, 0.2))


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=300))
def test_a_null_histogram_holds_the_shares_between_its_quantiles(draws):
    summary = null_summary("any", np.array(draws))
    edges, density = null_histogram(summary)
    if summary.maximum - summary.minimum < 1e-200:
        assert density.size == 0
        return
    share = density * np.diff(edges)
    assert share.sum() == pytest.approx(1)
    assert (edges[0], edges[-1]) == (summary.minimum, summary.maximum)
    assert (np.diff(edges) > 0).all()
    for edge, below in zip(edges[1:-1].tolist(), np.cumsum(share)[:-1], strict=True):
        # where quantiles coincide the lowest level stands for all
        assert below == pytest.approx(min(float(level) for level, at in summary.quantiles.items() if at == edge))
    apart = {at for at in summary.quantiles.values() if min(at - edges[0], edges[-1] - at) > 0.01 * np.ptp(edges)}
    assert apart <= set(edges) or min(np.diff(sorted(apart))) < 1e-5 * np.ptp(edges)


def test_quantiles_without_a_level_are_passed_over():
    odd = SUMMARY.model_copy(update={"quantiles": {"0.5": 0.1, "median": 0.2, "nan": 0.2, "1.5": 0.3, "0": -0.1}})
    edges, density = null_histogram(odd)
    assert edges == pytest.approx([-0.2, 0.1, 0.4])
    assert density == pytest.approx([0.5 / 0.3] * 2)


def test_a_histogram_of_evenly_spread_draws_is_flat():
    edges, density = null_histogram(null_summary("even", np.linspace(0, 2, 10_001)))
    assert density == pytest.approx([0.5] * len(density))
    assert edges == pytest.approx([0, 0.02, 0.1, 1, 1.9, 1.98, 1.998, 2])


def test_runs_with_nothing_to_draw_are_refused(run):
    with pytest.raises(BadInputError, match="no records"):
        gates(run_of())
    with pytest.raises(BadInputError, match=r"no .*null distribution|No record.*through 3"):
        null(run_of(conclude(3, [judge("random_holdout", 0.7, ">=", 0.2)])))
    assert pyplot.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for draw in (gates, null):
        with pytest.raises(MissingExtraError, match=r"manifoldzoo\[plot\]"):
            draw(run)


def test_thresholds_of_zero_do_not_hide_small_numbers():
    small = [judge("permutation", 0.001, "<=", 0.001), judge("shared", 0.0, "<=", 0.0), judge("odd", -1.0, "<", 2.0)]
    powers, linear = gates(run_of(conclude(5, small)))
    assert (powers.get_xscale(), linear.get_xscale()) == ("log", "linear")
    assert rows(powers) == ["rung 5: permutation"]
    assert rows(linear) == ["rung 5: shared", "rung 5: odd"]
    assert bars(linear)["rung 5: odd"].get_width() == -1


def test_words_say_what_the_figures_show(run):
    assert gates_in_words(run) == (
        "11 checks against their thresholds: 5 pass; 4 fail (rung 3: donor holdout, rung 3: study holdout, "
        "rung 3: permutation, rung 3: trust); 1 cannot decide (rung 3: branch holdout); 1 not run (rung 4: specific)."
    )
    assert null_in_words(run) == (
        "rung 3: permutation: observed 0.150, 999 draws of the null from -0.200 to 0.400; fail, 0.25, needed <= 0.001. "
        "rung 3: permutation fixed head: nothing recorded as observed, 999 draws of the null from -0.200 to 0.400; "
        "pass, 0.001 <= 0.001, informs only."
    )


def test_text_from_records_is_not_read_as_mathematics():
    name, reason = "$\\frac{", "costs $5 and $\\nope"
    strange = [judge(name, 0.1, ">=", 0.2, null=SUMMARY), Record(gate="$x", status="fail", reason=reason)]
    panels = gates(run_of(conclude(3, strange), reference="$a@$1.0.0"))
    panels[0].figure.draw_without_rendering()
    assert any(reason in text.get_text() for text in panels[1].texts)
    null(run_of(conclude(3, strange))).figure.draw_without_rendering()

"""What axes stand for, as a figure and as tables of the report: the numbers of the records, and nothing else."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest
from figures import assert_readable, run_of
from planted_tree import planted_panel

mpl.use("Agg")

from matplotlib import pyplot

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._evidence import Record, conclude, judge
from manifoldzoo.cards._programs import GeneProgram
from manifoldzoo.gates.report._axis_table import axis_table
from manifoldzoo.gates.report._figure_axes import SHADES, axes_and_programs, axes_in_words, has_programs
from manifoldzoo.gates.report._figure_files import figures_of
from manifoldzoo.gates.report._figure_holdouts import has_parts
from manifoldzoo.gates.report._html import render_report
from manifoldzoo.gates.rungs._axes import axis_records

GENES = [f"G{i}" for i in range(120)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def records() -> list[Record]:
    data = planted_panel(np.random.default_rng(0))
    expression = np.asarray(data.expression)
    latent = expression @ np.random.default_rng(1).standard_normal((120, 3))
    latent[:, 0] = expression[:, :10].mean(axis=1) - expression[:, 10:].mean(axis=1)
    programs = [
        GeneProgram(name="first", label="The first <genes>", genes=GENES[:10], source="made"),
        GeneProgram(name="second", label="Others", genes=GENES[50:70], source="made"),
        GeneProgram(name="small", label="Hardly any", genes=[*GENES[:3], "X1", "X2"], source="made"),
    ]
    return axis_records(data, latent, genes=GENES, programs=programs, seed=3)


@pytest.fixture(scope="module")
def run(records):
    return run_of(conclude(3, records))


def texts(panel) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_the_table_holds_what_the_records_say(records, run):
    separation, loadings = records
    table = axis_table(run)
    assert table.axes == ["axis 1", "axis 2", "axis 3"]
    assert table.eta.tolist() == list(separation.parts.values())
    assert table.epsilon[1] == separation.details["epsilon axis_2"]
    assert table.study[2] == separation.details["study axis_3"]
    assert (table.by_chance, table.study_by_chance) == tuple(
        separation.details[name] for name in ("by_chance", "study_by_chance")
    )
    assert [(p.name, p.label, p.n_genes, p.n_listed) for p in table.programs] == [
        ("first", "The first <genes>", 10, 10),
        ("second", "Others", 20, 20),
        ("small", "Hardly any", 3, 5),
    ]
    assert table.z[1, 2] == loadings.parts["axis_3 second"]
    for what, values in (("q", table.q), ("rank_z", table.rank_z), ("effect", table.effect)):
        assert values[0, 1] == loadings.details[f"{what} axis_2 first"]
        assert np.isnan(values[2]).all()
    assert table.highest[0] == loadings.details["highest axis_1"]


def test_cells_have_the_z_and_a_star_where_q_is_small(run):
    bars, grid = axes_and_programs(run)
    table = axis_table(run)
    found = texts(grid)
    assert found[:6] == [
        f"{table.z[p, a]:.1f}".replace("-0.0", "0.0") + ("*" if table.q[p, a] < 0.05 else "")
        for p in range(2)
        for a in range(3)
    ]
    assert found[6:] == ["too few genes to test"]
    assert found[0].endswith("*") and sum(text.endswith("*") for text in found) == (table.q < 0.05).sum()
    assert [label.get_text() for label in grid.get_yticklabels()] == [
        "The first <genes> (10/10)",
        "Others (20/20)",
        "Hardly any (3/5)",
    ]
    (image,) = grid.images
    assert image.get_cmap().name == SHADES and image.norm(0.0) == 0.5
    assert image.get_array().mask[2].all()
    assert [bar.get_height() for bar in bars.patches] == table.eta.tolist()
    lines = {line.get_gid(): line.get_ydata() for line in bars.lines}
    assert np.array(lines["epsilon"]).tolist() == table.epsilon.tolist()
    assert np.array(lines["study"]).tolist() == table.study.tolist()
    assert set(np.array(lines["chance"])) == {table.by_chance}


def test_it_can_be_read(run):
    bars, _ = axes_and_programs(run)
    assert_readable(bars.figure.figure)


def test_in_words_it_names_what_is_starred(run):
    said = axes_in_words(run)
    assert "axis 1: The first <genes> (+" in said
    assert said.count("eta squared of classes") == 3


def test_it_is_a_file_where_there_are_programs_and_only_there(records, run):
    assert "axes" in [figure.name for figure in figures_of(run)]
    alone = run_of(conclude(3, records[:1]))
    assert not has_programs(alone) and "axes" not in [figure.name for figure in figures_of(alone)]
    with pytest.raises(BadInputError, match="says nothing of gene programs"):
        axes_and_programs(alone)
    nothing = run_of(conclude(3, [judge("x", 0.5, ">=", 0.2)]))
    assert axis_table(nothing) is None and axes_in_words(nothing) == ""


def test_parts_that_describe_are_no_holdouts(run):
    assert not has_parts(run)


class TestReport:
    def test_axes_have_tables_with_every_number(self, records, run):
        page = render_report(run, figures=False)
        assert 'id="axes"' in page and 'href="#axes"' in page
        assert "The first &lt;genes&gt; (10 of 10 genes)" in page and "<genes>" not in page
        for record in records:
            for value in record.parts.values():
                assert f'value="{value!r}"' in page
            for key, value in record.details.items():
                if isinstance(value, float) and key.split(" ")[0] in ("q", "rank_z", "effect", "epsilon", "study"):
                    assert f'value="{value!r}"' in page, key
        assert str(records[1].details["highest axis_2"]) in page
        assert page.count("too few genes") >= 3
        assert "in tables above" in page

    def test_without_programs_it_says_so(self, records):
        page = render_report(run_of(conclude(3, records[:1])), figures=False)
        assert "No gene programs were given" in page

    def test_geometry_of_every_panel_is_one_table(self):
        inside = {"spearman": 0.95, "geodesic_spearman": "the graph falls apart", "margin_over_pca_2": 0.6}
        outside = {"spearman": 0.61, "geodesic_spearman": 0.6, "margin_over_pca_2": 0.125, "margin_over_pca_6": 0.0625}
        page = render_report(
            run_of(
                conclude(3, [described("shipped_geometry", inside)]),
                conclude(5, [described("external_kang_transfer_geometry", outside)]),
            ),
            figures=False,
        )
        assert 'id="beside"' in page and "external kang" in page and "margin over PCA-6" in page
        for value in (0.95, 0.61, 0.125, 0.0625):
            assert page.count(f'value="{value!r}"') == 2
        assert page.count("the graph falls apart") == 2

    def test_a_ruler_stands_beside_its_nulls(self):
        details = {"n_nulls": 2, "ruler_with_mean_null": 0.875, "random": 0.5, "random_null_mean": 0.25}
        details |= {"random_null_highest": 0.375, "random_rank": 1, "random_p": 1 / 3, "random_partial": 0.4375}
        parts = {"random ruler": 0.5, "random null_1": 0.125, "random null_2": 0.375, "random_partial ruler": 0.4375}
        page = render_report(run_of(conclude(4, [described("paired_null", details, parts)])), figures=False)
        assert "random held out" in page and "random held out, given the mean null" in page
        assert "study held out" not in page
        for value in (0.125, 0.375, 0.875):
            assert f'value="{value!r}"' in page
        assert "null_1" not in page


def described(gate: str, details: dict, parts: dict | None = None) -> Record:
    return Record(
        gate=gate, status="cannot decide", reason="shown", decides=False, details=details, parts=parts or {}, n=12
    )

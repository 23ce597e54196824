from __future__ import annotations

from datetime import UTC, datetime

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_document
from tiny_interaction import interaction_document

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._evidence import EvidenceRun, conclude, judge, not_run, undecided
from manifoldzoo.cards._readme import _cell, render_readme

DIGEST = "d" * 64


def run(*rungs, digest=DIGEST, day=1, allowed_below=None):
    return EvidenceRun(
        artifact_digest=digest,
        reference="tiny@0.1.0",
        started=datetime(2026, 1, day, tzinfo=UTC),
        seconds=1.0,
        software={},
        rungs=list(rungs),
        allowed_below=allowed_below,
    )


def render(*evidence, digest=DIGEST, figures=(), **changes):
    return render_readme(parse_card(tiny_document(**changes)), digest, list(evidence), figures)


def front_matter(text):
    start, block, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(block)


def split_row(line):
    """Cells of a table row as GitHub's parser splits it: a backslash takes the next character along."""
    cells, at = [""], 0
    line = line.strip().removeprefix("|")
    while at < len(line):
        if line[at] == "\\":
            cells[-1] += line[at : at + 2]
            at += 2
            continue
        if line[at] == "|":
            cells.append("")
        else:
            cells[-1] += line[at]
        at += 1
    return cells[:-1]


def tables(text):
    """Number of cells of each row of each table."""
    found, inside = [], False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            found[-1].append(len(split_row(line)))
        inside = line.startswith("|")
    return found


@pytest.mark.parametrize("name", ["tiny", "no", "1e5", "123", "null", "a-b"])
def test_front_matter_is_yaml_that_the_hub_client_reads(name):
    text = render(name=name)
    assert front_matter(text)["license"] == "bsd-3-clause"
    data = ModelCard(text).data
    assert data.library_name == "manifoldzoo"
    assert data.license == "bsd-3-clause"
    assert name in data.tags
    assert all(isinstance(tag, str) for tag in data.tags)


@pytest.mark.parametrize("licence", ["LGPL-3.0-only", "MIT OR Apache-2.0"])
def test_a_licence_that_the_hub_does_not_list_is_other_by_name(licence):
    fields = front_matter(render(licence=licence))
    assert fields["license"] == "other"
    assert fields["license_name"] == licence.lower()


def test_a_title_like_yaml_does_not_reach_the_front_matter():
    text = render(title="---\nlicense: mit\n---", description="---")
    assert ModelCard(text).data.license == "bsd-3-clause"


def test_without_a_run_it_says_so_and_shows_no_rung():
    text = render()
    assert "Highest rung" not in text
    assert "No validation run" in text


def test_evidence_of_another_digest_is_left_out():
    text = render(run(conclude(1, [judge("stranger", 0.9, ">=", 0.8)]), digest="e" * 64))
    assert text == render()
    assert "stranger" not in text


def test_the_run_that_reached_highest_is_shown_and_the_newest_among_equals():
    high = run(conclude(1, [judge("older_high", 1.0, ">=", 0.8)]), day=2)
    newer = run(conclude(1, [judge("newer_high", 1.0, ">=", 0.8)]), day=3)
    low = run(conclude(1, [judge("newest_low", 0.1, ">=", 0.8)]), day=9)
    for order in ([high, newer, low], [low, newer, high]):
        text = render(*order)
        assert "newer_high" in text
        assert "older_high" not in text
        assert "newest_low" not in text
        assert "**1** of 6" in text


def test_every_figure_is_that_of_a_record():
    text = render(
        run(
            conclude(1, [judge("intact", 1.0, ">=", 0.5, n=24, details={"k": 10, "spread": 0.01234})]),
            conclude(2, [judge("close", 0.123456, "<=", 0.1), judge("warned", 0.2, ">=", 0.8, decides=False)]),
            conclude(3, [undecided("trust", "too few anchors")]),
            not_run(4, "stopped at rung 2"),
        )
    )
    rows = {
        split_row(line)[0].strip(): [c.strip() for c in split_row(line)]
        for line in text.splitlines()
        if line[:1] == "|"
    }
    assert rows["1"][1:3] == ["valid", "pass"]
    assert rows["2"][1:3] == ["reproduces", "fail"]
    assert rows["3"][1:] == ["gates", "cannot decide", "trust: too few anchors"]
    assert rows["4"][2] == rows["5"][2] == rows["6"][2] == "not run"
    assert rows["intact"][1:] == ["1", ">= 0.5", "24", "pass", "k 10; spread 0.0123"]
    assert rows["close"][1:] == ["0.1235", "<= 0.1", "", "fail", ""]
    assert rows["warned"][4] not in ("pass", "fail")
    assert rows["trust"][1:3] == ["", ""]
    assert "**1** of 6" in text


def test_the_reason_for_publishing_below_rung_3_is_shown():
    assert "needed for a figure" in render(run(allowed_below="needed for a figure"))


@given(st.text(st.sampled_from("a|\\\n\r\t\x0b\u2028`*"), max_size=12))
def test_text_cannot_break_out_of_a_table_cell(text):
    line = f"| {_cell(text)} | end |"
    assert len(line.splitlines()) == 1
    assert [cell.strip() for cell in split_row(line)][1:] == ["end"]


@pytest.mark.parametrize("nasty", ["a|b", "a\\|b", "a\\\\|b", "a\nb", "a\r\n| 6 | model-derived | pass | |\nb", "\\"])
def test_hostile_evidence_and_panels_keep_the_tables_whole(nasty):
    document = tiny_document()
    document["panel"]["files"][0] |= {"name": f"{nasty}.h5ad", "source": nasty}
    evidence = run(conclude(1, [judge(nasty, 0.1, ">=", 0.8, details={"what": nasty}), undecided(nasty, nasty)]))
    text = render_readme(parse_card(document), DIGEST, [evidence])
    for rows, width in zip(tables(text), (4, 6, 5), strict=True):
        assert set(rows) == {width}


def test_figures_limits_citations_and_identity_are_there():
    text = render(
        figures=["manifold_plot.png"],
        limits=["Means nothing.", "Really."],
        citations=[
            {"key": "a", "text": "A (2026).", "doi": "10.1/x"},
            {"key": "b", "text": "B.", "url": "https://b.org"},
        ],
    )
    for expected in (
        "(figures/manifold_plot.png)",
        "- Really.",
        "A (2026). <https://doi.org/10.1/x>",
        "B. <https://b.org>",
        DIGEST,
        "tiny@0.1.0",
        "X_tiny",
    ):
        assert expected in text


def test_a_control_says_so_before_anything_else():
    document = tiny_document()
    document["extraction"]["control"] = {"kind": "random-init", "seed": 7}
    text = render_readme(parse_card(document), "0" * 64, [])
    opening = text.split("## ")[0]
    assert "random-init" in opening
    assert "seed 7" in opening
    assert "control" in yaml.safe_load(text.split("---")[1])["tags"]
    plain = render_readme(parse_card(tiny_document()), "0" * 64, [])
    assert "control" not in plain.split("## ")[0].lower()


def test_what_a_kind_of_operator_does_not_have_is_not_shown():
    document = tiny_document()
    document["extraction"]["operator"] |= {
        "kind": "token_qk",
        "combination": "top_k",
        "n_cells": 0,
        "cells_digest": None,
        "pairs_seen": None,
        "heads": [{"layer": 2, "head": 5, "weight": 1.0, "score": 0.6}],
        "chosen_by": "screen of the panel",
    }
    line = next(line for line in render_readme(parse_card(document), "0" * 64, []).splitlines() if "token_qk" in line)
    assert "L2H5" in line
    assert "screen of the panel" in line
    assert "%" not in line
    assert "0 cells" not in line


def chosen(**changes):
    candidates = [
        {"kind": "attention_mean", "combination": "single", "layer": 2, "head": 1, "n_components": 3},
        {"kind": "distilled", "combination": "none", "n_components": 6},
    ]
    made = {"left_out": None, "scores": [0.71, 0.82], "chosen": 1}
    runs = [
        {"left_out": "one|study", "scores": [0.6, None], "chosen": 0, "left_out_score": 0.41},
        {"left_out": "other", "scores": [None, None], "chosen": None},
    ]
    choice = {"candidates": candidates, "left_out_by": "study", "n_starts": 5, "made": made, "runs": runs}
    extraction = tiny_document()["extraction"]
    return {"extraction": extraction | {"choice": choice | {"left_out_score": 0.41} | changes}}


def test_a_choice_is_shown_with_what_it_is_worth():
    text = render(**chosen())
    section = text.split("## How it was chosen")[1].split("\n## ")[0]
    rows = [split_row(line) for line in section.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in rows[2:]] == [
        ["attention_mean, single L2H1", "3", "0.710", "**0.600**", "cannot decide"],
        ["distilled", "6", "**0.820**", "cannot decide", "cannot decide"],
        ["best, on what was left out", "", "0.410", "0.410", "cannot decide"],
    ]
    assert len(rows[0]) == 5
    assert "## How it was chosen" not in render()


def test_panels_that_nothing_was_fitted_to_are_listed():
    manifest = tiny_document()["panel"]
    panel = {"name": "external", "role": "external", "n_shared_cells": 0, "n_shared_donors": 3}
    panel |= {"specification": "1" * 64, "manifest": manifest}
    untrained = [{"control": "random-init", "seed": seed, "digest": "2" * 64} for seed in (0, 1)]
    text = render(panels=[panel], untrained=untrained)
    (row,) = [split_row(line) for line in text.splitlines() if line.startswith("| external |")]
    assert [cell.strip() for cell in row[:2]] == ["external", "external"]
    assert [int(cell) for cell in row[3:]] == [len(manifest["anchors"]), 6, 0, 3]
    assert "2 models" in text


def test_the_first_figure_stands_at_the_top_and_the_others_below():
    text = render(figures=["anchors.png", "gates.png", "null.png"])
    places = [text.index(f"(figures/{name}.png)") for name in ("anchors", "gates", "null")]
    assert places[0] < text.index("## ") < text.index("## Figures") < places[1] < places[2]
    assert "## Figures" not in render(figures=["anchors.png"])


def test_the_plan_of_the_evidence_is_shown():
    assert "as the recipe fixed it" not in render()
    text = render(evidence={"n_permutations": 5000})
    assert "5000 permutations of labels, 999 of branches, 20 starts of the head" in text
    assert "rung 6 compares with raw, z_scored" in text


def interactions(**changes):
    """A README of the tiny manifold under a ruler of interactions."""
    document = tiny_document()
    document["extraction"]["readouts"] = []
    return render_readme(parse_card(document | {"ruler": interaction_document(**changes)}), DIGEST, [])


def test_a_ruler_of_interactions_is_described():
    text = interactions()
    assert "- Ruler: talk 1, a table of interactions between 6 cell types of 3 broad classes" in text
    section = text.split("## The ruler\n")[1].split("\n## ")[0]
    for said in (
        "liana:consensus 1.10.0",
        "4,701 pairs of 1,032 ligand and 933 receptor genes",
        "`6666666666666666`",
        "from 10% of the cells on",
        "at least 5 cells",
        "| 12 | 1,001 of 1,032 | 902 of 933 |",
        "describes 31 (40 paths)",
        "AUROC of 0.637; its nulls with 0.600 (0.500 to 0.700), 1 of 2 at least as well.",
        "lacks 2 of the paths, and 0 are not expressed",
        "2 rulers with receptors exchanged travel along as its nulls (seed 3)",
    ):
        assert said in section, said
    assert [set(rows) for rows in tables(section)] == [{4}]
    assert "## The ruler" not in render()
    assert "a graph of 6 stages, 3 branches, rooted at stem." in render()


def test_what_was_not_measured_of_a_ruler_is_said():
    text = interactions(curated=None, resource="mine.csv", resource_version="")
    assert "not held against pairs of cell types from the literature" in text
    assert "AUROC" not in text
    assert "receptors of mine.csv (" in text


def test_the_map_of_interactions_stands_first():
    names = ["anchors.png", "gates.png", "interaction_map.png", "sender_receiver.png"]
    text = render(figures=names)
    before, after = text.split("## Use")
    assert before.count("figures/") == 1
    assert "![interaction map](figures/interaction_map.png)" in before
    assert [line.split("(figures/")[1][:-1] for line in after.splitlines() if "(figures/" in line] == [
        *("anchors.png", "gates.png", "sender_receiver.png")
    ]
    assert "(figures/anchors.png)" in render(figures=["anchors.png", "stages.png"]).split("## Use")[0]


def test_of_a_record_with_hundreds_of_details_the_first_are_shown_and_the_rest_counted():
    details = {f"q axis_{number}": number / 1000 for number in range(1, 101)}
    text = render(run(conclude(1, [judge("loadings", 1.0, ">=", 0.5, details=details)])))
    (row,) = (line for line in text.splitlines() if line.startswith("| loadings |"))
    shown = [name for name in details if f"{name} " in row]
    assert shown == list(details)[: len(shown)]
    assert 10 <= len(shown) < 30
    assert f"{len(details) - len(shown)} more in" in row

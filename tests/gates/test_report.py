"""The HTML report: every record is in it, nothing hostile gets through, and it says what was not proven."""

from __future__ import annotations

import base64
import itertools
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import pytest
from figures import run_of
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_document

mpl.use("Agg")

from matplotlib import pyplot

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, NotFoundError
from manifoldzoo.cards._evidence import (
    RUNG_CLAIMS,
    RUNG_NAMES,
    EvidenceRun,
    NullSummary,
    Record,
    RegisteredTest,
    best_run,
    conclude,
    judge,
    not_run,
    undecided,
)
from manifoldzoo.cards._own_panel import MappedLabel, OwnPanelReport, PanelNeed
from manifoldzoo.gates.report._figure_files import MOST_ROWS
from manifoldzoo.gates.report._html import checked_target, reached_in_words, render_report, write_report
from manifoldzoo.gates.report._markup import Html, element, together
from manifoldzoo.gates.report._page_style import STYLE

ROOT = Path(__file__).resolve().parents[2]
VOID = {"meta", "img", "wbr"}
NULL = NullSummary(
    kind="labels exchanged",
    n=999,
    mean=0.1234567,
    sd=0.05,
    minimum=-0.2,
    maximum=0.4,
    quantiles={"0.5": 0.1, "0.95": 0.3},
    n_arrangements=5040.0,
)


class Page(HTMLParser):
    """A page as its elements: text, attributes, and the rows of its tables; crossed or open tags are refused."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in {*self.open}:
            self.text.setdefault(tag, []).append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]

    def said(self, tag: str = "body") -> str:
        return "".join(self.text.get(tag, []))

    def row(self, first: str) -> list[str]:
        (found,) = [row for row in self.rows if row[0] == first]
        return found


@pytest.fixture(autouse=True)
def close_figures():
    yield
    assert not pyplot.get_fignums()


@pytest.fixture(scope="module")
def run() -> EvidenceRun:
    parts = {"T cell": 0.81, "B cell": -0.31}
    holdout = judge(
        "branch_holdout", 0.25, ">=", 0.2, n=12, seed=77, parts=parts, details={"skipped": "NK: too few", "n_folds": 2}
    )
    return run_of(
        conclude(1, [Record(gate="digests", status="pass", reason="4 files match")]),
        conclude(2, [judge("latent", 1.23456789e-7, "<=", 1.0)]),
        conclude(
            3,
            [
                holdout,
                judge("permutation", 0.25, "<=", 0.001, null=NULL, details={"observed": 0.15, "warning": "mind this"}),
                judge("study_holdout", 0.1, ">=", 0.2, decides=False, details={"exact": True, "gone": None}),
                undecided("donor_holdout", "one donor only"),
            ],
        ),
        not_run(4, "the artifact carries no negative panel"),
        software={"python": "3.11", "numpy": "2.0"},
        panel_digest="b" * 64,
    )


@pytest.fixture(scope="module")
def html(run) -> str:
    return render_report(run)


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_it_says_what_was_validated_and_how_high_it_got(run, page):
    said = page.said()
    for told in ("tiny@0.1.0", "a" * 64, "b" * 64, "2026-01-02 00:00:00+00:00", "numpy 2.0", "1 seconds"):
        assert told in said
    assert reached_in_words(run) in page.said("p")
    assert (
        reached_in_words(run) == "tiny@0.1.0 reached rung 2 of 6, reproduces: same numbers here; rung 3, gates, failed."
    )
    assert "rung 2 of 6" in page.said("title")


@pytest.mark.parametrize(
    ("rungs", "said"),
    [
        ([], "tiny@0.1.0 reached no rung; rung 1, valid, was not run."),
        ([conclude(1, [judge("x", 0.0, ">=", 1.0)])], "tiny@0.1.0 reached no rung; rung 1, valid, failed."),
        (
            [conclude(1, [judge("x", 1.0, ">=", 1.0)]), conclude(2, [undecided("y", "no vectors")])],
            "tiny@0.1.0 reached rung 1 of 6, valid: it is intact; rung 2, reproduces, could not be decided.",
        ),
        (
            [conclude(rung, [judge("x", 1.0, ">=", 1.0)]) for rung in RUNG_NAMES],
            "tiny@0.1.0 reached rung 6 of 6, model-derived: the foundation model adds something.",
        ),
    ],
)
def test_one_sentence_for_every_outcome(rungs, said):
    assert reached_in_words(run_of(*rungs)) == said


def test_the_ladder_has_six_rungs_with_claim_status_and_reason(run, page):
    statuses = {
        1: "● pass",
        2: "● pass",
        3: "✕ fail",
        4: "\N{EN DASH} not run",
        5: "\N{EN DASH} not run",
        6: "\N{EN DASH} not run",
    }
    for rung, name in RUNG_NAMES.items():
        told = page.row(f"{rung} {name}")
        assert told[1:3] == [RUNG_CLAIMS[rung], statuses[rung]]
    assert page.row("3 gates")[3] == run.rungs[2].reason
    assert page.row("5 transfers")[3] == "the run was asked for rungs 1 to 4"


def test_claims_are_those_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) ([\w-]+) \| ([^|]+) \|", readme, re.M)
    assert [(int(rung), name, claim) for rung, name, claim in rows] == [
        (rung, name, RUNG_CLAIMS[rung]) for rung, name in RUNG_NAMES.items()
    ]


def test_every_record_is_there_with_all_that_it_holds(run, page):
    for result in run.rungs:
        for record in result.records:
            place = next(i for i, row in enumerate(page.rows) if row[0] == record.gate and len(row) == 4)
            statistic, needed, said = page.rows[place][1:]
            assert statistic == ("" if record.statistic is None else f"{record.statistic:.4g}")
            assert record.status in said
            assert ("does not decide" in said) is not record.decides
            if record.threshold is None:
                assert needed == ""
                assert record.reason in said
            else:
                assert needed.split()[1] == f"{record.threshold:g}"
    more = {row[0]: below for row, below in itertools.pairwise(page.rows) if len(below) == 1}
    holdout, permutation, study = (more[name][0] for name in ("branch_holdout", "permutation", "study_holdout"))
    for told in ("n12", "seed77", "skippedNK: too few", "n_folds2", "T cell 0.81, B cell -0.31"):
        assert told in holdout
    for told in ("warningmind this", "999 draws, mean 0.1235, sd 0.05", "0.5: 0.1, 0.95: 0.3", "5040 distinct"):
        assert told in permutation
    assert "exactyes" in study
    assert "gone" not in study


def test_numbers_are_whole_for_machines(page):
    values = [attributes["value"] for attributes in page.all("data")]
    assert {"1.23456789e-07", "0.1234567", "-0.31"} <= set(values)


def test_what_is_open_is_told_with_the_reason(page):
    assert page.row("rung 3: donor_holdout")[1:] == ["◆ cannot decide", "one donor only"]
    assert page.row("rung 3: branch_holdout, NK")[1:] == ["part left out", "too few"]
    assert page.row("rung 4: specific")[1:] == ["\N{EN DASH} not run", "the artifact carries no negative panel"]
    assert page.row("rung 6: all of model-derived")[1:] == ["\N{EN DASH} not run", "this run was not asked for it"]
    whole = run_of(*(conclude(rung, [judge("x", 1.0, ">=", 1.0)]) for rung in RUNG_NAMES))
    assert "nothing was left open" in Page(render_report(whole, figures=False)).said()
    # a ceiling that decides nothing is no open question
    lookup = Record(gate="label_lookup", status="cannot decide", reason="shown beside", decides=False)
    shown = run_of(*whole.rungs[:5], conclude(6, [judge("x", 1.0, ">=", 1.0), lookup]))
    assert "nothing was left open" in Page(render_report(shown, figures=False)).said()


def test_registered_tests_are_shown_where_there_are_any(run, page):
    assert "holds no list of tests that were registered" in page.said()
    tests = [
        RegisteredTest(rung=3, gate="trust", direction=">=", threshold=0.8),
        RegisteredTest(rung=6, gate="beats_raw", direction="<", threshold=0.05, decides=False, family="comparisons"),
    ]
    told = Page(render_report(run.model_copy(update={"registered": tests}), figures=False))
    assert told.row("rung 3: trust") == ["rung 3: trust", "≥ 0.8", "yes", ""]
    assert told.row("rung 6: beats_raw") == ["rung 6: beats_raw", "< 0.05", "no", "comparisons"]


def test_figures_are_part_of_the_page_and_say_their_finding(page):
    pictures = page.all("img")
    assert len(pictures) == 3
    for picture in pictures:
        kind, content = picture["src"].split(",", 1)
        assert kind == "data:image/svg+xml;base64"
        assert b"<svg" in base64.b64decode(content)
    told = [picture["alt"] for picture in pictures]
    assert told[0].startswith("Checks and thresholds. 7 checks against their thresholds: 3 pass; 2 fail")
    assert "lowest of 2 parts B cell at -0.31" in told[1]
    assert "observed 0.150, 999 draws of the null" in told[2]


def test_equal_runs_make_equal_pages(run, html):
    assert render_report(run) == html


def test_it_can_be_read_by_machines_and_without_sight(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.found if re.fullmatch(r"h\d", tag)]
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert all(header["scope"] in ("col", "row", "rowgroup") for header in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {link["href"].removeprefix("#") for link in page.all("a")}
    assert targets <= set(ids)
    assert {section["aria-labelledby"] for section in page.all("section")} <= set(ids)
    assert all(picture["alt"] for picture in page.all("img"))


def test_it_needs_nothing_else_and_runs_nothing(html, page):
    assert not {"script", "iframe", "object", "link", "form", "base"} & {tag for tag, _ in page.found}
    for tag, attributes in page.found:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value.startswith(("data:image/svg+xml;base64,", "#")), tag
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert "://" not in re.sub(r"base64,[^\"]+", "", html)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


HOSTILE = "</td></table></style><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;\x00\u202e"


def test_hostile_text_stays_text():
    harmless = Page(render_report(run_of(conclude(1, [Record(gate="x", status="fail", reason="x")])), figures=False))
    null = NULL.model_copy(update={"kind": HOSTILE, "quantiles": {HOSTILE: 0.1}})
    record = judge(
        HOSTILE, 0.1, ">=", 0.2, null=null, parts={HOSTILE: 0.1}, details={HOSTILE: HOSTILE, "skipped": HOSTILE}
    )
    run = run_of(
        conclude(3, [record, undecided(HOSTILE, HOSTILE)]),
        reference=HOSTILE,
        software={HOSTILE: HOSTILE},
        allowed_below=HOSTILE,
    ).model_copy(update={"registered": [RegisteredTest(rung=3, gate=HOSTILE, family=HOSTILE)]})
    html = render_report(run, note=HOSTILE)
    page = Page(html)
    for tag in ("script", "style", "table"):
        assert html.count(f"<{tag}") == len(page.all(tag))
    assert len(page.all("script")) == 0
    assert len(page.all("style")) == len(harmless.all("style")) == 1
    assert all("onerror" not in attributes for _, attributes in page.found)
    assert "\x00" not in html
    assert "\u202e" not in html
    assert page.all("img")
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    # header, note, reason for publishing below, statuses, names and details
    assert page.said().count(shown) > 10


@given(st.text())
def test_any_text_comes_back_as_it_was_but_for_what_no_page_can_hold(text):
    page = Page(element("p", text, title=text))
    said = page.said("p")
    assert page.all("p")[0]["title"] == said
    assert len(said) == len(text)
    assert all(a == b or b == "\ufffd" for a, b in zip(text, said, strict=True))
    said.encode("utf-8")
    assert together(Html(text)) == text


def test_other_scripts_are_kept(tmp_path):
    reason = "Zellen fehlen: 細胞, κύτταρα, café"
    path = write_report(run_of(conclude(1, [undecided("größe", reason)])), tmp_path / "報告.html", figures=False)
    assert reason in Page(path.read_text(encoding="utf-8")).said()


def test_a_huge_run_is_whole_and_not_drawn():
    records = [
        judge(f"gate_{i}", 0.5, ">=", 0.2, n=i, parts={f"part {j}": 0.5 for j in range(20)})
        for i in range(MOST_ROWS * 4)
    ]
    page = Page(render_report(run_of(conclude(3, records))))
    names = {row[0] for row in page.rows}
    assert {record.gate for record in records} <= names
    assert not page.all("img")
    assert "left out: nobody could read them" in page.said()


def test_a_run_of_nothing_is_a_page():
    page = Page(render_report(run_of()))
    assert "The run has no records." in page.said()
    assert "There is nothing to draw." in page.said()
    assert page.row("1 valid")[3] == "the run tried no rung"


def test_without_matplotlib_it_has_no_figures_and_says_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    page = Page(render_report(run))
    assert "Figures need matplotlib" in page.said()
    assert not page.all("img")
    assert page.row("3 gates")[2] == "✕ fail"


def test_figures_can_be_left_out(run):
    page = Page(render_report(run, figures=False))
    assert not page.all("img")
    assert "without figures" in page.said()


def test_the_card_tells_more_and_a_control_is_named(run):
    document = tiny_document()
    said = Page(render_report(run, card=parse_card(document), figures=False)).said()
    for told in ("Tiny", "24 anchors of 6 stages from 1 studies", "Means nothing."):
        assert told in said
    assert "A control, not a manifold" not in said
    document["extraction"]["control"] = {"kind": "random-init", "seed": 3}
    said = Page(render_report(run, card=parse_card(document), figures=False)).said()
    assert "A control, not a manifold: random-init, seed 3." in said


def test_what_was_allowed_and_where_it_comes_from_stand_on_top(run):
    allowed = run.model_copy(update={"allowed_below": "a negative result"})
    page = Page(render_report(allowed, note="As stored.", figures=False))
    assert "Published below rung 3, reason given: a negative result" in page.said("header")
    assert "As stored." in page.said("header")


def test_cells_of_the_users_own_are_told_and_count_for_no_rung(run):
    own = OwnPanelReport(
        name="mine <b>.h5ad",
        sha256="c" * 64,
        digest=None,
        columns={"donor": "patient"},
        layer="X",
        min_cells=5,
        n_cells=1234,
        n_used_cells=1000,
        **dict.fromkeys(("n_anchors", "n_donors", "n_tissues", "n_studies", "n_stages", "n_branches"), 2),
        n_small_groups=1,
        n_small_cells=3,
        coverage=0.987654,
        n_missing_genes=7,
        mapped=[MappedLabel(label="T", stage="t_cell", by="own table", n_cells=900, n_anchors=2)],
        left_out={"doublet": 30},
        unmapped={"odd": 40},
        unused=["nobody"],
        needs=[PanelNeed(rung=5, check="external_all", needed="10 anchors", got="2 anchors", enough=False)],
    )
    page = Page(render_report(run.model_copy(update={"own_panel": own}), figures=False))
    assert "mine <b>.h5ad" in page.said("header")
    assert "counts for no rung" in page.said("header")
    assert page.row("rung 5: external_all")[1:] == ["10 anchors", "2 anchors", "no"]
    assert page.row("T")[1:] == ["t_cell", "own table", "900", "2"]
    assert [page.row(label)[1] for label in ("odd", "doublet", "nobody")] == ["no stage", "left out", "not used"]
    for told in ("1,234", "0.9877", "donor: patient", "c" * 64):
        assert told in page.said("dl")


def test_fields_of_later_versions_are_not_dropped(run):
    class Later(EvidenceRun):
        machine: str = "one of ours"

    later = Later.model_validate(run.model_dump())
    assert "one of ours" in Page(render_report(later, figures=False)).said()


def test_the_file_is_written_whole_or_not_at_all(run, tmp_path, monkeypatch):
    path = write_report(run, str(tmp_path / "report.HTML"), figures=False)
    assert path == tmp_path / "report.HTML"
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            write_report(run_of(), path, figures=False)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.HTML"]


def test_where_no_report_can_be_written_is_told(run, tmp_path):
    with pytest.raises(NotFoundError, match=r"no/where does not exist.*mkdir"):
        checked_target(tmp_path / "no" / "where" / "report.html")
    with pytest.raises(BadInputError, match=r"is a folder, expected a file.*report\.html"):
        checked_target(tmp_path)
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadInputError, match="is a folder"):
        write_report(run, tmp_path / "folder.html")
    for name in ("card.json", "report"):
        with pytest.raises(BadInputError, match=r"does not end in \.html"):
            write_report(run, tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.html"]


def test_colours_can_be_read_in_the_light_and_in_the_dark():
    def luminance(colour: str) -> float:
        digits = colour.removeprefix("#")
        digits = "".join(2 * digit for digit in digits) if len(digits) == 3 else digits
        channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    schemes = [dict(re.findall(r"--(\w+): (#\w+)", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.S)]
    assert len(schemes) == 3
    for scheme in schemes:
        for ink in ("ink", "soft", "pass", "fail", "open"):
            for ground in ("paper", "band"):
                dark, light = sorted((luminance(scheme[ink]), luminance(scheme[ground])))
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground, scheme)


def test_the_best_run_reached_highest_and_is_the_newest_of_those():
    first = run_of(conclude(1, [judge("x", 1.0, ">=", 1.0)]))
    newer = first.model_copy(update={"started": first.started.replace(year=2027)})
    lower = run_of().model_copy(update={"started": first.started.replace(year=2028)})
    assert best_run([newer, first, lower]) is newer
    own = first.model_copy(update={"own_panel": object(), "started": first.started.replace(year=2029)})
    assert best_run([lower, own]) is lower
    assert best_run([own]) is own

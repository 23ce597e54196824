"""A validation run as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import textwrap
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...cards._card import Card
from ...cards._errors import BadInputError, MissingExtraError, NotFoundError
from ...cards._evidence import RUNG_CLAIMS, RUNG_NAMES, EvidenceRun, rung_reached
from ...manifolds._files import write_bytes
from ._axis_table import axis_table
from ._figure_files import MOST_ROWS, RunFigure, figures_of
from ._html_axes import axes_section
from ._html_beside import geometry_table, paired_null_of, paired_null_table
from ._html_own_cells import own_cells
from ._html_records import AXES, BESIDE, facts, ladder, number, open_questions, records_of_rung, registered_tests
from ._markup import Html, element, together
from ._page_style import STYLE
from ._statuses import rows_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_ALT = 1200
# nothing is loaded and nothing is run, whatever the records say
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_SECTIONS = {
    "ladder": "The ladder",
    "what": "What was validated",
    "open": "What is open, and why",
    "figures": "Figures",
    AXES: "What the axes stand for",
    BESIDE: "Beside the gates",
    "records": "Every record",
    "registered": "Registered tests",
    "own": "Cells of the user's own",
}


def write_report(
    run: EvidenceRun, path: Path | str, *, card: Card | None = None, figures: bool = True, note: str = ""
) -> Path:
    """Write a validation run as one self-contained HTML file.

    It holds what was validated, the highest rung reached, the ladder, what did not run and why, figures, every record
    with all that it holds, and the tests that were registered. It has no scripts, and loads nothing.

    Parameters
    ----------
    run
        As ``validate`` returns it, or read from ``evidence/``.
    path
        The file, ending in ``.html`` or ``.htm``, written whole or not at all.
    card
        Of the artifact; its title, source model, panel and limits are told too.
    figures
        Whether figures are drawn, which needs matplotlib; without it the report says that it has none.
    note
        A sentence about where the run comes from, shown on top.

    Returns
    -------
    The file.

    Raises
    ------
    BadInputError
        If the path is a folder or has another ending.
    NotFoundError
        If its folder does not exist.
    StoreError
        If it cannot be written.
    """
    target = checked_target(path)
    write_bytes(target, render_report(run, card=card, figures=figures, note=note).encode())
    return target


def checked_target(path: Path | str) -> Path:
    """Return the file that a report can be written to.

    Parameters
    ----------
    path
        As ``write_report`` takes it.

    Raises
    ------
    BadInputError
        If the path is a folder, or has another ending.
    NotFoundError
        If its folder does not exist.
    """
    target = Path(path)
    if target.is_dir():
        raise BadInputError(f"{target} is a folder, expected a file.", f"Write to {target / 'report.html'}.")
    if target.suffix.lower() not in (".html", ".htm"):
        raise BadInputError(f"{target.name!r} does not end in .html.", f"Write to {target.with_suffix('.html')}.")
    if not target.parent.is_dir():
        raise NotFoundError(f"The folder {target.parent} does not exist.", f"Run `mkdir -p {target.parent}`.")
    return target


def render_report(run: EvidenceRun, *, card: Card | None = None, figures: bool = True, note: str = "") -> str:
    """Render the page of ``write_report``.

    Parameters
    ----------
    run, card, figures, note
        As ``write_report`` takes them.
    """
    bodies = {
        "what": _what(run, card),
        "ladder": ladder(run),
        "open": open_questions(run),
        "figures": _figures(run) if figures else element("p", "This report was asked for without figures."),
        "records": _records(run),
        "registered": registered_tests(run),
    }
    axes, geometry, paired = axis_table(run), geometry_table(run), paired_null_of(run)
    if axes is not None:
        bodies[AXES] = axes_section(axes)
    if geometry or paired is not None:
        bodies[BESIDE] = together(geometry, "" if paired is None else paired_null_table(paired))
    if run.own_panel is not None:
        bodies["own"] = own_cells(run.own_panel)
    sections = {key: title for key, title in _SECTIONS.items() if key in bodies}
    links = [element("li", element("a", title, href=f"#{key}")) for key, title in sections.items()]
    body = element(
        "body",
        element("header", *_header(run, card, note), element("nav", element("ul", *links), aria_label="Sections")),
        element(
            "main",
            *(
                element("section", element("h2", title, id=f"h-{key}"), bodies[key], id=key, aria_labelledby=f"h-{key}")
                for key, title in sections.items()
            ),
        ),
        element("footer", element("p", _FOOT, class_="soft")),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"{run.reference}: rung {rung_reached(run.rungs)} of {len(RUNG_NAMES)}"),
        # the style is ours: as text it would be escaped
        element("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


_FOOT = (
    "Statistics are rounded to four digits for reading; the evidence file, and `manifoldzoo validate --json`, hold "
    "them whole. A rung that was not run, or could not be decided, is never a pass."
)


def reached_in_words(run: EvidenceRun) -> str:
    """One plain sentence: how high the run got, and what stopped it."""
    reached, top = rung_reached(run.rungs), len(RUNG_NAMES)
    said = f"{run.reference} reached no rung"
    if reached:
        said = f"{run.reference} reached rung {reached} of {top}, {RUNG_NAMES[reached]}: {RUNG_CLAIMS[reached]}"
    if reached == top:
        return f"{said}."
    after = next((result for result in run.rungs if result.rung == reached + 1), None)
    how = {"fail": "failed", "cannot decide": "could not be decided", "not run": "was not run"}
    stopped = "was not run" if after is None else how.get(after.status, after.status)
    return f"{said}; rung {reached + 1}, {RUNG_NAMES[reached + 1]}, {stopped}."


def _header(run: EvidenceRun, card: Card | None, note: str) -> list[Html]:
    """Name, highest rung, and what nobody should overlook."""
    parts = [element("h1", f"Evidence of {run.reference}")]
    if card is not None:
        parts.append(element("p", card.title))
        if card.extraction.control is not None:
            control = card.extraction.control
            said = (
                f"A control, not a manifold: {control.kind}, seed {control.seed}. Something was destroyed on purpose."
            )
            parts.append(element("p", said, class_="warning"))
    parts.append(element("p", reached_in_words(run), class_="reached"))
    if note:
        parts.append(element("p", note, class_="warning"))
    if run.own_panel is not None:
        said = f"With cells of the user's own ({run.own_panel.name}). Nobody else has them: the run counts for no rung."
        parts.append(element("p", said, class_="warning"))
    if run.allowed_below is not None:
        parts.append(element("p", f"Published below rung 3, reason given: {run.allowed_below}", class_="warning"))
    return parts


def _what(run: EvidenceRun, card: Card | None) -> Html:
    """Identity of what was validated, and with what."""
    pairs: list[tuple[str, str]] = [
        ("reference", run.reference),
        ("artifact digest", element("code", run.artifact_digest)),
        ("panel digest", element("code", run.panel_digest) if run.panel_digest else "not recorded"),
        ("started", run.started.isoformat(sep=" ", timespec="seconds")),
        ("took", together(number(run.seconds), " seconds")),
        ("software", ", ".join(f"{name} {version}" for name, version in run.software.items()) or "not recorded"),
    ]
    if run.plan is not None:
        pairs.append(("plan", ", ".join(f"{name} {value}" for name, value in run.plan.model_dump().items())))
    if card is not None:
        anchors = card.panel.anchors
        studies, stages = ({getattr(anchor, of) for anchor in anchors} for of in ("study", "stage"))
        pairs += [
            ("source model", f"{card.source_model.name} ({card.source_model.architecture})"),
            ("ruler", f"{card.ruler.name} {card.ruler.version}, {len(card.ruler.stages)} stages"),
            ("panel", f"{len(anchors)} anchors of {len(stages)} stages from {len(studies)} studies"),
            ("intended use", card.intended_use),
            ("limits", element("ul", *(element("li", limit) for limit in card.limits))),
        ]
    # what a later version adds is shown as it is rather than dropped
    pairs += [(name.replace("_", " "), str(value)) for name, value in _unnamed(run).items()]
    return facts(pairs)


def _unnamed(run: EvidenceRun) -> dict[str, Any]:
    """Fields of a run that no part of the report is made for."""
    shown = {"artifact_digest", "reference", "panel_digest", "started", "seconds", "software", "rungs", "registered"}
    shown |= {"plan", "own_panel", "allowed_below", "evidence_version"}
    return {name: value for name, value in run.model_dump(mode="json", exclude=shown).items() if value}


def _records(run: EvidenceRun) -> Html:
    """A table for each rung."""
    if not rows_of(run):
        return element("p", "The run has no records.")
    return together(
        *(
            together(element("h3", f"Rung {result.rung}: {result.name}, {result.status}"), records_of_rung(result))
            for result in run.rungs
        )
    )


def _figures(run: EvidenceRun) -> Html:
    """All figures of a run, or why there are none."""
    found = figures_of(run)
    few = Html("")
    if len(rows_of(run)) > MOST_ROWS:
        few = element("p", f"Figures of more than {MOST_ROWS} records are left out: nobody could read them.")
    elif not found:
        few = element("p", "There is nothing to draw.")
    try:
        return together(few, *map(_figure, found))
    except MissingExtraError as error:
        return element("p", f"There are no figures: {error}")


def _figure(figure: RunFigure) -> Html:
    """A picture that is part of the page."""
    with warnings.catch_warnings():
        # a letter that the font lacks is a box in the picture, and itself in the tables
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        source = "data:image/svg+xml;base64," + base64.b64encode(_svg(figure.draw())).decode()
    told = textwrap.shorten(f"{figure.title}. {figure.told}", _MOST_ALT, placeholder=" ...")
    # what is wider than a phone is moved about, with the keyboard too
    picture = element("div", element("img", src=source, alt=told), class_="picture", tabindex="0")
    return element("figure", picture, element("figcaption", figure.title))


def _svg(ax: Axes) -> bytes:
    """The figure of some Axes as SVG, the same bytes for the same figure; it is closed."""
    import matplotlib as mpl
    from matplotlib import pyplot

    figure, content = ax.figure.figure, BytesIO()
    with mpl.rc_context({"svg.hashsalt": "manifoldzoo", "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return content.getvalue()

"""Rendering a card and its evidence to the README of a Hub repository."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import yaml

from ._adaptor import Adaptor, Convergence
from ._card import Candidate, Card, Choice, Familiarity
from ._evidence import RUNG_NAMES, EvidenceRun, Record, best_run, rung_reached
from ._evidence_plan import EvidencePlan
from ._markdown import cell as _cell
from ._readme_labels import labels_in_words
from ._readme_ruler import interaction_section, ruler_in_words

_MOST_DETAILS = 16
_HUB_LICENCES = frozenset({"apache-2.0", "mit", "bsd-3-clause", "bsd-2-clause", "cc-by-4.0", "cc0-1.0", "cc-by-sa-4.0"})


def render_readme(card: Card, digest: str, evidence: Sequence[EvidenceRun], figures: Sequence[str] = ()) -> str:
    """Render Markdown with the metadata block that the Hub reads.

    Parameters
    ----------
    card
        The card.
    digest
        Artifact digest.
    evidence
        Validation runs; those bound to another digest are left out.
    figures
        Names of the files in ``figures/``; the first stands at the top, the others have a section of their own.

    Returns
    -------
    The README. Every figure in it comes from the card or from an evidence record.
    """
    # of a ruler without a graph the map of its cell types says most
    figures = sorted(figures, key=lambda name: not name.startswith("interaction_map."))
    bound = [run for run in evidence if run.artifact_digest == digest and run.own_panel is None]
    on_own_cells = [run for run in evidence if run.artifact_digest == digest and run.own_panel is not None]
    sections = [
        _metadata(card),
        f"# {card.title}\n\n{_control(card)}{card.description}\n",
        *map(_figure, figures[:1]),
        _usage(card),
        _evidence(bound),
        *([_own_cells(on_own_cells)] if on_own_cells else []),
        _making(card),
        *([_choice(card.extraction.choice)] if card.extraction.choice else []),
        _panel(card),
        *([interaction_section(card.ruler)] if card.ruler.interaction else []),
        *(["## Figures\n", *map(_figure, figures[1:])] if figures[1:] else []),
        "## Intended use\n\n" + card.intended_use + "\n",
        "## Limits\n\n" + "\n".join(f"- {limit}" for limit in card.limits) + "\n",
        "## Cite\n\n" + "\n".join(f"- {_cited(c.text, c.doi, c.url)}" for c in card.citations) + "\n",
        f"## Identity\n\n`{card.name}@{card.version}`, artifact digest `{digest}`.\n",
    ]
    return "\n".join(sections)


def _figure(name: str) -> str:
    """A picture with its name."""
    return f"![{name.rsplit('.', 1)[0].replace('_', ' ')}](figures/{name})\n"


def _control(card: Card) -> str:
    """What nobody should overlook of a control."""
    control = card.extraction.control
    if control is None:
        return ""
    return (
        f"**A control, not a manifold: {control.kind}, seed {control.seed}.** Something was destroyed on purpose.\n\n"
    )


def _metadata(card: Card) -> str:
    """YAML front matter with fields and values that the Hub accepts."""
    licence = card.licence.lower()
    fields: dict[str, object] = {
        "library_name": "manifoldzoo",
        "license": licence if licence in _HUB_LICENCES else "other",
        "tags": ["manifoldzoo", "biology", "single-cell", "scRNA-seq", card.name, card.extraction.extractor]
        + (["control"] if card.extraction.control else []),
    }
    if fields["license"] == "other":
        fields["license_name"] = licence
    return "---\n" + yaml.safe_dump(fields, sort_keys=False, allow_unicode=True) + "---\n"


def _usage(card: Card) -> str:
    """The few lines that use the artifact."""
    key, n_columns = card.name.replace("-", "_"), card.extraction.adaptor.n_components
    return (
        "## Use\n\n```python\nimport manifoldzoo as mz\n\n"
        f'manifold = mz.load("{card.name}@{card.version}")\n'
        f"manifold.transform(adata)  # writes adata.obsm['X_{key}'], {n_columns} columns\n```\n"
    )


def _evidence(runs: Sequence[EvidenceRun]) -> str:
    """Rung table and records of the run that reached highest, the newest among equals."""
    if not runs:
        return "## Evidence\n\nNo validation run travels with this artifact.\n"
    best = best_run(runs)
    reached = rung_reached(best.rungs)
    lines = [
        "## Evidence\n",
        f"Highest rung reached: **{reached}** of 6"
        + (f" ({RUNG_NAMES[reached]})." if reached else ".")
        + f" Run of {best.started:%Y-%m-%d}; repeat it with `manifoldzoo validate`.\n",
        "| rung | | status | why |",
        "| --- | --- | --- | --- |",
    ]
    by_rung = {result.rung: result for result in best.rungs}
    for rung, name in RUNG_NAMES.items():
        result = by_rung.get(rung)
        lines.append(
            f"| {rung} | {name} | {result.status} | {_cell(result.reason)} |"
            if result
            else f"| {rung} | {name} | not run | |"
        )
    lines += ["", "| check | statistic | needed | n | status | details |", "| --- |" + " --- |" * 5]
    for result in best.rungs:
        for record in result.records:
            statistic = "" if record.statistic is None else f"{record.statistic:.4g}"
            needed = "" if record.threshold is None else f"{record.direction} {record.threshold:g}"
            status = record.status if record.decides else "shown only, never decides"
            cells = (_cell(record.gate), statistic, needed, record.n or "", status, _cell(_details(record)))
            lines.append(f"| {' | '.join(map(str, cells))} |")
    if best.allowed_below:
        lines += ["", f"**Published below rung 3**, reason given: {best.allowed_below}"]
    return "\n".join(lines) + "\n"


def _details(record: Record) -> str:
    """The first details of a record; a table of programs by axes has hundreds, which the report shows as one."""
    told = [f"{key} {_short(value)}" for key, value in record.details.items()]
    left_out = len(told) - _MOST_DETAILS
    return "; ".join([*told[:_MOST_DETAILS], *([f"{left_out} more in `manifoldzoo report`"] if left_out > 0 else [])])


def _own_cells(runs: Sequence[EvidenceRun]) -> str:
    """Runs on cells that users brought, oldest first."""
    lines = [
        "### On cells of users\n",
        "These runs do not count towards the rung, because nobody else has the cells.\n",
        "| run | cells | anchors | labels without a stage | rung 5 |",
        "| --- |" + " --- |" * 4,
    ]
    for run in sorted(runs, key=lambda run: run.started):
        own = run.own_panel
        if own is not None:
            status = next((result.status for result in run.rungs if result.rung == 5), "not run")
            cells = (f"{run.started:%Y-%m-%d}", _cell(own.name), own.n_anchors, len(own.unmapped), status)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _operator(card: Card) -> str:
    """Stage 1 in one line; what a kind does not have is left out."""
    operator = card.extraction.operator
    size = f"{operator.n_blocks} x {card.genes.n} x {operator.n_features or card.genes.n}"
    parts = [
        f"- Operator: {operator.kind}, {operator.combination}, {size}, "
        f"numerical rank {', '.join(map(str, operator.numerical_rank))}",
        f"{operator.n_cells} cells" if operator.n_cells else "no cells needed",
    ]
    if operator.heads:
        named = ", ".join(f"L{head.layer}H{head.head} ({head.weight:.3g})" for head in operator.heads)
        parts.append(f"heads {named}, chosen by {operator.chosen_by}")
    if operator.pairs_seen is not None:
        parts.append(f"{operator.pairs_seen:.1%} of gene pairs seen")
    parts += [f"{key} {value}" for key, value in sorted(operator.parameters.items())]
    return "; ".join(parts) + "."


def _making(card: Card) -> str:
    """How it was made."""
    made = card.extraction
    source, adaptor = card.source_model, made.adaptor
    lines = [
        "## How it was made\n",
        f"- Source model: {source.name} ({source.architecture}), digest `{source.digest[:16]}`, "
        f"licence {source.licence}." + (f" {source.note}" if source.note else ""),
        _operator(card),
        *([f"- Control: {made.control.kind}, seed {made.control.seed}."] if made.control else []),
        f"- Adaptor: {adaptor.kind}, {adaptor.n_components} coordinates, "
        + ", ".join(f"{key} {value}" for key, value in sorted(adaptor.parameters.items()))
        + "."
        + (f" {_convergence(adaptor.convergence)}" if adaptor.convergence else "")
        + (f" {_landmarks(adaptor)}" if adaptor.n_landmarks else ""),
        *(
            f"- Readout {readout.task}: {readout.kind}, "
            + (f"{len(readout.classes)} classes" if readout.classes else "one number")
            + f", {readout.n_cells} cells."
            for readout in made.readouts
        ),
        *([_familiarity(made.familiarity)] if made.familiarity else []),
        *([_evidence_plan(card.evidence)] if card.evidence else []),
        f"- {ruler_in_words(card.ruler)}",
        *([labels_in_words(card.scored_labels)] if card.scored_labels else []),
        f"- Seed {made.seed}; "
        + ", ".join(f"{name} {version}" for name, version in sorted(made.software.items()))
        + ".",
    ]
    return "\n".join(lines) + "\n"


def _evidence_plan(plan: EvidencePlan) -> str:
    """What the recipe fixed of the evidence."""
    return (
        f"- Evidence, as the recipe fixed it: {plan.n_permutations} permutations of labels, "
        f"{plan.n_branch_permutations} of branches, {plan.n_starts} starts of the head; rung 6 compares with "
        f"{', '.join(plan.comparisons)}."
    )


def _choice(choice: Choice) -> str:
    """What was chosen, by which scores, and what the choice is worth where it saw nothing."""
    runs = [choice.made, *choice.runs]
    columns = ["all", *(f"without {_cell(str(run.left_out))}" for run in choice.runs)]
    lines = [
        "## How it was chosen\n",
        f"Held-out score of each candidate ({choice.scored_by}s held out, mean of {choice.n_starts} starts of the "
        f"head), best in bold, on the whole panel and without each {choice.left_out_by}. The last line is the score of "
        f"the best one on the {choice.left_out_by} that took no part: what the rule is worth where it saw nothing.\n",
        f"| candidate | coordinates | {' | '.join(columns)} |",
        "| --- | --- |" + " --- |" * len(columns),
    ]
    for place, candidate in enumerate(choice.candidates):
        scores = []
        for run in runs:
            told = _score(run.scores[place])
            scores.append(f"**{told}**" if run.chosen == place else told)
        lines.append(f"| {_candidate(candidate)} | {candidate.n_components} | {' | '.join(scores)} |")
    outer = [_score(choice.left_out_score), *(_score(run.left_out_score) for run in choice.runs)]
    lines.append(f"| best, on what was left out | | {' | '.join(outer)} |")
    return "\n".join(lines) + "\n"


def _candidate(candidate: Candidate) -> str:
    """An operator as a recipe names it, and a head where its kind was open too."""
    joined = "" if candidate.combination == "none" else f", {candidate.combination}"
    head = "" if candidate.head is None else f" L{candidate.layer}H{candidate.head}"
    operator = f"{candidate.kind}{joined}{head}" + ("" if candidate.k is None else f" of {candidate.k}")
    if candidate.adaptor is None:
        return operator
    neighbours = "" if candidate.n_neighbours is None else f" of {candidate.n_neighbours} neighbours"
    return f"{operator}; {candidate.adaptor}{neighbours}"


def _score(value: float | None) -> str:
    """A score to three digits, or that there is none."""
    return "cannot decide" if value is None else f"{value:.3f}"


def _panel(card: Card) -> str:
    """The studies that the panel was built from."""
    anchors = Counter(anchor.study for anchor in card.panel.anchors)
    stages = len({anchor.stage for anchor in card.panel.anchors})
    lines = [
        "## Extraction panel\n",
        f"{len(card.panel.anchors)} anchors (centroids of at least {card.panel.min_cells} cells), {stages} stages.\n",
        "| study | cells | anchors | genes missing | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for file in card.panel.files:
        study = file.name.rsplit(".", 1)[0]
        cells = (_cell(study), file.n_cells, anchors.get(study, 0), file.n_missing_genes, _cell(file.source))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if card.panels:
        lines += [
            "\nNothing was fitted or chosen on these:\n",
            "| panel | role | files | anchors | stages | cells shared | donors shared |",
            "| --- | --- | --- | --- | --- | --- | --- |",
        ]
    for panel in card.panels:
        names = _cell(", ".join(file.name for file in panel.manifest.files))
        stages = len({anchor.stage for anchor in panel.manifest.anchors})
        counts = (len(panel.manifest.anchors), stages, panel.n_shared_cells, panel.n_shared_donors)
        lines.append(f"| {panel.name} | {panel.role} | {names} | {' | '.join(map(str, counts))} |")
    if card.untrained:
        lines.append(
            f"\n{len(card.untrained)} models of the same architecture without training travel along, to compare with."
        )
    return "\n".join(lines) + "\n"


def _short(value: object) -> str:
    """A detail of a record, numbers to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cited(text: str, doi: str | None, url: str | None) -> str:
    """One citation with its link."""
    link = f"https://doi.org/{doi}" if doi else url
    return f"{text} <{link}>" if link else text


def _landmarks(adaptor: Adaptor) -> str:
    """What cells are placed by, and whether the graph between the anchors held together."""
    joined = "" if adaptor.n_pieces == 1 else f"; their graph fell into {adaptor.n_pieces} pieces, which were joined"
    return (
        f"Cells are compared with {adaptor.n_landmarks} anchors in {adaptor.n_reduced} reduced coordinates, and placed "
        f"by the lengths of their paths to them{joined}."
    )


def _convergence(fit: Convergence) -> str:
    """How a fit on cells went."""
    said = f"Fitted on {fit.n_train_cells} cells in {fit.n_epochs} epochs" + (", stopped early" * fit.stopped_early)
    if fit.validation_loss is not None:
        said += f", the best {fit.best_epoch} by {fit.n_validation_cells} cells held out by {fit.validation_by}"
        said += f" (loss {fit.validation_loss:.4g})"
    said += ": " + ", ".join(f"{name} {value:.3g}" for name, value in fit.terms.items())
    return said + ("." if fit.converged else "; not converged.")


def _familiarity(limits: Familiarity) -> str:
    """Line about cells unlike the panel."""
    return (
        f"- A cell counts as unfamiliar below a cosine of {limits.threshold:.3f} to the nearest stage, where "
        f"{limits.quantile:.0%} of the cells of a left-out {limits.held_out_by} lie (mean of {len(limits.groups)})."
    )

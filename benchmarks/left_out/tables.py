"""Tables of studies that were left out: each study, means over studies, and paired differences, as Markdown."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from manifoldzoo.extractors._interface import Job

Figure = tuple[float, float, float]
"""Mean, and both ends of its interval."""
Rows = dict[str, dict[str, Figure]]
PLAIN = ("raw expression", "standardised genes", "PCA-10")
"""Features without a model."""


def over_studies(values: list[float]) -> Figure:
    """Mean over studies that have a figure, and its interval over all draws of as many with replacement."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return np.nan, np.nan, np.nan
    means = [float(np.mean(draw)) for draw in itertools.product(known, repeat=len(known))]
    low, high = np.quantile(means, [0.025, 0.975]) if len(known) > 1 else (np.nan, np.nan)
    return float(np.mean(known)), float(low), float(high)


def differences(kind: str) -> list[tuple[str, str]]:
    """Pairs of rows whose difference is shown, chosen before anything was run."""
    against = [*PLAIN, f"{kind}, untrained"]
    pairs = [(f"{kind} | {head}", f"{other} | {head}") for head in ("anchor", "cell") for other in against]
    within = [("cell", "anchor"), ("hybrid", "cell"), ("anchor", "anchor, relabelled"), ("cell", "cell, relabelled")]
    return [*pairs, *((f"{kind} | {one}", f"{kind} | {other}") for one, other in within)]


def average(values: list[float]) -> float:
    """Mean of those that are numbers."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else np.nan


def show(value: Figure) -> str:
    mean, low, high = value
    return "" if np.isnan(mean) else f"{mean:.2f}" + ("" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def table(first: str, rows: Rows) -> str:
    """Rows as Markdown; a name that holds a bar fills two columns."""
    columns = list(next(iter(rows.values())))
    head = f"| {first} | {' | '.join(columns)} |"
    lines = [head, "|" + " --- |" * (head.count("|") - 1)]
    return "\n".join(
        lines + [f"| {name} |" + "".join(f" {show(row[key])} |" for key in columns) for name, row in rows.items()]
    )


def report_ruler(job: Job) -> str:
    """Which ruler all heads are scored by, and what it was computed from."""
    ruler, built = job.ruler, job.interaction
    said = f"Ruler, the same for every study: {ruler.name} {ruler.version}, digest {ruler.digest[:12]}"
    if built is not None:
        files = ", ".join(file.name for file in built.files)
        said += f", computed from {built.resource} and {files}, the study left out among them where it is named here"
    return f"{said}."


def report_study(study: str, told: dict[str, Any]) -> str:
    counts = f"{told['n_cells']} cells, {told['n_anchors']} anchors, {told['n_donors']} donors"
    return f"\n**{study}**{told['note']}: {counts}\n\n{table('features | head', told['rows'])}"


def report_summary(told: dict[str, Any], kind: str) -> str:
    """Tables over all studies: means, paired differences, and how many cells have the classes of each task."""
    studies = [one["rows"] for one in told.values()]
    every = list(next(iter(studies[0].values())))
    n = {key: sum(np.isfinite(one[f"{kind} | anchor"][key][0]) for one in studies) for key in every}
    columns = [key for key in every if n[key]]
    means: Rows = {
        name: {f"{key} ({n[key]})": over_studies([one[name][key][0] for one in studies]) for key in columns}
        for name in studies[0]
    }
    gaps: Rows = {
        f"{one} | {other}": {
            f"{key} ({n[key]})": over_studies([rows[one][key][0] - rows[other][key][0] for rows in studies])
            for key in columns
        }
        for one, other in differences(kind)
        if one in studies[0] and other in studies[0]
    }
    parts = [
        f"\n**Mean over {len(studies)} studies**; in parentheses how many have the figure\n",
        table("features | head", means),
        "\n**Differences, paired over studies**: the first less the second\n",
        table("first | its head | second | its head", gaps),
    ]
    classes = list(next(iter(told.values()))["classes"])
    if classes:
        lines = [f"| study | {' | '.join(classes)} |", "|" + " --- |" * (len(classes) + 1)]
        lines += [f"| {study} | {' | '.join(str(one['classes'][c]) for c in classes)} |" for study, one in told.items()]
        parts += ["\n**Cells of the classes of tasks that group stages**\n", *lines]
    return "\n".join(parts)

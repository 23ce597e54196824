"""The card of a trained checkpoint: rendered from the reports of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NAME = "immune-mini"
"""Plain name of the bundled checkpoint: a mini transformer trained on immune cells."""

_MEASURES = {
    "pearson": "Pearson",
    "mse": "MSE",
    "within_gene_pearson": "within-gene Pearson",
    "within_gene_pearson_per_gene_expressed": "mean Pearson per gene, genes with >= 20 expressed values",
    "within_gene_pearson_per_gene": "mean Pearson per gene, all genes",
}
_ROWS = {
    "random_initialisation": "random initialisation",
    "random_initialisation_plus_offset": "random initialisation + gene means",
    "gene_mean_of_training_studies": "per-gene mean of the training studies",
    "gene_mean_where_drawn": "the same, over the positions the draw favours",
    "oracle_mean_of_held_out_cells": "oracle: per-gene mean of the held-out cells",
    "oracle_mean_where_drawn": "oracle over the positions the draw favours",
}


def write_card(folder: Path, runs: Sequence[Path]) -> Path:
    """Write ``README.md`` and ``seeds.json`` of the checkpoint in ``folder``.

    Parameters
    ----------
    folder
        The bundled checkpoint, with its own ``training.json``.
    runs
        Folders of all seeds trained, the bundled one among them; their reports are kept in ``seeds.json``.
    """
    reports = [json.loads((run / "training.json").read_text()) for run in runs]
    bundled = json.loads((folder / "training.json").read_text())
    seeds = {str(report["config"]["seed"]): report for report in reports}
    (folder / "seeds.json").write_text(json.dumps(seeds, indent=1, sort_keys=True) + "\n")
    (folder / "README.md").write_text(_render(bundled, reports))
    return folder / "README.md"


def _render(bundled: dict[str, Any], reports: list[dict[str, Any]]) -> str:
    """Markdown of the card; every figure comes from a report."""
    config = bundled["config"]
    lines = [
        "---",
        "license: bsd-3-clause",
        "tags: [biology, single-cell, scRNA-seq]",
        "---",
        f"# {NAME}",
        "",
        "A small masked-value transformer in scGPT's checkpoint layout, trained by the manifoldzoo project so that "
        "extraction can be run and tested offline. **It is not scGPT**: it shares the layout and the architecture "
        "family, none of the weights and none of the training cells of scGPT whole-human.",
        "",
        f"- {config['n_layers']} layers x {config['n_heads']} heads, d_model {config['d_model']}, "
        f"{config['n_genes']} genes, post-norm; input is log1p of counts per 10,000.",
        f"- Objective: predict {config['mask_ratio']:.0%} of {config['n_tokens']} genes drawn per cell, half of them "
        "expressed where the cell has that many; mean squared error; "
        f"{config['n_steps']} steps of {config['batch_size']} cells.",
        "- `model.safetensors` has scGPT's key names only. `gene_offset.safetensors` holds the mean of each gene over "
        "the training cells: predictions are offset + decoder output.",
        f"- Bundled seed: {config['seed']}, the first of {len(reports)} trained; not chosen by its score.",
        f"- Training took {bundled['seconds']:.0f} s on {bundled['threads']} CPU thread(s), torch {bundled['torch']}.",
        "",
        "## Cells",
        "",
        "| study | role | cells | genes of the vocabulary | SHA-256 of the file |",
        "| --- | --- | --- | --- | --- |",
        *_study_rows(bundled["training_studies"], "trained on"),
        *_study_rows(bundled["held_out_studies"], "held out whole"),
        "",
        *(
            f"- {study['file']}: {study['source']}"
            for study in bundled["training_studies"] + bundled["held_out_studies"]
        ),
        "",
        "Genes were chosen by variance on the training studies alone.",
        "",
        "## What it learned",
        "",
        "Masked values of studies it never saw, all masked positions. Within-gene Pearson is the correlation over "
        "all masked positions after each gene's own mean is taken from truth and prediction; a baseline that knows "
        "only which gene it is scores 0.",
    ]
    for study in bundled["held_out"]:
        lines += ["", f"### {study}", "", *_score_table(study, bundled, reports)]
    lines += [
        "",
        "## Train it again",
        "",
        "```sh",
        "python -m manifoldzoo.extractors.training --train "
        + " ".join(study["file"] for study in bundled["training_studies"])
        + " --held-out "
        + " ".join(study["file"] for study in bundled["held_out_studies"])
        + f" --out runs/seed{config['seed']} --seed {config['seed']}",
        "```",
        "",
        "An interrupted run resumes and ends in the same bits as an uninterrupted one on the same machine, torch and "
        "number of threads.",
        "",
    ]
    return "\n".join(lines)


def _study_rows(studies: list[dict[str, Any]], role: str) -> list[str]:
    """Table rows of some studies."""
    return [
        f"| {study['file']} | {role} | {study['n_cells']} | {study['n_genes_of_vocabulary']} | `{study['sha256']}` |"
        for study in studies
    ]


def _score_table(study: str, bundled: dict[str, Any], reports: list[dict[str, Any]]) -> list[str]:
    """Scores of every seed and baseline on one held-out study."""
    header = ["| |", *(f" {label} |" for label in _MEASURES.values())]
    lines = ["".join(header), "| --- |" + " --- |" * len(_MEASURES)]
    for report in sorted(reports, key=lambda report: report["config"]["seed"]):
        seed = report["config"]["seed"]
        bold = "**" if seed == bundled["config"]["seed"] else ""
        lines.append(_score_row(f"{bold}trained, seed {seed}{bold}", report["held_out"][study]["trained"]))
    lines += [_score_row(label, bundled["held_out"][study][key]) for key, label in _ROWS.items()]
    return lines


def _score_row(label: str, scores: dict[str, float]) -> str:
    """One row of scores."""
    return f"| {label} |" + "".join(f" {scores[key]:.3f} |" for key in _MEASURES)

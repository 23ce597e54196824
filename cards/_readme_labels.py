"""What a README says of labels that were scored."""

from __future__ import annotations

from ._programs import ScoredLabels


def labels_in_words(labels: ScoredLabels) -> str:
    """Say in one paragraph how cells were given their stages, and how many were left without.

    Parameters
    ----------
    labels
        Of the card.
    """
    n_genes = len({gene for program in labels.programs for gene in program.genes})
    excluded = (
        f"{labels.n_excluded_genes} of them that the model knows are kept from the gene axis"
        if labels.parameters.get("exclude_genes")
        else "they are not kept from the gene axis, so that the head may read the labels"
    )
    parts = [
        f"- Labels: cells were scored by {len(labels.programs)} gene programs of {n_genes} genes: {labels.method}",
        excluded,
    ]
    for study in labels.studies:
        n = sum(study.n_leading.values())
        parts.append(
            f"{study.study}: {n:,} of {study.n_cells:,} cells have a stage, in {study.n_not_expressed:,} no program is "
            f"above its controls, in {study.n_unclear:,} none leads"
        )
    return "; ".join(parts) + "."

"""The part of a report about what stands beside the gates: geometry on every panel, and a ruler beside its nulls."""

from __future__ import annotations

import re

from ...cards._evidence import EvidenceRun, Record
from .._informing import PAIRED_NULL, TRANSFER_GEOMETRY
from ._html_records import detail, facts, number, table
from ._markup import Html, element, together
from ._statuses import as_number, rows_of

_GEOMETRY = (
    "How latent distances follow the ruler on each panel: Spearman correlations over all pairs of anchors, along the "
    "graph of neighbours (geodesic), and less that of principal components of the extraction panel (margins). The "
    "first panel is the one that the head was fitted on."
)
_PAIRED = (
    "The ruler beside its null rulers: the same folds, starts and procedure for all. Given the mean null: Spearman "
    "correlation with what the ruler shares with its nulls held fixed. Rank 1 is the highest."
)
_MARGIN = re.compile(r"margin_over_pca_(\d+)")
_HOLDOUTS = ("random", "study", "branch")


def geometry_records_of(run: EvidenceRun) -> list[tuple[str, Record]]:
    """Records of geometry, each with the name of its panel."""
    found = []
    for _, record in rows_of(run):
        if record.gate == "shipped_geometry":
            found.append(("extraction panel", record))
        elif record.gate.endswith(f"_{TRANSFER_GEOMETRY}"):
            found.append((record.gate.removesuffix(f"_{TRANSFER_GEOMETRY}").replace("_", " "), record))
    return found


def paired_null_of(run: EvidenceRun) -> Record | None:
    """The record of a ruler beside its nulls, if there is one."""
    return next((record for _, record in rows_of(run) if record.gate == PAIRED_NULL), None)


def geometry_table(run: EvidenceRun) -> Html:
    """Geometry of every panel; empty where the run has none."""
    panels = geometry_records_of(run)
    if not panels:
        return Html("")
    sizes = sorted({int(size) for _, record in panels for size in _MARGIN.findall(" ".join(record.details))})
    rows = [
        (
            name,
            "" if record.n is None else f"{record.n:,}",
            _told(record, "spearman"),
            _told(record, "geodesic_spearman"),
            *(_told(record, f"margin_over_pca_{size}") for size in sizes),
        )
        for name, record in panels
    ]
    heads = ("panel", "anchors", "correlation", "geodesic", *(f"margin over PCA-{size}" for size in sizes))
    return table(_GEOMETRY, heads, rows)


def paired_null_table(record: Record) -> Html:
    """The ruler beside its nulls, holdout by holdout.

    Parameters
    ----------
    record
        Named ``paired_null``.
    """
    kinds = [(holdout, measure) for holdout in _HOLDOUTS for measure in ("", "_partial")]
    rows = []
    for holdout, measure in kinds:
        name = f"{holdout}{measure}"
        if as_number(record.details.get(name)) is None:
            continue
        nulls = [value for key, value in record.parts.items() if key.startswith(f"{name} null_")]
        rows.append(
            (
                f"{holdout} held out" + (", given the mean null" if measure else ""),
                *(_told(record, f"{name}{what}") for what in ("", "_null_mean", "_null_highest", "_rank", "_p")),
                together(*_listed(sorted(nulls, reverse=True))),
            )
        )
    heads = ("holdout", "ruler", "mean of nulls", "highest null", "rank", "p", "all nulls")
    shared = [
        ("null rulers", _told(record, "n_nulls")),
        ("the ruler and the mean null, before any fit", _told(record, "ruler_with_mean_null")),
        ("a null and the mean of the others", _told(record, "nulls_with_mean_of_others")),
    ]
    return together(table(_PAIRED, heads, rows), facts(shared)) if rows else element("p", record.reason)


def _told(record: Record, key: str) -> Html:
    """A detail of a record, or nothing."""
    value = record.details.get(key)
    return Html("") if value is None else together(detail(value))


def _listed(values: list[float]) -> list[Html]:
    """Numbers one after the other."""
    return [together(" " if place else "", number(value)) for place, value in enumerate(values)]

"""Heads of every kind on the anchors of one artifact: the figures that were published for the communication manifold.

For LET, Isomap and geodesic MDS, each with 10, 15 and 20 neighbours where it has any, on the shipped operator and on
raw expression: trustworthiness, holdouts, blocked permutation, correlation of the ruler with path lengths along the
latent graph, margins over 2 and 6 principal components on the extraction panel, and one frozen head on the external
panel. Prints a Markdown table. Nothing is chosen by it: the recipe's own rule did, by donors held out.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

import manifoldzoo as mz
from manifoldzoo.gates._artifact_data import gate_data, panel_data
from manifoldzoo.gates.rungs._geometry import geometry_records
from manifoldzoo.gates.rungs._published import published_gates
from manifoldzoo.gates.rungs._stability import stability_record
from manifoldzoo.gates.rungs._transfer_geometry import transfer_geometry_record
from manifoldzoo.manifolds._geodesic import GeodesicSettings
from manifoldzoo.manifolds._heads import fit_head
from manifoldzoo.manifolds._let import LetSettings

GATES = {
    "trustworthiness": "trust",
    "random_holdout": "random",
    "donor_holdout": "donor",
    "study_holdout": "study",
    "branch_holdout": "class",
    "blocked_permutation": "p",
}
GEOMETRY = ("geodesic_spearman", "margin_over_pca_2", "margin_over_pca_6")
COLUMNS = ("geodesic", "margin PCA-2", "margin PCA-6", "stability", "external", "external margin PCA-2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--artifact", default="communication", help="reference or folder")
    parser.add_argument("--permutations", type=int, default=1000)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    manifold = mz.load(options.artifact)
    inside, outside = gate_data(manifold), panel_data(manifold, "external")
    d = manifold.n_components
    let = LetSettings(n_components=d, alpha=0.01, n_steps=300, learning_rate=0.005, schedule="cosine")
    heads = {"LET": let}
    for kind in ("isomap", "geodesic-mds"):
        for k in (10, 15, 20):
            heads[f"{kind}, k = {k}"] = GeodesicSettings(kind, n_components=d, n_neighbours=k)
    sources = {"operator": lambda data: data, "raw": lambda data: replace(data, features=np.asarray(data.expression))}
    print(f"| features | head | {' | '.join([*GATES.values(), *COLUMNS])} |")
    print(f"| --- | --- |{' --- |' * (len(GATES) + len(COLUMNS))}")
    with threadpool_limits(limits=1):
        for source, read in sources.items():
            for name, settings in heads.items():
                row = figures(
                    read(inside), None if outside is None else read(outside[1]), settings, options.permutations
                )
                print(f"| {source} | {name} | {' | '.join(row)} |", flush=True)


def figures(inside, outside, settings, n_permutations: int) -> list[str]:
    """One row of the table."""
    head = fit_head(inside.features, inside.distances, settings, rng=np.random.default_rng(0))
    latent = head.latent(inside.features)
    result = published_gates(inside, settings, seed=0, n_permutations=n_permutations)
    records = {record.gate: record for record in result.records}
    row = [cell(records[gate]) for gate in GATES]
    (geometry,) = geometry_records(inside, latent, seed=0, settings=settings)
    row += [
        short(geometry.details.get(name)) for name in ("geodesic_spearman", "margin_over_pca_2", "margin_over_pca_6")
    ]
    row.append(short(stability_record(inside, settings, rng=np.random.default_rng(0), seed=0).statistic))
    if outside is None:
        return [*row, "-", "-"]
    placed = head.latent(outside.features)
    told = transfer_geometry_record("external_geometry", inside, outside, placed, settings, seed=0).details
    return [*row, short(told.get("spearman")), short(told.get("margin_over_pca_2"))]


def cell(record) -> str:
    """Statistic of a record, marked where it fails its gate."""
    mark = "" if record.status == "pass" else f" ({record.status})"
    return f"{short(record.statistic)}{mark}"


def short(value: object) -> str:
    """Three digits, or a dash."""
    return f"{value:.3g}" if isinstance(value, float) else "-"


if __name__ == "__main__":
    main()

"""A small world of cells that talk: counts with planted ligands and receptors, a resource, stages and a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

PAIRS = [
    *(("L1", "R1"), ("L2", "R1"), ("L2", "R2"), ("L3_L4", "R3"), ("L5", "R4_R5"), ("L5", "R2")),
    *(("L6", "R6"), ("L7", "R6"), ("L8", "R7"), ("L8", "R1")),
]
GENES = [*(f"L{i}" for i in range(1, 9)), *(f"R{i}" for i in range(1, 8)), *(f"H{i}" for i in range(20))]
TYPES = {
    "sender": ("L1", "L3", "L4", "R6"),
    "talker": ("L2", "L5", "R1", "R7"),
    "hearer": ("L6", "R2", "R3", "R4"),
    "loner": ("L8", "R4", "R5", "L3"),
}
# in about a third of the cells
FAINT = {"sender": ("L7",), "talker": ("R2",), "hearer": ("R7",), "loner": ("R1", "L6")}
BRANCH = {"sender": "loud", "talker": "loud", "hearer": "quiet", "loner": "quiet"}

RECIPE = """
name = "talk"
version = "0.1.0"
title = "Talk"
description = "For tests."
licence = "MIT"
ruler_licence = "CC0-1.0"
extractor = "operator-let"
coverage_floor = 0.3
intended_use = "Tests."
limits = ["Means nothing."]
[ruler]
kind = "interaction"
resource = "pairs.csv"
files = ["one.h5ad"]
n_nulls = 3
[panel]
max_cells_per_stage = 6
[operator]
kind = "expression"
[adaptor]
n_components = 3
n_steps = 200
[[readouts]]
task = "cell_type"
[[readouts]]
task = "broad_class"
label = "branch"
[[citations]]
key = "none"
text = "Nobody (2026)."
"""


def talking_cells(
    study: str = "one", *, donors: Sequence[str] = ("d1", "d2"), per_group: int = 8, seed: int = 0
) -> ad.AnnData:
    """Raw counts; each type has its own genes in most of its cells and others in few."""
    rng = np.random.default_rng(seed)
    rows, obs = [], []
    for donor in donors:
        for name, own in TYPES.items():
            for _ in range(per_group):
                rate = {gene: 3.0 if gene.startswith("H") else 0.02 for gene in GENES}
                rate |= dict.fromkeys(own, 2.0) | dict.fromkeys(FAINT[name], 0.4)
                # deep cells, in which one count is little of all
                rate["H0"] = 20_000.0 if donor == donors[-1] else 3.0
                rows.append(rng.poisson(list(rate.values())))
                obs.append((study, donor, "lab", name))
    table = pd.DataFrame(obs, columns=["dataset", "donor", "tissue", "cell_type"])
    table.index = [f"c{i}" for i in range(len(table))]
    counts = sparse.csr_matrix(np.array(rows, dtype=np.float32))
    return ad.AnnData(counts, obs=table, var=pd.DataFrame(index=GENES))


def logged(cells: ad.AnnData) -> ad.AnnData:
    """The same as ``log1p`` of counts per 10,000."""
    found, counts = cells.copy(), cells.X.toarray().astype(np.float64)
    values = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    found.X = sparse.csr_matrix(values)
    return found


def write_tables(folder: Path, studies: Sequence[str] = ("one", "two")) -> Path:
    """``pairs.csv``, ``stages.tsv``, ``labels.tsv`` and ``paths.tsv``."""
    folder.mkdir(exist_ok=True)
    (folder / "pairs.csv").write_text("ligand,receptor\n" + "".join(f"{a},{b}\n" for a, b in PAIRS))
    stages = "".join(f"{name}\t{name.title()}\t\t{BRANCH[name]}\n" for name in TYPES)
    (folder / "stages.tsv").write_text(
        f"# name: talk\n# version: 0.1.0\nid\tlabel\tontology_id\tbranch\n{stages}", encoding="utf-8"
    )
    labels = "".join(f"{study}\t{name}\t{name}\t\n" for study in studies for name in TYPES)
    (folder / "labels.tsv").write_text(f"dataset\tcell_type\tstage\tnote\n{labels}", encoding="utf-8")
    paths = ["L1\tR1\tsender\ttalker\tbook", "L5\tR2\ttalker\thearer\tbook", "L9\tR1\tsender\thearer\tbook"]
    paths += ["L6\tR6\tsender\tsender\tbook", "L8\tR7\tsender\tloner\tbook"]
    header = "ligand\treceptor\tsender\treceiver\tsource\n"
    (folder / "paths.tsv").write_text(header + "\n".join(paths) + "\n", encoding="utf-8")
    return folder

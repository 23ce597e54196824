"""Cells that are in one of four planted phases or in none, a ring of these phases, and a recipe that scores them."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
from scipy import sparse

from manifoldzoo.cards._programs import GeneProgram

PHASES = ("early", "mid", "late", "last")
N_GENES, N_PROGRAM = 400, 12


def programs(*, n_genes: int = N_PROGRAM) -> tuple[GeneProgram, ...]:
    """The first genes are those of the first phase, and so on."""
    return tuple(
        GeneProgram(
            name=name,
            label=name.title(),
            genes=[f"G{place * N_PROGRAM + i}" for i in range(n_genes)],
            source="made up",
        )
        for place, name in enumerate(PHASES)
    )


def phased_cells(study: str, *, n_cells: int = 200, seed: int = 0, n_donors: int = 2) -> ad.AnnData:
    """Counts of 400 genes; ``obs['planted']`` has the phase, empty for one cell in three.

    A phase raises its own genes fourfold, and others by which a head can tell the phases apart without these.
    """
    rng = np.random.default_rng(seed)
    rate = np.random.default_rng(99).gamma(2.0, 0.6, N_GENES) + 0.3
    phase = np.where(rng.random(n_cells) < 1 / 3, -1, rng.integers(len(PHASES), size=n_cells))
    rates = np.tile(rate, (n_cells, 1))
    for place in range(len(PHASES)):
        rates[np.ix_(phase == place, np.arange(place * N_PROGRAM, (place + 1) * N_PROGRAM))] *= 4
        rates[np.ix_(phase == place, np.arange(100 + place * 20, 100 + (place + 1) * 20))] *= 2
    cells = ad.AnnData(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
    cells.obs_names = [f"{study}-{i}" for i in range(n_cells)]
    cells.var_names = [f"G{i}" for i in range(N_GENES)]
    cells.obs["dataset"] = study
    cells.obs["donor"] = rng.choice([f"d{i}" for i in range(n_donors)], n_cells)
    cells.obs["tissue"] = "dish"
    cells.obs["cell_type"] = rng.choice(["round", "flat"], n_cells)
    cells.obs["planted"] = [PHASES[place] if place >= 0 else "" for place in phase]
    return cells


def write_phases(folder: Path, *, labels: str = "", adaptor: str = "n_steps = 20") -> Path:
    """A recipe of the ring, with its tables."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = [f"{name}\t{name.title()}\t\t{name}" for name in PHASES]
    edges = [f"{name}\t{PHASES[place - 1]}\tmade up" for place, name in enumerate(PHASES)]
    rows = [f"{one.name}\t{one.label}\t{', '.join(one.genes)}\t{one.source}" for one in programs()]
    for name, header, lines in (
        ("stages.tsv", "# name: ring\n# version: 1\nid\tlabel\tontology_id\tbranch", stages),
        ("edges.tsv", "child\tparent\tsource", edges),
        ("programs.tsv", "name\tlabel\tgenes\tsource", rows),
    ):
        (folder / name).write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    (folder / "recipe.toml").write_text(
        f"""
name = "ring"
version = "0.1.0"
title = "Ring"
description = "For tests."
licence = "MIT"
ruler_licence = "CC0-1.0"
extractor = "operator-let"
coverage_floor = 0.3
intended_use = "Tests."
limits = ["Means nothing."]
[labels]
kind = "gene-scores"
{labels}
[panel]
max_cells_per_stage = 20
[operator]
kind = "expression"
[adaptor]
n_components = 3
{adaptor}
[[readouts]]
task = "phase"
label = "stage"
[[citations]]
key = "none"
text = "Nobody (2026)."
""",
        encoding="utf-8",
    )
    return folder

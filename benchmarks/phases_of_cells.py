"""Whether labels by gene scores say of real cells what is known of them: which cell types cycle, and in which phase.

For each file: the part of each cell type that is given a phase by the recipe ``cell-cycle``, and how the phases agree
with the two lists of Tirosh et al. 2016 as ``scanpy.tl.score_genes_cell_cycle`` reads them. The lists share genes with
the programs, so that agreement is to be expected and a lack of it is what tells. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from sklearn.metrics import cohen_kappa_score

from manifoldzoo.manifolds._count_file import PLAIN, list_cells
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds._scored_labels import GeneScoreLabels

# doi:10.1126/science.aad0501, as distributed with the analysis notebooks of scanpy
S = re.findall(
    r"\w+",
    """MCM5 PCNA TYMS FEN1 MCM2 MCM4 RRM1 UNG GINS2 MCM6 CDCA7 DTL PRIM1 UHRF1 MLF1IP HELLS RFC2 RPA2 NASP RAD51AP1 GMNN
    WDR76 SLBP CCNE2 UBR7 POLD3 MSH2 ATAD2 RAD51 RRM2 CDC45 CDC6 EXO1 TIPIN DSCC1 BLM CASP8AP2 USP1 CLSPN POLA1 CHAF1B
    BRIP1 E2F8""",
)
G2M = re.findall(
    r"\w+",
    """HMGB2 CDK1 NUSAP1 UBE2C BIRC5 TPX2 TOP2A NDC80 CKS2 NUF2 CKS1B MKI67 TMPO CENPF TACC3 FAM64A SMC4 CCNB2 CKAP2L
    CKAP2 AURKB BUB1 KIF11 ANP32E TUBB4B GTSE1 KIF20B HJURP CDCA3 HN1 CDC20 TTK CDC25C KIF2C RANGAP1 NCAPD2 DLGAP5 CDCA2
    CDCA8 ECT2 KIF23 HMMR AURKA PSRC1 ANLN LBR CKAP5 CENPE CTCF NEK2 G2E3 GAS2L3 CBX5 CENPA""",
)
MEANS = {"g1_s": "S", "s": "S", "g2": "G2M", "g2_m": "G2M", "m_g1": "G2M"}
"""Of the two lists, the one that a phase belongs to; cells that leave mitosis still hold its messages."""


def two_list_phase(path: Path) -> np.ndarray:
    """Phase of each cell of a file by the two lists: ``S``, ``G2M`` or ``G1``."""
    cells = ad.read_h5ad(path)
    sc.pp.normalize_total(cells, target_sum=1e4)
    sc.pp.log1p(cells)
    there = [[gene for gene in genes if gene in cells.var_names] for genes in (S, G2M)]
    sc.tl.score_genes_cell_cycle(cells, s_genes=there[0], g2m_genes=there[1])
    return cells.obs["phase"].astype(str).to_numpy()


def by_cell_type(cells: pd.DataFrame, stage: np.ndarray, names: list[str], *, fewest: int) -> str:
    """Part of each cell type that has a phase, the types with most of them first."""
    lines = [f"| cell type | cells | with a phase | {' | '.join(names)} |", f"| --- | {' | '.join(['---:'] * 7)} |"]
    types = cells["cell_type"].to_numpy()
    parts = {name: np.mean(stage[types == name] != "-") for name in np.unique(types)}
    for name in sorted(parts, key=lambda name: -parts[name]):
        here = stage[types == name]
        if len(here) >= fewest:
            shares = " | ".join(f"{np.mean(here == phase):.1%}" for phase in names)
            lines.append(f"| {name} | {len(here)} | {parts[name]:.1%} | {shares} |")
    return "\n".join(lines)


def agreement(stage: np.ndarray, other: np.ndarray, names: list[str]) -> str:
    """Cells of each phase by what the two lists say of them, and how far the two agree."""
    lines = ["| phase here | cells | S | G2M | G1 |", "| --- | ---: | ---: | ---: | ---: |"]
    for name in [*names, "-"]:
        here = other[stage == name]
        counts = " | ".join(str(int((here == phase).sum())) for phase in ("S", "G2M", "G1"))
        lines.append(f"| {'left out' if name == '-' else name} | {len(here)} | {counts} |")
    both = (stage != "-") & (other != "G1")
    mine = np.array([MEANS.get(name, "") for name in stage])
    cycling = float(np.mean(other[stage != "-"] != "G1")) if (stage != "-").any() else float("nan")
    resting = float(np.mean(other[stage == "-"] != "G1"))
    said = (
        f"Of the cells with a phase here the two lists call {cycling:.1%} cycling, of those left out {resting:.1%}. "
        f"Of the {int(both.sum())} cells that both call cycling, {np.mean(mine[both] == other[both]):.1%} have a phase "
        f"of the same list, Cohen's kappa {cohen_kappa_score(mine[both], other[both]):.2f}."
    )
    return "\n".join([*lines, "", said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help=".h5ad files of raw counts, as panels take them")
    parser.add_argument("--fewest", type=int, default=20, help="cells of a type that is shown")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = recipe_folder("cell-cycle")
    recipe = read_recipe(folder)
    labels = recipe.labels.read(folder / recipe.labels.file)
    assert isinstance(labels, GeneScoreLabels)
    names = [one.name for one in labels.programs]
    listed = {gene for one in labels.programs for gene in one.genes}
    shared = [len(listed & set(genes)) for genes in (S, G2M)]
    print(f"Of the lists' {len(S)} and {len(G2M)} genes, {shared[0]} and {shared[1]} are in the programs.")
    for path in options.files:
        cells = list_cells([path], PLAIN)
        stage = np.array(labels.stages_of(cells, [path], PLAIN))
        print(f"\n## {path.stem}\n\n{by_cell_type(cells, stage, names, fewest=options.fewest)}\n")
        print(agreement(stage, two_list_phase(path), names))


if __name__ == "__main__":
    main()

"""LIANA's consensus ranking of a study, kept on disk, and what it says of each ordered pair of cell types.

What is kept: one table for each study, with each interaction that both cell types express, and its two ranks. LIANA is
imported only where a table has to be made (the import alone takes seconds).
"""

from __future__ import annotations

import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from manifoldzoo.cards._names import canonical_json, sha256_bytes

from .studies import GROUP, Study, expressed_share

Floats = NDArray[np.float64]
RANKS = ("specificity_rank", "magnitude_rank")
KEYS = ("source", "target", "ligand_complex", "receptor_complex")
LEVEL = 0.05
_EPSILON = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Settings:
    """Of ``liana.mt.rank_aggregate``.

    1000 permutations are LIANA's default; they enter the p-value of CellPhoneDB alone, one of the four columns behind
    ``specificity_rank`` and none of ``magnitude_rank``.
    """

    resource: str = "consensus"
    expr_prop: float = 0.1
    n_perms: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Ranking:
    """What LIANA found in a study.

    Attributes
    ----------
    table
        A row for each ordered pair of cell types and interaction that both express: ``KEYS`` and ``RANKS``.
    ligands, receptors
        Ligands and receptors of the resource that each cell type expresses: all subunits in ``expr_prop`` of its cells.
    seconds
        Processor and elapsed time of LIANA, without reading, normalising and importing.
    fresh
        Whether it was run now, and not read from disk.
    """

    groups: list[str]
    table: pd.DataFrame
    ligands: NDArray[np.int64]
    receptors: NDArray[np.int64]
    seconds: dict[str, float]
    fresh: bool


Run = Callable[[Study, Settings], tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]]
"""Returns LIANA's table, its resource with the columns ``ligand`` and ``receptor``, and seconds."""


def run_liana(study: Study, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, float]]:
    """Run LIANA itself, on one thread."""
    first = "liana" not in sys.modules
    import liana as li

    def once(n_perms: int) -> pd.DataFrame:
        return li.mt.rank_aggregate(
            study.cells.copy(),
            groupby=GROUP,
            resource_name=settings.resource,
            expr_prop=settings.expr_prop,
            n_perms=n_perms,
            seed=settings.seed,
            use_raw=False,
            inplace=False,
            n_jobs=1,
        )

    with warnings.catch_warnings():
        # its own, of pandas and anndata
        warnings.simplefilter("ignore")
        if first:
            # the first call loads libraries, which is no part of its time
            once(1)
        timer = Timer()
        table = once(settings.n_perms)
        seconds = timer.seconds()
    return table, li.rs.select_resource(settings.resource), seconds


class Timer:
    """Processor and elapsed time since it was made; on a shared machine the first is the steadier one."""

    def __init__(self) -> None:
        self.started = time.process_time(), time.perf_counter()

    def seconds(self) -> dict[str, float]:
        """Both, in seconds."""
        return {
            "processor": time.process_time() - self.started[0],
            "elapsed": time.perf_counter() - self.started[1],
        }


def rank(study: Study, settings: Settings, folder: Path, *, fresh: bool = False, run: Run = run_liana) -> Ranking:
    """Rank the interactions of a study, or read what an earlier run kept of the same cells, labels and settings."""
    asked = {"liana": version("liana"), "settings": asdict(settings), "cells": study.digest}
    key = sha256_bytes(canonical_json(asked))[:12]
    stem = f"{study.name.replace(', ', '-').replace(' ', '-')}-{key}"
    kept, told = folder / f"{stem}.csv.gz", folder / f"{stem}.json"
    made = fresh or not (kept.exists() and told.exists())
    if made:
        table, resource, seconds = run(study, settings)
        folder.mkdir(parents=True, exist_ok=True)
        table[[*KEYS, *RANKS]].to_csv(kept, index=False, compression={"method": "gzip", "mtime": 0})
        share = dict(zip(study.cells.var_names, expressed_share(study).T, strict=True))
        document: dict[str, Any] = {
            "asked": asked,
            "groups": study.groups,
            "n_cells": study.sizes.tolist(),
            "ligands": expressed(resource["ligand"].unique(), share, settings.expr_prop).tolist(),
            "receptors": expressed(resource["receptor"].unique(), share, settings.expr_prop).tolist(),
            "seconds": seconds,
            "machine": f"{platform.machine()}, Python {platform.python_version()}",
        }
        # last, so that a table that was cut off is not taken for a whole one
        told.write_text(json.dumps(document, indent=1), encoding="utf-8")
    document = json.loads(told.read_text(encoding="utf-8"))
    ligands, receptors = (np.array(document[side], dtype=np.int64) for side in ("ligands", "receptors"))
    return Ranking(document["groups"], pd.read_csv(kept), ligands, receptors, document["seconds"], made)


def expressed(complexes: NDArray[Any], share: dict[str, Floats], floor: float) -> NDArray[np.int64]:
    """Count the complexes of which a cell type expresses every subunit; one with an unmeasured subunit counts for none.

    Parameters
    ----------
    complexes
        Names, subunits joined by ``_``.
    share
        Share of the cells of each type that express a gene, ``(n_groups,)`` each.
    floor
        Least share.
    """
    n_groups = len(next(iter(share.values())))
    found = np.zeros(n_groups, dtype=np.int64)
    for name in complexes:
        subunits = str(name).split("_")
        if all(unit in share for unit in subunits):
            found += np.all([share[unit] >= floor for unit in subunits], axis=0)
    return found


def summaries(ranking: Ranking) -> dict[str, Floats]:
    """Say how much each ordered pair of cell types communicates, rows senders, columns receivers; more is more.

    Returns
    -------
    ``specific``, ``strong``
        Interactions with a specificity or magnitude rank of at most ``LEVEL``.
    ``expressed``
        Interactions that both types express, whatever their ranks.
    ``mean specificity``, ``mean magnitude``
        Mean of -log10 of the rank over those, 0 where there are none.
    ``total specificity``, ``total magnitude``
        The sum of the same: an interaction that is not expressed counts 0.
    """
    n = len(ranking.groups)
    position = {name: index for index, name in enumerate(ranking.groups)}
    place = ranking.table["source"].map(position) * n + ranking.table["target"].map(position)

    def total(values: Any) -> Floats:
        return np.bincount(place, weights=np.asarray(values, dtype=float), minlength=n * n).reshape(n, n)

    count = total(np.ones(len(place)))
    found = {"specific": total(ranking.table["specificity_rank"] <= LEVEL)}
    found["strong"] = total(ranking.table["magnitude_rank"] <= LEVEL)
    found["expressed"] = count
    for name in ("specificity", "magnitude"):
        # the smallest number is added as LIANA does where it inverts ranks
        weight = total(-np.log10(ranking.table[f"{name}_rank"] + _EPSILON))
        found[f"mean {name}"] = np.divide(weight, count, out=np.zeros_like(weight), where=count > 0)
        found[f"total {name}"] = weight
    return found


PRIMARY = "specific"

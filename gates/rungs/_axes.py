"""What the axes of a head stand for: classes that they tell apart, and gene programs that lie along them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...cards._errors import BadInputError
from ...cards._evidence import Record
from ...cards._programs import GeneProgram
from .._gate_data import GateData
from .._informing import CLASS_SEPARATION, PROGRAM_LOADINGS, Q_SHOWN
from .._named_child import named_child
from ..metrics import (
    axis_loadings,
    enrich_programs,
    epsilon_squared,
    eta_squared,
    eta_squared_of_all_axes,
)
from ..metrics._enrichment import LEAST_GENES, N_PERMUTATIONS

N_TOP = 6
"""Genes that are named at each end of an axis."""
DESCRIBES = "describes the axes as they are shipped, which could be turned together without changing a distance"
NO_PROGRAMS = "the card names no gene programs"

Detail = float | int | str | bool | None


def axis_records(
    data: GateData,
    latent: NDArray[np.floating],
    *,
    genes: Sequence[str],
    programs: Sequence[GeneProgram],
    seed: int,
    n_permutations: int = N_PERMUTATIONS,
) -> list[Record]:
    """Describe the axes of the shipped head, without any verdict.

    Parameters
    ----------
    data
        The extraction panel.
    latent
        Coordinates of its anchors under the shipped head, shape (n, d).
    genes
        Symbols of the columns of its expression.
    programs
        Of the card.
    seed
        Draws the permutations, from a child of their name.
    n_permutations
        Of cell types, for programs.

    Returns
    -------
    Two records that never decide. ``class_separation``: eta squared of the branches on each axis as its parts, and
    beside it epsilon squared, which is without bias, and eta squared of the studies. ``program_loadings``: for each
    axis and program the signed z under its null as its parts, q values, effects and the z of plain ranks beside it, and
    the genes at both ends of each axis.

    Raises
    ------
    BadInputError
        If latent, expression and genes do not match.

    Notes
    -----
    See ``eta_squared`` and ``enrich_programs`` for the formulas. Axes are numbered from 1, as columns of the latent.
    """
    given, expression = np.asarray(latent, dtype=np.float64), np.asarray(data.expression, dtype=np.float64)
    if given.ndim != 2 or len(given) != len(expression) or len(genes) != expression.shape[1]:
        raise BadInputError(
            f"latent has shape {given.shape}, expression {expression.shape} and there are {len(genes)} genes, "
            "expected as many rows, and a gene for each column."
        )
    rng = named_child(np.random.default_rng(seed), PROGRAM_LOADINGS)
    return [
        _separation(data, given, seed),
        _loadings(data, given, expression, genes, programs, rng, seed, n_permutations),
    ]


def _separation(data: GateData, latent: NDArray[np.float64], seed: int) -> Record:
    """How much of each axis lies between branches, and between studies."""
    n, n_classes, n_studies = len(latent), len(set(data.branch)), len(set(data.study))
    details: dict[str, Detail] = {"n_axes": latent.shape[1], "n_classes": n_classes}
    try:
        eta = eta_squared(latent, data.branch)
    except BadInputError as error:
        return _open(CLASS_SEPARATION, error.message, n, seed, details)
    details |= {"by_chance": _told((n_classes - 1) / (n - 1))}
    details |= {"all_axes": _told(eta_squared_of_all_axes(latent, data.branch))}
    details |= _by_axis("epsilon", epsilon_squared(latent, data.branch))
    if 1 < n_studies < n:
        details |= {"n_studies": n_studies, "study_by_chance": _told((n_studies - 1) / (n - 1))}
        details |= _by_axis("study", eta_squared(latent, data.study))
    parts = {f"axis_{axis}": value for axis, value in enumerate(map(_told, eta), start=1) if value is not None}
    return _open(CLASS_SEPARATION, DESCRIBES, n, seed, details, parts)


def _loadings(
    data: GateData,
    latent: NDArray[np.float64],
    expression: NDArray[np.float64],
    genes: Sequence[str],
    programs: Sequence[GeneProgram],
    rng: np.random.Generator,
    seed: int,
    n_permutations: int,
) -> Record:
    """Which programs lie along which axes, and which genes at their ends."""
    n, ends = len(latent), _ends(axis_loadings(latent, expression), genes)
    if not programs:
        return _open(PROGRAM_LOADINGS, NO_PROGRAMS, n, seed, ends).model_copy(update={"status": "not run"})
    members = np.array([np.isin(genes, program.genes) for program in programs])
    try:
        found = enrich_programs(latent, expression, members, units=data.stage, rng=rng, n_permutations=n_permutations)
    except BadInputError as error:
        return _open(PROGRAM_LOADINGS, error.message, n, seed, ends)
    few = [
        f"{program.name} ({n_genes} of {len(program.genes)})"
        for program, n_genes in zip(programs, found.n_genes.tolist(), strict=True)
        if n_genes < LEAST_GENES
    ]
    details: dict[str, Detail] = {
        "n_axes": latent.shape[1],
        "n_programs": len(programs),
        "n_tested": int(np.isfinite(found.q).sum()),
        "n_found": int((found.q < Q_SHOWN).sum()),
        "n_found_by_ranks_alone": int((found.rank_q < Q_SHOWN).sum()),
        "too_few_genes": ", ".join(few),
        "n_genes_beside": found.n_background,
        "exchanged": "axes between cell types",
        "n_cell_types": len(set(data.stage)),
        "n_permutations": found.n_permutations,
        "log10_arrangements": found.log10_arrangements,
    }
    for program, n_genes in zip(programs, found.n_genes.tolist(), strict=True):
        details |= {f"label {program.name}": program.label, f"genes {program.name}": n_genes}
        details |= {f"listed {program.name}": len(program.genes)}
    names = [program.name for program in programs]
    for what, table in (("q", found.q), ("rank_z", found.rank_z), ("effect", found.effect)):
        details |= {f"{what} {key}": value for key, value in _by_pair(table, names).items()}
    return _open(PROGRAM_LOADINGS, DESCRIBES, n, seed, details | ends, _by_pair(found.z, names))


def _ends(loadings: NDArray[np.float64], genes: Sequence[str]) -> dict[str, Detail]:
    """Genes that go most with each axis, and most against it, each with its loading."""
    ends: dict[str, Detail] = {}
    for axis, row in enumerate(loadings, start=1):
        known = np.flatnonzero(np.isfinite(row))
        order = known[np.argsort(-row[known], kind="stable")]
        for what, chosen in (("highest", order[:N_TOP]), ("lowest", order[::-1][:N_TOP])):
            ends[f"{what} axis_{axis}"] = ", ".join(f"{genes[gene]} {row[gene]:.2f}" for gene in chosen)
    return ends


def _by_axis(what: str, values: NDArray[np.float64]) -> dict[str, Detail]:
    """A number for each axis."""
    return {f"{what} axis_{axis}": _told(value) for axis, value in enumerate(values, start=1)}


def _by_pair(table: NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    """The numbers of a table of axes and programs, by name."""
    pairs = {
        f"axis_{axis} {name}": _told(value)
        for axis, row in enumerate(table, start=1)
        for name, value in zip(names, row, strict=True)
    }
    return {key: value for key, value in pairs.items() if value is not None}


def _told(value: float | np.floating) -> float | None:
    """A number for a record, if it is one, to five digits: there are hundreds of them."""
    return float(f"{value:.5g}") if np.isfinite(value) else None


def _open(
    gate: str, reason: str, n: int, seed: int, details: dict[str, Detail], parts: dict[str, float] | None = None
) -> Record:
    """A record without a verdict."""
    return Record(
        gate=gate,
        status="cannot decide",
        reason=reason,
        decides=False,
        n=n,
        seed=seed,
        details=details,
        parts=parts or {},
    )

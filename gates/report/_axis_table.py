"""What a run says of the axes of its head, read from its records for tables and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...cards._evidence import EvidenceRun, Record
from .._informing import CLASS_SEPARATION, PROGRAM_LOADINGS
from ._statuses import as_number, rows_of

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ProgramRow:
    """One gene program.

    Parameters
    ----------
    name, label
        Of the program.
    n_genes, n_listed
        Genes with a loading, of those that the program lists.
    """

    name: str
    label: str
    n_genes: int
    n_listed: int

    @property
    def told(self) -> str:
        """Label and numbers of genes."""
        return f"{self.label} ({self.n_genes} of {self.n_listed} genes)"


@dataclass(frozen=True, eq=False)
class AxisTable:
    """Axes of a head; NaN and empty where the records have nothing.

    Parameters
    ----------
    eta, epsilon, study
        Part of each axis between branches, the same without bias, and between studies, shape (d,).
    by_chance, study_by_chance
        What labels that mean nothing would give of the first and the third.
    programs
        In the order of the card.
    z, q, rank_z, effect
        Of each program (row) on each axis, shape (P, d).
    highest, lowest
        Genes at the ends of each axis, with their loadings.
    """

    eta: Floats
    epsilon: Floats
    study: Floats
    by_chance: float
    study_by_chance: float
    programs: tuple[ProgramRow, ...]
    z: Floats
    q: Floats
    rank_z: Floats
    effect: Floats
    highest: tuple[str, ...]
    lowest: tuple[str, ...]

    @property
    def axes(self) -> list[str]:
        """Names of the axes."""
        return [f"axis {axis}" for axis in range(1, len(self.eta) + 1)]


def axis_table(run: EvidenceRun) -> AxisTable | None:
    """Read the axes of a run; ``None`` where it has no record of them."""
    found = {record.gate: record for rung, record in rows_of(run) if rung == 3}
    separation, loadings = found.get(CLASS_SEPARATION), found.get(PROGRAM_LOADINGS)
    told = {} if loadings is None else loadings.details
    numbers = [key.removeprefix("highest axis_") for key in told if key.startswith("highest axis_")]
    numbers += [] if separation is None else [key.removeprefix("axis_") for key in separation.parts]
    d = max((int(number) for number in numbers if number.isdigit()), default=0)
    if not d:
        return None
    programs = tuple(
        ProgramRow(
            name=key.removeprefix("label "),
            label=str(label),
            n_genes=int(as_number(told.get(f"genes {key.removeprefix('label ')}")) or 0),
            n_listed=int(as_number(told.get(f"listed {key.removeprefix('label ')}")) or 0),
        )
        for key, label in told.items()
        if key.startswith("label ")
    )
    axes = range(1, d + 1)
    names = [program.name for program in programs]
    return AxisTable(
        eta=_numbers([None if separation is None else separation.parts.get(f"axis_{axis}") for axis in axes]),
        epsilon=_numbers([_detail(separation, f"epsilon axis_{axis}") for axis in axes]),
        study=_numbers([_detail(separation, f"study axis_{axis}") for axis in axes]),
        by_chance=float(_numbers([_detail(separation, "by_chance")])[0]),
        study_by_chance=float(_numbers([_detail(separation, "study_by_chance")])[0]),
        programs=programs,
        z=_table(names, d, {} if loadings is None else loadings.parts, ""),
        q=_table(names, d, told, "q "),
        rank_z=_table(names, d, told, "rank_z "),
        effect=_table(names, d, told, "effect "),
        highest=tuple(str(told.get(f"highest axis_{axis}", "")) for axis in axes),
        lowest=tuple(str(told.get(f"lowest axis_{axis}", "")) for axis in axes),
    )


def _table(names: Sequence[str], d: int, told: Mapping[str, object], what: str) -> Floats:
    """One number of each program on each axis."""
    rows = [[told.get(f"{what}axis_{axis} {name}") for axis in range(1, d + 1)] for name in names]
    return np.array([_numbers(row) for row in rows]).reshape(len(names), d)


def _numbers(values: Sequence[object]) -> Floats:
    """Numbers, NaN where there is none."""
    known = [as_number(value) for value in values]
    return np.array([np.nan if value is None else value for value in known], dtype=np.float64)


def _detail(record: Record | None, key: str) -> object:
    """A detail of a record that may be missing."""
    return None if record is None else record.details.get(key)

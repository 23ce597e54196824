"""Who is in a panel, and who is in two: cells and donors that panels share, and barcodes that look copied."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Literal, Protocol

from ..cards._errors import PanelError, ZooWarning
from ._barcodes import barcode_of, looks_copied, tells_cells_apart
from ._count_file import PLAIN, PanelReading, label_cells
from ._digests import cells_digest
from ._labels import LEFT_OUT
from ._stage_labels import StageLabels

Role = Literal["extraction", "external", "zero-shot", "negative"]
Verdict = Literal["clear", "reported", "warned", "refused"]
_EXAMPLES = 5


@dataclass(frozen=True, eq=False)
class PanelMembers:
    """Who is in a panel: its labelled cells and their donors, in groups of any size.

    Attributes
    ----------
    study, donor, ids
        Of each cell, ``n_cells``.
    """

    study: tuple[str, ...]
    donor: tuple[str, ...]
    ids: tuple[str, ...]

    @property
    def cell_ids(self) -> list[str]:
        """``study:id`` of each cell."""
        return [f"{study}:{name}" for study, name in zip(self.study, self.ids, strict=True)]

    @property
    def donors(self) -> frozenset[str]:
        """``study:donor`` of every donor."""
        return frozenset(f"{study}:{donor}" for study, donor in set(zip(self.study, self.donor, strict=True)))

    @property
    def digest(self) -> str:
        """Digest of the cell ids with their studies and donors, whatever their order."""
        return cells_digest(["\t".join(cell) for cell in zip(self.study, self.donor, self.ids, strict=True)])


class HasMembers(Protocol):
    """What overlap is checked on: a built panel, or one that is only planned."""

    @property
    def name(self) -> str:
        """Name of the panel."""

    @property
    def role(self) -> Role:
        """What it is for."""

    @property
    def members(self) -> PanelMembers:
        """Who is in it."""


@dataclass(frozen=True)
class LookAlike:
    """Two studies whose cell ids look like copies of each other.

    Attributes
    ----------
    studies
        One of each panel.
    n_shared, n_smaller
        Barcodes they share, and barcodes of the one that has fewer.
    examples
        Some of the barcodes.
    """

    studies: tuple[str, str]
    n_shared: int
    n_smaller: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class PanelOverlap:
    """What two panels share.

    Attributes
    ----------
    panels, roles
        Names and roles of the two.
    n_cells, cells
        Cells that both hold, and some of their ``study:id``.
    n_donors, donors
        Donors that both hold, and some of their ``study:donor``.
    look_alikes
        Studies whose barcodes look copied.
    verdict
        ``refused`` where independence is claimed and does not hold, ``warned`` where it is in doubt, ``reported`` where
        something is shared that may be.
    """

    panels: tuple[str, str]
    roles: tuple[Role, Role]
    n_cells: int
    cells: tuple[str, ...]
    n_donors: int
    donors: tuple[str, ...]
    look_alikes: tuple[LookAlike, ...]
    verdict: Verdict

    @property
    def line(self) -> str:
        """One line for people."""
        said = [f"{n} {what} ({_listed(which, n)})" for n, what, which in self._shared() if n]
        for alike in self.look_alikes:
            share = f"{alike.n_shared} of {alike.n_smaller} barcodes"
            said.append(f"{share} of {' and '.join(alike.studies)} ({_listed(alike.examples, alike.n_shared)})")
        pair = " and ".join(f"{name!r} ({role})" for name, role in zip(self.panels, self.roles, strict=True))
        return f"{pair} share {'; '.join(said) or 'no cell and no donor'}: {self.verdict}."

    def _shared(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """What is shared, with numbers and examples."""
        return [(self.n_cells, "cells", self.cells), (self.n_donors, "donors", self.donors)]


@dataclass(frozen=True)
class OverlapReport:
    """What every two panels share.

    Attributes
    ----------
    pairs
        One entry for every two panels, in the order given.
    """

    pairs: tuple[PanelOverlap, ...]

    @property
    def verdict(self) -> Verdict:
        """The gravest of all pairs."""
        order: tuple[Verdict, ...] = ("refused", "warned", "reported")
        return next((verdict for verdict in order if any(pair.verdict == verdict for pair in self.pairs)), "clear")

    @property
    def lines(self) -> list[str]:
        """One line for people for every two panels."""
        return [pair.line for pair in self.pairs]

    def require(self) -> OverlapReport:
        """Raise where panels must not overlap as they do, and warn where they look as if they did.

        Raises
        ------
        PanelError
            Naming the panels, and some of the cells or donors.

        Warns
        -----
        ZooWarning
            For barcodes that look alike.
        """
        for pair in self.pairs:
            if pair.verdict == "refused":
                raise PanelError(
                    f"The panels {pair.line}",
                    "Leave these out of one of them, for example with `exclude_donors` or `exclude_studies`.",
                )
        for pair in self.pairs:
            if pair.look_alikes:
                warnings.warn(f"The panels {pair.line} Is one a copy of the other?", ZooWarning, stacklevel=2)
        return self


def read_panel_members(paths: Sequence[Path], *, labels: StageLabels, reading: PanelReading = PLAIN) -> PanelMembers:
    """Read who would be in a panel, without making an anchor.

    Parameters
    ----------
    paths, labels, reading
        As ``build_panel``.

    Raises
    ------
    PanelError
        As ``build_panel``.
    """
    every = label_cells(paths, labels, reading)
    used = every[every["stage"] != LEFT_OUT]
    return PanelMembers(tuple(used["dataset"]), tuple(used["donor"]), tuple(used["id"]))


def check_overlap(panels: Sequence[HasMembers]) -> OverlapReport:
    """Compare every two panels by cell id, by donor, and by barcode.

    Parameters
    ----------
    panels
        Built panels, or others that have ``name``, ``role`` and ``members``.

    Returns
    -------
    What they share. Refused are cells that a panel of another role shares with the extraction panel, and donors that an
    external panel shares with it; whatever else is shared is reported. ``OverlapReport.require`` raises.

    Raises
    ------
    PanelError
        If two panels have one name.

    Notes
    -----
    Cells are compared as ``study:id`` and donors as ``study:donor``, because barcodes and donor numbers recur between
    studies. A study that comes under another name, or with another suffix, passes that; so barcodes are compared too,
    between every two studies of two panels, without what is around them ("L5_", "-1"); see ``looks_copied`` for when
    two studies look alike. Names shorter than eight letters say nothing.
    """
    names = [panel.name for panel in panels]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise PanelError(f"Two panels are named {repeated!r}.", "Give each a name of its own.")
    known = [_Known(panel) for panel in panels]
    return OverlapReport(tuple(_compare(first, second) for first, second in combinations(known, 2)))


class _Known:
    """A panel's cells, donors and barcodes as sets."""

    def __init__(self, panel: HasMembers) -> None:
        members = panel.members
        self.name, self.role = panel.name, panel.role
        self.cells = set(members.cell_ids)
        self.donors = members.donors
        self.barcodes: dict[str, dict[str, str]] = {study: {} for study in dict.fromkeys(members.study)}
        for study, name in zip(members.study, members.ids, strict=True):
            barcode = barcode_of(name)
            if tells_cells_apart(barcode):
                self.barcodes[study][barcode] = name


def _compare(first: _Known, second: _Known) -> PanelOverlap:
    """What two panels share."""
    cells, donors = first.cells & second.cells, first.donors & second.donors
    alike = tuple(
        found
        for study in first.barcodes
        for other in second.barcodes
        if (found := _look_alike(first, study, second, other)) is not None
    )
    other = next((role for role in (first.role, second.role) if role != "extraction"), None)
    independent = "extraction" in (first.role, second.role) and other is not None
    verdict: Verdict = "clear"
    if independent and (cells or (donors and other == "external")):
        verdict = "refused"
    elif alike:
        verdict = "warned"
    elif cells or donors:
        verdict = "reported"
    return PanelOverlap(
        panels=(first.name, second.name),
        roles=(first.role, second.role),
        n_cells=len(cells),
        cells=_some(cells),
        n_donors=len(donors),
        donors=_some(donors),
        look_alikes=alike,
        verdict=verdict,
    )


def _look_alike(first: _Known, study: str, second: _Known, other: str) -> LookAlike | None:
    """Whether two studies have the same barcodes under other names."""
    mine, theirs = first.barcodes[study], second.barcodes[other]
    shared = mine.keys() & theirs.keys()
    if study == other:
        # a cell that is the same by its id is not merely alike
        shared = {barcode for barcode in shared if mine[barcode] != theirs[barcode]}
    if not looks_copied(len(shared), len(mine), len(theirs)):
        return None
    return LookAlike((study, other), len(shared), min(len(mine), len(theirs)), _some(shared))


def _some(names: Iterable[str]) -> tuple[str, ...]:
    """The first few names in alphabetical order."""
    return tuple(sorted(names)[:_EXAMPLES])


def _listed(examples: Sequence[str], n: int) -> str:
    """Examples in a line."""
    return ", ".join(examples) + (", ..." if n > len(examples) else "")

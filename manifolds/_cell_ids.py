"""Cell ids that travel in an artifact as hashes, so that anybody can tell whether own cells are among them.

They give nothing away that barcodes would not: no expression and no donor. A name can be confirmed by somebody who
knows it already, and is read by nobody else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import FormatError
from ._barcodes import barcode_of, looks_copied, tells_cells_apart

if TYPE_CHECKING:
    from ._panel_overlap import PanelMembers

Hashes = NDArray[np.uint64]
KINDS = ("cells", "barcodes")
"""Last part of the names of the tensors."""


@dataclass(frozen=True, eq=False)
class CellIds:
    """Who is in a panel, as hashes.

    Attributes
    ----------
    cells
        Of ``study:id`` of each cell, uint64 ``(n_cells,)``, strictly increasing.
    barcodes
        Of the barcodes of each study, uint64 and strictly increasing; which study is not told. Names that are no
        barcodes are not there, so a study may have none.
    """

    cells: Hashes
    barcodes: tuple[Hashes, ...]

    @classmethod
    def of(cls, members: PanelMembers) -> CellIds:
        """Hash the members of a panel."""
        by_study = _barcodes_by_study(members)
        return cls(hash_ids(members.cell_ids), tuple(found for found in by_study.values() if len(found)))

    @classmethod
    def read(cls, tensors: Mapping[str, NDArray[Any]], panel: str = "panel") -> CellIds | None:
        """Read those of a panel among the tensors of an artifact; ``None`` where it does not carry them.

        Parameters
        ----------
        tensors
            Of a manifold.
        panel
            ``panel`` for the extraction panel, ``panel.<name>`` for one beside it.

        Raises
        ------
        FormatError
            If a tensor is not what ``tensors`` writes.
        """
        cells, barcodes = (tensors.get(f"{panel}.{kind}") for kind in KINDS)
        if cells is None and barcodes is None:
            return None
        if cells is None:
            raise FormatError(f"There is a tensor '{panel}.barcodes' and none '{panel}.cells'.")
        barcodes = np.empty(0, dtype=np.uint64) if barcodes is None else barcodes
        for name, array in ((f"{panel}.cells", cells), (f"{panel}.barcodes", barcodes)):
            if array.dtype != np.uint64 or array.ndim != 1:
                raise FormatError(f"Tensor {name!r} is {array.dtype} of shape {array.shape}, expected uint64 (n,).")
        if not _increases(cells).all():
            raise FormatError(f"Tensor '{panel}.cells' is not sorted, or holds a cell twice.")
        return cls(cells, _unpacked(barcodes))

    def tensors(self, panel: str = "panel") -> dict[str, Hashes]:
        """Name the tensors that travel: ``<panel>.cells`` and, where cells have barcodes, ``<panel>.barcodes``.

        Returns
        -------
        Both uint64 of one axis. Studies follow each other in the second, the one with the largest first hash first;
        as hashes increase within a study, the next one begins where they do not.
        """
        found = {f"{panel}.cells": self.cells}
        if self.barcodes:
            found[f"{panel}.barcodes"] = np.concatenate(sorted(self.barcodes, key=lambda part: -int(part[0])))
        return found

    def n_shared(self, other: CellIds) -> int:
        """Count the cells that two panels have in common, by ``study:id``."""
        return int(np.isin(self.cells, other.cells, assume_unique=True).sum())


@dataclass(frozen=True)
class CopiedBarcodes:
    """A study of own cells that looks like a copy of one in an artifact's panel.

    Attributes
    ----------
    study
        The own one.
    n_shared, n_smaller
        Barcodes that the two share, and barcodes of the one that has fewer.
    """

    study: str
    n_shared: int
    n_smaller: int


@dataclass(frozen=True)
class SharedCells:
    """What own cells share with a panel that travels as hashes.

    Attributes
    ----------
    n_cells
        Cells with the same ``study:id``.
    copied
        Studies whose barcodes look copied, though study or id are others.
    """

    n_cells: int
    copied: tuple[CopiedBarcodes, ...]


def hash_ids(names: Iterable[str]) -> Hashes:
    """Hash names of cells.

    Parameters
    ----------
    names
        In any order, repeated or not.

    Returns
    -------
    Strictly increasing uint64, one for each different name.

    Notes
    -----
    The first eight bytes of the SHA-256 of the UTF-8 name, as a little-endian number: our choice. Two of a million
    names agree by chance with a probability of 3e-8.

    Examples
    --------
    >>> hash_ids(["setty2019:AAACCTGAGCTGCCCA-1"])
    array([15298028637667686746], dtype=uint64)
    """
    return np.unique(_hashed(names))


def shared_with(stored: CellIds, members: PanelMembers) -> SharedCells:
    """Compare own cells with a panel of which only hashes are at hand.

    Parameters
    ----------
    stored
        Of the artifact's panel, see ``CellIds.read``.
    members
        Own cells.

    Returns
    -------
    Cells that are the same by ``study:id``; and own studies whose barcodes look copied from a study of the panel, by
    the rule of ``check_overlap``. Of several studies of the panel that one looks like, the one with the largest share
    is told.

    Notes
    -----
    A cell that is the same by its id is not counted again among the barcodes.
    """
    own = _hashed(members.cell_ids)
    same = np.isin(own, stored.cells)
    whole, left = _barcodes_by_study(members), _barcodes_by_study(members, leave_out=same)
    copied = []
    for study, barcodes in left.items():
        found = [
            CopiedBarcodes(study, n_shared, min(len(whole[study]), len(theirs)))
            for theirs in stored.barcodes
            if looks_copied(
                n_shared := int(np.isin(barcodes, theirs, assume_unique=True).sum()), len(whole[study]), len(theirs)
            )
        ]
        if found:
            copied.append(max(found, key=lambda one: one.n_shared / one.n_smaller))
    return SharedCells(len(np.unique(own[same])), tuple(copied))


def _hashed(names: Iterable[str]) -> Hashes:
    """Hash of each name, in order."""
    digests = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _barcodes_by_study(members: PanelMembers, leave_out: NDArray[np.bool_] | None = None) -> dict[str, Hashes]:
    """Hashes of the barcodes of each study, in the order of the studies' first cells."""
    left_out = np.zeros(len(members.ids), dtype=bool) if leave_out is None else leave_out
    found: dict[str, list[str]] = {study: [] for study in dict.fromkeys(members.study)}
    for study, name, out in zip(members.study, members.ids, left_out, strict=True):
        barcode = barcode_of(name)
        if not out and tells_cells_apart(barcode):
            found[study].append(barcode)
    return {study: hash_ids(barcodes) for study, barcodes in found.items()}


def _unpacked(packed: Hashes) -> tuple[Hashes, ...]:
    """Studies that were put behind each other."""
    return tuple(np.split(packed, np.flatnonzero(~_increases(packed)) + 1)) if len(packed) else ()


def _increases(hashes: Hashes) -> NDArray[np.bool_]:
    """Whether each hash but the first is larger than the one before it."""
    increases: NDArray[np.bool_] = hashes[1:] > hashes[:-1]
    return increases

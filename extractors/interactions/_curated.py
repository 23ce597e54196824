"""Curated paths: communication that the literature describes, which a ruler is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from ...cards._errors import FormatError
from ...cards._ruler_entry import CuratedPaths
from ._resource import InteractionResource, complex_name, read_table

COLUMNS = ("ligand", "receptor", "sender", "receiver", "source")
Status = Literal["expressed", "silent", "absent"]


@dataclass(frozen=True)
class CuratedPath:
    """A ligand of a sender that reaches a receptor of a receiver, and the work that shows it."""

    ligand: str
    receptor: str
    sender: str
    receiver: str
    source: str


@dataclass(frozen=True)
class PathCheck:
    """What a ruler knows of a curated path.

    Attributes
    ----------
    path
        The path.
    status
        ``absent`` where the resource lacks the pair; ``silent`` where the sender does not express the ligand, or the
        receiver not the receptor; else ``expressed``.
    """

    path: CuratedPath
    status: Status


def read_paths(path: Path) -> tuple[CuratedPath, ...]:
    """Read a table with the columns ``ligand, receptor, sender, receiver, source``; complexes as in a resource.

    Raises
    ------
    FormatError
        If it is no table, lacks a column or a value, or lists a path twice.
    """
    found: dict[tuple[str, ...], CuratedPath] = {}
    for number, row in enumerate(read_table(path, COLUMNS), start=1):
        given = {column: row[column].strip() for column in COLUMNS}
        given |= {end: complex_name(given[end], where=path.name) for end in ("ligand", "receptor")}
        empty = [column for column in COLUMNS if not given[column]]
        if empty:
            raise FormatError(f"Path {number} of {path} has nothing in {', '.join(empty)}: {list(row.values())}.")
        key = tuple(given[column] for column in COLUMNS[:4])
        if key in found:
            raise FormatError(f"Path {number} of {path} is listed a second time: {' '.join(key)}.")
        found[key] = CuratedPath(**given)
    if not found:
        raise FormatError(f"{path} lists no path.")
    return tuple(found.values())


def check_paths(
    paths: Sequence[CuratedPath],
    resource: InteractionResource,
    stages: Sequence[str],
    ligands: NDArray[np.float64],
    receptors: NDArray[np.float64],
) -> tuple[PathCheck, ...]:
    """Tell which paths the resource lacks, and which the cells are silent on.

    Parameters
    ----------
    paths
        Curated.
    resource
        Its ligands and receptors are the columns of the expression.
    stages
        Cell types, the rows of the expression.
    ligands, receptors
        Expression, ``(n_types, n_ligands)`` and ``(n_types, n_receptors)``; 0 where not expressed.

    Raises
    ------
    FormatError
        If a sender or receiver is no cell type of the ruler.
    """
    known = set(resource.pairs)
    row = {name: index for index, name in enumerate(stages)}
    ligand = {name: index for index, name in enumerate(resource.ligands)}
    receptor = {name: index for index, name in enumerate(resource.receptors)}
    checks = []
    for path in paths:
        strangers = [name for name in (path.sender, path.receiver) if name not in row]
        if strangers:
            raise FormatError(
                f"The curated path {path.ligand} to {path.receptor} names the cell type {strangers[0]!r}, which the "
                "ruler does not have.",
                f"Its cell types are {', '.join(stages)}.",
            )
        status: Status = "absent"
        if (path.ligand, path.receptor) in known:
            sent = ligands[row[path.sender], ligand[path.ligand]] > 0
            received = receptors[row[path.receiver], receptor[path.receptor]] > 0
            status = "expressed" if sent and received else "silent"
        checks.append(PathCheck(path, status))
    return tuple(checks)


def paths_auroc(paths: Sequence[CuratedPath], stages: Sequence[str], directed: NDArray[np.floating]) -> float | None:
    """Ask whether senders lie nearer to receivers where the literature has them communicate.

    Parameters
    ----------
    paths
        Curated; each ordered pair of different cell types that one of them names counts once.
    stages
        Cell types, rows and columns of the distances.
    directed
        ``(n, n)``, row = sender, column = receiver.

    Returns
    -------
    Area under the ROC curve of the negative distance over all ordered pairs of different cell types; 0.5 is chance.
    ``None`` where no pair is named, or all are.
    """
    row = {name: index for index, name in enumerate(stages)}
    named = np.zeros((len(stages), len(stages)), dtype=bool)
    for path in paths:
        named[row[path.sender], row[path.receiver]] = True
    apart = ~np.eye(len(stages), dtype=bool)
    if named[apart].all() or not named[apart].any():
        return None
    return float(roc_auc_score(named[apart], -np.asarray(directed)[apart]))


def curated_entry(
    checks: Sequence[PathCheck],
    stages: Sequence[str],
    directed: NDArray[np.floating],
    nulls: NDArray[np.floating],
) -> CuratedPaths | None:
    """Describe for a card how well directed distances know curated paths, beside those of the paired nulls.

    Parameters
    ----------
    checks
        The paths. All of them count, also those that the resource lacks or the cells are silent on: to leave these out
        would choose pairs by the network that is judged.
    stages, directed
        As ``paths_auroc``.
    nulls
        ``(n_nulls, n, n)``.

    Returns
    -------
    ``None`` where the paths decide nothing, see ``paths_auroc``.
    """
    paths = [check.path for check in checks]
    auroc = paths_auroc(paths, stages, directed)
    if auroc is None:
        return None
    return CuratedPaths(
        n_paths=len(paths),
        n_pairs=len({(path.sender, path.receiver) for path in paths if path.sender != path.receiver}),
        n_absent=sum(check.status == "absent" for check in checks),
        n_silent=sum(check.status == "silent" for check in checks),
        auroc=auroc,
        null_auroc=[value for table in nulls if (value := paths_auroc(paths, stages, table)) is not None],
    )

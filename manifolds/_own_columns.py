"""Which columns of a stranger's file say what: the usual names are looked for, anything else must be named."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..cards._errors import PanelError
from ._count_file import PanelReading, opened_h5ad

ONTOLOGY = "cell_type_ontology_term_id"
"""Column of Cell Ontology ids in files of CELLxGENE."""
CELL_TYPE = ("cell_type", "celltype", "cell_types", "celltypes", "cell_type_label", "cell_label", "cell_ontology_class")
DONOR = ("donor", "donor_id", "donors", "individual", "patient", "patient_id", "subject", "subject_id")
TISSUE = ("tissue", "organ", "tissue_general")
STUDY = ("study", "dataset", "study_id", "dataset_id")
NO_TISSUE = "not stated"


@dataclass(frozen=True)
class OwnColumns:
    """Columns of ``obs``; ``None`` looks for a usual name.

    Attributes
    ----------
    cell_type, donor
        Needed: a panel is made of them.
    tissue, study
        Where there is none, all cells are of one tissue, and of one study named like the file.
    """

    cell_type: str | None = None
    donor: str | None = None
    tissue: str | None = None
    study: str | None = None


USUAL = OwnColumns()
"""Look for the usual name of each."""


@dataclass(frozen=True)
class FoundColumns:
    """What was found.

    Attributes
    ----------
    columns
        Column of ``obs`` for ``cell_type``, ``donor``, and ``tissue`` and ``dataset`` where there are such.
    constants
        Value of ``tissue`` or ``dataset`` where there is no column.
    ontology
        Column of Cell Ontology ids beside the labels, if there is one.
    """

    columns: dict[str, str]
    constants: dict[str, str] = field(default_factory=dict)
    ontology: str | None = None

    def reading(self, layer: str | None, gene_column: str | None) -> PanelReading:
        """How the file is read."""
        return PanelReading(columns=self.columns, constants=self.constants, layer=layer, gene_column=gene_column)

    @property
    def told(self) -> dict[str, str]:
        """For people: the column of each, or ``= VALUE``."""
        both = self.columns | {name: f"= {value}" for name, value in self.constants.items()}
        return {"study" if name == "dataset" else name: said for name, said in sorted(both.items())}


def find_columns(path: Path, asked: OwnColumns = USUAL) -> FoundColumns:
    """Find what is needed among the columns of ``obs``.

    Parameters
    ----------
    path
        An ``.h5ad`` file.
    asked
        Columns that the user names.

    Raises
    ------
    PanelError
        If a column that is named is not there, or none for cell types or donors is found; the message lists what there
        is.

    Notes
    -----
    Usual names are tried in the order above, in any case. Columns of samples or batches are no donors: two samples of
    one donor held out one by one would pass for strangers. Our choice.
    """
    with opened_h5ad(path) as file:
        there = [str(name) for name in file["obs"].attrs.get("column-order", [])]
    columns: dict[str, str] = {}
    usual = {"cell_type": (*CELL_TYPE, ONTOLOGY), "donor": DONOR, "tissue": TISSUE, "dataset": STUDY}
    for name, names in usual.items():
        option = "study" if name == "dataset" else name
        wanted = getattr(asked, option)
        if wanted is not None and wanted not in there:
            near = difflib.get_close_matches(wanted, there, n=1)
            raise PanelError(
                f"{path.name} has no column {wanted!r} in obs; its columns are {_listed(there)}.",
                f"Did you mean {near[0]!r}?" if near else "Name one of them.",
            )
        found = wanted or _first(names, there)
        if found is not None:
            columns[name] = found
        elif name in ("cell_type", "donor"):
            raise PanelError(
                f"{path.name} has no column that names the {option.replace('_', ' ')} of its cells, such as "
                f"{names[0]!r}; its columns are {_listed(there)}.",
                f"Name it with --{option.replace('_', '-')}-key COLUMN"
                + ("; if all cells are of one donor, add a column that says so." if name == "donor" else "."),
            )
    constants = {"tissue": NO_TISSUE, "dataset": path.stem}
    return FoundColumns(
        columns,
        {name: value for name, value in constants.items() if name not in columns},
        ONTOLOGY if ONTOLOGY in there and columns["cell_type"] != ONTOLOGY else None,
    )


def _first(names: Sequence[str], there: Sequence[str]) -> str | None:
    """The first usual name that is there, as the file spells it."""
    spelt: dict[str, str] = {}
    for name in there:
        spelt.setdefault(name.lower(), name)
    return next((name if name in there else spelt[name] for name in names if name in spelt), None)


def _listed(names: Sequence[str]) -> str:
    """Columns in a line."""
    return ", ".join(map(repr, names)) or "none"

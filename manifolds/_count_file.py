"""Files of counts or ``log1p`` values: which of their cells and genes are used, and opening them unloaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset
from numpy.typing import NDArray

from ..cards._errors import PanelError, ZooError
from ._labels import LEFT_OUT
from ._scale import Scale
from ._stage_labels import StageLabels

COLUMNS = ("dataset", "donor", "tissue", "cell_type")
GROUP = (*COLUMNS, "stage")
"""What the cells of an anchor share."""
RAW = "raw.X"


@dataclass(frozen=True)
class PanelReading:
    """How files are read: which columns of ``obs`` hold what, which cells are used, where the counts are.

    Attributes
    ----------
    columns
        Column of ``obs`` that holds ``dataset``, ``donor``, ``tissue`` or ``cell_type``; each its own name by default.
    constants
        Value of one of these for files that lack its column.
    studies, donors, cell_types
        Only cells of these are used; ``None`` uses all. A donor is named ``donor``, or ``study:donor`` for one study's.
    exclude_studies, exclude_donors, exclude_cell_types
        Cells of these are not used.
    layer
        Layer that holds the counts, or ``"raw.X"``; ``None`` reads ``X``.
    gene_column
        Column of ``var`` that holds the names of the genes; ``None`` takes ``var_names``.
    scale
        ``"counts"``, or ``"log1p"`` for values that are ``log1p`` of counts per 10,000 already. Of these nobody can see
        over which genes they were normalised: of a file with a part of the genes only, it must have been all.
    by_file
        How files of these names are read instead.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    studies: tuple[str, ...] | None = None
    exclude_studies: tuple[str, ...] = ()
    donors: tuple[str, ...] | None = None
    exclude_donors: tuple[str, ...] = ()
    cell_types: tuple[str, ...] | None = None
    exclude_cell_types: tuple[str, ...] = ()
    layer: str | None = None
    gene_column: str | None = None
    scale: Scale = "counts"
    by_file: Mapping[str, PanelReading] = field(default_factory=dict)

    def of(self, path: Path) -> PanelReading:
        """How one file is read."""
        return self.by_file.get(path.name, self)


PLAIN = PanelReading()


@contextmanager
def opened_h5ad(path: Path) -> Iterator[h5py.File]:
    """Open a file without reading its matrices; anndata's backed mode would read every layer.

    Raises
    ------
    PanelError
        If it is no ``.h5ad`` file, or damaged.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise PanelError(f"{str(path)!r} is not a readable .h5ad file: {error}.") from error
    with file:
        if "obs" not in file or "var" not in file:
            raise PanelError(f"{str(path)!r} has no table of cells or genes: it is not an .h5ad file.")
        try:
            yield file
        except OSError as error:
            if isinstance(error, ZooError):
                raise
            raise PanelError(f"{str(path)!r} is damaged: {error}.", "Copy or download it again.") from error


def read_columns(table: h5py.Group, path: Path, names: Sequence[str]) -> pd.DataFrame:
    """Read those of some columns that ``obs`` or ``var`` has, with its index as strings.

    Raises
    ------
    PanelError
        If it is not a table of anndata 0.7 or newer.
    """
    if "column-order" not in table.attrs:
        raise PanelError(
            f"{str(path)!r} was written by anndata before 0.7.", "Read and write it once with a current anndata."
        )
    try:
        there = [name for name in dict.fromkeys(names) if name in table.attrs["column-order"]]
        if table.attrs.get("encoding-version") == "0.2.0":
            index = read_elem(table[table.attrs["_index"]])
            frame = pd.DataFrame({name: read_elem(table[name]) for name in there}, index=pd.Index(index))
        else:
            # an older layout keeps the categories of a column elsewhere
            frame = read_elem(table)[there]
    # whatever the reader stumbles over lies in the user's file; its error class is private
    except Exception as error:
        raise PanelError(f"{str(path)!r} has a table {table.name!r} that cannot be read: {error}.") from error
    return frame.set_axis(frame.index.astype(str), axis=0)


@dataclass(frozen=True, eq=False)
class CountFile:
    """An open file of counts or ``log1p`` values.

    Attributes
    ----------
    path, where
        The file, and where its counts are in it.
    matrix
        On disk, ``(n_cells, n_genes)``: an HDF5 array, or anndata's sparse data set.
    genes, ensembl
        Names of the genes, and Ensembl ids where it has them, else empty.
    source
        Provenance as the file states it.
    scale
        Of the matrix, as announced.
    """

    path: Path
    where: str
    matrix: Any
    genes: pd.Index
    ensembl: tuple[str, ...]
    source: str
    scale: Scale = "counts"


@contextmanager
def opened_counts(path: Path, reading: PanelReading) -> Iterator[CountFile]:
    """Open a file and find its counts and genes.

    Raises
    ------
    PanelError
        If the file cannot be read, lacks the layer or column named, or names a gene twice.
    """
    reading = reading.of(path)
    with opened_h5ad(path) as file:
        where = {None: "X", RAW: "raw/X"}.get(reading.layer, f"layers/{reading.layer}")
        if where not in file:
            layers = ", ".join(file.get("layers", {})) or "none"
            hint = f"Its layers are: {layers}." if reading.layer else "Put the counts in X, or name their layer."
            raise PanelError(f"{str(path)!r} has no {where}.", hint)
        genes, ensembl = _genes_of(file["raw/var" if reading.layer == RAW else "var"], path, reading)
        sparse = isinstance(file[where], h5py.Group)
        if sparse and not {"data", "indices", "indptr"} <= set(file[where]):
            raise PanelError(f"{where} of {str(path)!r} is not a matrix.")
        matrix = sparse_dataset(file[where]) if sparse else file[where]
        provenance = read_elem(file["uns/provenance"]) if "uns/provenance" in file else ""
        source = provenance.get("source", "") if isinstance(provenance, Mapping) else provenance
        yield CountFile(path, where, matrix, genes, ensembl, str(source), reading.scale)


def _genes_of(var: h5py.Group, path: Path, reading: PanelReading) -> tuple[pd.Index, tuple[str, ...]]:
    """Names and Ensembl ids of the genes of a file."""
    table = read_columns(var, path, [name for name in ("ensembl_id", reading.gene_column) if name])
    names = table.index
    if reading.gene_column:
        if reading.gene_column not in table:
            raise PanelError(f"{path.name} lacks {reading.gene_column} in var.", "Name a column of var, or none.")
        names = pd.Index(table[reading.gene_column].astype(str))
    if not names.is_unique:
        raise PanelError(
            f"{path.name} names the gene {names[names.duplicated()][0]!r} more than once in "
            f"{reading.gene_column or 'var_names'}.",
            "Call `adata.var_names_make_unique()` or sum the columns.",
        )
    return names, tuple(table["ensembl_id"].astype(str)) if "ensembl_id" in table else ("",) * len(names)


def list_cells(paths: Sequence[Path], reading: PanelReading) -> pd.DataFrame:
    """One row per cell that the filters leave: its group, id, file and position there."""
    tables = []
    for number, path in enumerate(paths):
        with opened_h5ad(path) as file:
            tables.append(_cells_of(file, path, reading.of(path)).assign(file=number))
    every = pd.concat(tables, ignore_index=True)
    kept = np.ones(len(every), dtype=bool)
    for numbers, own in _read_alike(paths, reading):
        mine = every["file"].isin(numbers).to_numpy()
        kept[mine] = _kept(every[mine], own)
    every = every if kept.all() else every[kept].reset_index(drop=True)
    for column in COLUMNS:
        nameless = (every[column].isna() | (every[column] == "")).to_numpy()
        if nameless.any():
            first = every[nameless].iloc[0]
            here = every["file"].to_numpy() == first["file"]
            n_nameless, n_here = int(nameless[here].sum()), int(here.sum())
            source = reading.of(paths[first["file"]]).columns.get(column, column)
            raise PanelError(
                f"{paths[first['file']].name} gives {n_nameless} of {n_here} cells no {column}, "
                f"the first of them {first['id']!r}.",
                f"Fill the column {source!r} of obs, with a word such as 'unknown' if need be, or drop the cells.",
            )
    repeated = every.duplicated(["dataset", "id"]).to_numpy()
    if repeated.any():
        name, file = (every["dataset"] + ":" + every["id"])[repeated].iloc[0], every["file"][repeated].iloc[0]
        raise PanelError(
            f"The cell {name!r} in {paths[file].name} occurs more than once in the panel.", "Drop duplicates."
        )
    return every


def _read_alike(paths: Sequence[Path], reading: PanelReading) -> list[tuple[list[int], PanelReading]]:
    """Places of the files that are read one way, for each way."""
    found: list[tuple[list[int], PanelReading]] = []
    for number, path in enumerate(paths):
        own = reading.of(path)
        same = next((numbers for numbers, other in found if other == own), None)
        if same is None:
            found.append(([number], own))
        else:
            same.append(number)
    return found


def _kept(every: pd.DataFrame, reading: PanelReading) -> NDArray[np.bool_]:
    """Which cells pass all filters."""
    filters = (("dataset", "studies"), ("donor", "donors"), ("cell_type", "cell_types"))
    passed = np.logical_and.reduce([_passes(every, column, names, reading) for column, names in filters])
    return np.asarray(passed, dtype=bool)


def _cells_of(file: h5py.File, path: Path, reading: PanelReading) -> pd.DataFrame:
    """Study, donor, tissue, cell type, id and position of each cell of a file; missing values stay missing."""
    source = {column: reading.columns.get(column, column) for column in COLUMNS}
    obs = read_columns(file["obs"], path, list(source.values()))
    lacking = [name for column, name in source.items() if name not in obs and column not in reading.constants]
    if lacking:
        raise PanelError(
            f"{str(path)!r} lacks {', '.join(lacking)} in obs; a panel needs {', '.join(COLUMNS)}.",
            "Add the columns, or say which columns hold them (`columns`) or what they all are (`constants`).",
        )
    table = pd.DataFrame({"row": np.arange(len(obs)), "id": obs.index.to_numpy()})
    for column, name in source.items():
        if name in obs:
            table[column] = obs[name].astype(str).where(obs[name].notna(), None).to_numpy(dtype=object)
        else:
            table[column] = reading.constants[column]
    return table


def _passes(every: pd.DataFrame, column: str, names: str, reading: PanelReading) -> NDArray[np.bool_]:
    """Which cells pass the two filters on a column; a name that nothing has is refused: a misspelt one would leak."""
    keep, drop = getattr(reading, names), getattr(reading, f"exclude_{names}")
    if keep is None and not drop:
        return np.ones(len(every), dtype=bool)
    here = every[column]
    # a donor's name may be that of another study's too
    full = every["dataset"].astype(str) + ":" + here.astype(str) if column == "donor" else here
    there = {str(name) for name in here.dropna().unique()}
    for option, asked in ((names, keep or ()), (f"exclude_{names}", drop)):
        unknown = [name for name in asked if name not in there and not (full == name).any()]
        if unknown:
            shown = ", ".join(sorted(there)[:8]) + (" and others" if len(there) > 8 else "")
            raise PanelError(f"The filter {option!r} names {unknown[0]!r}, which no file has.", f"They have {shown}.")
    dropped = here.isin(drop) | full.isin(drop)
    kept = ~dropped if keep is None else (here.isin(keep) | full.isin(keep)) & ~dropped
    return np.asarray(kept, dtype=bool)


def label_cells(paths: Sequence[Path], labels: StageLabels, reading: PanelReading) -> pd.DataFrame:
    """The cells that the filters leave with their stages and the sizes of their groups, 0 where they have no stage."""
    table = list_cells(paths, reading)
    table["stage"] = labels.stages_of(table, paths, reading)
    size = table.groupby(["file", *GROUP])["row"].transform("size")
    table["n"] = size.where(table["stage"] != LEFT_OUT, 0)
    return table

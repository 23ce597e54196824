"""Ligand-receptor resources: pairs of ligands and receptors, either of which may be a complex."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path

from ...cards._errors import BadInputError, FormatError, MissingExtraError
from ...cards._names import canonical_json, sha256_bytes

PACKAGE = "liana"
_TABLE = Path("resource", "omni_resource.csv")
_COLUMNS = ("source_genesymbol", "target_genesymbol")


@dataclass(frozen=True)
class InteractionResource:
    """Pairs of a ligand and a receptor.

    Attributes
    ----------
    name
        ``liana:NAME``, or the name of the table.
    version
        Of the package that it came from; empty for a table.
    pairs
        Ligand and receptor, sorted, each pair once; the subunits of a complex are sorted and joined by ``_``.
    n_repeated, n_empty
        Rows left out: pairs named before, and rows without a ligand or a receptor.
    """

    name: str
    version: str
    pairs: tuple[tuple[str, str], ...]
    n_repeated: int = 0
    n_empty: int = 0

    @cached_property
    def ligands(self) -> tuple[str, ...]:
        """Ligands, complexes as one, sorted."""
        return tuple(sorted({ligand for ligand, _ in self.pairs}))

    @cached_property
    def receptors(self) -> tuple[str, ...]:
        """Receptors, complexes as one, sorted."""
        return tuple(sorted({receptor for _, receptor in self.pairs}))

    @cached_property
    def ligand_genes(self) -> tuple[str, ...]:
        """Genes of the ligands, subunits one by one, sorted."""
        return tuple(sorted({gene for ligand in self.ligands for gene in subunits(ligand)}))

    @cached_property
    def receptor_genes(self) -> tuple[str, ...]:
        """Genes of the receptors, subunits one by one, sorted."""
        return tuple(sorted({gene for receptor in self.receptors for gene in subunits(receptor)}))

    @cached_property
    def genes(self) -> tuple[str, ...]:
        """Genes of ligands and receptors, sorted."""
        return tuple(sorted({*self.ligand_genes, *self.receptor_genes}))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the pairs, whatever they came from."""
        return sha256_bytes(canonical_json([list(pair) for pair in self.pairs]))

    @classmethod
    def of(cls, rows: Iterable[tuple[str | None, str | None]], *, name: str, version: str = "") -> InteractionResource:
        """Clean pairs of ligand and receptor.

        Parameters
        ----------
        rows
            Ligand and receptor as a table spells them: white space around names and subunits does not count, nor do the
            order of subunits and their repeats. Rows without a ligand or a receptor are left out, and so are repeats. A
            pair of a gene with itself stays: its two ends are different nodes, as in adhesion of like cells.

        Raises
        ------
        FormatError
            If a complex has an empty subunit, or no pair is left.
        """
        found: dict[tuple[str, str], None] = {}
        n_repeated = n_empty = 0
        for row in rows:
            pair = (complex_name(row[0] or "", where=name), complex_name(row[1] or "", where=name))
            if not all(pair):
                n_empty += 1
            elif pair in found:
                n_repeated += 1
            else:
                found[pair] = None
        if not found:
            raise FormatError(f"The resource {name!r} has no pair of a ligand and a receptor.")
        return cls(name, version, tuple(sorted(found)), n_repeated, n_empty)


def subunits(name: str) -> list[str]:
    """Genes of a ligand or receptor."""
    return name.split("_")


def complex_name(name: str, *, where: str) -> str:
    """Spell a ligand or receptor, its subunits sorted and joined by ``_``; empty where there is nothing.

    Raises
    ------
    FormatError
        If a subunit is empty.
    """
    if not name.strip():
        return ""
    parts = [part.strip() for part in name.split("_")]
    if not all(parts):
        raise FormatError(
            f"The resource {where!r} has the complex {name.strip()!r} with an empty subunit.",
            "Join the gene symbols of a complex by single '_'.",
        )
    return "_".join(sorted(set(parts)))


def read_resource(resource: str | Path) -> InteractionResource:
    """Read a ligand-receptor resource.

    Parameters
    ----------
    resource
        ``liana:NAME`` reads a resource of the installed package ``liana`` from its table, without importing the
        package; anything else is the path of a table with the columns ``ligand`` and ``receptor``, separated by commas,
        or by tabs where its name says ``.tsv`` or ``.txt``; it may be packed with gzip.

    Raises
    ------
    MissingExtraError
        If the package is not installed.
    BadInputError
        If it has no such resource, or there is no such table.
    FormatError
        If the table is not one, or has no pair.

    Notes
    -----
    Symbols are taken as they are; a resource of another species than the cells matches none of their genes.
    """
    package, colon, name = str(resource).partition(":")
    if colon and package == PACKAGE:
        return _read_packaged(name)
    path = Path(resource).expanduser()
    if not path.is_file():
        raise BadInputError(
            f"There is no ligand-receptor table {str(resource)!r}.",
            f"Name a CSV or TSV with the columns ligand and receptor, or a resource such as {PACKAGE}:consensus.",
        )
    rows = read_table(path, ("ligand", "receptor"))
    return InteractionResource.of(((row["ligand"], row["receptor"]) for row in rows), name=path.name)


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Read the rows of a table with a header; lines that begin with ``#`` are remarks.

    Raises
    ------
    FormatError
        If it is not UTF-8, packed badly, or lacks a column.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise FormatError(f"{path} cannot be read as a table: {error}.", "Save it as UTF-8 text.") from error
    tabs = path.name.removesuffix(".gz").endswith((".tsv", ".txt"))
    lines = io.StringIO("".join(line for line in io.StringIO(text, newline="") if not line.startswith("#")), newline="")
    # a quoting character has no meaning in a table of tabs
    reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.DictReader(lines)
    try:
        header = [(name or "").strip() for name in reader.fieldnames or []]
        reader.fieldnames = header
        lacking = [column for column in columns if column not in header]
        if lacking:
            separator = "tabs" if tabs else "commas"
            raise FormatError(
                f"{path} has the columns {header}, separated by {separator}, and lacks {', '.join(lacking)}.",
                f"Give it the columns {', '.join(columns)}.",
            )
        for row in reader:
            yield {column: row[column] or "" for column in columns}
    except csv.Error as error:
        raise FormatError(f"{path} is not a table: {error}.") from error


def _read_packaged(name: str) -> InteractionResource:
    """A resource of the installed package, from its table alone: importing the package takes ten seconds."""
    # looked for, not imported
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingExtraError(
            f"The resource '{PACKAGE}:{name}' is read from the package {PACKAGE}, which is not installed.",
            f"Run `pip install {PACKAGE}`, or name a table with the columns ligand and receptor.",
        )
    path = Path(spec.origin).parent / _TABLE
    version = metadata.version(PACKAGE)
    if not path.is_file():
        raise MissingExtraError(
            f"The package {PACKAGE} {version} has no table {_TABLE.as_posix()}.",
            f"Run `pip install '{PACKAGE}>=1.4'`, or name a table with the columns ligand and receptor.",
        )
    rows = list(read_table(path, ("resource", *_COLUMNS)))
    known = sorted({row["resource"] for row in rows})
    if name not in known:
        raise BadInputError(
            f"The package {PACKAGE} {version} has no resource {name!r}.", f"Its resources are {', '.join(known)}."
        )
    pairs = ((row[_COLUMNS[0]], row[_COLUMNS[1]]) for row in rows if row["resource"] == name)
    return InteractionResource.of(pairs, name=f"{PACKAGE}:{name}", version=version)

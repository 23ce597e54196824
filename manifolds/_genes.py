"""Matching the genes of an input to the genes of a manifold."""

from __future__ import annotations

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..cards._errors import CoverageWarning, FormatError, GeneError, LowCoverageError, ZooWarning

_ENSEMBL = re.compile(r"^(ENS[A-Z]*G\d{11})(\.\d+)?$")
_HUMAN = re.compile(r"^ENSG\d")
WARN_BELOW = 0.8
# below this share of the genes the input is looked at for another species
_FEW = 0.05


@dataclass(frozen=True)
class GeneTable:
    """The gene axis of a manifold, ``genes.tsv``.

    Attributes
    ----------
    symbols
        Gene symbols in order, ``(n_genes,)``.
    ensembl
        Ensembl ids without version, empty where unknown, ``(n_genes,)``.
    """

    symbols: tuple[str, ...]
    ensembl: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.symbols) != len(self.ensembl) or not self.symbols:
            raise FormatError("genes.tsv needs one symbol and one Ensembl field per gene.")
        broken = [gene for gene in (*self.symbols, *self.ensembl) if any(character in gene for character in "\t\r\n")]
        if broken or "" in self.symbols:
            raise FormatError(f"genes.tsv cannot hold the gene name {broken[0] if broken else ''!r}.")
        repeated = [gene for gene, n in Counter(self.symbols).items() if n > 1]
        if repeated:
            raise FormatError(f"genes.tsv names {repeated[0]!r} more than once.")

    def __len__(self) -> int:
        return len(self.symbols)

    def to_tsv(self) -> bytes:
        """Encode as UTF-8 tab-separated text with a header."""
        rows = ["symbol\tensembl_id", *(f"{s}\t{e}" for s, e in zip(self.symbols, self.ensembl, strict=True))]
        return ("\n".join(rows) + "\n").encode()

    @classmethod
    def from_tsv(cls, content: bytes) -> GeneTable:
        """Decode what ``to_tsv`` wrote.

        Raises
        ------
        FormatError
            If the header or a row is malformed, or a gene is named twice.
        """
        try:
            lines = content.decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError as error:
            raise FormatError("genes.tsv is not UTF-8 text.") from error
        if lines[0] != "symbol\tensembl_id":
            raise FormatError(f"genes.tsv starts with {lines[:1]}, expected the header 'symbol<TAB>ensembl_id'.")
        rows = [line.split("\t") for line in lines[1:]]
        for number, row in enumerate(rows, start=2):
            if len(row) != 2 or not row[0]:
                raise FormatError(f"genes.tsv line {number} has {len(row)} fields, expected a symbol and an id.")
        return cls(tuple(row[0] for row in rows), tuple(row[1] for row in rows))


@dataclass(frozen=True)
class Alignment:
    """Where each gene of a manifold lies in an input.

    Attributes
    ----------
    column
        Column of each manifold gene in the input, -1 where it is missing, ``(n_genes,)``.
    kind
        What matched, or matched more: ``"symbol"`` or ``"ensembl"``.
    missing
        Symbols of the genes without a column.
    """

    column: NDArray[np.int64]
    kind: str
    missing: tuple[str, ...]

    @property
    def n_matched(self) -> int:
        """Number of manifold genes found."""
        return int((self.column >= 0).sum())


def align_genes(names: Sequence[str], table: GeneTable, *, cell_names: Sequence[str] = ()) -> Alignment:
    """Find each gene of ``table`` among ``names`` by symbol or Ensembl id, whichever matches more.

    Genes that it leaves out are looked for by the other, since many files name a gene by its id where they know
    no symbol. Version suffixes of Ensembl ids are ignored. Where a matched gene occurs more than once the first column
    is used, with a warning. ``cell_names`` serves to recognise a transposed matrix.

    Raises
    ------
    GeneError
        If no gene matches: the message tells a transposed matrix, another species and unknown names apart.
    """
    stripped = [_strip_version(name) for name in names]
    by_symbol = _first_positions(stripped, table.symbols)
    by_ensembl = _first_positions(stripped, table.ensembl)
    by_id = (by_ensembl >= 0).sum() > (by_symbol >= 0).sum()
    kind, column, other = ("ensembl", by_ensembl, by_symbol) if by_id else ("symbol", by_symbol, by_ensembl)
    column = np.where(column >= 0, column, other)
    n_found = int((column >= 0).sum())
    if n_found < _FEW * len(table):
        # a few symbols are spelt the same in every species
        foreign = _foreign_gene(names, table, more_than=n_found)
        if foreign:
            raise GeneError(
                f"The genes look like another species ({foreign!r}), the manifold is human.",
                "Map them to human orthologues first.",
            )
    if not n_found:
        raise GeneError(*_explain_no_match(names, table, cell_names))
    wanted = {*table.symbols, *table.ensembl} - {""}
    repeated = sorted(name for name, n in Counter(stripped).items() if n > 1 and name in wanted)
    if repeated:
        warnings.warn(
            f"{len(repeated)} genes of the manifold occur more than once in the input, {repeated[0]!r} first; "
            "the first column of each is used.",
            ZooWarning,
            stacklevel=5,
        )
    missing = tuple(symbol for symbol, at in zip(table.symbols, column, strict=True) if at < 0)
    return Alignment(column=column, kind=kind, missing=missing)


def check_coverage(alignment: Alignment, loading: NDArray[np.floating], *, floor: float) -> float:
    """Return the share of the projection's loading that the matched genes carry.

    ``coverage = sum_matched |P_g| / sum_all |P_g|`` with ``|P_g|`` the Euclidean norm of gene ``g``'s row of
    the folded projection ``(n_genes, d)``; our choice, so that losing a gene that hardly counts hardly counts.

    Raises
    ------
    LowCoverageError
        If it is below ``floor``.

    Warns
    -----
    CoverageWarning
        If it is below 0.8.
    """
    weight = np.linalg.norm(loading.astype(np.float64), axis=1)
    total = weight.sum()
    coverage = float(weight[alignment.column >= 0].sum() / total) if total > 0 else 0.0
    listed = ", ".join(alignment.missing[:5])
    if coverage < floor:
        raise LowCoverageError(
            f"The input covers {coverage:.2f} of the manifold's loading, below its floor of {floor:g} "
            f"({len(alignment.missing)} of {len(alignment.column)} genes missing: {listed}, ...).",
            "Give the full gene matrix, not variable genes only, or name the column with `gene_column`.",
            coverage=coverage,
            floor=floor,
        )
    if coverage < WARN_BELOW:
        warnings.warn(
            f"The input covers {coverage:.2f} of the manifold's loading "
            f"({len(alignment.missing)} of {len(alignment.column)} genes missing: {listed}, ...).",
            CoverageWarning,
            stacklevel=4,
        )
    return coverage


def _strip_version(name: str) -> str:
    """Drop the version suffix of an Ensembl id, leave anything else alone."""
    match = _ENSEMBL.match(name)
    return match.group(1) if match else name


def _first_positions(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Index of the first occurrence of each wanted name, -1 where absent."""
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        first.setdefault(name, position)
    first.pop("", None)
    return np.fromiter((first.get(name, -1) for name in wanted), dtype=np.int64, count=len(wanted))


def _foreign_gene(names: Sequence[str], table: GeneTable, *, more_than: int) -> str | None:
    """A gene of another species, if genes of the table written as in another species outnumber those that match."""
    known = set(table.symbols)
    for name in names:
        if _ENSEMBL.match(name) and not _HUMAN.match(name):
            return name
    written = [name for name in names if name[:1].isupper() and name != name.upper() and name.upper() in known]
    return written[0] if len(set(written)) >= max(min(10, len(known)), 10 * more_than) else None


def _explain_no_match(names: Sequence[str], table: GeneTable, cell_names: Sequence[str]) -> tuple[str, str]:
    """Message and hint for an input that shares no gene."""
    known = set(table.symbols) | set(table.ensembl) - {""}
    if sum(_strip_version(str(name)) in known for name in cell_names) > 0:
        return (
            f"No gene of the manifold is among the {len(names)} variables, but some are among the observations: "
            "the matrix looks transposed.",
            "Pass `adata.T`.",
        )
    sample = str(names[0]) if len(names) else ""
    near = difflib.get_close_matches(sample.upper(), table.symbols, n=1)
    return (
        f"None of the {len(table)} genes of the manifold is among the {len(names)} genes of the input "
        f"(input starts with {sample!r}, manifold with {table.symbols[0]!r}).",
        "Name the column of `var` that holds symbols or Ensembl ids with `gene_column`."
        + (f" Did you mean {near[0]!r}?" if near else ""),
    )

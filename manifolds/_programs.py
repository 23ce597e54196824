"""Gene programs: lists of genes that belong together, as published, read from a table beside a recipe."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from ..cards._errors import FormatError
from ..cards._programs import GeneProgram

PROGRAMS = "programs.tsv"
COLUMNS = ("name", "label", "genes", "source")
_BETWEEN = re.compile(r"[\s,;]+")


def read_programs(path: Path) -> list[GeneProgram]:
    """Read gene programs from a table.

    Parameters
    ----------
    path
        Tab-separated, with the columns ``name`` (``[a-z0-9_]+``), ``label``, ``genes`` (symbols, separated by commas,
        semicolons or spaces) and ``source``. Other columns are left alone, and so are lines that start with ``#``.

    Returns
    -------
    In the order of the table; genes in the order of their row.

    Raises
    ------
    FormatError
        If the file or a column is missing, there are no programs, one is named twice or lists a gene twice, or a field
        is empty or not what it must be.
    """
    rows = _rows(path)
    absent = [column for column in COLUMNS if rows and column not in rows[0]]
    if not rows or absent:
        fault = f"lacks the columns {', '.join(absent)}" if absent else "has no programs"
        raise FormatError(f"{path} {fault}.", f"It needs the columns {', '.join(COLUMNS)}.")
    programs = []
    for number, row in enumerate(rows, start=1):
        where = f"Row {number} of {path}"
        genes = [gene for gene in _BETWEEN.split(row["genes"] or "") if gene]
        twice = [gene for gene, n in Counter(genes).items() if n > 1]
        if twice:
            raise FormatError(f"{where} lists the gene {twice[0]!r} twice.")
        given = {column: (row[column] or "").strip() for column in COLUMNS if column != "genes"}
        try:
            programs.append(GeneProgram.model_validate({**given, "genes": genes}))
        except ValidationError as error:
            first = error.errors()[0]
            raise FormatError(f"{where} fails at {first['loc'][0]!r}: {first['msg']}.") from error
    repeated = [name for name, n in Counter(program.name for program in programs).items() if n > 1]
    if repeated:
        raise FormatError(f"{path} names the program {repeated[0]!r} more than once.")
    return programs


def _rows(path: Path) -> list[dict[str, str | None]]:
    """Rows of the table by column, comments left out."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            lines = (line for line in stream if not line.startswith("#"))
            return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise FormatError(f"There is no {path}.") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is not UTF-8: {error}.") from error

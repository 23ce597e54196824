"""Barcodes of cells: found in their names, and when two studies have too many in common for chance."""

from __future__ import annotations

import re

# shorter names such as "cell12" are row numbers, which any two files may share
_SHORTEST = 8
# fewer cells than these share barcodes with a large study by chance
_FEWEST = 5
# cell barcodes that 10x Genomics kits can give: v2 and 5', GEM-X, v3
_KITS = (737_280, 3_686_400, 6_794_880)


def barcode_of(name: str) -> str:
    """Find the barcode in the name of a cell.

    The longest run of at least ten of A, C, G, T and N that stands alone; where there is none, what is left after the
    last separator once numbers of one to three digits are stripped from the end. Our choice.

    Examples
    --------
    >>> [barcode_of(name) for name in ("L5_AACAACCAGGAACTAT-1", "CGTGATGATTTCAC-1-0", "Run4_120703408880541")]
    ['AACAACCAGGAACTAT', 'CGTGATGATTTCAC', '120703408880541']
    """
    runs = re.findall(r"(?<![A-Za-z0-9])[ACGTN]{10,}(?![A-Za-z0-9])", name)
    if runs:
        return str(max(runs, key=len))
    stripped = re.sub(r"([-._:#]\d{1,3})+$", "", name)
    return re.split(r"[-._:#/| ]", stripped)[-1]


def tells_cells_apart(barcode: str) -> bool:
    """Whether what ``barcode_of`` found is long enough to say anything: at least eight letters, our choice."""
    return len(barcode) >= _SHORTEST


def looks_copied(n_shared: int, n_first: int, n_second: int) -> bool:
    """Whether two studies share more barcodes than chance explains.

    Parameters
    ----------
    n_shared
        Barcodes that both have.
    n_first, n_second
        Barcodes of each.

    Notes
    -----
    More than half of the barcodes of the smaller must occur in the larger, beyond what chance explains: of ``B``
    barcodes that a kit can give, a study with ``n`` has the share ``c = n / B`` of anybody's, and the excess
    ``(share - c) / (1 - c)`` must pass one half. ``B`` is that of the smallest kit with as many barcodes. Fewer than
    five shared barcodes say nothing. Our choice.
    """
    smaller, larger = sorted((n_first, n_second))
    if n_shared < _FEWEST:
        return False
    kit = next((size for size in _KITS if size >= larger), None)
    chance = larger / kit if kit is not None else 1.0
    # the excess over chance, multiplied out so that a chance of one is no division by zero
    return n_shared / smaller - chance > (1 - chance) / 2

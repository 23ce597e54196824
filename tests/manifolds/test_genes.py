from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_genes

from manifoldzoo.cards._errors import CoverageWarning, FormatError, GeneError, LowCoverageError, ZooWarning
from manifoldzoo.manifolds._genes import Alignment, GeneTable, align_genes, check_coverage

TABLE = tiny_genes()
HUMAN = GeneTable(
    ("GATA1", "SPI1", "CD34", "HBB", "MPO", "LYZ", "CD3E", "MS4A1", "NKG7", "PPBP", "KLF1", "CEBPA"),
    tuple(f"ENSG{i:011d}" for i in range(12)),
)
NOISE = [f"OTHER{i}" for i in range(15)]


def reference(names, table):
    """Column of each gene by plain search, symbols before ids or the other way round."""

    def find(wanted):
        stripped = [n.split(".")[0] if n.startswith("ENS") else n for n in names]
        return [stripped.index(w) if w and w in stripped else -1 for w in wanted]

    by_symbol, by_id = find(table.symbols), find(table.ensembl)
    symbols_win = sum(c >= 0 for c in by_symbol) >= sum(c >= 0 for c in by_id)
    first, second = (by_symbol, by_id) if symbols_win else (by_id, by_symbol)
    kind = "symbol" if symbols_win else "ensembl"
    return kind, [a if a >= 0 else b for a, b in zip(first, second, strict=True)]


@st.composite
def inputs(draw):
    """Names of an input: any subset of the genes, each by symbol, id or id with version, some twice, noise between."""
    style = draw(st.sampled_from(["symbol", "ensembl", "mixed"]))
    chosen = draw(st.lists(st.integers(0, len(TABLE) - 1), min_size=1, max_size=60))
    names = []
    for gene in chosen:
        by_id = style == "ensembl" or (style == "mixed" and draw(st.booleans()))
        if by_id and TABLE.ensembl[gene]:
            names.append(TABLE.ensembl[gene] + draw(st.sampled_from(["", ".1", ".12"])))
        else:
            names.append(TABLE.symbols[gene])
    return draw(st.permutations(names + draw(st.lists(st.sampled_from(NOISE), max_size=5))))


@given(inputs())
def test_alignment_is_that_of_a_plain_search(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZooWarning)
        found = align_genes(names, TABLE)
    kind, column = reference(names, TABLE)
    assert found.column.tolist() == column
    assert found.column.dtype == np.int64
    assert found.kind == kind
    assert found.missing == tuple(s for s, c in zip(TABLE.symbols, column, strict=True) if c < 0)
    assert found.n_matched + len(found.missing) == len(TABLE)


@given(st.permutations(range(len(TABLE))))
def test_any_order_of_genes_is_undone(order):
    for axis in (TABLE.symbols, [e or s for s, e in zip(TABLE.symbols, TABLE.ensembl, strict=True)]):
        names = [axis[i] for i in order]
        found = align_genes(names, TABLE)
        assert [names[c] for c in found.column] == list(axis)


def test_repeated_genes_warn_by_name_and_the_first_column_counts():
    names = ["GENE2", *TABLE.symbols, "GENE3"]
    with pytest.warns(ZooWarning, match="'GENE2'"):
        found = align_genes(names, TABLE)
    assert found.column[2] == 0
    assert found.column[3] == names.index("GENE3")


def test_versions_of_one_gene_are_repeats():
    names = [f"{e}.{n}" for n in (1, 2) for e in TABLE.ensembl if e]
    with pytest.warns(ZooWarning, match=TABLE.ensembl[1]):
        found = align_genes(names, TABLE)
    assert found.kind == "ensembl"
    assert found.column.max() < len(names) // 2


@pytest.mark.parametrize("names", [[*TABLE.symbols], [*TABLE.symbols, "NOISE", "NOISE"]])
def test_repeats_of_other_genes_do_not_warn(names):
    align_genes(names, TABLE)


def test_versions_are_stripped_of_ids_only():
    table = GeneTable(("AC000001.1", "B"), ("", ""))
    assert align_genes(["AC000001", "B"], table).column.tolist() == [-1, 1]
    assert align_genes(["AC000001.1", "B"], table).column.tolist() == [0, 1]


def test_an_empty_id_matches_nothing():
    assert align_genes(["", "GENE0", ""], TABLE).column.tolist()[:6] == [1, -1, -1, -1, -1, -1]


@pytest.mark.parametrize(
    "names",
    [
        [s.capitalize() for s in HUMAN.symbols],
        ["Gata1", "Spi1", "Cd34", "Hbb-bt", "Mpo", "Lyz2", "Cd3e", "Ms4a1", "Nkg7", "Ppbp", "Klf1", "Cebpa", "Lyz"],
        [f"ENSMUSG{i:011d}" for i in range(12)],
        [f"ENSMUSG{i:011d}.4" for i in range(12)],
        [f"ENSDARG{i:011d}" for i in range(12)],
    ],
)
def test_another_species_is_recognised(names):
    with pytest.raises(GeneError, match=names[0]) as caught:
        align_genes(names, HUMAN)
    assert "orthologues" in caught.value.hint


@pytest.mark.parametrize("cells", [HUMAN.symbols, HUMAN.ensembl, [f"{e}.7" for e in HUMAN.ensembl]])
def test_a_transposed_matrix_is_recognised(cells):
    with pytest.raises(GeneError) as caught:
        align_genes(["AAAC-1", "AAAG-1"], HUMAN, cell_names=cells)
    assert "adata.T" in caught.value.hint


@pytest.mark.parametrize("names", [["0", "1", "2"], ["GATTA-1"], ["Sox2", "Pax6"], ["ENSG99999999999"], [""], []])
def test_without_a_shared_gene_the_names_are_shown(names):
    with pytest.raises(GeneError) as caught:
        align_genes(names, HUMAN, cell_names=["cell"])
    assert repr(names[0] if names else "") in caught.value.message
    assert "GATA1" in caught.value.message
    assert "gene_column" in caught.value.hint
    assert "orthologues" not in caught.value.hint


def test_near_names_are_suggested():
    with pytest.raises(GeneError) as caught:
        align_genes(["gata1", "cd34"], HUMAN)
    assert "'GATA1'" in caught.value.hint


def alignment(found):
    column = np.where(found, np.arange(len(found)), -1)
    return Alignment(column=column, kind="symbol", missing=tuple(f"G{i}" for i in np.flatnonzero(~np.array(found))))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100), st.integers(-100, 100)), min_size=1, max_size=20))
def test_coverage_is_the_share_of_loading(rows):
    found, loading = [r[0] for r in rows], np.array([r[1:] for r in rows], dtype=np.float64)
    weight = np.hypot(loading[:, 0], loading[:, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CoverageWarning)
        coverage = check_coverage(alignment(found), loading, floor=0.0)
    expected = weight[found].sum() / weight.sum() if weight.sum() > 0 else 0.0
    assert coverage == pytest.approx(expected, abs=1e-12)


def test_genes_that_hardly_count_hardly_count():
    loading = np.array([[100.0, 0.0], [0.0, 0.001], [0.001, 0.0]])
    assert check_coverage(alignment([True, False, False]), loading, floor=0.9) > 0.9999
    with pytest.raises(LowCoverageError):
        check_coverage(alignment([False, True, True]), loading, floor=0.9)


# ten genes of equal weight
@pytest.mark.parametrize("n", range(11))
def test_coverage_warns_below_0_8_and_is_refused_below_the_floor(n):
    found, loading = [i < n for i in range(10)], np.eye(2, dtype=np.float32)[[0] * 10]
    if n < 5:
        with pytest.raises(LowCoverageError, match=f"{n / 10:.2f}") as caught:
            check_coverage(alignment(found), loading, floor=0.5)
        assert caught.value.coverage == pytest.approx(n / 10)
        assert caught.value.floor == 0.5
        assert f"G{n}, " in str(caught.value)
    elif n < 8:
        with pytest.warns(CoverageWarning, match=f"{n / 10:.2f}"):
            assert check_coverage(alignment(found), loading, floor=0.5) == pytest.approx(n / 10)
    else:
        assert check_coverage(alignment(found), loading, floor=0.5) == pytest.approx(n / 10)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\r\n"), max_size=6)


@given(st.lists(st.tuples(NAMES.filter(bool), NAMES), min_size=1, max_size=8, unique_by=lambda row: row[0]))
def test_a_gene_table_survives_its_file(rows):
    table = GeneTable(tuple(r[0] for r in rows), tuple(r[1] for r in rows))
    assert GeneTable.from_tsv(table.to_tsv()) == table
    assert len(table) == len(rows)


@pytest.mark.parametrize(
    ("symbols", "ensembl"),
    [
        ((), ()),
        (("A",), ()),
        (("A", "A"), ("", "")),
        (("A", ""), ("", "")),
        (("A\tB",), ("",)),
        (("A",), ("x\n",)),
        (("A\r",), ("",)),
    ],
)
def test_tables_that_no_file_can_hold_are_refused(symbols, ensembl):
    with pytest.raises(FormatError, match=r"genes\.tsv"):
        GeneTable(symbols, ensembl)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"symbol\tensembl_id\n",
        b"A\tENSG1\n",
        b"symbol,ensembl_id\nA,B\n",
        b"symbol\tensembl_id\nA\n",
        b"symbol\tensembl_id\nA\tB\tC\n",
        b"symbol\tensembl_id\n\tB\n",
        b"symbol\tensembl_id\nA\t\n\nB\t\n",
        b"symbol\tensembl_id\nA\t\nA\t\n",
        b"symbol\tensembl_id\r\nA\tB\r\n",
        b"symbol\tensembl_id\nA\t\xff\n",
        b"\x80\x04",
    ],
)
def test_files_that_are_no_gene_table_are_refused(content):
    with pytest.raises(FormatError, match=r"genes\.tsv"):
        GeneTable.from_tsv(content)


def test_mouse_symbols_are_recognised_though_a_few_are_spelt_as_human_ones():
    table = GeneTable(tuple(f"GENE{i}" for i in range(100)), ("",) * 100)
    names = [f"Gene{i}" for i in range(99)] + ["GENE99"]
    with pytest.raises(GeneError, match="Gene0"):
        align_genes(names, table)

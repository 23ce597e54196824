"""Ligand-receptor resources: what tables people have, and the one of an installed package."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldzoo.cards._errors import BadInputError, FormatError, MissingExtraError
from manifoldzoo.extractors.interactions import _resource
from manifoldzoo.extractors.interactions._resource import InteractionResource, read_resource

HAS_LIANA = importlib.util.find_spec("liana") is not None
GENE = st.text("ABCD1-.", min_size=1, max_size=3)
BLANK = st.sampled_from(["", " ", "\t", "  "])
NAME = st.lists(GENE, min_size=1, max_size=3)


@st.composite
def spelt(draw: st.DrawFn) -> tuple[str, str]:
    """A complex as somebody may spell it, and how it is to be spelt."""
    parts = draw(NAME)
    shuffled = draw(st.permutations(parts))
    text = "_".join(draw(BLANK) + part + draw(BLANK) for part in shuffled)
    return text, "_".join(sorted(set(parts)))


@given(st.lists(st.tuples(spelt(), spelt()), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_rows_are_cleaned_whatever_their_spelling_and_order(rows, n_empty):
    empty = [("A", " "), ("", "B"), (None, "C")][:n_empty]
    given_rows = [(ligand, receptor) for (ligand, _), (receptor, _) in rows] + empty
    found = InteractionResource.of(given_rows, name="made")
    expected = {(ligand, receptor) for (_, ligand), (_, receptor) in rows}
    assert found.pairs == tuple(sorted(expected))
    assert (found.n_repeated, found.n_empty) == (len(rows) - len(expected), n_empty)
    assert InteractionResource.of(given_rows[::-1], name="other", version="9").digest == found.digest
    assert found.ligand_genes == tuple(sorted({gene for name, _ in expected for gene in name.split("_")}))
    assert set(found.genes) == {gene for pair in expected for name in pair for gene in name.split("_")}


@given(
    st.lists(st.tuples(GENE, GENE), min_size=1, max_size=8, unique=True),
    st.sampled_from([".csv", ".tsv", ".csv.gz", ".tsv.gz"]),
)
@settings(max_examples=40, deadline=None)
def test_tables_of_every_kind_hold_the_same_pairs(tmp_path_factory, pairs, suffix):
    path = tmp_path_factory.mktemp("table") / f"pairs{suffix}"
    separator = "\t" if "tsv" in suffix else ","
    lines = [
        separator.join(("note", "receptor", "ligand")),
        *(separator.join(("x", receptor, ligand)) for ligand, receptor in pairs),
    ]
    content = ("\ufeff" + "\r\n".join(lines) + "\r\n").encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    found = read_resource(path)
    # no name of these has more than one subunit
    assert found.pairs == tuple(sorted(pairs))
    assert (found.name, found.version) == (path.name, "")


def test_a_pair_of_a_gene_with_itself_stays_and_the_digest_knows_direction(tmp_path):
    (tmp_path / "pairs.csv").write_text("ligand,receptor\nPECAM1,PECAM1\nA,B\n")
    found = read_resource(tmp_path / "pairs.csv")
    assert found.pairs == (("A", "B"), ("PECAM1", "PECAM1"))
    assert (
        InteractionResource.of([("A", "B")], name="x").digest != InteractionResource.of([("B", "A")], name="x").digest
    )


def test_remarks_and_quotes_are_read_as_people_mean_them(tmp_path):
    (tmp_path / "pairs.csv").write_text('# of mine\nligand,receptor,note\n"A","B_C","one, two"\n')
    assert read_resource(tmp_path / "pairs.csv").pairs == (("A", "B_C"),)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("ligand\treceptor\nA\tB\n", r"separated by commas, and lacks ligand, receptor"),
        ("ligand,target\nA,B\n", r"lacks receptor.*Give it the columns ligand, receptor"),
        ("", r"has the columns \[\]"),
        ("ligand,receptor\n", "has no pair"),
        ("ligand,receptor\n,B\nA,\n", "has no pair"),
        ("ligand,receptor\nA__B,C\n", "complex 'A__B' with an empty subunit"),
        ("ligand,receptor\nA,_C\n", "complex '_C' with an empty subunit"),
    ],
)
def test_what_is_no_resource_is_refused(tmp_path, text, match):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(FormatError, match=match):
        read_resource(tmp_path / "pairs.csv")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "pairs.csv").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "pairs.csv.gz").write_bytes(b"ligand,receptor\n")
    for name in ("pairs.csv", "pairs.csv.gz"):
        with pytest.raises(FormatError, match="cannot be read as a table"):
            read_resource(tmp_path / name)


def test_a_table_that_is_not_there_is_named():
    with pytest.raises(BadInputError, match=r"no ligand-receptor table 'mine\.csv'.*liana:consensus"):
        read_resource("mine.csv")


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setattr(_resource.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"'liana:consensus'.*not installed.*pip install liana"):
        read_resource("liana:consensus")


def fake_package(tmp_path, monkeypatch, table: str | None) -> None:
    """An installed package with a table, or without one."""
    (tmp_path / "liana" / "resource").mkdir(parents=True)
    if table is not None:
        (tmp_path / "liana" / "resource" / "omni_resource.csv").write_text(table)
    spec = SimpleNamespace(origin=str(tmp_path / "liana" / "__init__.py"))
    monkeypatch.setattr(_resource.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(_resource.metadata, "version", lambda name: "9.9")


def test_a_resource_of_the_package_is_one_part_of_its_table(tmp_path, monkeypatch):
    header = '"","source","target","source_genesymbol","target_genesymbol","resource"\n'
    rows = '"1","P1","P2","A","B_C","one"\n"2","P1","P2","A","D","two"\n"3","P1","P2","A","B_C","two"\n'
    fake_package(tmp_path, monkeypatch, header + rows)
    one, two = read_resource("liana:one"), read_resource("liana:two")
    assert (one.name, one.version, one.pairs) == ("liana:one", "9.9", (("A", "B_C"),))
    assert two.pairs == (("A", "B_C"), ("A", "D")) and two.digest != one.digest
    with pytest.raises(BadInputError, match=r"liana 9\.9 has no resource 'three'.*one, two"):
        read_resource("liana:three")


def test_a_package_without_the_table_is_named_with_its_version(tmp_path, monkeypatch):
    fake_package(tmp_path, monkeypatch, None)
    with pytest.raises(MissingExtraError, match=r"liana 9\.9 has no table resource/omni_resource\.csv"):
        read_resource("liana:consensus")


@pytest.mark.skipif(not HAS_LIANA, reason="needs the package liana")
def test_the_installed_package_is_read_and_not_imported():
    code = (
        "import sys; from manifoldzoo.extractors.interactions import read_resource\n"
        "found = read_resource('liana:consensus')\n"
        "print(len(found.pairs), 'liana' in sys.modules, found.version)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(told[0]) > 4000 and told[1] == "False"
    assert told[2][0].isdigit()


@pytest.mark.shared
@pytest.mark.skipif(not HAS_LIANA, reason="needs the package liana")
def test_every_resource_of_the_package_is_that_of_the_shared_table(shared, tmp_path):
    table = pd.read_csv(shared / "knowledge" / "ligand_receptor_liana_omni.csv.gz", keep_default_na=False)
    for name, part in table.groupby("resource"):
        own = part[["source_genesymbol", "target_genesymbol"]].set_axis(["ligand", "receptor"], axis=1)
        own.to_csv(tmp_path / "own.csv", index=False, quoting=csv.QUOTE_ALL)
        packaged, mine = read_resource(f"liana:{name}"), read_resource(tmp_path / "own.csv")
        assert packaged.pairs == mine.pairs and packaged.digest == mine.digest

"""The stage ruler: distances against networkx, the null, reading, and the shipped blood graph against the ontology."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifoldzoo.cards._errors import BadInputError, FormatError
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler, read_stage_ruler

FOLDER = recipe_folder("hematopoietic")
STATEMENT = re.compile(r"(CL:\d{7}) (develops_from|is_a) (CL:\d{7})")
CITATION = re.compile(r"(\d{4}) .+\(.+\)$")


@pytest.fixture(scope="module")
def blood() -> StageRuler:
    return read_stage_ruler(FOLDER)


def make(edges: list[tuple[int, int]], n: int) -> StageRuler:
    return StageRuler(
        "made",
        "1",
        tuple(Stage(f"s{i}", f"S {i}", "", f"b{i % 3}") for i in range(n)),
        tuple(Edge(f"s{child}", f"s{parent}", "made") for child, parent in edges),
        "s0",
    )


@st.composite
def rulers(draw: st.DrawFn) -> StageRuler:
    """A random tree with some extra edges."""
    n = draw(st.integers(2, 12))
    tree = [(child, draw(st.integers(0, child - 1))) for child in range(1, n)]
    extra = draw(
        st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)).filter(lambda e: e[0] > e[1]), max_size=5)
    )
    return make(list(dict.fromkeys(tree + extra)), n)


def as_graph(ruler: StageRuler) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(stage.id for stage in ruler.stages)
    graph.add_edges_from((edge.child, edge.parent) for edge in ruler.edges)
    return graph


def all_ids(ruler: StageRuler) -> list[str]:
    return [stage.id for stage in ruler.stages]


@given(rulers())
@settings(max_examples=60, deadline=None)
def test_distances_are_shortest_paths_and_a_metric(ruler):
    ids = all_ids(ruler)
    distances = ruler.distances(ids)
    lengths = dict(nx.all_pairs_shortest_path_length(as_graph(ruler)))
    assert distances.dtype == np.float64
    assert np.array_equal(distances, [[lengths[a][b] for b in ids] for a in ids])
    assert np.array_equal(distances, distances.T)
    assert not np.diag(distances).any()
    assert (distances[:, None, :] <= distances[:, :, None] + distances[None, :, :]).all()
    assert np.array_equal(ruler.depth(ids), distances[ids.index(ruler.root)])


@given(rulers(), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_null_keeps_the_distances_and_moves_the_stages(ruler, seed):
    null = ruler.relabelled(rng=np.random.default_rng(seed))
    ids = all_ids(ruler)
    assert sorted(all_ids(null)) == sorted(ids)
    assert Counter(null.distances(ids).ravel()) == Counter(ruler.distances(ids).ravel())
    assert sorted(null.depth(ids)) == sorted(ruler.depth(ids))
    assert Counter(null.branch(ids)) == Counter(ruler.branch(ids))
    again = ruler.relabelled(rng=np.random.default_rng(seed))
    assert again.digest == null.digest != ruler.digest


def test_the_null_of_the_blood_ruler_is_unrelated_to_it(blood):
    ids = all_ids(blood)
    upper = np.triu_indices(len(ids), 1)
    null = [blood.relabelled(rng=np.random.default_rng(seed)).distances(ids)[upper] for seed in range(20)]
    correlation = [np.corrcoef(blood.distances(ids)[upper], one)[0, 1] for one in null]
    assert abs(np.mean(correlation)) < 0.1


def test_repeats_are_allowed_and_order_is_kept():
    ruler = make([(1, 0), (2, 1)], 3)
    assert ruler.distances(["s2", "s0", "s2"]).tolist() == [[0, 2, 0], [2, 0, 2], [0, 2, 0]]
    assert ruler.branch(["s2", "s0"]) == ["b2", "b0"]
    assert ruler.depth(["s2", "s1"]).tolist() == [2, 1]
    assert ruler.distances([]).shape == (0, 0)


@given(rulers())
@settings(max_examples=30, deadline=None)
def test_a_ruler_survives_json(ruler):
    again = StageRuler.from_dict(json.loads(json.dumps(ruler.to_dict())))
    assert again == ruler
    assert again.digest == ruler.digest


@pytest.mark.parametrize("part", ["name", "version", "label", "branch", "source", "root"])
def test_the_digest_covers(part):
    document = make([(1, 0), (2, 1)], 3).to_dict()
    before = StageRuler.from_dict(document).digest
    match part:
        case "label":
            document["stages"][1][1] = "other"
        case "branch":
            document["stages"][1][3] = "other"
        case "source":
            document["edges"][1][2] = "other"
        case "root":
            document["root"] = "s1"
        case _:
            document[part] = "other"
    assert StageRuler.from_dict(document).digest != before


def test_an_unknown_stage_names_its_neighbours(blood):
    with pytest.raises(BadInputError, match="classical_monocite") as caught:
        blood.distances(["hsc", "classical_monocite"])
    assert "classical_monocyte" in caught.value.hint
    for call in (blood.depth, blood.branch):
        with pytest.raises(BadInputError, match="zzz"):
            call(["zzz"])


@pytest.mark.parametrize(
    ("edges", "n", "match"),
    [([(1, 0)], 3, "s2"), ([(1, 0), (3, 1)], 3, "s3"), ([(1, 0), (3, 2)], 4, "s2")],
    ids=["lonely stage", "unknown stage", "two trees"],
)
def test_a_broken_graph_is_refused(edges, n, match):
    with pytest.raises(FormatError, match=match):
        make(edges, n)


def test_a_stage_named_twice_is_refused():
    with pytest.raises(FormatError, match="'a'"):
        StageRuler("r", "1", (Stage("a", "A", "", "x"), Stage("a", "B", "", "x")), (), "a")


@pytest.mark.parametrize(
    ("edges", "match"),
    [([(1, 0), (1, 0)], "s1"), ([(1, 0), (0, 1)], "s1"), ([(1, 0), (1, 1)], "s1")],
    ids=["twice", "both ways", "to itself"],
)
def test_an_edge_given_twice_or_to_itself_is_refused(edges, match):
    with pytest.raises(FormatError, match=match):
        make(edges, 2)


@given(st.integers(2, 9), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_distances_of_a_tree_are_the_steps_to_the_last_common_ancestor(n, seed):
    """Brute force by hand, without a graph library."""
    parent = {child: int(np.random.default_rng([seed, child]).integers(child)) for child in range(1, n)}

    def ancestors(node: int) -> list[int]:
        return [node] if node == 0 else [node, *ancestors(parent[node])]

    found = make(list(parent.items()), n).distances([f"s{i}" for i in range(n)])
    for a in range(n):
        for b in range(n):
            common = set(ancestors(a)) & set(ancestors(b))
            assert found[a, b] == len(ancestors(a)) + len(ancestors(b)) - 2 * len(common)


STAGES = "# name: r\n# version: 2.0\nid\tlabel\tontology_id\tbranch\na\tA\t\tx\nb\tB\tCL:0000001\ty\n"
EDGES = "child\tparent\tsource\nb\ta\tsomebody 2001 (why)\n"


def test_reading(tmp_path):
    write(tmp_path, STAGES, EDGES)
    ruler = read_stage_ruler(tmp_path)
    assert (ruler.name, ruler.version, ruler.root) == ("r", "2.0", "a")
    assert ruler.stages[1] == Stage("b", "B", "CL:0000001", "y")
    assert ruler.edges == (Edge("b", "a", "somebody 2001 (why)"),)


def test_a_stage_may_have_a_quote_in_its_name(tmp_path):
    """Tables are tab-separated and nothing else: a quote must not swallow the lines after it."""
    write(tmp_path, STAGES.replace("\tA\t", '\t"A" (5\' end)\t'), EDGES.replace("why", 'why "so'))
    ruler = read_stage_ruler(tmp_path)
    assert [stage.label for stage in ruler.stages] == ['"A" (5\' end)', "B"]
    assert ruler.edges[0].source == 'somebody 2001 (why "so)'


@pytest.mark.parametrize(
    ("stages", "edges", "match"),
    [
        (None, EDGES, "stages.tsv"),
        (STAGES, None, "edges.tsv"),
        (STAGES.replace("\tbranch", "\ttwig"), EDGES, "twig"),
        (STAGES.replace("# version: 2.0\n", ""), EDGES, "version"),
        (STAGES.split("a\tA")[0], EDGES, "no stages"),
        (STAGES, "child\tparent\tsource\nb\ta\n", "too few"),
        (STAGES, "child\tparent\tsource\nb\ta\t\n", "edges.tsv.*source"),
        (STAGES.replace("\ty", "\t"), EDGES, "stages.tsv.*branch"),
        (STAGES.replace("\tA\t", "\t\t"), EDGES, "stages.tsv.*label"),
        (STAGES.replace("\na\t", "\nStem Cell\t"), EDGES.replace("\ta\t", "\tStem Cell\t"), "Stem Cell"),
        (STAGES.replace("CL:0000001", "CL1"), EDGES, "CL1"),
        (STAGES.replace("\tA\t", "\tN\udcefve\t"), EDGES, "stages.tsv"),
        (STAGES, EDGES.replace("why", "na\udcefve"), "edges.tsv"),
    ],
    ids=[
        *("no stages.tsv", "no edges.tsv", "column", "version", "empty", "short row"),
        *("no source", "no branch", "no label", "id", "ontology id", "stages in latin-1", "edges in latin-1"),
    ],
)
def test_bad_tables_are_named(tmp_path, stages, edges, match):
    write(tmp_path, stages, edges)
    with pytest.raises(FormatError, match=match):
        read_stage_ruler(tmp_path)


def write(folder: Path, stages: str | None, edges: str | None) -> None:
    for name, text in (("stages.tsv", stages), ("edges.tsv", edges)):
        if text is not None:
            (folder / name).write_bytes(text.encode(errors="surrogateescape"))


def test_the_blood_graph_is_a_rooted_tree_of_many_branches(blood):
    graph = nx.DiGraph((edge.parent, edge.child) for edge in blood.edges)
    assert nx.is_arborescence(graph)
    assert [node for node, degree in graph.in_degree() if degree == 0] == ["hsc"] == [blood.root]
    assert set(graph) == set(all_ids(blood))
    assert len(blood.stages) >= 30
    assert len({stage.branch for stage in blood.stages}) >= 7
    assert all(re.fullmatch(r"[a-z0-9_]+", stage.id) for stage in blood.stages)
    assert all(re.fullmatch(r"(CL:\d{7})?", stage.ontology_id) for stage in blood.stages)
    ontology = [stage.ontology_id for stage in blood.stages if stage.ontology_id]
    assert len(set(ontology)) == len(ontology)


def test_a_branch_is_one_arm(blood):
    """Stages of a committed branch are entered from at most two places, so that a branch is an arm and not a tag."""
    branch = dict(zip(all_ids(blood), blood.branch(all_ids(blood)), strict=True))
    entries = Counter(branch[e.child] for e in blood.edges if branch[e.child] != branch[e.parent])
    assert "stem_progenitor" not in entries
    assert {name: n for name, n in entries.items() if n > 1} == {"dendritic": 2, "granulocyte": 3, "nk_ilc": 2}


@pytest.mark.parametrize(
    ("nearer", "further"),
    [
        (("naive_cd4_t", "naive_cd8_t"), ("naive_cd4_t", "naive_b")),
        (("classical_monocyte", "macrophage"), ("classical_monocyte", "mast_cell")),
        (("cdc1", "cdc2"), ("cdc1", "classical_monocyte")),
        (("cd56dim_nk", "innate_lymphoid_cell"), ("cd56dim_nk", "neutrophil")),
        (("erythrocyte", "platelet"), ("erythrocyte", "plasma_cell")),
        (("mep", "cmp"), ("mep", "clp")),
    ],
)
def test_what_a_haematologist_expects(blood, nearer, further):
    assert blood.distances(nearer)[0, 1] < blood.distances(further)[0, 1]


def test_every_edge_says_where_it_is_from(blood):
    bibliography = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    for edge in blood.edges:
        if edge.source.startswith("CL:"):
            assert all(STATEMENT.fullmatch(part) for part in edge.source.split("; ")), edge
            continue
        cited = CITATION.search(edge.source)
        assert cited, edge
        author = re.split(r"[ &]", edge.source)[0]
        assert re.search(rf"^- {author} .*\({cited[1]}\)", bibliography, re.MULTILINE), edge


def test_the_sources_count_the_edges_right(blood):
    ontology = sum(edge.source.startswith("CL:") for edge in blood.edges)
    text = (FOLDER / "SOURCES.md").read_text(encoding="utf-8")
    assert f"{len(blood.stages)} stages in {len({s.branch for s in blood.stages})} branches" in text
    assert f"{ontology} edges follow from the Cell Ontology, {len(blood.edges) - ontology} are set by hand" in text


@pytest.mark.shared
def test_every_edge_that_claims_the_ontology_is_in_it(blood, shared):
    statements: set[tuple[str, str, str]] = set()
    classes: set[str] = set()
    for relation in ("develops_from", "is_a"):
        with gzip.open(shared / "knowledge" / f"cell_ontology_{relation}.tsv.gz", "rt", encoding="utf-8") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                statements.add((row["child_id"], relation, row["parent_id"]))
                classes |= {row["child_id"], row["parent_id"]}
    assert {stage.ontology_id for stage in blood.stages} - {""} <= classes
    ontology_id = {stage.id: stage.ontology_id for stage in blood.stages}
    for edge in blood.edges:
        chain = [match.groups() for match in STATEMENT.finditer(edge.source)] if edge.source.startswith("CL:") else []
        if not chain:
            continue
        assert set(chain) <= statements, edge
        assert chain[0][0] == ontology_id[edge.child], edge
        assert chain[-1][2] == ontology_id[edge.parent], edge
        assert all(before[2] == after[0] for before, after in pairwise(chain)), edge
        assert any(relation == "develops_from" for _, relation, _ in chain), edge

"""Records of what the axes stand for: classes, programs and genes, and never a verdict."""

from __future__ import annotations

import numpy as np
import pytest
from planted_tree import SETTINGS, planted_panel

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._evidence import conclude
from manifoldzoo.cards._programs import GeneProgram
from manifoldzoo.gates._informing import CLASS_SEPARATION, PROGRAM_LOADINGS
from manifoldzoo.gates.metrics import enrich_programs, epsilon_squared, eta_squared
from manifoldzoo.gates.rungs._axes import NO_PROGRAMS, axis_records
from manifoldzoo.gates.rungs._published import published_gates
from manifoldzoo.manifolds._let import fit_let

GENES = [f"G{i}" for i in range(120)]


def program(name: str, genes: list[str]) -> GeneProgram:
    return GeneProgram(name=name, label=f"Label of {name}", genes=genes, source="made")


@pytest.fixture(scope="module")
def data():
    return planted_panel(np.random.default_rng(0))


@pytest.fixture(scope="module")
def latent(data):
    return fit_let(data.features, data.distances, SETTINGS, rng=np.random.default_rng(0)).latent(data.features)


@pytest.fixture(scope="module")
def programs(data, latent):
    """The genes that go most with the second axis, some others, and too few."""
    loadings = np.corrcoef(latent[:, 1], np.asarray(data.expression).T)[0, 1:]
    along = [GENES[i] for i in np.argsort(-loadings)[:12]]
    rest = [gene for gene in GENES if gene not in along]
    return [program("along", along), program("others", rest[:15]), program("few", [*rest[20:24], "UNKNOWN", "OTHER"])]


@pytest.fixture(scope="module")
def records(data, latent, programs):
    return axis_records(data, latent, genes=GENES, programs=programs, seed=3)


def test_they_never_decide(records, data):
    assert [record.gate for record in records] == [CLASS_SEPARATION, PROGRAM_LOADINGS]
    for record in records:
        assert (record.status, record.decides, record.statistic) == ("cannot decide", False, None)
        assert (record.n, record.seed) == (len(data.stage), 3)
    assert conclude(3, records).status == "not run"


def test_separation_is_eta_squared_beside_its_correction_and_chance(records, data, latent):
    told = records[0]
    assert list(told.parts) == [f"axis_{axis}" for axis in range(1, 7)]
    assert list(told.parts.values()) == pytest.approx(eta_squared(latent, data.branch), rel=1e-4)
    corrected = [told.details[f"epsilon axis_{axis}"] for axis in range(1, 7)]
    assert corrected == pytest.approx(epsilon_squared(latent, data.branch), rel=1e-4)
    studies = [told.details[f"study axis_{axis}"] for axis in range(1, 7)]
    assert studies == pytest.approx(eta_squared(latent, data.study), rel=1e-4)
    assert told.details["by_chance"] == pytest.approx(5 / 71, rel=1e-4)
    assert told.details["study_by_chance"] == pytest.approx(1 / 71, rel=1e-4)
    assert 0 < told.details["all_axes"] <= 1


def test_loadings_are_those_of_the_metric_with_genes_at_both_ends(records, data, latent, programs):
    told = records[1].details
    members = np.array([np.isin(GENES, one.genes) for one in programs])
    found = enrich_programs(latent, data.expression, members, units=data.stage, rng=np.random.default_rng(0))
    for number, name in enumerate(["along", "others"]):
        for axis in range(6):
            key = f"axis_{axis + 1} {name}"
            assert told[f"effect {key}"] == pytest.approx(found.effect[axis, number], rel=1e-4)
            assert told[f"rank_z {key}"] == pytest.approx(found.rank_z[axis, number], rel=1e-4, abs=1e-9)
            # other draws of the null
            assert records[1].parts[key] == pytest.approx(found.z[axis, number], abs=0.15)
    assert records[1].parts["axis_2 along"] > 2
    assert told["too_few_genes"] == "few (4 of 6)"
    assert not any(key.endswith(" few") and key.startswith(("q", "rank_z", "effect")) for key in told)
    assert not any(key.endswith(" few") for key in records[1].parts)
    assert (told["label along"], told["genes along"], told["listed few"]) == ("Label of along", 12, 6)
    assert (told["n_programs"], told["n_tested"], told["n_axes"], told["n_cell_types"]) == (3, 12, 6, 18)
    highest = told["highest axis_2"].split(", ")
    loadings = np.corrcoef(latent[:, 1], np.asarray(data.expression).T)[0, 1:]
    assert highest[0] == f"{GENES[int(np.argmax(loadings))]} {loadings.max():.2f}"
    assert told["lowest axis_2"].split(", ")[0] == f"{GENES[int(np.argmin(loadings))]} {loadings.min():.2f}"


def test_the_counts_are_of_q_values(records):
    told = records[1].details
    qs = [value for key, value in told.items() if key.startswith("q ")]
    assert len(qs) == told["n_tested"]
    assert told["n_found"] == sum(q < 0.05 for q in qs)
    assert told["n_found_by_ranks_alone"] >= told["n_found"]


def test_the_seed_draws_and_nothing_else_does(records, data, latent, programs):
    again = axis_records(data, latent, genes=GENES, programs=programs, seed=3)
    other = axis_records(data, latent, genes=GENES, programs=programs, seed=4)
    assert again == records
    assert other[0].parts == records[0].parts and other[1].parts != records[1].parts


def test_without_programs_it_was_not_run_and_genes_are_told_all_the_same(data, latent):
    _, loadings = axis_records(data, latent, genes=GENES, programs=[], seed=3)
    assert (loadings.status, loadings.reason, loadings.decides) == ("not run", NO_PROGRAMS, False)
    assert "highest axis_6" in loadings.details and not loadings.parts


def test_what_the_panel_does_not_allow_says_why(data, latent, programs):
    rows = [row for row, stage in enumerate(data.stage) if stage in ("b0_0", "b0_1", "b0_2")]
    chosen = {
        name: [getattr(data, name)[row] for row in rows] for name in ("stage", "branch", "donor", "tissue", "study")
    }
    tables = {name: np.asarray(getattr(data, name))[rows] for name in ("features", "expression")}
    small = type(data)(**tables, **chosen, distances=np.asarray(data.distances)[np.ix_(rows, rows)])
    separation, loadings = axis_records(small, latent[rows], genes=GENES, programs=programs, seed=3)
    assert separation.reason.startswith("There are 1 groups of 12 rows")
    assert loadings.reason == "12 anchors have 3 units, expected 12 anchors and at least 4 units."
    assert loadings.status == "cannot decide" and "highest axis_1" in loadings.details
    with pytest.raises(BadInputError, match="there are 119 genes"):
        axis_records(data, latent, genes=GENES[1:], programs=programs, seed=3)


def test_rung_three_has_them_where_it_knows_the_genes_and_no_other_number_moves(data, latent, programs):
    given = {"seed": 1, "n_permutations": 9, "n_repeats": 2, "n_starts": 2, "latent": latent}
    plain = published_gates(data, SETTINGS, **given)
    told = published_gates(data, SETTINGS, **given, genes=GENES, programs=programs)
    new = {record.gate for record in told.records} - {record.gate for record in plain.records}
    assert new == {CLASS_SEPARATION, PROGRAM_LOADINGS}
    assert [record for record in told.records if record.gate not in new] == plain.records

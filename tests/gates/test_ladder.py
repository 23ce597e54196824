"""The ladder: which rung a tampered artifact stops at, what is not run, and the same records for everybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tiny import N_GENES, tiny_document, tiny_manifold

from manifoldzoo.cards._adaptor import Adaptor
from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import BadInputError, FormatError
from manifoldzoo.cards._evidence import RUNG_NAMES, EvidenceRun, rung_reached
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._artifact_data import gate_data, head_settings
from manifoldzoo.gates._ladder import validate
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._manifold import Manifold

TESTS = Path(__file__).resolve().parents[1]
SCRIPT = """
import json, sys
from manifoldzoo.gates import _ladder
from tiny import tiny_manifold
_ladder.N_PERMUTATIONS = int(sys.argv[1])
run = _ladder.validate(tiny_manifold())
print(json.dumps([result.model_dump(mode="json") for result in run.rungs]))
"""
BUNDLED = """
import json, sys
from manifoldzoo.gates import _ladder
from manifoldzoo.registry._resolve import load
_ladder.N_PERMUTATIONS = 1
run = _ladder.validate(load("hematopoietic"))
print(json.dumps([result.model_dump(mode="json") for result in run.rungs]))
"""


@pytest.fixture(scope="module")
def sound() -> Manifold:
    return tiny_manifold()


@pytest.fixture(scope="module")
def run(sound) -> EvidenceRun:
    return validate(sound)


@pytest.fixture
def few_permutations(monkeypatch) -> int:
    """Too few permutations to decide by, which leaves the rest of rung 3 as it is."""
    monkeypatch.setattr(_ladder, "N_PERMUTATIONS", 19)
    monkeypatch.setattr(_ladder, "N_BRANCH_PERMUTATIONS", 19)
    return 19


def rebuilt(manifold: Manifold, **tensors: np.ndarray) -> Manifold:
    changed = {name.replace("__", "."): np.asarray(array, dtype=np.float32) for name, array in tensors.items()}
    return Manifold.build(manifold.card, manifold.genes, dict(manifold.tensors) | changed, manifold.vectors)


def dumped(run: EvidenceRun) -> list[dict[str, Any]]:
    return [result.model_dump(mode="json") for result in run.rungs]


def statuses(run: EvidenceRun) -> list[str]:
    return [result.status for result in run.rungs]


def seeds(run: EvidenceRun) -> set[int]:
    return {record.seed for result in run.rungs for record in result.records if record.seed is not None}


def test_a_run_is_bound_to_the_artifact(sound, run):
    assert run.artifact_digest == sound.digest
    assert run.panel_digest == sound.card.panel.digest
    assert run.reference == "tiny@0.1.0"
    assert {"python", "manifoldzoo", "numpy", "scipy"} <= set(run.software)
    assert run.started.tzinfo is not None
    assert run.seconds > 0
    assert EvidenceRun.model_validate_json(run.model_dump_json()) == run


def test_seeds_come_from_the_digest_and_nothing_else(sound, run, few_permutations):
    assert seeds(run) == {int(sound.digest[:8], 16)}
    other = tiny_manifold(description="One word is another artifact.")
    assert seeds(validate(other)) == {int(other.digest[:8], 16)} != seeds(run)


def test_the_planted_geometry_passes_what_it_should(run):
    assert statuses(run)[:2] == ["pass", "pass"]
    gates = {record.gate: record for record in run.rungs[2].records}
    assert gates["random_holdout"].status == gates["donor_holdout"].status == "pass"
    assert gates["blocked_permutation"].status == "pass"
    assert gates["blocked_permutation"].null.n == 1000
    assert rung_reached(run.rungs) == (3 if run.rungs[2].status == "pass" else 2)


def test_every_gate_of_the_design_is_there_and_decides(run):
    deciding = {record.gate for record in run.rungs[2].records if record.decides}
    assert deciding == {
        "no_copied_anchors",
        "shipped_head",
        "trustworthiness",
        "random_holdout",
        "donor_holdout",
        "branch_holdout",
        "blocked_permutation",
    }


def test_the_records_are_the_same_again(sound, run):
    assert dumped(validate(sound)) == dumped(run)


def test_the_global_generator_is_neither_read_nor_moved(sound, few_permutations):
    np.random.seed(1)  # noqa: NPY002
    first = dumped(validate(sound))
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert dumped(validate(sound)) == first
    np.random.seed(1)  # noqa: NPY002
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@pytest.mark.parametrize("threads", ["1", "3"])
def test_threads_do_not_move_a_digit(sound, few_permutations, threads, tmp_path):
    assert in_a_process(SCRIPT, threads, tmp_path, str(few_permutations)) == dumped(validate(sound))


@pytest.mark.slow
def test_threads_do_not_move_a_digit_of_the_bundled_manifold(tmp_path):
    one, three = (in_a_process(BUNDLED, threads, tmp_path) for threads in ("1", "3"))
    assert one == three
    assert [result["status"] for result in one[:2]] == ["pass", "pass"]


def in_a_process(script: str, threads: str, folder: Path, *arguments: str) -> list[dict[str, Any]]:
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **dict.fromkeys(variables, threads), "PYTHONPATH": str(TESTS)},
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("through", range(1, 7))
def test_rungs_that_cannot_run_say_so(sound, few_permutations, through):
    climbed = validate(sound, through=through)
    assert [result.rung for result in climbed.rungs] == list(range(1, through + 1))
    assert [result.name for result in climbed.rungs] == [RUNG_NAMES[rung] for rung in range(1, through + 1)]
    assert statuses(climbed)[:2] == ["pass", "pass"][:through]
    assert "pass" not in statuses(climbed)[3:]
    assert all(status == "not run" for status in statuses(climbed)[4:])
    assert rung_reached(climbed.rungs) == min(through, 2)


@pytest.mark.parametrize("through", [0, -1, 7])
def test_there_are_six_rungs(sound, through):
    with pytest.raises(BadInputError, match=str(through)):
        validate(sound, through=through)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("operator", lambda a: a * 1.05),
        ("projection", lambda a: a * 1.05),
        ("panel.anchors", lambda a: a[::-1]),
    ],
)
def test_nothing_is_fitted_on_an_artifact_that_is_not_intact(sound, name, change, monkeypatch):
    monkeypatch.setattr(_ladder, "published_gates", lambda *_, **__: pytest.fail("the gates ran"))
    tampered = rebuilt(sound, **{name.replace(".", "__"): change(sound.tensors[name])})
    climbed = validate(tampered)
    assert statuses(climbed)[0] == "fail"
    assert statuses(climbed)[2] == "not run"
    assert rung_reached(climbed.rungs) == 0
    assert climbed.artifact_digest == tampered.digest != sound.digest


def test_a_ruler_with_another_branch_stops_at_rung_1(sound):
    document = tiny_document()["ruler"]
    document["stages"][3]["branch"] = "right"
    tampered = Manifold.build(parse_card(tiny_document(ruler=document)), sound.genes, sound.tensors, sound.vectors)
    assert statuses(validate(tampered)) == ["fail", "pass", "not run"]


def test_wrong_vectors_stop_at_rung_2_and_the_gates_still_inform(sound, few_permutations):
    vectors = dict(sound.vectors) | {"latent": sound.vectors["latent"] + np.float32(0.5)}
    tampered = Manifold.build(sound.card, sound.genes, sound.tensors, vectors)
    climbed = validate(tampered)
    assert statuses(climbed)[:2] == ["pass", "fail"]
    assert climbed.rungs[2].records[0].statistic is not None
    assert rung_reached(climbed.rungs) == 1


def test_a_rung_is_reached_only_with_all_below(sound, monkeypatch):
    passed = replace(sound, vectors=dict(sound.vectors) | {"input": sound.vectors["input"] + np.float32(1)})
    from manifoldzoo.cards._evidence import conclude, judge
    from manifoldzoo.gates.rungs._published import gates_of

    records = [judge(gate, threshold, direction, threshold) for gate, direction, threshold in gates_of(sound.card)]
    monkeypatch.setattr(_ladder, "published_gates", lambda *_, **__: conclude(3, records))
    assert statuses(validate(passed)) == ["pass", "fail", "pass"]
    assert rung_reached(validate(passed).rungs) == 1


def test_too_few_permutations_are_no_pass(sound, few_permutations):
    record = next(r for r in validate(sound).rungs[2].records if r.gate == "blocked_permutation")
    assert record.status == "cannot decide"


def test_progress_is_reported_up_to_the_end(sound, monkeypatch):
    monkeypatch.setattr(_ladder, "N_PERMUTATIONS", 999)
    seen: list[tuple[str, int, int]] = []
    validate(sound, progress=lambda *call: seen.append(call))
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1][1:] == (999, 999)
    assert len({label for label, _, _ in seen}) == 1


def test_the_gates_read_the_panel_that_travels(sound):
    data = gate_data(sound)
    anchors = sound.tensors["panel.anchors"]
    assert np.array_equal(data.expression, anchors)
    assert np.allclose(data.features, anchors.astype(np.float64) @ sound.tensors["operator"][0], atol=1e-4)
    assert data.features.shape == (24, N_GENES)
    assert len(set(data.donor)) == 4
    stage = [anchor.stage for anchor in sound.card.panel.anchors]
    for i, j in [(0, 0), (0, 3), (1, 4), (3, 11)]:
        assert data.distances[i, j] == sound.ruler.distances([stage[i], stage[j]])[0, 1]


def test_refits_use_the_settings_of_the_card(sound):
    assert head_settings(sound) == LetSettings(
        n_components=3, alpha=0.01, n_steps=60, learning_rate=0.02, scale_floor=0.1
    )


@pytest.mark.parametrize("kind", ["isomap", "geodesic-mds"])
def test_geodesic_heads_are_refitted_by_the_settings_of_their_card(sound, kind):
    settings = GeodesicSettings(kind=kind, n_components=3, n_neighbours=7, scale_floor=0.2, placing_steps=9)
    fields = {"n_components": 3, "loss": 0.1, "beta": 1.0, "n_reduced": 5, "n_landmarks": 24, "n_pieces": 1}
    adaptor = Adaptor(kind=kind, **fields, parameters=settings.parameters())
    expected = settings if kind == "geodesic-mds" else replace(settings, placing_steps=GeodesicSettings().placing_steps)
    assert head_settings(with_adaptor(sound, adaptor)) == expected
    for name in settings.parameters():
        lacking = {key: value for key, value in adaptor.parameters.items() if key != name}
        with pytest.raises(FormatError, match=name):
            head_settings(with_adaptor(sound, adaptor.model_copy(update={"parameters": lacking})))


def with_adaptor(manifold, adaptor):
    """As much of a manifold with another head as its settings are read from."""
    extraction = manifold.card.extraction.model_copy(update={"adaptor": adaptor})
    card = manifold.card.model_copy(update={"extraction": extraction})
    return SimpleNamespace(card=card, name=manifold.name)


@pytest.mark.parametrize("parameters", [{}, {"alpha": 0.01, "n_steps": "many", "learning_rate": 0.02}])
def test_a_card_without_the_settings_cannot_be_gated(sound, parameters):
    document = tiny_document()
    document["extraction"]["adaptor"]["parameters"] = parameters
    bare = Manifold.build(parse_card(document), sound.genes, sound.tensors, sound.vectors)
    assert statuses(validate(bare)) == ["pass", "pass", "cannot decide"]

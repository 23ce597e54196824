"""A planted manifold passes all six rungs; artifacts that are bad in one way fail at the rung meant for it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from planted import (
    EVERY,
    N_GENES,
    RULER,
    STAGES,
    Planted,
    PlantedPanel,
    knowing_operator,
    planted_panel,
    untrained_operator,
)

from manifoldzoo.cards._errors import ZooError
from manifoldzoo.cards._evidence import EvidenceRun, rung_reached
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._ladder import validate
from manifoldzoo.gates._stored import contradictions
from manifoldzoo.gates.controls._control_operators import gene_permuted
from manifoldzoo.manifolds._format import MANIFEST, Manifest
from manifoldzoo.manifolds._manifold import Manifold

pytestmark = pytest.mark.xdist_group("known_bad")


@pytest.fixture
def quick(monkeypatch):
    """So few permutations that their gates cannot decide, and so no rung above 2 passes: what fails still fails."""
    for name, value in (("N_PERMUTATIONS", 16), ("N_BRANCH_PERMUTATIONS", 16), ("N_STARTS", 2)):
        monkeypatch.setattr(_ladder, name, value)


@pytest.fixture(scope="module")
def sound() -> Planted:
    return Planted()


def copied_donor(panel: PlantedPanel) -> PlantedPanel:
    """The anchors of the first donor once more, under the name of another."""
    first = [row for row, donor in enumerate(panel.donor) if donor == panel.donor[0]]
    return PlantedPanel(
        np.vstack([panel.values, panel.values[first]]),
        [*panel.stage, *(panel.stage[row] for row in first)],
        [*panel.donor, *["stand-in"] * len(first)],
        [*panel.study, *["another"] * len(first)],
    )


def label_genes(panel: PlantedPanel, *, known: bool) -> PlantedPanel:
    """Genes that spell the label where it is known, such as an annotation that slipped in among the counts."""
    values, n = panel.values.copy(), len(panel.stage)
    told = panel.stage if known else np.random.default_rng(0).permutation(panel.stage).tolist()
    values[:, : len(EVERY)] = RULER.distances([*told, *EVERY])[:n, n:]
    return replace(panel, values=values)


def label_reader() -> np.ndarray:
    """Operator that reads the genes of :func:`label_genes` and nothing else."""
    return np.diag(np.arange(N_GENES) < len(EVERY)).astype(np.float32)[None]


def donors_spelt(panel: PlantedPanel) -> PlantedPanel:
    """Expression that tells donors apart and nothing else."""
    rng = np.random.default_rng(3)
    own = {donor: 20 * rng.standard_normal(N_GENES) for donor in dict.fromkeys(panel.donor)}
    values = np.array([own[donor] for donor in panel.donor]) + rng.standard_normal(panel.values.shape)
    return replace(panel, values=values.astype(np.float32))


def one_donor(panel: PlantedPanel) -> PlantedPanel:
    return replace(panel, donor=["d"] * len(panel.donor), study=["s"] * len(panel.study))


@dataclass(frozen=True)
class Bad:
    """What is spoilt, the rung that has to notice, and the gate that does."""

    changes: dict
    rung: int
    gate: str
    status: str = "fail"


PANEL, OUTSIDE = planted_panel(0), planted_panel(1, n_donors=4, prefix="e")
BATTERY = {
    "a constant latent": Bad({"latent_of": "nothing"}, 3, "shipped_head"),
    "a latent that copies the batch": Bad({"latent_of": "the batch"}, 3, "shipped_head"),
    "features that copy the batch": Bad(
        {"panel": donors_spelt(PANEL), "operator": untrained_operator(1)}, 3, "donor_holdout"
    ),
    "copies across the holdout": Bad({"panel": copied_donor(PANEL)}, 3, "no_copied_anchors"),
    "one donor": Bad({"panel": one_donor(PANEL)}, 3, "donor_holdout", "cannot decide"),
    "a panel of real biology as its negative control": Bad({"negative": OUTSIDE}, 4, "negative_control"),
    "a shuffled ruler": Bad({"ruler": RULER.relabelled(rng=np.random.default_rng(0))}, 4, "branch_floor"),
    "labels among the genes": Bad(
        {
            "panel": label_genes(PANEL, known=True),
            "external": label_genes(OUTSIDE, known=False),
            "operator": label_reader(),
        },
        5,
        "external_all",
    ),
    "cells that two panels share": Bad({"shared": (40, 0)}, 5, "no_shared_cells"),
    "donors that two panels share": Bad({"shared": (0, 1)}, 5, "no_shared_donors"),
    "copies across panels under other names": Bad(
        {"external": replace(OUTSIDE, values=np.vstack([PANEL.values[:3], OUTSIDE.values[3:]]))}, 5, "no_copied_anchors"
    ),
    "an untrained source": Bad({"operator": untrained_operator(0)}, 6, "beats_random_init"),
    "permuted genes": Bad({"operator": gene_permuted(knowing_operator(), seed=0)}, 6, "beats_gene_permuted"),
}


@pytest.mark.slow
def test_the_planted_manifold_passes_every_rung(sound):
    run = validate(sound.build(), through=6)
    assert [result.status for result in run.rungs] == ["pass"] * 6, [result.reason for result in run.rungs]


@pytest.mark.parametrize("name", BATTERY)
def test_a_bad_artifact_fails_at_the_rung_meant_for_it(name, sound, quick):
    bad = BATTERY[name]
    run = validate(sound.spoilt(**bad.changes).build(), through=bad.rung)
    result = run.rungs[-1]
    found = {record.gate: record for record in result.records if record.decides}
    assert found[bad.gate].status == bad.status, found[bad.gate]
    assert result.status == bad.status
    assert rung_reached(run.rungs) < bad.rung


@pytest.mark.parametrize("rung", [3, 4, 5, 6])
def test_where_nothing_is_spoilt_the_same_gates_pass(rung, sound, quick):
    result = validate(sound.build(), through=rung).rungs[-1]
    found = {record.gate: record.status for record in result.records if record.decides}
    judged = {gate: status for gate, status in found.items() if status != "cannot decide"}
    assert set(judged.values()) == {"pass"}, found
    assert {bad.gate for bad in BATTERY.values() if bad.rung == rung} <= judged.keys()


class TestOnDisk:
    """What somebody does to the files afterwards."""

    @pytest.fixture
    def folder(self, sound, tmp_path):
        sound.build().save(tmp_path / "planted")
        return tmp_path / "planted"

    def test_a_tampered_tensor_is_refused_by_a_load(self, folder):
        path = folder / "manifold.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        with pytest.raises(ZooError, match=r"manifold\.safetensors"):
            Manifold.read(folder)

    def test_one_tampered_with_after_the_load_fails_rung_1(self, folder, quick):
        manifold = Manifold.read(folder)
        path = folder / "manifold.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        run = validate(manifold, through=3)
        assert [result.status for result in run.rungs] == ["fail", "pass", "not run"]

    def test_a_panel_swapped_under_its_card_fails_rung_1(self, sound, quick):
        manifold = sound.build()
        swapped = replace(manifold, tensors={**manifold.tensors, "panel.anchors": planted_panel(7).values})
        rung = validate(swapped, through=1).rungs[0]
        assert {record.gate for record in rung.records if record.status == "fail"} == {"panel_digest"}

    def test_a_panel_swapped_with_its_card_is_another_artifact(self, sound, quick):
        first = validate(sound.build(), through=1)
        other = sound.spoilt(panel=planted_panel(7)).build()
        assert other.digest != first.artifact_digest
        assert contradictions(validate(other, through=1), first) == []

    def test_a_swapped_panel_under_the_old_manifest_is_refused(self, folder, sound):
        other = folder.parent / "other"
        sound.spoilt(panel=planted_panel(7)).build().save(other)
        (folder / "manifold.safetensors").write_bytes((other / "manifold.safetensors").read_bytes())
        with pytest.raises(ZooError):
            Manifold.read(folder)
        assert Manifest.parse((folder / MANIFEST).read_bytes())

    def test_wrong_test_vectors_fail_rung_2(self, sound, quick):
        manifold = sound.build()
        vectors = dict(manifold.vectors)
        vectors["latent"] = vectors["latent"] + np.float32(0.1)
        run = validate(replace(manifold, vectors=vectors), through=2)
        assert [result.status for result in run.rungs] == ["pass", "fail"]

    def test_evidence_edited_by_hand_is_refused_or_does_not_come_out_again(self, sound, quick):
        manifold = sound.spoilt(operator=untrained_operator(0)).build()
        run = validate(manifold, through=3)
        document = json.loads(run.model_dump_json())
        record = next(r for r in document["rungs"][2]["records"] if r["gate"] == "trustworthiness")
        assert record["status"] == "fail"
        record["status"] = "pass"
        with pytest.raises(ValueError, match="contradicts"):
            EvidenceRun.model_validate(document)
        record["statistic"] = 0.93
        document["rungs"][2]["status"] = "cannot decide"
        forged = EvidenceRun.model_validate(document)
        assert "trustworthiness" in {one.gate for one in contradictions(validate(manifold, through=3), forged)}


def test_there_are_enough_of_them():
    assert len(BATTERY) >= 12 and {bad.rung for bad in BATTERY.values()} == {3, 4, 5, 6}
    assert len(set(STAGES)) == 18

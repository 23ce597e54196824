"""A stranger's own cells on the ladder: whether they are strangers, what each rung gets of them, what they decide."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from own_cells import own_cells, write_own_cells
from scipy import sparse
from tiny import tiny_document, tiny_manifold, tiny_manifold_with_everything

import manifoldzoo as mz
from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import PanelError
from manifoldzoo.cards._evidence import EvidenceRun, RungResult, counted_rung, not_run, rung_reached
from manifoldzoo.gates import _ladder
from manifoldzoo.gates._ladder import registered_for, validate
from manifoldzoo.gates._own_cells import OwnCells
from manifoldzoo.gates.rungs._own_overlap import overlap_gates, own_overlap, pooled_types
from manifoldzoo.gates.rungs._own_refitted import PREFIX, fewest
from manifoldzoo.gates.rungs._transfers import EXTERNAL_GATES
from manifoldzoo.manifolds._cell_ids import CellIds
from manifoldzoo.manifolds._geodesic_settings import GeodesicSettings
from manifoldzoo.manifolds._let import LetSettings
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._own_panel import OwnPanel, read_own_panel
from manifoldzoo.manifolds.demo import demo_path

CONVERGENCE = {"terms": {"stage": 0.3}, "n_epochs": 20, "best_epoch": 20, "stopped_early": False, "change": 0.001}
CONVERGENCE |= {"converged": True, "n_train_cells": 120, "n_validation_cells": 0}
OWN = {f"own_{gate.removeprefix('external_')}" for gate in EXTERNAL_GATES}
"""Gates of rung 5 on a user's own panel that need anchors."""


@pytest.fixture(scope="module")
def manifold() -> Manifold:
    return tiny_manifold()


@pytest.fixture(scope="module")
def with_panels() -> Manifold:
    """With an external panel, and no plan of its own that would ask for more permutations."""
    full = tiny_manifold_with_everything()
    card = full.card.model_copy(update={"evidence": None})
    return Manifold.build(card, full.genes, full.tensors, full.vectors)


@pytest.fixture(scope="module")
def own(manifold, tmp_path_factory) -> OwnPanel:
    path = tmp_path_factory.mktemp("own") / "mine.h5ad"
    return read_own_panel(manifold, write_own_cells(path, n_donors=5))


@pytest.fixture
def few_permutations(monkeypatch):
    """Too few permutations to decide by and no rung 4, which leaves the rest as it is."""
    monkeypatch.setattr(_ladder, "N_PERMUTATIONS", 19)
    monkeypatch.setattr(_ladder, "specific", lambda *_, **__: not_run(4, "not tried here"))


def read(manifold: Manifold, folder: Path, **options: object) -> OwnPanel:
    return read_own_panel(manifold, write_own_cells(folder / "mine.h5ad", **options))


def overlap(manifold: Manifold, own: OwnPanel) -> dict[str, tuple[str, float | None]]:
    return {record.gate: (record.status, record.statistic) for record in own_overlap(manifold, own)}


def by_gate(result: RungResult) -> dict[str, str]:
    return {record.gate: record.status for record in result.records}


def fitted_on(own: OwnPanel, *, ids: bool = False) -> Manifold:
    """The tiny manifold with the own panel's anchors as those of its extraction panel."""
    panel, document = own.panel, tiny_document()
    names = ("study", "donor", "tissue", "cell_type", "stage", "branch")
    columns = [getattr(panel, name) for name in names]
    document["panel"]["anchors"] = [
        dict(zip(names, row, strict=True)) | {"n_cells": int(n)}
        for *row, n in zip(*columns, panel.n_cells, strict=True)
    ]
    plain = tiny_manifold()
    tensors = dict(plain.tensors) | {"panel.anchors": panel.anchors}
    if ids:
        tensors |= CellIds.of(own.members).tensors()
    return Manifold.build(parse_card(document), plain.genes, tensors, plain.vectors)


def renamed(cells: ad.AnnData) -> ad.AnnData:
    """The same cells under other names of cells, donors and study."""
    other = cells.copy()
    other.obs_names = [f"x{number}" for number in range(other.n_obs)]
    other.obs["donor"] = ["my_" + name for name in other.obs["donor"].astype(str)]
    other.obs["study"] = "mine"
    return other


class TestOverlap:
    def test_strangers_share_nothing_but_ids_are_needed_to_say_so(self, manifold, own):
        assert overlap(manifold, own) == {
            "own_no_shared_files": ("pass", 0.0),
            "own_no_shared_donors": ("pass", 0.0),
            "own_no_shared_cells": ("cannot decide", None),
            "own_no_copied_anchors": ("pass", 0.0),
            "own_no_repeated_anchors": ("pass", 0.0),
            "own_new_panel": ("pass", 0.0),
        }
        (record,) = [record for record in own_overlap(manifold, own) if record.status == "cannot decide"]
        assert record.reason == "the artifact holds no cell ids"

    def test_with_ids_strangers_are_told_to_be_strangers(self, tmp_path, own):
        other = read(fitted_on(own, ids=True), tmp_path, study="elsewhere", seed=1)
        assert overlap(fitted_on(own, ids=True), other)["own_no_shared_cells"] == ("pass", 0.0)

    def test_the_very_file(self, own):
        document = fitted_on(own).card.model_dump(mode="json")
        document["panel"]["files"][0]["sha256"] = own.report.sha256
        same = replace(fitted_on(own), card=parse_card(document))
        found = overlap(same, own)
        assert found["own_no_shared_files"] == ("fail", 1.0)
        assert found["own_no_shared_cells"] == ("fail", float(len(own.members.ids)))

    def test_some_cells_and_donors_by_name(self, tmp_path, own):
        # two of five donors, other cells under the same names: no anchor is a copy
        other = read(fitted_on(own), tmp_path, n_donors=2, seed=1)
        found = overlap(fitted_on(own, ids=True), other)
        assert found["own_no_shared_donors"] == ("fail", 2.0)
        assert found["own_no_shared_cells"] == ("fail", 72.0)
        assert found["own_no_copied_anchors"] == ("pass", 0.0)

    def test_names_that_only_look_alike(self, tmp_path, own):
        mine = fitted_on(own, ids=True)
        elsewhere = overlap(mine, read(mine, tmp_path, study="elsewhere", seed=1))
        assert elsewhere["own_no_shared_donors"] == ("pass", 0.0)
        nowhere = {record.gate: record for record in own_overlap(mine, read(mine, tmp_path, study=None, seed=1))}
        assert nowhere["own_no_shared_donors"].status == "cannot decide"
        assert "no column of studies, and its donors s0, s1, s2 are" in nowhere["own_no_shared_donors"].reason

    @pytest.mark.parametrize("ids", [False, True])
    def test_all_cells_under_other_names(self, tmp_path, own, ids):
        renamed(own_cells(n_donors=5)).write_h5ad(tmp_path / "mine.h5ad")
        mine = fitted_on(own, ids=ids)
        found = overlap(mine, read_own_panel(mine, tmp_path / "mine.h5ad"))
        assert found["own_no_shared_donors"] == ("pass", 0.0)
        assert found["own_no_copied_anchors"] == ("fail", 30.0)
        # ids that were changed say nothing, the copied anchors do
        assert found["own_no_shared_cells"] == ("fail", 180.0)

    def test_all_cells_shared_out_among_other_donors(self, tmp_path, own):
        cells = renamed(own_cells(n_donors=5))
        cells.obs["donor"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
        cells.write_h5ad(tmp_path / "mine.h5ad")
        mine = fitted_on(own)
        found = overlap(mine, read_own_panel(mine, tmp_path / "mine.h5ad"))
        assert found["own_no_copied_anchors"] == ("fail", 12.0)

    def test_copies_are_compared_on_the_genes_that_are_there(self, tmp_path, own):
        cells = renamed(own_cells(n_donors=5))
        # without a gene of one molecule in thousands the other values are as they were
        counts = cells.X.toarray()
        counts[:, 3] = 1
        cells.X = sparse.csr_matrix(counts)
        cells.write_h5ad(tmp_path / "all.h5ad")
        plain = tiny_manifold()
        mine = fitted_on(read_own_panel(plain, tmp_path / "all.h5ad"))
        cells[:, np.arange(40) != 3].copy().write_h5ad(tmp_path / "mine.h5ad")
        other = read_own_panel(plain, tmp_path / "mine.h5ad")
        assert other.report.n_missing_genes == 1
        # the stage with the fewest molecules feels the one that is missing
        assert overlap(mine, other)["own_no_copied_anchors"] == ("fail", 25.0)

    def test_one_donor_twice(self, tmp_path, manifold):
        cells = own_cells()
        again = cells[cells.obs["donor"] == "s0"].copy()
        again.obs["donor"] = "s9"
        again.obs_names = [f"again_{name}" for name in again.obs_names]
        ad.concat([cells, again]).write_h5ad(tmp_path / "mine.h5ad")
        found = overlap(manifold, read_own_panel(manifold, tmp_path / "mine.h5ad"))
        assert found["own_no_repeated_anchors"] == ("fail", 6.0)

    def test_a_panel_that_the_artifact_carries_informs(self, own):
        plain = fitted_on(own)
        document = plain.card.model_dump(mode="json")
        beside = {"name": "other", "role": "external", "n_shared_cells": 0, "n_shared_donors": 0}
        document["panels"] = [beside | {"specification": "4" * 64, "manifest": document["panel"]}]
        tensors = dict(plain.tensors) | {"panel.other.anchors": own.panel.anchors}
        mine = Manifold.build(parse_card(document), plain.genes, tensors, plain.vectors)
        record = next(one for one in own_overlap(mine, own) if one.gate == "own_new_panel")
        assert (record.statistic, record.decides) == (1.0, False)
        assert record.details["panels of the artifact"] == "other (external)"

    def test_without_a_panel_copies_cannot_be_looked_for(self, tmp_path, manifold):
        own = read(manifold, tmp_path, labels=["a", "b", "c", "d", "e", "f"])
        found = overlap(manifold, own)
        assert list(found) == list(overlap_gates())
        assert {found[f"own_no_{what}_anchors"][0] for what in ("copied", "repeated")} == {"cannot decide"}

    def test_pooling_is_the_mean_over_cells(self):
        rng = np.random.default_rng(0)
        cells, group, kind = rng.random((60, 4)), rng.integers(0, 3, 60), rng.integers(0, 2, 60)
        keys = [(g, k) for g in range(3) for k in range(2)]
        members = [cells[(group == g) & (kind == k)] for g, k in keys]
        anchors = np.stack([block.mean(axis=0) for block in members])
        sizes = np.array([len(block) for block in members])
        number, pooled = pooled_types(anchors, sizes, ["s"] * 6, [str(k) for _, k in keys])
        assert number.tolist() == [0, 1] * 3
        assert pooled == pytest.approx(np.stack([cells[kind == k].mean(axis=0) for k in range(2)]))


class TestRun:
    @pytest.fixture(scope="class")
    def run(self, manifold, own) -> EvidenceRun:
        # rung 4 asks nothing of the cells and takes most of the time
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_ladder, "specific", lambda *_, **__: not_run(4, "not tried here"))
            return validate(manifold, panel=own)

    def test_it_tries_rung_5_and_says_what_it_had(self, run, own):
        assert [result.rung for result in run.rungs] == [1, 2, 3, 4, 5]
        assert run.own_panel.model_copy(update={"needs": []}) == own.report
        assert run.panel_digest != run.own_panel.digest == own.report.digest
        assert EvidenceRun.model_validate_json(run.model_dump_json()) == run
        json.dumps(run.model_dump(mode="json"), allow_nan=False)

    def test_the_own_panel_takes_the_place_of_the_one_that_is_not_there(self, run):
        deciding = {record.gate for record in run.rungs[4].records if record.decides}
        assert deciding == OWN | {gate for gate, decides in overlap_gates().items() if decides}
        registered = {test.gate for test in run.registered if test.rung == 5 and test.decides}
        assert registered == deciding
        statuses = by_gate(run.rungs[4])
        assert statuses["own_all"] == statuses["own_between_donors"] == statuses["own_permutation"] == "pass"
        assert run.rungs[4].status == (
            "cannot decide" if set(statuses.values()) == {"pass", "cannot decide"} else "fail"
        )

    def test_refitted_gates_inform_and_decide_nothing(self, run, manifold):
        informing = [record for record in run.rungs[2].records if record.gate.startswith(PREFIX)]
        names = {record.gate.removeprefix(PREFIX) for record in informing}
        assert {"random_holdout", "donor_holdout", "branch_holdout", "study_holdout", "blocked_permutation"} <= names
        assert not {"shipped_head", "no_copied_anchors"} & names
        assert not any(record.decides for record in informing)
        assert by_gate(run.rungs[2])[PREFIX + "donor_holdout"] == "pass"
        assert by_gate(run.rungs[2])[PREFIX + "study_holdout"] == "cannot decide"
        assert next(r for r in informing if r.gate == PREFIX + "blocked_permutation").null.n == 1000
        alone = validate(manifold)
        assert run.rungs[2].status == alone.rungs[2].status
        kept = [record for record in run.rungs[2].records if not record.gate.startswith(PREFIX)]
        assert kept == alone.rungs[2].records

    def test_every_rung_says_what_it_needed(self, run):
        needs = run.own_panel.needs
        assert {need.rung for need in needs} == {1, 2, 3, 4, 5}
        told = {need.check: (need.needed, need.got, need.enough) for need in needs}
        assert told[PREFIX + "study_holdout"] == ("2 studies", "1 study", False)
        assert told["own_between_donors"] == ("2 donors", "5 donors", True)
        assert told["own_all"] == ("10 anchors of 2 stages", "30 anchors of 6 stages", True)
        assert told["own_no_shared_cells"] == ("cell ids in the artifact", "it holds none", False)
        assert [need.enough for need in needs if need.rung in (1, 2, 4)] == [None] * 3
        assert "no negative panel; your panel is not asked" in {need.got for need in needs if need.rung == 4}
        # whatever has too little cannot decide
        statuses = {record.gate: record.status for result in run.rungs for record in result.records}
        assert {statuses[need.check] for need in needs if need.enough is False} == {"cannot decide"}

    def test_it_counts_for_no_rung(self, run):
        assert rung_reached(run.rungs) >= 2
        assert counted_rung(run) == 0
        assert counted_rung(run.model_copy(update={"own_panel": None})) == rung_reached(run.rungs)

    def test_a_path_will_do(self, run, manifold, tmp_path):
        path = write_own_cells(tmp_path / "mine.h5ad", n_donors=5)
        again = validate(manifold, panel=str(path), through=1)
        assert [result.rung for result in again.rungs] == [1]
        assert again.own_panel.digest == run.own_panel.digest
        assert {need.rung for need in again.own_panel.needs} == {1}


@pytest.mark.usefixtures("few_permutations")
class TestBesideAndWithout:
    def test_it_stands_beside_the_panels_that_travel(self, with_panels, tmp_path):
        own = read(with_panels, tmp_path)
        alone = validate(with_panels, through=5)
        run = validate(with_panels, panel=own)
        kept = [record for record in run.rungs[4].records if not record.gate.startswith("own_")]
        assert kept == alone.rungs[4].records
        assert set(by_gate(run.rungs[4])) >= OWN
        # 18 anchors are too few for ten neighbours, and 19 permutations for any p
        assert by_gate(run.rungs[4])["own_trustworthiness"] == "cannot decide"
        assert by_gate(run.rungs[4])["own_permutation"] == "cannot decide"

    @pytest.mark.parametrize(
        ("options", "open_gates"),
        [
            ({"labels": ["a", "b", "c", "d", "e", "f"]}, OWN),
            ({"labels": ["stem"] * 6, "per_group": 9, "n_donors": 12}, OWN),
            ({"n_donors": 1}, OWN),
            ({"n_donors": 2, "study": None}, {"own_trustworthiness", "own_permutation"}),
        ],
    )
    def test_too_little_cannot_decide(self, manifold, tmp_path, options, open_gates):
        run = validate(manifold, panel=read(manifold, tmp_path, **options))
        found = by_gate(run.rungs[4])
        assert {gate for gate in OWN if found[gate] == "cannot decide"} == open_gates
        assert run.rungs[4].status in ("cannot decide", "fail")
        told = {need.check: need.enough for need in run.own_panel.needs}
        assert told["own_between_donors"] is told[PREFIX + "donor_holdout"] is (run.own_panel.n_donors >= 2)
        assert told["own_all"] is (open_gates != OWN)
        refitted = {gate: status for gate, status in by_gate(run.rungs[2]).items() if gate.startswith(PREFIX)}
        if open_gates == OWN:
            assert set(refitted.values()) == {"cannot decide"}

    def test_one_donor_in_words(self, manifold, tmp_path):
        labels = {"stem": 3, "left_1": 3}
        cells = own_cells(n_donors=4)
        cells.obs["donor"] = "only"
        # types within stages make anchors enough of one donor
        cells.obs["cell_type"] = cells.obs["cell_type"].astype(str) + "_" + (np.arange(cells.n_obs) % 4).astype(str)
        cells.write_h5ad(tmp_path / "mine.h5ad")
        table = {name: name.rsplit("_", 1)[0] for name in cells.obs["cell_type"].unique()}
        assert len(labels) < len(table) == 24
        run = validate(manifold, panel=read_own_panel(manifold, tmp_path / "mine.h5ad", labels=table))
        assert by_gate(run.rungs[4])["own_between_donors"] == "cannot decide"
        assert by_gate(run.rungs[4])["own_all"] == "pass"
        told = {need.check: (need.needed, need.got) for need in run.own_panel.needs}
        assert told["own_between_donors"] == told[PREFIX + "donor_holdout"] == ("2 donors", "1 donor")
        record = next(one for one in run.rungs[2].records if one.gate == PREFIX + "donor_holdout")
        assert (record.status, record.decides) == ("cannot decide", False)

    def test_a_head_that_cannot_be_refitted(self, own):
        document = tiny_document()
        document["extraction"]["adaptor"] |= {"kind": "let-cell", "convergence": CONVERGENCE}
        plain = tiny_manifold()
        cells = Manifold.build(parse_card(document), plain.genes, plain.tensors, plain.vectors)
        run = validate(cells, panel=own)
        found = {record.gate: record for result in run.rungs for record in result.records}
        assert found[PREFIX + "donor_holdout"].status == found["own_branch_holdout"].status == "not run"
        assert "fitted on cells" in found["own_branch_holdout"].reason
        assert found["own_all"].status == "pass"

    def test_nothing_is_tried_on_an_artifact_that_is_not_intact(self, manifold, own):
        broken = replace(manifold, tensors=dict(manifold.tensors) | {"projection": manifold.tensors["projection"] + 1})
        run = validate(broken, panel=own)
        assert [result.status for result in run.rungs][2:] == ["not run"] * 3
        assert run.own_panel.needs

    def test_settings_that_nobody_knows_leave_the_rung_as_it_was(self, own):
        document = tiny_document()
        del document["extraction"]["adaptor"]["parameters"]["alpha"]
        plain = tiny_manifold()
        mute = Manifold.build(parse_card(document), plain.genes, plain.tensors, plain.vectors)
        run = validate(mute, panel=own)
        assert [result.status for result in run.rungs][2:] == ["cannot decide"] * 3

    def test_a_rung_that_is_open_as_a_whole_is_spelt_out(self, manifold, own, monkeypatch):
        def refuse(*_: object, **__: object) -> None:
            from manifoldzoo.cards._errors import BadInputError

            raise BadInputError("too small to split")

        monkeypatch.setattr(_ladder, "published_gates", refuse)
        run = validate(manifold, panel=own, through=3)
        deciding = {record.gate: record.status for record in run.rungs[2].records if record.decides}
        assert set(deciding.values()) == {"cannot decide"}
        assert {"random_holdout", "blocked_permutation"} <= set(deciding)

    def test_records_depend_on_the_artifact_and_the_cells_alone(self, manifold, tmp_path):
        own = read(manifold, tmp_path)
        first, second = (validate(manifold, panel=own).rungs for _ in range(2))
        assert first == second

    def test_a_bad_file_is_refused_before_anything_is_computed(self, manifold, tmp_path, monkeypatch):
        monkeypatch.setattr(_ladder, "valid", lambda _: pytest.fail("computed"))
        cells = own_cells()
        del cells.obs["donor"]
        cells.write_h5ad(tmp_path / "mine.h5ad")
        with pytest.raises(PanelError, match="donor of its cells"):
            validate(manifold, panel=tmp_path / "mine.h5ad")


@pytest.mark.parametrize(
    ("settings", "least"),
    [(None, 10), (LetSettings(), 10), (GeodesicSettings(n_neighbours=5), 11), (GeodesicSettings(n_neighbours=20), 21)],
)
def test_the_fewest_anchors_leave_enough_when_a_fifth_is_held_out(settings, least):
    few = fewest(settings)
    assert few - round(0.2 * few) >= least > few - 1 - round(0.2 * (few - 1))


def test_tests_are_registered_by_card_and_panel_alone(manifold, with_panels):
    for one in (manifold, with_panels):
        assert registered_for(one.card, through=4, own_panel=True) == registered_for(one.card, through=4)
    own = {test.gate for test in registered_for(manifold.card, through=5, own_panel=True) if test.rung == 5}
    assert own == OWN | set(overlap_gates())
    both = {test.gate for test in registered_for(with_panels.card, through=5, own_panel=True) if test.rung == 5}
    assert both == own | {test.gate for test in registered_for(with_panels.card, through=5) if test.rung == 5}


def test_public_names_read_and_validate():
    assert mz.validate is validate
    from manifoldzoo.manifolds import OwnColumns
    from manifoldzoo.manifolds import read_own_panel as read_it

    assert read_it is read_own_panel
    assert OwnColumns().donor is None


class TestBundled:
    """The bundled artifact and its own demo cells: rung 5 alone, as the ladder would add it."""

    def rung_5(self, manifold, path, **options) -> RungResult:
        cells = OwnCells.of(manifold, read_own_panel(manifold, path, **options), through=5)
        plan = _ladder.run_plan(manifold.card, manifold.digest, through=5)
        return cells.added_to(_ladder._tried(5, manifold, plan, None), plan)

    def test_the_demo_cells_are_no_strangers(self):
        result = self.rung_5(mz.load("hematopoietic"), demo_path())
        assert by_gate(result)["own_no_shared_donors"] == "fail"
        assert result.status == "fail"

    @pytest.mark.shared
    def test_real_strangers_and_a_renamed_copy(self, shared, tmp_path):
        manifold = mz.load("hematopoietic")
        with pytest.warns(UserWarning, match="covers 0.33"):
            blood = by_gate(self.rung_5(manifold, shared / "data" / "blood_hao2021.h5ad"))
        assert {blood[gate] for gate in OWN} == {"pass"}
        renamed_copy = renamed(ad.read_h5ad(shared / "data" / "marrow_setty2019.h5ad"))
        renamed_copy.obs["dataset"] = "mine"
        renamed_copy.write_h5ad(tmp_path / "mine.h5ad")
        copy = by_gate(self.rung_5(manifold, tmp_path / "mine.h5ad"))
        assert copy["own_no_shared_donors"] == "pass"
        assert copy["own_no_copied_anchors"] == copy["own_no_shared_cells"] == "fail"

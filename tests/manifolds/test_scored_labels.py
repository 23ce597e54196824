"""Labels by gene scores: planted phases come back whatever the files are stored as, and every way they can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from phases import N_PROGRAM, PHASES, phased_cells, programs, write_phases
from scipy import sparse

from manifoldzoo.cards._errors import PanelError
from manifoldzoo.manifolds import _expression_blocks
from manifoldzoo.manifolds._count_file import PLAIN, PanelReading, list_cells
from manifoldzoo.manifolds._labels import LEFT_OUT, LabelTable
from manifoldzoo.manifolds._panel import build_panel, read_panel_cells
from manifoldzoo.manifolds._panel_file import read_panel, write_panel
from manifoldzoo.manifolds._panel_folder import write_panels
from manifoldzoo.manifolds._panel_overlap import read_panel_members
from manifoldzoo.manifolds._panel_spec import PanelSet, PanelSpec, build_panels
from manifoldzoo.manifolds._ruler import read_stage_ruler
from manifoldzoo.manifolds._scored_labels import GeneScoreLabels

LABELS = GeneScoreLabels(programs(), n_controls=20, n_bins=10)
GENES = tuple(f"G{i}" for i in range(90, 200))


def fresh(**changes) -> GeneScoreLabels:
    """Labels that have not seen any file yet."""
    return replace(LABELS, **changes)


def written(cells: ad.AnnData, path: Path, storage: str = "csr") -> Path:
    cells = cells.copy()
    if storage == "dense":
        cells.X = cells.X.toarray()
    if storage == "csc":
        cells.X = sparse.csc_matrix(cells.X)
    cells.write_h5ad(path)
    return path


def stages(labels: GeneScoreLabels, paths: list[Path], reading: PanelReading = PLAIN) -> np.ndarray:
    return np.array(labels.stages_of(list_cells(paths, reading), paths, reading))


@pytest.fixture(scope="module")
def cells() -> ad.AnnData:
    return phased_cells("one")


@pytest.fixture(scope="module")
def path(cells, tmp_path_factory) -> Path:
    return written(cells, tmp_path_factory.mktemp("phases") / "one.h5ad")


def test_planted_phases_come_back(cells, path):
    found, planted = stages(fresh(), [path]), cells.obs["planted"].to_numpy()
    told = found != LEFT_OUT
    assert (found[told] == planted[told]).mean() > 0.97
    assert told[planted != ""].mean() > 0.85
    assert told[planted == ""].mean() < 0.15
    assert set(found[told]) == set(PHASES)


def test_counts_of_each_fate_add_up(cells, path):
    labels = fresh()
    found = stages(labels, [path])
    entry = labels.counted([path], PLAIN)
    (study,) = entry.studies
    assert (study.study, study.n_cells) == ("one", cells.n_obs)
    assert study.n_leading == {name: int((found == name).sum()) for name in PHASES}
    assert study.n_not_expressed + study.n_unclear == (found == LEFT_OUT).sum()
    assert min(study.n_not_expressed, study.n_unclear) > 0
    assert study.n_measured_genes == dict.fromkeys(PHASES, N_PROGRAM)
    assert entry.parameters["margin"] == labels.margin


@pytest.mark.parametrize("storage", ["csc", "dense"])
@pytest.mark.parametrize("chunk", [60, 8_192])
def test_storage_and_pieces_change_nothing(cells, path, tmp_path, monkeypatch, storage, chunk):
    known = fresh()
    expected = known.score(list_cells([path], PLAIN), [path], PLAIN)
    monkeypatch.setattr(_expression_blocks, "CHUNK", chunk)
    other = written(cells, tmp_path / "one.h5ad", storage)
    found = fresh().score(list_cells([other], PLAIN), [other], PLAIN)
    assert np.allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
    assert (found.leading == expected.leading).all()


def test_log_values_are_scored_as_the_counts_they_are_of(cells, path, tmp_path):
    logs = cells.copy()
    logs.X = logs.X.multiply(1e4 / logs.X.sum(axis=1)).tocsr().astype(np.float32)
    logs.X.data = np.log1p(logs.X.data)
    other = written(logs, tmp_path / "one.h5ad")
    assert (stages(fresh(), [other], PanelReading(scale="log1p")) == stages(fresh(), [path])).all()


def test_a_study_is_scored_by_itself(cells, path, tmp_path):
    alone = stages(fresh(), [path])
    shallow = phased_cells("two", n_cells=120, seed=5)
    shallow.X.data = np.ceil(shallow.X.data / 3)
    both = written(ad.concat([shallow[:60], cells, shallow[60:]]), tmp_path / "both.h5ad")
    found = stages(fresh(), [both])
    assert (found[60:-60] == alone).all()
    other = written(shallow, tmp_path / "two.h5ad")
    assert (stages(fresh(), [other]) == np.concatenate([found[:60], found[-60:]])).all()


def test_the_files_of_a_study_are_scored_together(cells, path, tmp_path):
    parts = {"a": slice(90), "b": slice(90, None)}
    halves = [written(cells[part], tmp_path / f"{name}.h5ad") for name, part in parts.items()]
    assert (stages(fresh(), halves) == stages(fresh(), [path])).all()
    # a gene that one of the files lacks is of no program and no control
    lacking = written(cells[90:, cells.var_names != "G0"], tmp_path / "c.h5ad")
    whole = written(cells[:, cells.var_names != "G0"], tmp_path / "d.h5ad")
    counted = fresh().counted([halves[0], lacking], PLAIN).studies[0]
    assert counted.n_measured_genes["early"] == N_PROGRAM - 1
    assert counted == fresh().counted([whole], PLAIN).studies[0].model_copy(update=_as_counted(counted))


def _as_counted(study):
    """The few cells whose counts per 10,000 change with a gene that is left out of the file."""
    names = ("n_leading", "n_not_expressed", "n_unclear")
    return {name: getattr(study, name) for name in names}


def test_the_same_seed_gives_the_same_stages_and_another_draws_other_controls(path):
    table = list_cells([path], PLAIN)
    one, two, three = (fresh(seed=seed).score(table, [path], PLAIN).scores for seed in (0, 0, 1))
    assert (one == two).all()
    assert not np.allclose(one, three)


def test_a_margin_leaves_cells_out_and_moves_none(path):
    lenient, strict = (stages(fresh(margin=margin), [path]) for margin in (0.0, 2.0))
    assert (strict != LEFT_OUT).sum() < (lenient != LEFT_OUT).sum()
    told = strict != LEFT_OUT
    assert (strict[told] == lenient[told]).all()


def test_absent_genes_do_without_and_too_few_are_named(cells, tmp_path):
    some = written(cells[:, [i for i in range(cells.n_vars) if not 12 <= i < 19]], tmp_path / "some.h5ad")
    assert fresh().counted([some], PLAIN).studies[0].n_measured_genes["mid"] == 5
    few = written(cells[:, [i for i in range(cells.n_vars) if not 12 <= i < 20]], tmp_path / "few.h5ad")
    with pytest.raises(PanelError, match=r"'one' measures 4 of the 12 genes of the program 'mid' in programs.tsv"):
        stages(fresh(), [few])


def test_too_few_genes_for_controls(cells, tmp_path):
    only = written(cells[:, :N_PROGRAM], tmp_path / "only.h5ad")
    with pytest.raises(PanelError, match="The study 'one' cannot be scored: The 12 genes have none of like expression"):
        stages(GeneScoreLabels(programs()[:1]), [only])


class TestCellTypes:
    def test_only_those_named_take_part(self, cells, path, tmp_path):
        found = stages(fresh(cell_types={"one": ["round"]}), [path])
        round_ = (cells.obs["cell_type"] == "round").to_numpy()
        assert (found[~round_] == LEFT_OUT).all()
        alone = written(cells[round_], tmp_path / "round.h5ad")
        assert (found[round_] == stages(fresh(), [alone])).all()
        assert fresh(cell_types={"one": ["round"]}).counted([path], PLAIN).studies[0].n_cells == round_.sum()

    def test_another_data_set_is_not_asked(self, path):
        assert (stages(fresh(cell_types={"two": ["round"]}), [path]) == stages(fresh(), [path])).all()

    def test_a_misspelt_one_is_refused(self, path):
        with pytest.raises(PanelError, match="No cell of the data set 'one' is of the type 'rond'"):
            stages(fresh(cell_types={"one": ["rond"]}), [path])


def test_files_are_read_once_and_again_when_they_change(cells, tmp_path, monkeypatch):
    path = written(cells, tmp_path / "one.h5ad")
    labels, calls = fresh(), []
    score = GeneScoreLabels._score
    monkeypatch.setattr(GeneScoreLabels, "_score", lambda *args: calls.append(1) or score(*args))
    first = stages(labels, [path])
    assert (stages(labels, [path]) == first).all()
    assert len(calls) == 1
    stages(labels, [path], PanelReading(donors=("d0",)))
    assert len(calls) == 2
    written(phased_cells("one", seed=8), path)
    assert not (stages(labels, [path]) == first).all()


class TestPanels:
    @pytest.fixture
    def ruler(self, tmp_path):
        return read_stage_ruler(write_phases(tmp_path / "recipe"))

    @pytest.mark.parametrize("min_cells", [3, 9])
    def test_anchors_are_means_of_cells_of_one_type_and_phase(self, cells, path, ruler, min_cells):
        labels = fresh()
        panel = build_panel([path], genes=GENES, labels=labels, ruler=ruler, min_cells=min_cells)
        found = stages(labels, [path])
        values = cells.X.toarray() / cells.X.sum(axis=1) * 1e4
        values = np.log1p(np.asarray(values)[:, cells.var_names.get_indexer(GENES)])
        groups = cells.obs.assign(stage=found).reset_index().groupby(["donor", "cell_type", "stage"]).indices
        expected = {key: rows for key, rows in groups.items() if key[2] != LEFT_OUT and len(rows) >= min_cells}
        keys = list(zip(panel.donor, panel.cell_type, panel.stage, strict=True))
        assert sorted(keys) == sorted(expected)
        assert len({key[:2] for key in keys}) < len(keys)
        assert np.allclose(panel.anchors, [values[expected[key]].mean(axis=0) for key in keys], atol=1e-5)
        assert list(panel.branch) == list(panel.stage)

    def test_cells_and_members_are_those_with_a_phase(self, cells, path, ruler):
        labels = fresh()
        told = stages(labels, [path]) != LEFT_OUT
        members = read_panel_members([path], labels=labels)
        assert list(members.ids) == cells.obs_names[told].tolist()
        drawn = read_panel_cells(
            [path], genes=GENES, labels=labels, ruler=ruler, max_per_stage=None, rng=np.random.default_rng(0)
        )
        assert list(drawn.stage) == stages(labels, [path])[told].tolist()

    def test_a_specification_names_the_recipe(self, path, ruler, tmp_path):
        recipe = str(tmp_path / "recipe")
        spec = PanelSpec(name="mine", role="external", files=(str(path),), labels=recipe, min_cells=3)
        built = build_panels(PanelSet(panels=(spec,)), ruler=ruler)["mine"]
        assert set(built.panel.stage) <= set(PHASES)
        assert built.labels.entry.programs == list(programs())
        kept = tmp_path / "mine.h5ad"
        write_panel(built, kept)
        again = read_panel(kept)
        assert again.labels.digest == built.labels.digest
        assert again.labels.excluded_genes == built.labels.excluded_genes
        assert np.array_equal(again.panel.anchors, built.panel.anchors)

    def test_a_folder_of_panels_finds_the_ruler_of_the_recipe(self, path, ruler, tmp_path):
        spec = PanelSpec(name="mine", role="external", files=(str(path),), labels=str(tmp_path / "recipe"))
        (summary,) = write_panels(PanelSet(panels=(spec,)), tmp_path / "panels")
        assert summary.n_stages == len(PHASES)
        header = json.loads((tmp_path / "panels" / "mine.json").read_text(encoding="utf-8"))
        assert (header["labels"], header["labels_file"]) == ([], "programs.tsv")
        assert header["scored"]["programs"][0]["genes"] == [f"G{i}" for i in range(N_PROGRAM)]

    def test_a_negative_panel_needs_a_table(self, path, ruler, tmp_path):
        spec = PanelSpec(name="no", role="negative", files=(str(path),), labels=str(tmp_path / "recipe"))
        with pytest.raises(PanelError, match=r"The negative panel 'no' names the labels .* score cells of any type"):
            build_panels(PanelSet(panels=(spec,)), ruler=ruler)


def test_what_decides_is_in_the_digest():
    others = [
        fresh(margin=0.6),
        fresh(above=1.0),
        fresh(exclude_genes=False),
        fresh(seed=1),
        fresh(n_bins=11),
        fresh(cell_types={"one": ["round"]}),
        GeneScoreLabels(programs(n_genes=11), n_controls=20, n_bins=10),
    ]
    assert len({LABELS.digest, *(other.digest for other in others)}) == len(others) + 1
    for labels in (LABELS, *others):
        assert GeneScoreLabels.of(labels.entry).digest == labels.digest
    assert fresh(exclude_genes=False).excluded_genes == frozenset()
    assert LABELS.excluded_genes == {f"G{i}" for i in range(4 * N_PROGRAM)}


def test_a_table_is_one_of_the_kind():
    table = LabelTable({("a", "x"): "early", ("a", "y"): LEFT_OUT}, ontology={("a", "x"): "CL:0000037"})
    assert table.rows == [("a", "x", "early", "CL:0000037"), ("a", "y", LEFT_OUT, "")]
    assert (table.entry, table.counted([], PLAIN), table.excluded_genes) == (None, None, frozenset())

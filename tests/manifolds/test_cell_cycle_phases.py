"""The cell cycle recipe on real cells: who cycles, and in which phase, as far as it is known."""

from __future__ import annotations

import numpy as np
import pytest

from manifoldzoo.manifolds._count_file import PLAIN, list_cells
from manifoldzoo.manifolds._labels import LEFT_OUT
from manifoldzoo.manifolds._recipe import read_recipe, recipe_folder
from manifoldzoo.manifolds.demo import demo_path


@pytest.fixture(scope="module")
def phases():
    """From a file to the cell type and the phase of its cells."""
    folder = recipe_folder("cell-cycle")
    recipe = read_recipe(folder)
    labels = recipe.labels.read(folder / recipe.labels.file)

    def read(path):
        cells = list_cells([path], PLAIN)
        return cells["cell_type"].to_numpy(), np.array(labels.stages_of(cells, [path], PLAIN))

    return read


def part(types, stage, *names):
    return np.mean(stage[np.isin(types, names)] != LEFT_OUT)


def test_the_bundled_cells_are_in_every_phase_and_most_are_in_none(phases):
    _, stage = phases(demo_path())
    assert set(stage) == {LEFT_OUT, "g1_s", "s", "g2", "g2_m", "m_g1"}
    assert 0.05 < np.mean(stage != LEFT_OUT) < 0.4


@pytest.mark.shared
class TestBiology:
    def test_progenitors_in_blood_cycle_more_than_resting_t_cells(self, phases, shared):
        types, stage = phases(shared / "data" / "blood_zheng2017.h5ad")
        resting = [name for name in np.unique(types) if name.startswith(("CD4+", "CD8+"))]
        assert part(types, stage, "CD34+") > 5 * part(types, stage, *resting)
        assert part(types, stage, *resting) < 0.03

    def test_committed_progenitors_of_marrow_cycle_more_than_stem_cells(self, phases, shared):
        types, stage = phases(shared / "data" / "marrow_setty2019.h5ad")
        stem = part(types, stage, "Hematopoietic stem cells_CD133+ CD34dim")
        assert part(types, stage, "Erythroid_CD34+ CD71+ GlyA-") > 2 * stem
        assert part(types, stage, "Megakaryocyte/erythroid progenitors") > 2 * stem

    def test_s_and_g2_m_hardly_occur_in_stem_cells_of_marrow(self, phases, shared):
        types, stage = phases(shared / "data" / "marrow_setty2019.h5ad")
        stem = types == "Hematopoietic stem cells_CD133+ CD34dim"
        late = np.isin(stage, ["s", "g2", "g2_m"])
        assert late[stem].mean() < 0.01 < 0.03 < late[types == "Erythroid_CD34+ CD71+ GlyA-"].mean()

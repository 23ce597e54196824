"""Files of one panel that are read in different ways."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from manifoldzoo.cards._errors import PanelError
from manifoldzoo.manifolds._count_file import PLAIN, PanelReading, list_cells
from manifoldzoo.manifolds._labels import LabelTable
from manifoldzoo.manifolds._panel import build_panel, read_panel_cells
from manifoldzoo.manifolds._ruler import Edge, Stage, StageRuler

GENES = ["G1", "G2", "G3"]
RULER = StageRuler("made", "1", (Stage("a", "A", "", "x"), Stage("b", "B", "", "y")), (Edge("b", "a", "made"),), "a")
LABELS = LabelTable(
    {("one", "coarse"): "-", ("two", "coarse"): "a", ("two", "other"): "b"}
    | {("one", "left"): "a", ("one", "right"): "b"}
)


def write(folder, study: str, seed: int):
    """Twelve cells in two donors: ``cell_type`` is coarse, ``cell_state`` tells left from right."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 9, size=(12, 3)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "dataset": study,
            "donor": ["d1"] * 6 + ["d2"] * 6,
            "tissue": "skin",
            "cell_type": ["coarse"] * 9 + (["other"] * 3 if study == "two" else ["coarse"] * 3),
            "cell_state": ["left", "right"] * 6,
        },
        index=[f"{study}-{i}" for i in range(12)],
    )
    layers = {"doubled": sparse.csr_matrix(2 * counts)}
    data = ad.AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=GENES), layers=layers)
    path = folder / f"{study}.h5ad"
    data.write_h5ad(path)
    return path


@pytest.fixture
def paths(tmp_path):
    return [write(tmp_path, "one", 0), write(tmp_path, "two", 1)]


BY_STATE = PanelReading(columns={"cell_type": "cell_state"})


def anchors(paths, reading):
    return build_panel(paths, genes=GENES, labels=LABELS, ruler=RULER, min_cells=3, reading=reading)


def test_each_file_has_its_own_columns(paths):
    both = anchors(paths, PanelReading(by_file={"one.h5ad": BY_STATE}))
    assert list(zip(both.study, both.cell_type, both.donor, strict=True)) == [
        *(("one", state, donor) for donor in ("d1", "d2") for state in ("left", "right")),
        *(("two", "coarse", "d1"), ("two", "coarse", "d2"), ("two", "other", "d2")),
    ]
    # the same anchors as from each file alone
    first = anchors(paths[:1], BY_STATE)
    assert np.array_equal(both.anchors[:4], first.anchors)
    assert np.array_equal(both.anchors[4:], anchors(paths[1:], PLAIN).anchors)
    # and not those of a plain reading, which has no stage for the coarse cells of the first file
    with pytest.raises(PanelError, match="'left' of the data set 'two'"):
        anchors(paths, BY_STATE)


def test_layers_and_cells_are_read_by_file(paths):
    reading = PanelReading(by_file={"one.h5ad": replace(BY_STATE, layer="doubled")})
    given = {"genes": GENES, "labels": LABELS, "ruler": RULER, "max_per_stage": None, "rng": np.random.default_rng(0)}
    cells = read_panel_cells(paths, **given, reading=reading)
    plain = read_panel_cells(paths, **given, reading=PanelReading(by_file={"one.h5ad": BY_STATE}))
    assert np.array_equal(cells.totals[:12], 2 * plain.totals[:12])
    assert np.array_equal(cells.totals[12:], plain.totals[12:])
    assert cells.stage[:4] == ("a", "b", "a", "b")


def test_filters_concern_the_files_that_they_are_of(paths):
    reading = PanelReading(exclude_donors=("d2",), by_file={"one.h5ad": replace(BY_STATE, cell_types=("left",))})
    cells = list_cells(paths, reading)
    assert set(cells["cell_type"][cells["dataset"] == "one"]) == {"left"}
    assert set(cells["donor"][cells["dataset"] == "one"]) == {"d1", "d2"}
    assert set(cells["donor"][cells["dataset"] == "two"]) == {"d1"}
    assert len(cells) == 12
    # a name that only the other file has is misspelt here
    with pytest.raises(PanelError, match="'cell_types' names 'other'"):
        list_cells(paths, PanelReading(by_file={"one.h5ad": PanelReading(cell_types=("other",))}))


def test_two_files_that_are_read_alike_share_their_filters(paths):
    alike = PanelReading(cell_types=("other",))
    # only the second file has the name, and the filter is of both
    cells = list_cells(
        paths, PanelReading(by_file={"one.h5ad": alike, "two.h5ad": PanelReading(cell_types=("other",))})
    )
    assert set(cells["dataset"]) == {"two"}


def test_a_file_of_another_name_is_read_plainly(paths):
    assert PanelReading(by_file={"three.h5ad": BY_STATE}).of(paths[0]).columns == {}
    assert BY_STATE.of(paths[0]) is BY_STATE


def test_a_nameless_cell_is_told_with_the_column_of_its_own_file(paths, tmp_path):
    broken = ad.read_h5ad(paths[0])
    broken.obs["cell_state"] = broken.obs["cell_state"].astype(str).where(np.arange(12) > 0, "")
    broken.write_h5ad(paths[0])
    with pytest.raises(PanelError, match="no cell_type") as caught:
        list_cells(paths, PanelReading(by_file={"one.h5ad": BY_STATE}))
    assert "'cell_state'" in caught.value.hint

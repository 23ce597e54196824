"""``validate --panel``: what is told, what is kept, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from own_cells import own_cells, write_own_cells

from manifoldzoo.__main__ import run
from manifoldzoo.cards._evidence import EvidenceRun
from manifoldzoo.manifolds.demo import demo_path
from manifoldzoo.registry._catalogue import info
from manifoldzoo.registry._evidence_files import highest_rung, read_evidence


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Cells of three donors, of which one label is unknown."""
    labels = ["stem", "left_1", "left_2", "left_3", "right_1", "mystery"]
    return write_own_cells(tmp_path / "mine.h5ad", labels=labels)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def in_process(capsys) -> Callable[..., Done]:
    """Run the command line without the second that a new process takes to import."""

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(status, out, err)

    return call


def told(done: Done, status: int) -> dict[str, Any]:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_as_json_and_beside_a_folder(in_process, artifact, mine, tmp_path):
    folder = Path(shutil.copytree(artifact, tmp_path / "artifact"))
    assert in_process("validate", folder, "--through", "2").returncode == 0
    figures = {path.name: path.read_bytes() for path in (folder / "figures").glob("*")}
    document = told(in_process("validate", folder, "--panel", mine, "--through", "2", "--json"), 0)
    assert (document["reference"], document["rung_reached"]) == ("tiny@0.1.0", 2)
    own = document["own_panel"]
    assert (own["name"], own["n_anchors"], own["unmapped"]) == ("mine.h5ad", 15, {"mystery": 18})
    assert [need["rung"] for need in own["needs"]] == [1, 2]
    digest = document["digest"]
    first, second = read_evidence(folder, digest)
    assert (first.own_panel, second.own_panel.name) == (None, "mine.h5ad")
    # neither the rung nor the figures of the artifact hang on cells that nobody else has
    assert highest_rung(folder, digest) == info(folder)["rung"] == 2
    for path in (folder / "evidence").glob("*.json"):
        if EvidenceRun.model_validate_json(path.read_bytes()).own_panel is None:
            path.unlink()
    assert highest_rung(folder, digest) == info(folder)["rung"] == 0
    assert {path.name: path.read_bytes() for path in (folder / "figures").glob("*")} == figures
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "### On cells of users" in text
    assert "| mine.h5ad | 15 | 1 | not run |" in text
    assert "mine.h5ad" in json.dumps(told(in_process("info", folder, "--json"), 0))
    kept = len(list((folder / "evidence").glob("*.json")))
    told(in_process("validate", folder, "--panel", mine, "--through", "1", "--no-save", "--json"), 0)
    assert len(list((folder / "evidence").glob("*.json"))) == kept


def test_without_a_panel_the_shape_is_the_same(in_process, artifact):
    document = told(in_process("validate", artifact, "--through", "1", "--no-save", "--json"), 0)
    assert document["own_panel"] is None


def test_for_people(in_process, artifact, mine, tmp_path):
    table = tmp_path / "labels.tsv"
    table.write_text("left_3\tleft_2\nstem\t-\nnobody\tstem\n", encoding="utf-8")
    done = in_process("validate", artifact, "--panel", mine, "--labels", table, "--through", "3", "--no-save")
    assert done.returncode in (0, 1)
    said = " ".join(done.stdout.split())
    for part in (
        "Your panel mine.h5ad: 12 anchors of 72 of 108 cells",
        "left_3 left_2 own table 18 3",
        "Left out by your table: stem (18).",
        "Labels without a stage: mystery (18).",
        "--labels FILE.tsv",
        "Labels of your table that no cell has: nobody.",
        "own_refitted_study_holdout 2 studies 1 study too little",
        "your panel is not asked",
    ):
        assert part in said
    assert said.index("own_refitted_random_holdout") < said.index("Your panel") < said.index("What each rung needs")


def test_columns_that_are_named(in_process, artifact, tmp_path):
    cells = own_cells(study=None)
    cells.obs = cells.obs.rename(columns={"cell_type": "what", "donor": "who", "tissue": "where"})
    cells.obs["batch"] = "b"
    cells.layers["raw_counts"] = cells.X.copy()
    cells.X = cells.X * 0.5
    cells.var["symbol"] = cells.var_names.to_numpy()
    cells.var_names = [f"v{number}" for number in range(cells.n_vars)]
    cells.write_h5ad(tmp_path / "odd.h5ad")
    keys = ["--cell-type-key", "what", "--donor-key", "who", "--tissue-key", "where", "--study-key", "batch"]
    more = ["--layer", "raw_counts", "--gene-column", "symbol", "--through", "1", "--no-save", "--json"]
    own = told(in_process("validate", artifact, "--panel", tmp_path / "odd.h5ad", *keys, *more), 0)["own_panel"]
    assert own["columns"] == {"cell_type": "what", "donor": "who", "study": "batch", "tissue": "where"}
    assert (own["layer"], own["n_anchors"]) == ("layers/raw_counts", 18)


@pytest.mark.parametrize(
    ("arguments", "status", "kind", "said"),
    [
        (["--panel", "none.h5ad"], 3, "NotFoundError", "none.h5ad"),
        (["--labels", "labels.tsv"], 2, "BadInputError", "--labels is about cells of your own"),
        (["--donor-key", "who"], 2, "BadInputError", "--donor-key is about"),
        (["--panel", "mine.h5ad", "--donor-key", "who"], 2, "PanelError", "'cell_type', 'donor', 'tissue', 'study'"),
        (["--panel", "mine.h5ad", "--labels", "none.tsv"], 2, "FormatError", "none.tsv"),
        (["--panel", "mine.h5ad", "--layer", "counts"], 2, "PanelError", "layers/counts"),
    ],
)
def test_refusals(in_process, artifact, mine, monkeypatch, arguments, status, kind, said):
    monkeypatch.chdir(mine.parent)
    done = in_process("validate", artifact, *arguments, "--no-save", "--json")
    error = told(done, status)["error"]
    assert error["type"] == kind
    assert said in error["message"]
    assert error["hint"] or kind == "FormatError"


def test_the_bundled_cells_with_the_bundled_artifact(run_cli):
    """As a real process."""
    done = run_cli("validate", "hematopoietic", "--panel", demo_path(), "--through", "2", "--json")
    own = told(done, 0)["own_panel"]
    assert (own["n_anchors"], own["n_donors"], own["coverage"]) == (29, 2, 1.0)
    assert own["columns"]["study"] == "dataset"


@pytest.mark.slow
def test_the_bundled_cells_are_no_strangers(in_process):
    document = told(in_process("validate", "hematopoietic", "--panel", demo_path(), "--json"), 1)
    transfers = document["rungs"][4]
    assert (transfers["rung"], transfers["status"]) == (5, "fail")
    failed = {record["gate"] for record in transfers["records"] if record["status"] == "fail" and record["decides"]}
    assert "own_no_shared_donors" in failed

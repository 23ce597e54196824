"""``reproduce`` as a real process, with a tiny model and real cells."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from small import common_genes, write_one_count_more, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo import _reproducing
from manifoldzoo.__main__ import run
from manifoldzoo.manifolds._manifold import Manifold

pytestmark = pytest.mark.usefixtures("needs_torch")


@pytest.fixture(scope="module")
def needs_torch() -> None:
    pytest.importorskip("torch")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, needs_torch: None) -> Path:
    """Cells, recipe and model, an artifact made of them, and the same under a card with another seed."""
    from manifoldzoo.extractors import extract

    folder = tmp_path_factory.mktemp("job")
    cells = write_small_cells(folder / "cells.h5ad")
    recipe = write_small_recipe(folder / "recipe", 'kind = "attention_mean"')
    model = write_tiny_scgpt(folder / "model", genes=common_genes(cells), n_layers=3, n_heads=2)
    made = extract(recipe, cells=[cells], checkpoint=model, name="mine")
    made.save(folder / "made")
    extraction = made.card.extraction.model_copy(update={"seed": 17})
    card = made.card.model_copy(update={"extraction": extraction})
    Manifold.build(card, made.genes, made.tensors, made.vectors).save(folder / "forged")
    return folder


def source(*, cells: str = "cells.h5ad") -> list[str]:
    return ["--recipe", "./recipe", "--cells", cells, "--checkpoint", "model"]


def test_the_same_bytes_for_people_and_as_json(run_cli, folder):
    done = run_cli("reproduce", "./made", *source(), "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    digest = Manifold.read(folder / "made").digest
    assert (told["schema"], told["verdict"], told["digest"], told["digest_here"]) == (1, "bit for bit", digest, digest)
    assert (told["causes"], told["card"], told["software"], told["folder"]) == ([], [], [], None)
    assert all(tensor["equal"] for tensor in told["tensors"])
    plain = run_cli("reproduce", "./made", *source(), "-o", "again", cwd=folder)
    assert plain.returncode == 0, plain.stderr
    assert "\x1b" not in plain.stdout
    lines = plain.stdout.splitlines()
    assert lines[0] == f"{told['reference']}: bit for bit"
    assert told["reference"].startswith("mine@")
    assert lines[1].count(digest) == 2
    assert "likely cause" not in plain.stdout
    assert f"{len(told['tensors'])} of {len(told['tensors'])} tensors are equal" in plain.stdout
    assert any(line.split()[::3] == ["latent", "pass"] for line in lines if line.startswith("latent"))
    assert (folder / "again" / "MANIFEST.json").read_bytes() == (folder / "made" / "MANIFEST.json").read_bytes()
    assert not (folder / "again.unfinished").exists()


def test_what_differs_exits_with_1_and_says_where(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert run(["reproduce", "./forged", *source(), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "differs"
    assert "panel.anchors" in {tensor["name"] for tensor in told["tensors"] if tensor["equal"]}
    assert "adaptor.weights" in {tensor["name"] for tensor in told["tensors"] if not tensor["equal"]}
    assert "extraction.adaptor.loss" in {field["field"] for field in told["card"]}
    assert run(["reproduce", "./forged", *source()]) == 1
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert shown.splitlines()[0].endswith(": differs")
    assert "likely cause: " in shown
    assert "extraction.adaptor.loss" in shown
    equal = sum(tensor["equal"] for tensor in told["tensors"])
    assert f"{equal} of {len(told['tensors'])} tensors are equal to the bit" in shown
    more = len(told["tensors"]) - equal - _reproducing.SHOWN
    assert (f"... and {more} more tensors; --json lists all." in shown) == (more > 0)
    # the largest first
    listed = shown[shown.index("tensor ") :].splitlines()[1 : 1 + _reproducing.SHOWN]
    sizes = [float(line.split()[2]) for line in listed]
    assert sizes == sorted(sizes, reverse=True)


def test_a_changed_file_and_another_model_are_refused(folder, monkeypatch, capsys, tmp_path):
    write_one_count_more(folder / "cells.h5ad", tmp_path / "cells.h5ad")
    monkeypatch.chdir(folder)
    assert run(["reproduce", "./made", *source(cells=str(tmp_path / "cells.h5ad")), "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "PanelError"
    assert str(tmp_path / "cells.h5ad") in error["message"]
    assert run(["reproduce", "./made", "--recipe", "./recipe", "--cells", "cells.h5ad"]) == 2
    shown, errors = capsys.readouterr()
    assert shown == ""
    assert errors.startswith("error: The checkpoint has the digest ")
    assert "--checkpoint DIR" in errors


def test_interrupted_it_goes_on_where_it_stopped(folder, monkeypatch, capsys):
    from manifoldzoo.extractors.operators import _attention

    monkeypatch.chdir(folder)
    monkeypatch.setattr(_attention, "_GROUP_FLOATS", (2000, 2000))
    seen: list[int] = []

    def reporting(stop_at: int):
        @contextmanager
        def told(description: str):
            def progress(label: str, done: int, total: int) -> None:
                if label == "attention":
                    seen.append(done)
                    if done >= stop_at:
                        raise KeyboardInterrupt

            yield progress

        return told

    arguments = ["reproduce", "./made", *source(), "-o", "resumed", "--json"]
    monkeypatch.setattr(_reproducing, "reporting", reporting(30))
    assert run(arguments) == 130
    assert "resumed.unfinished" in capsys.readouterr().err
    assert [path.name for path in (folder / "resumed.unfinished").iterdir()] == ["attention.state"]
    assert not (folder / "resumed").exists()
    stopped = seen[-1]
    seen.clear()
    monkeypatch.setattr(_reproducing, "reporting", reporting(10**9))
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "bit for bit"
    assert min(seen) >= stopped > 0
    assert not (folder / "resumed.unfinished").exists()
    assert (folder / "resumed" / "MANIFEST.json").read_bytes() == (folder / "made" / "MANIFEST.json").read_bytes()

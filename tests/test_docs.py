"""Every command and every line of Python in the README and the docs runs, offline, as a reader would run it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import anndata as ad
import pytest
from phases import phased_cells
from small import write_small_cells, write_small_recipe

from manifoldzoo.cards._adaptor import AdaptorKind
from manifoldzoo.cards._card import Combination, ControlKind, OperatorKind
from manifoldzoo.cards._evidence_plan import EvidencePlan
from manifoldzoo.extractors import reference_checkpoint
from manifoldzoo.manifolds._labels_recipe import GeneScores
from manifoldzoo.manifolds._panel_spec import read_panel_set
from manifoldzoo.manifolds._programs import read_programs
from manifoldzoo.manifolds._recipe import (
    ADAPTORS,
    AdaptorRecipe,
    ChoiceRecipe,
    OperatorRecipe,
    read_recipe,
    recipe_folder,
)
from manifoldzoo.manifolds._ruler_recipe import InteractionRecipe
from manifoldzoo.manifolds.demo import demo_path
from manifoldzoo.registry import load
from manifoldzoo.registry._evidence_files import read_evidence

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(README) if found == language]


def test_python_of_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks("python"))], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "(713, 10)"
    assert f"```\n{run.stdout.strip()}\n```" in README


def test_commands_of_the_readme_run(tmp_path: Path) -> None:
    commands = [line for code in blocks("sh") for line in code.splitlines() if line.startswith("manifoldzoo ")]
    assert len(commands) >= 12
    shutil.copy(demo_path(), tmp_path / "cells.h5ad")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for command in commands:
        arguments = command.split()[1:]
        run = subprocess.run(
            [sys.executable, "-m", "manifoldzoo", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert run.returncode == 0, f"{command}: {run.stderr}"
    assert (tmp_path / "placed.h5ad").exists()


def test_commands_of_the_page_on_operators_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    code = [block for language, block in BLOCK.findall(page) if language == "sh"]
    commands = [line for block in code for line in block.splitlines() if line.startswith("manifoldzoo ")]
    assert len(commands) == 2
    write_small_cells(tmp_path / "cells.h5ad")
    for command in commands:
        arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:]]
        run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"
    assert (tmp_path / "untrained" / "card.json").exists()
    assert {path.name for path in (tmp_path / "atlas").iterdir()} == {"heads.tsv", "heads.json", "heads.png"}


def test_recipes_of_the_page_on_operators_are_recipes() -> None:
    page = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    named, left_open = [tomllib.loads(code) for language, code in BLOCK.findall(page) if language == "toml"]
    assert OperatorRecipe.model_validate(named["operator"]).combination == "drift"
    bundled = read_recipe(recipe_folder("hematopoietic")).choice
    assert ChoiceRecipe.model_validate(left_open["choice"]) == bundled
    kinds = re.findall(r"^\| `(\w+)` \| ", page.split("| combination |")[0], re.M)
    assert kinds == list(get_args(OperatorKind))
    for choices in (Combination, ControlKind):
        assert all(f"| `{choice}` |" in page for choice in get_args(choices))


def test_the_page_on_heads_names_every_kind_and_every_parameter_with_its_default() -> None:
    page = (ROOT / "docs" / "heads.md").read_text(encoding="utf-8")
    (block,) = [code for language, code in BLOCK.findall(page) if language == "toml"]
    assert AdaptorRecipe.model_validate(tomllib.loads(block)["adaptor"]).kind == "let-hybrid"
    kinds, parameters = (re.findall(r"^\| `([\w-]+)` \| ", part, re.M) for part in page.split("| parameter |"))
    assert kinds == list(get_args(AdaptorKind)) == list(ADAPTORS)
    assert sorted(parameters) == sorted(set(AdaptorRecipe.model_fields) - {"kind"})
    said = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|", page, re.M))
    for name, default in ADAPTORS["let-anchor"].items() | ADAPTORS["let-hybrid"].items():
        assert ("none" if default is None else str(default)) in said[name], name


def test_the_specification_and_the_commands_of_the_page_on_panels_work(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "panels.md").read_text(encoding="utf-8")
    ((_, spec),) = [block for block in BLOCK.findall(page) if block[0] == "toml"]
    (tmp_path / "panels.toml").write_text(spec, encoding="utf-8")
    external, negative = read_panel_set(tmp_path / "panels.toml").panels
    assert (external.role, negative.role, negative.stages) == ("external", "negative", "assigned")
    # the same commands, on panels that there are: the two runs of the bundled cells
    cells = ad.read_h5ad(write_small_cells(tmp_path / "all.h5ad"))
    first, second = sorted(cells.obs["donor"].astype(str).unique())
    cells[cells.obs["donor"] == first].copy().write_h5ad(tmp_path / "cells.h5ad")
    cells[cells.obs["donor"] == second].copy().write_h5ad(tmp_path / "other.h5ad")
    other = '[[panels]]\nname = "external"\nrole = "external"\nfiles = ["other.h5ad"]\nlabels = "hematopoietic"\n'
    (tmp_path / "panels.toml").write_text(other, encoding="utf-8")
    commands = [line for language, code in BLOCK.findall(page) if language == "sh" for line in code.splitlines()]
    assert [line.split()[:2] for line in commands] == [
        ["manifoldzoo", name] for name in ("panel", "extract", "validate", "reproduce")
    ]
    # a small model and few cells: what is tried is the command, not the numbers
    recipe = write_small_recipe(tmp_path / "recipe", 'kind = "token_qk"')
    changes = {
        " hematopoietic ": f" {recipe} ",
        "--through 6": "--through 2 --json",
        "reproduce ./with-panels": f"reproduce ./with-panels --recipe {recipe}",
    }
    said = []
    for command in commands:
        for old, new in changes.items():
            command = command.replace(old, new)
        arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:]]
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said.append(done.stdout)
    assert {path.name for path in (tmp_path / "panels").iterdir()} == {"external.h5ad", "external.json"}
    card = json.loads((tmp_path / "with-panels" / "card.json").read_text(encoding="utf-8"))
    assert [panel["name"] for panel in card["panels"]] == ["external"]
    assert len(card["untrained"]) == 5
    assert said[-1].splitlines()[0].endswith(": bit for bit")


def test_python_of_the_page_on_gates_prints_what_it_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    codes = [code for language, code in BLOCK.findall(page) if language == "python"]
    assert len(codes) == 2
    for code in codes:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, run.stderr
        assert f"```\n{run.stdout}```" in page


def test_commands_of_the_page_on_gates_write_reports(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    code = "\n".join(block for language, block in BLOCK.findall(page) if language == "sh")
    commands = [line for line in code.splitlines() if line.endswith(".html")]
    assert [line.split()[1] for line in commands] == ["validate", "report"]
    for command in commands:
        # what is tried is the command: six rungs take minutes
        arguments = [sys.executable, "-m", "manifoldzoo", *command.replace("--through 6", "--through 1").split()[1:]]
        run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"
    assert "As stored" not in (tmp_path / "validated.html").read_text(encoding="utf-8")
    assert "As stored" in (tmp_path / "stored.html").read_text(encoding="utf-8")


def test_the_plan_and_the_list_of_the_page_on_gates(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    found = BLOCK.findall(page)
    (plan,) = (tomllib.loads(code) for language, code in found if language == "toml")
    assert plan["evidence"] == EvidencePlan().model_dump()
    code = "\n".join(block for language, block in found if language == "sh")
    (command,) = (line for line in code.splitlines() if line.endswith(" --list"))
    arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:]]
    run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert "beats_random_init" in run.stdout


def test_commands_of_the_page_on_gates_read_own_cells(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gates.md").read_text(encoding="utf-8")
    code = "\n".join(block for language, block in BLOCK.findall(page) if language == "sh")
    commands = [line for line in code.splitlines() if " --panel " in line]
    assert len(commands) == 2
    shutil.copy(demo_path(), tmp_path / "cells.h5ad")
    (tmp_path / "mine.tsv").write_text("Early B cells\tpro_b\nEosinophils\t-\n", encoding="utf-8")
    for command in commands:
        # what is tried is the reading: five rungs take minutes
        arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:], "--through", "1", "--json"]
        run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"
        own = json.loads(run.stdout)["own_panel"]
        assert own["n_anchors"] == 29
        assert ("Early B cells" in own["unmapped"]) == ("--labels" not in command)


def test_the_page_on_communication_prints_what_it_says(tmp_path: Path) -> None:
    found = BLOCK.findall((ROOT / "docs" / "communication.md").read_text(encoding="utf-8"))
    code = "\n".join(block for language, block in found if language == "python")
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == "".join(block for language, block in found if language == "")
    assert {"sender_receiver.png", "interaction_map.png"} <= {path.name for path in tmp_path.iterdir()}


def test_the_command_and_the_recipe_of_the_page_on_communication_are_read(tmp_path: Path) -> None:
    found = BLOCK.findall((ROOT / "docs" / "communication.md").read_text(encoding="utf-8"))
    (command,) = (block for language, block in found if language == "sh")
    (ruler,) = (tomllib.loads(block) for language, block in found if language == "toml")
    assert InteractionRecipe.model_validate(ruler["ruler"]).n_nulls == 20
    shutil.copy(demo_path(), tmp_path / "cells.h5ad")
    arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:], "--json"]
    run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)["groups"]["names"]) == 24


def test_the_tables_of_the_page_on_communication_are_those_of_the_artifact() -> None:
    page = (ROOT / "docs" / "communication.md").read_text(encoding="utf-8")
    manifold = load("communication")
    told = manifold.card.ruler.interaction
    assert told is not None
    assert told.curated is not None
    for file in told.files:
        assert f"| {file.n_groups} | {file.n_ligands} | {file.n_receptors} |" in page, file.name
    assert f"{told.n_pairs} pairs of {told.n_ligands} ligand and {told.n_receptors} receptor genes" in page
    nulls = told.curated.null_auroc
    assert f"| {told.curated.auroc:.2f}; its 20 nulls {min(nulls):.2f} to {max(nulls):.2f} |" in page
    assert manifold.path is not None
    run = read_evidence(manifold.path, manifold.digest)[-1]
    records = {record.gate: record.statistic for rung in run.rungs for record in rung.records}
    row = "| trustworthiness {trustworthiness:.2f} (k = 10), random {random_holdout:.2f}, donors {donor_holdout:.2f}, "
    row += "classes {branch_holdout:.2f}, blocked permutation p 0.001 |"
    assert row.removeprefix("| ").format(**records) in page
    assert "studies {study_floor:.2f} and classes {branch_floor:.2f} ".format(**records) in page
    assert "{external_all:.2f}, between donors {external_between_donors:.2f}, ".format(**records) in page


@pytest.mark.slow
def test_the_files_and_the_commands_of_the_page_on_new_manifolds_work(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "new_manifold.md").read_text(encoding="utf-8")
    found = BLOCK.findall(page)
    for language, code in found:
        if language in ("tsv", "toml"):
            path = tmp_path / code.partition("\n")[0].removeprefix("# ")
            path.parent.mkdir(exist_ok=True)
            path.write_text(code, encoding="utf-8")
    names = {path.name for path in (tmp_path / "phases").iterdir()}
    assert names == {"stages.tsv", "edges.tsv", "programs.tsv", "recipe.toml"}
    # cells in which the programs of the page are planted, with other genes that the bundled model knows
    programs = read_programs(tmp_path / "phases" / "programs.tsv")
    planted = [gene for program in programs for gene in program.genes]
    known = json.loads((reference_checkpoint() / "vocab.json").read_text(encoding="utf-8"))
    others = sorted(gene for gene in known if gene not in planted and gene[0] != "<")
    for seed, name in enumerate(("cells", "other")):
        cells = phased_cells(name, seed=seed, n_cells=150)
        cells.var_names = [*planted, *others[: cells.n_vars - len(planted)]]
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    commands = [line for language, code in found if language == "sh" for line in code.splitlines()]
    assert [line.split()[1] for line in commands] == ["extract", "validate", "validate"]
    said = []
    for command in commands:
        # what is tried is the command: six rungs take minutes
        command = command.replace("--through 6", "--through 2").replace("other.h5ad", "other.h5ad --through 2 --json")
        arguments = [sys.executable, "-m", "manifoldzoo", *command.split()[1:]]
        run = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert run.returncode == 0, f"{command}: {run.stderr}"
        said.append(run.stdout)
    card = json.loads((tmp_path / "my-phases" / "card.json").read_text(encoding="utf-8"))
    assert [program["name"] for program in card["scored_labels"]["programs"]] == [one.name for one in programs]
    assert {one["by"] for one in json.loads(said[-1])["own_panel"]["mapped"]} == {"gene scores"}


def test_the_page_on_new_manifolds_names_every_parameter_with_its_default() -> None:
    page = (ROOT / "docs" / "new_manifold.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", page, re.M))
    defaults = {name: field.default for name, field in GeneScores.model_fields.items()}
    assert said.keys() == defaults.keys()
    shown = {name: str(default).lower() for name, default in defaults.items() if name not in ("kind", "cell_types")}
    assert {name: said[name].strip() for name in shown} == shown


def test_the_bundled_specification_names_what_the_recipe_needs() -> None:
    panels = read_panel_set(ROOT / "manifolds" / "hematopoietic" / "panels.toml").panels
    assert [panel.role for panel in panels] == ["extraction", "external", "zero-shot", "negative"]


PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(
        f"docs/{name}.md"
        for name in (
            "communication",
            "gates",
            "heads",
            "leave_one_study_out",
            "liana_comparison",
            "marrow_order",
            "models",
            "new_manifold",
            "operators",
            "panels",
            "performance",
            "plugins",
        )
    ),
]


@pytest.mark.parametrize("page", [*PAGES, "docs/plugin/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {
        name
        for page in ("README.md", "CONTRIBUTING.md")
        for name in re.findall(r"`?make ([a-z-]+)", (ROOT / page).read_text())
    }
    assert {"demo", "test", "test-all"} <= named
    assert named <= targets


def test_command_line_reference_is_the_programs_own_help() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.render()

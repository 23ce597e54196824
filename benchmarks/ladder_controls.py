"""The whole ladder of a manifold beside the same extraction with something destroyed on purpose.

Extracts the recipe as it is, from the architecture with fresh weights, and with a ruler whose stages were shuffled,
each with its own choices, panels and untrained models; validates each through rung 6 and prints a Markdown table. About
a quarter of an hour each on two cores; what a folder holds already is not extracted again.

    python benchmarks/ladder_controls.py --data FOLDER --work FOLDER
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import manifoldzoo as mz
from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds._ruler import StageRuler, read_stage_ruler

STUDIES = ("marrow_setty2019", "blood_zheng2017", "kidney_stewart2019")
ROWS = ("as the recipe says", "random initialisation", "shuffled ruler")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="hematopoietic")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--work", type=Path, required=True, help="where artifacts are kept")
    parser.add_argument("--only", choices=ROWS, help="make this one and print no table")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    made = {name: options.work / name.replace(" ", "-") for name in ROWS}
    for name, folder in made.items():
        if options.only in (None, name):
            make(name, folder, options.recipe, options.data)
    if options.only is None:
        show({name: newest(folder) for name, folder in made.items()})


def make(name: str, folder: Path, recipe: str, data: Path) -> None:
    """Extract and validate one of the rows, unless that was done."""
    asked = recipe_folder(recipe)
    if name == "shuffled ruler":
        asked = shuffled_recipe(asked, folder.with_name("shuffled-recipe"))
    if not folder.exists():
        cells = [part for study in STUDIES for part in ("--cells", str(data / f"{study}.h5ad"))]
        panels = ["--panels", str(asked / "panels.toml"), "--data", str(data), "--untrained", "5"]
        control = ["--control", "random-init", "--control-seed", "100"] if name == "random initialisation" else []
        run("extract", str(asked), *cells, *panels, *control, "--output", str(folder))
    if not list((folder / "evidence").glob("*.json")):
        run("validate", str(folder), "--through", "6", fine=(0, 1))


def shuffled_recipe(source: Path, folder: Path) -> Path:
    """The recipe with the paired null ruler in place of its own."""
    if not folder.exists():
        shutil.copytree(source, folder)
        write_ruler(read_stage_ruler(source).relabelled(rng=np.random.default_rng(0)), folder)
    return folder


def write_ruler(ruler: StageRuler, folder: Path) -> None:
    """Write the tables that a recipe reads its ruler from."""
    tables = {
        "stages.tsv": [("id", "label", "ontology_id", "branch")]
        + [(stage.id, stage.label, stage.ontology_id, stage.branch) for stage in ruler.stages],
        "edges.tsv": [("child", "parent", "source")] + [(edge.child, edge.parent, edge.source) for edge in ruler.edges],
    }
    for name, rows in tables.items():
        with (folder / name).open("w", newline="", encoding="utf-8") as stream:
            if name == "stages.tsv":
                stream.write(f"# name: {ruler.name}\n# version: {ruler.version}\n")
            csv.writer(stream, delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None).writerows(rows)


def run(*arguments: str, fine: tuple[int, ...] = (0,)) -> None:
    """Run a command of the program, and stop if it does not end as it should."""
    done = subprocess.run([sys.executable, "-m", "manifoldzoo", *arguments], stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in fine:
        raise SystemExit(f"manifoldzoo {arguments[0]} ended with status {done.returncode}.")


def newest(folder: Path) -> dict[str, Any]:
    """The newest evidence beside an artifact."""
    return json.loads(sorted((folder / "evidence").glob("*.json"))[-1].read_bytes())


def show(runs: dict[str, dict[str, Any]]) -> None:
    """Print a row for each gate that decides and for each rung."""
    print(f"| rung | gate | needed | {' | '.join(runs)} |\n| --- | --- | --- |{' --- |' * len(runs)}")
    results = {name: {result["rung"]: result for result in run["rungs"]} for name, run in runs.items()}
    for rung in range(3, 7):
        told = [f"**{results[name][rung]['status']}**" for name in runs]
        print(f"| **{rung}** | **{results[ROWS[0]][rung]['name']}** | | {' | '.join(told)} |")
        gates = {
            record["gate"]: record for name in runs for record in results[name][rung]["records"] if record["decides"]
        }
        for gate, like in gates.items():
            needed = "" if like["threshold"] is None else f"{like['direction']} {like['threshold']:g}"
            found = [{r["gate"]: r for r in results[name][rung]["records"]}.get(gate) for name in runs]
            print(f"| {rung} | {gate} | {needed} | {' | '.join(map(cell, found))} |")


def cell(record: dict[str, Any] | None) -> str:
    """Statistic of a record, marked where it fails; of rung 6 the scores that were compared."""
    if record is None or record["statistic"] is None:
        return "" if record is None else record["status"]
    own, other = (record["details"].get(name) for name in ("own", "other"))
    said = f"{record['statistic']:.3g}"
    if own is not None and other is not None:
        said += f" ({own:.3f} against {other:.3f})"
    return said + (" (fails)" if record["status"] == "fail" else "")


if __name__ == "__main__":
    print(f"<!-- manifoldzoo {mz.__version__} -->", file=sys.stderr)
    main()

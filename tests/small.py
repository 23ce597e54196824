"""A small job on real cells: some of the bundled ones, a short recipe, and the genes that they express most."""

from __future__ import annotations

import shutil
from pathlib import Path

import anndata as ad
import numpy as np

from manifoldzoo.manifolds._recipe import recipe_folder
from manifoldzoo.manifolds.demo import demo_path


def write_small_cells(path: Path, *, per_group: int = 8) -> Path:
    """So many cells of each run and cell type of the bundled cells that has as many."""
    everything = ad.read_h5ad(demo_path())
    groups = everything.obs.groupby(["donor", "cell_type"], observed=True).indices.values()
    rows = np.sort(np.concatenate([rows[:per_group] for rows in groups if len(rows) >= per_group]))
    everything[rows].copy().write_h5ad(path)
    return path


def common_genes(path: Path, n_genes: int = 40) -> list[str]:
    """The genes that most cells of a file express, sorted."""
    cells = ad.read_h5ad(path)
    expressed = np.asarray((cells.X > 0).sum(axis=0)).ravel()
    return sorted(cells.var_names[np.argsort(-expressed, kind="stable")[:n_genes]])


def write_one_count_more(source: Path, target: Path) -> Path:
    """The same file with one molecule more in one cell."""
    cells = ad.read_h5ad(source)
    counts = cells.X.tolil()
    counts[0, 0] += 1
    cells.X = counts.tocsr()
    cells.write_h5ad(target)
    return target


def without_grouped_tasks(recipe: str) -> str:
    """Leave out tasks that group stages, of which the bundled cells have one class only."""
    first, after = recipe.index('[[readouts]]\ntask = "cd4_cd8"'), recipe.index('[[readouts]]\ntask = "depth"')
    return recipe[:first] + recipe[after:]


def without_plan(recipe: str) -> str:
    """Leave out the plan of the evidence, so that a test may draw fewer permutations than any plan allows."""
    before, rest = recipe.split("[evidence]\n")
    return before + rest[rest.index("[[citations]]") :]


def with_operator(recipe: str, operator: str = 'kind = "attention_mean"\ncombination = "drift"') -> str:
    """Name the operator and ten coordinates instead of leaving them to choice, and take few but large steps."""
    before, rest = recipe.split("[choice]\n")
    adaptor = rest[rest.index("[adaptor]") :].replace("[adaptor]\n", "[adaptor]\nn_components = 10\n")
    for line in ("learning_rate = 0.005\n", 'schedule = "cosine"\n'):
        assert line in adaptor
        adaptor = adaptor.replace(line, "")
    return f"{before}[operator]\n{operator}\n\n{adaptor}"


def write_small_recipe(folder: Path, operator: str = "", **changes: str) -> Path:
    """The bundled recipe with few cells and steps, another operator, and other lines replaced."""
    shutil.copytree(recipe_folder("hematopoietic"), folder)
    text = without_plan((folder / "recipe.toml").read_text(encoding="utf-8"))
    text = without_grouped_tasks(with_operator(text, operator))
    for key, value in ({"n_steps": "20", "max_cells_per_stage": "6"} | changes).items():
        assert f"\n{key} = " in text, key
        text = text.replace(f"\n{key} = ", f"\n{key} = {value} # ")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder

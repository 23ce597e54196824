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


def without_grouped_tasks(recipe: str) -> str:
    """Leave out tasks that group stages, of which the bundled cells have one class only."""
    first, after = recipe.index('[[readouts]]\ntask = "cd4_cd8"'), recipe.index('[[readouts]]\ntask = "depth"')
    return recipe[:first] + recipe[after:]


def write_small_recipe(folder: Path, operator: str = "", **changes: str) -> Path:
    """The bundled recipe with few cells and steps, another operator, and other lines replaced."""
    shutil.copytree(recipe_folder("hematopoietic"), folder)
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    before, rest = text.split("[operator]\n")
    text = f"{before}[operator]\n{operator}\n\n{rest[rest.index('[adaptor]') :]}"
    text = without_grouped_tasks(text)
    for key, value in ({"n_steps": "20", "max_cells_per_stage": "6"} | changes).items():
        assert f"\n{key} = " in text, key
        text = text.replace(f"\n{key} = ", f"\n{key} = {value} # ")
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return folder

"""Genes, panel and cells of a job, for models with small and with large vocabularies."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from small import common_genes, write_small_cells, write_small_recipe
from tiny_scgpt import write_tiny_scgpt

from manifoldzoo.cards._errors import PanelError
from manifoldzoo.extractors._extract import make_job
from manifoldzoo.extractors._prepare import panel_genes, prepare
from manifoldzoo.manifolds._labels import read_label_table

N_CHOSEN = 60


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return write_small_cells(tmp_path_factory.mktemp("cells") / "some.h5ad")


@pytest.fixture(scope="module")
def vocabulary(cells):
    """Genes of the cells, genes that no file has, and not every gene of the cells."""
    return [*common_genes(cells, 800), "NOT_A_GENE", "NOR_THIS"]


@pytest.fixture(scope="module")
def job(tmp_path_factory, cells, vocabulary):
    folder = tmp_path_factory.mktemp("job")
    model = write_tiny_scgpt(folder / "model", genes=vocabulary)
    recipe = write_small_recipe(folder / "recipe", min_cells=f"5\nn_genes = {N_CHOSEN}", max_cells_per_stage="1000")
    return make_job(recipe, cells=[cells], checkpoint=model)


def chosen(job, seed=0, **changes):
    given = {
        "checkpoint": job.checkpoint,
        "paths": job.cells,
        "labels": read_label_table(job.labels),
        "ruler": job.ruler,
        "recipe": job.recipe.panel,
        "rng": np.random.default_rng(seed),
    }
    return panel_genes(*(given | changes).values())


def test_a_small_vocabulary_is_kept_whole_and_in_its_order(job, vocabulary):
    recipe = job.recipe.panel.model_copy(update={"n_genes": len(vocabulary)})
    assert chosen(job, recipe=recipe) == tuple(job.checkpoint.genes)


def test_a_large_vocabulary_is_read_on_the_variable_genes_that_it_knows(job, cells):
    genes = chosen(job)
    assert len(genes) == N_CHOSEN
    assert list(genes) == sorted(set(genes) & set(job.checkpoint.genes))
    assert genes == chosen(job)
    everything = ad.read_h5ad(cells)
    sc.pp.normalize_total(everything, target_sum=1e4)
    sc.pp.log1p(everything)
    known = everything[:, sorted(set(everything.var_names) & set(job.checkpoint.genes))].copy()
    sc.pp.highly_variable_genes(known, n_top_genes=N_CHOSEN)
    by_scanpy = set(known.var_names[known.var["highly_variable"]])
    # cells without a stage are left out, so the border may differ
    assert len(by_scanpy & set(genes)) >= 0.95 * N_CHOSEN


def test_two_studies_choose_together(job, cells, tmp_path):
    other = ad.read_h5ad(cells)
    other.obs["dataset"] = other.obs["dataset"].astype(str)
    other = other[:, other.var_names != chosen(job)[0]].copy()
    other.obs_names = [f"other{name}" for name in other.obs_names]
    other.write_h5ad(tmp_path / "other.h5ad")
    genes = chosen(job, paths=(*job.cells, tmp_path / "other.h5ad"))
    assert len(genes) == N_CHOSEN
    # a gene that one file lacks is no candidate
    assert chosen(job)[0] not in genes


def test_files_that_share_too_few_known_genes_are_refused(job, tmp_path, cells):
    strangers = ad.read_h5ad(cells)
    strangers.var_names = [f"MOUSE{i}" for i in range(strangers.n_vars)]
    strangers.write_h5ad(tmp_path / "strangers.h5ad")
    with pytest.raises(PanelError, match=r"knows 0 of the 16106"):
        chosen(job, paths=(tmp_path / "strangers.h5ad",))


def test_model_panel_and_cells_share_one_gene_axis(job):
    prepared = prepare(job, np.random.default_rng(0))
    genes = prepared.panel.genes
    assert prepared.checkpoint.genes == genes
    assert prepared.panel.anchors.shape[1] == prepared.cells.values.shape[1] == len(genes) == N_CHOSEN
    n = len(prepared.panel.anchors)
    assert prepared.distances.shape == (n, n)
    assert prepared.inputs is prepared.cells.values


def test_a_model_that_reads_counts_is_given_counts(job, tmp_path, vocabulary):
    model = write_tiny_scgpt(tmp_path / "model", genes=vocabulary, input_style="counts")
    raw = make_job(job.labels.parent, cells=job.cells, checkpoint=model)
    assert raw.checkpoint.scale == "counts"
    prepared = prepare(replace(raw, recipe=job.recipe), np.random.default_rng(0))
    counts = prepared.inputs
    assert np.array_equal(counts.data, np.rint(counts.data))
    assert counts.data.min() >= 1
    assert (counts != prepared.cells.counts()).nnz == 0

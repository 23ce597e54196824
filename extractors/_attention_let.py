"""The first extractor: mean attention over real cells, LET anchor head, linear readouts."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from sklearn.linear_model import LogisticRegression

from ..cards._card import (
    Adaptor,
    AnchorEntry,
    Card,
    EdgeEntry,
    Extraction,
    GeneAnnotation,
    Operator,
    PanelFileEntry,
    PanelManifest,
    Readout,
    Ruler,
    SourceModel,
    StageEntry,
    Tolerance,
)
from ..cards._errors import PanelError
from ..manifolds._digests import anchors_digest
from ..manifolds._features import apply_operator, fold_projection
from ..manifolds._genes import GeneTable
from ..manifolds._let import LetHead, LetSettings, fit_let
from ..manifolds._manifold import Manifold
from ..manifolds._panel import (
    Panel,
    PanelCells,
    build_panel,
    read_ensembl_ids,
    read_label_table,
    read_panel_cells,
)
from ..manifolds._recipe import ReadoutRecipe, Recipe
from ..manifolds._ruler import StageRuler
from ._attention_mean import AttentionMean, attention_mean
from ._interface import Progress
from ._operators import drift, mean_operator, numerical_rank
from .checkpoints._interface import Checkpoint

N_VECTORS = 16


class AttentionLet:
    """Mean attention -> drift or mean operator -> LET anchor head -> linear readouts.

    Notes
    -----
    The operator is read over stage-balanced cells of the panel, the head is fitted on the panel's anchors, and
    the readouts on the same stage-balanced cells. Nothing is chosen by a score: no head, layer, seed or
    parameter is selected.
    """

    name = "attention-let"

    def extract(
        self,
        recipe: Recipe,
        checkpoint: Checkpoint,
        ruler: StageRuler,
        labels: Path,
        cells: Sequence[Path],
        *,
        seed: int,
        progress: Progress | None = None,
    ) -> Manifold:
        """Extract; see ``Extractor.extract``."""
        cell_rng, head_rng = np.random.default_rng(seed).spawn(2)
        table = read_label_table(labels)
        genes = checkpoint.genes
        panel = build_panel(cells, genes=genes, labels=table, ruler=ruler, min_cells=recipe.panel.min_cells)
        balanced = read_panel_cells(
            cells,
            genes=genes,
            labels=table,
            ruler=ruler,
            max_per_stage=recipe.panel.max_cells_per_stage,
            rng=cell_rng,
        )
        attention = attention_mean(
            checkpoint, balanced.values, genes, progress=_steps("attention", len(balanced.stage), progress)
        )
        operator = {"drift": drift, "mean": mean_operator}[recipe.operator.combination](attention.layers)
        settings = LetSettings(
            n_components=recipe.adaptor.n_components,
            alpha=recipe.adaptor.alpha,
            n_steps=recipe.adaptor.n_steps,
            learning_rate=recipe.adaptor.learning_rate,
        )
        distances = ruler.distances(panel.stage)
        head = fit_let(apply_operator(panel.anchors, operator), distances, settings, rng=head_rng)
        tensors = _tensors(panel, operator, head)
        latent = np.asarray(balanced.values @ tensors["projection"] + tensors["offset"])
        for readout in recipe.readouts:
            weights, bias, _ = _fit_readout(latent, balanced, readout)
            tensors[f"readout.{readout.task}.weights"], tensors[f"readout.{readout.task}.bias"] = weights, bias
        table_of_genes = GeneTable(genes, read_ensembl_ids(cells, genes))
        card = _card(
            recipe, checkpoint, ruler, panel, balanced, attention, operator, settings, head, table_of_genes, seed
        )
        draft = Manifold(card, table_of_genes, tensors, _empty_vectors(card), digest="")
        return Manifold.build(card, table_of_genes, tensors, _vectors(draft, panel))


def _tensors(panel: Panel, operator: NDArray[np.float32], head: LetHead) -> dict[str, NDArray[np.float32]]:
    """Operator, head, their fold and the anchors, all float32; the fold is that of the float32 parts."""
    parts = {
        "operator": operator,
        "adaptor.weights": head.weights,
        "adaptor.bias": head.bias,
        "adaptor.mean": head.mean,
        "adaptor.scale": head.scale,
        "panel.anchors": panel.anchors,
    }
    stored = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in parts.items()}
    projection, offset = fold_projection(*list(stored.values())[:5])
    return stored | {"projection": projection.astype(np.float32), "offset": offset.astype(np.float32)}


def _fit_readout(
    latent: NDArray[np.floating], cells: PanelCells, readout: ReadoutRecipe
) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    """Multinomial logistic regression on standardised coordinates, folded back to the coordinates themselves."""
    label = np.asarray(cells.stage if readout.label == "stage" else cells.branch)
    classes = sorted(set(label.tolist()))
    if len(classes) < 2:
        raise PanelError(f"The cells have one {readout.label} only, {classes}; a readout needs at least two.")
    centre, spread = latent.mean(axis=0), latent.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    model = LogisticRegression(C=readout.c, class_weight="balanced", max_iter=2000, tol=1e-6)
    model.fit((latent - centre) / spread, label)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(classes) == 2:
        coefficients, intercepts = (
            np.vstack([-coefficients, coefficients]) / 2,
            np.hstack([-intercepts, intercepts]) / 2,
        )
    weights = coefficients / spread
    return weights.astype(np.float32), (intercepts - weights @ centre).astype(np.float32), classes


def _vectors(manifold: Manifold, panel: Panel) -> dict[str, NDArray[np.float32]]:
    """Test vectors: anchors spread over the panel, and a cell without any count."""
    rows = np.unique(np.linspace(0, len(panel.anchors) - 1, N_VECTORS).astype(int))
    given = np.vstack([panel.anchors[rows], np.zeros((1, panel.anchors.shape[1]))]).astype(np.float32)
    latent = manifold.project(given)
    return {"input": given, "latent": latent} | {f"proba.{t}": manifold.read_out(latent, t) for t in manifold.tasks}


def _empty_vectors(card: Card) -> dict[str, NDArray[np.float32]]:
    """Placeholders of the right width, replaced before anything is saved."""
    widths = {"input": card.genes.n, "latent": card.extraction.adaptor.n_components}
    widths |= {f"proba.{readout.task}": len(readout.classes) for readout in card.extraction.readouts}
    return {name: np.zeros((1, width), dtype=np.float32) for name, width in widths.items()}


def _card(
    recipe: Recipe,
    checkpoint: Checkpoint,
    ruler: StageRuler,
    panel: Panel,
    cells: PanelCells,
    attention: AttentionMean,
    operator: NDArray[np.float32],
    settings: LetSettings,
    head: LetHead,
    genes: GeneTable,
    seed: int,
) -> Card:
    """Fill the card from what was done; nothing in it is typed in but the recipe's own words."""
    anchors = [
        AnchorEntry(study=s, donor=d, tissue=t, cell_type=c, stage=g, branch=b, n_cells=int(n))
        for s, d, t, c, g, b, n in zip(
            panel.study,
            panel.donor,
            panel.tissue,
            panel.cell_type,
            panel.stage,
            panel.branch,
            panel.n_cells,
            strict=True,
        )
    ]
    label_classes = {"stage": sorted(set(cells.stage)), "branch": sorted(set(cells.branch))}
    return Card(
        name=recipe.name,
        version=recipe.version,
        title=recipe.title,
        description=recipe.description,
        scale="log1p_cp10k",
        licence=recipe.licence,
        source_model=SourceModel(
            name=checkpoint.name,
            architecture=(
                f"scGPT layout, {checkpoint.n_layers} layers x {checkpoint.n_heads} heads, d_model {checkpoint.d_model}"
            ),
            digest=checkpoint.digest,
            licence=_spdx(checkpoint.licence),
        ),
        extraction=Extraction(
            extractor=AttentionLet.name,
            recipe=recipe.name,
            seed=seed,
            operator=Operator(
                kind=recipe.operator.kind,
                combination=recipe.operator.combination,
                n_blocks=len(operator),
                numerical_rank=[numerical_rank(block) for block in operator],
                n_cells=attention.n_cells,
                n_skipped_cells=attention.n_skipped,
                cells_digest=cells.digest,
                pairs_seen=float((attention.support > 0).mean()),
            ),
            adaptor=Adaptor(
                kind=recipe.adaptor.kind,
                n_components=settings.n_components,
                loss=head.loss,
                beta=head.beta,
                parameters={
                    "alpha": settings.alpha,
                    "n_steps": settings.n_steps,
                    "learning_rate": settings.learning_rate,
                    "scale_floor": settings.scale_floor,
                },
            ),
            readouts=[
                Readout(
                    task=readout.task,
                    kind=readout.kind,
                    classes=label_classes[readout.label],
                    n_cells=len(cells.stage),
                    parameters={"label": readout.label, "c": readout.c, "class_weight": "balanced"},
                )
                for readout in recipe.readouts
            ],
            software=_software(),
        ),
        panel=PanelManifest(
            digest=anchors_digest(panel.anchors, [anchor.model_dump(mode="json") for anchor in anchors], genes.symbols),
            min_cells=recipe.panel.min_cells,
            files=[
                PanelFileEntry(
                    name=file.name,
                    sha256=file.sha256,
                    n_cells=file.n_cells,
                    cells_digest=file.cells_digest,
                    n_missing_genes=len(file.missing_genes),
                    source=file.source,
                )
                for file in panel.files
            ],
            anchors=anchors,
        ),
        ruler=Ruler(
            name=ruler.name,
            version=ruler.version,
            digest=ruler.digest,
            root=ruler.root,
            licence=recipe.ruler_licence,
            stages=[
                StageEntry(id=s.id, label=s.label, ontology_id=s.ontology_id, branch=s.branch) for s in ruler.stages
            ],
            edges=[EdgeEntry(child=e.child, parent=e.parent, source=e.source) for e in ruler.edges],
        ),
        genes=GeneAnnotation(
            n=len(genes),
            n_ensembl=sum(bool(identifier) for identifier in genes.ensembl),
            organism=recipe.organism,
            source="symbols from the checkpoint's vocabulary, Ensembl ids from the panel's files",
            coverage_floor=recipe.coverage_floor,
        ),
        test_vectors=Tolerance(rtol=1e-3, atol=1e-3),
        citations=recipe.citations,
        intended_use=recipe.intended_use,
        limits=recipe.limits,
    )


def _spdx(licence: str) -> str:
    """A licence as SPDX; what a checkpoint does not state in that form is said to be not stated."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression:
        return "LicenseRef-not-stated"


def _steps(label: str, total: int, progress: Progress | None):  # type: ignore[no-untyped-def]
    """Turn increments into ``progress(label, done, total)``."""
    if progress is None:
        return None
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done += n
        progress(label, done, total)

    return advance


def _software() -> dict[str, str]:
    """Versions of what decides the numbers."""
    packages = ("manifoldzoo", "numpy", "scipy", "scikit-learn", "torch")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}

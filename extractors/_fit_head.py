"""Stage 2 of a job: heads of the kind that its recipe asks for, on the whole panel or without some donors."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..cards._adaptor import Adaptor, AdaptorKind, Convergence
from ..cards._errors import PanelError
from ..cards._frozen import Scalar
from ..manifolds._features import apply_operator
from ..manifolds._geodesic import GeodesicHead, GeodesicSettings
from ..manifolds._heads import Head, fit_head, least_rows
from ..manifolds._recipe import ON_CELLS
from ._interface import Job
from ._prepare import Prepared
from .adaptors import CellFit, CellSettings, fit_cells

MIN_ANCHORS = 10
"""Fewest anchors that a head is refitted on; our choice."""

HeldOutBy = Literal["donor", "cell"] | None


class Heads(Protocol):
    """Fits heads of one kind on the features of one operator."""

    def fit(self, rng: np.random.Generator) -> tuple[Head, Adaptor]:
        """Fit the head that is shipped; return it with its entry of the card."""

    def refit(self, without: Collection[str], rng: np.random.Generator) -> Head | None:
        """Fit the same without some donors, ``study:donor``; ``None`` where too little is left."""


def heads_of(job: Job, prepared: Prepared, operator: NDArray[np.float32]) -> Heads:
    """Choose the heads that the recipe of a job asks for.

    Parameters
    ----------
    job, prepared
        What is made, and the panel and cells it is made with.
    operator
        ``(k, n_genes, n_features)``.
    """
    kind = CellHeads if job.recipe.adaptor.kind in ON_CELLS else AnchorHeads
    return kind(job, prepared, operator)


class AnchorHeads:
    """Heads fitted on anchors: the LET head and the geodesic ones.

    Parameters
    ----------
    job, prepared, operator
        As of ``heads_of``.
    """

    def __init__(self, job: Job, prepared: Prepared, operator: NDArray[np.float32]) -> None:
        self._settings, self._prepared = job.recipe.adaptor.settings(), prepared
        self._features = apply_operator(prepared.panel.anchors, operator)

    def fit(self, rng: np.random.Generator) -> tuple[Head, Adaptor]:
        """Fit on all anchors."""
        settings = self._settings
        head = fit_head(self._features, self._prepared.distances, settings, rng=rng)
        if isinstance(settings, GeodesicSettings):
            return head, _entry(settings.kind, head, settings.n_components, dict(settings.parameters()), None)
        return head, _entry("let-anchor", head, settings.n_components, asdict(settings), None)

    def refit(self, without: Collection[str], rng: np.random.Generator) -> Head | None:
        """Fit on the anchors of the other donors."""
        kept = ~np.isin(self._prepared.panel.donor_ids, list(without))
        distances = self._prepared.distances[np.ix_(kept, kept)]
        if kept.sum() < max(MIN_ANCHORS, least_rows(self._settings)) or not np.ptp(distances):
            return None
        return fit_head(self._features[kept], distances, self._settings, rng=rng.spawn(1)[0])


class CellHeads:
    """Heads fitted on the stage-balanced cells of the panel: the cell head and the hybrid head.

    Parameters
    ----------
    job, prepared, operator
        As of ``heads_of``.

    Notes
    -----
    Where the recipe sets a ``patience``, whole donors are held out to stop by; cells of all donors where donors cannot
    be spared, see ``held_out_cells``. They are cells of the extraction panel: nothing else is looked at.
    """

    def __init__(self, job: Job, prepared: Prepared, operator: NDArray[np.float32]) -> None:
        recipe = job.recipe.adaptor
        self._kind, self._steps, self._cells = recipe.kind, job.steps, prepared.cells
        self._settings = CellSettings(n_components=recipe.n_components, **recipe.parameters())
        self._stages = [stage.id for stage in job.ruler.stages]
        self._distances = job.ruler.distances(self._stages)
        # expression and operator are float32, so that their product loses nothing
        self._features = apply_operator(prepared.cells.values, operator).astype(np.float32)

    def fit(self, rng: np.random.Generator) -> tuple[Head, Adaptor]:
        """Fit on all cells."""
        progress = self._steps("epochs", self._settings.epochs)
        fit, held_out_by = self._fit(np.arange(len(self._features)), rng, progress)
        report = fit.report
        convergence = Convergence(
            terms=fit.terms,
            n_epochs=report.n_epochs,
            best_epoch=report.best_epoch + 1,
            stopped_early=report.stopped_early,
            change=report.change if np.isfinite(report.change) else None,
            converged=report.converged,
            n_train_cells=report.n_train,
            n_validation_cells=report.n_validation,
            validation_by=held_out_by,
            validation_loss=float(report.validation[report.best_epoch]) if held_out_by else None,
        )
        settings = asdict(self._settings)
        return fit.head, _entry(self._kind, fit.head, self._settings.n_components, settings, convergence)

    def refit(self, without: Collection[str], rng: np.random.Generator) -> Head | None:
        """Fit on the cells of the other donors."""
        rows = np.flatnonzero(~np.isin(self._cells.donor_ids, list(without)))
        if rows.size:
            with suppress(PanelError):
                return self._fit(rows, rng.spawn(1)[0])[0].head
        return None

    def _fit(
        self, rows: NDArray[np.intp], rng: np.random.Generator, progress: Callable[[int], None] | None = None
    ) -> tuple[CellFit, HeldOutBy]:
        """Fit on some cells; also say what was held out to stop by."""
        features, stage = self._features[rows], np.asarray(self._cells.stage)[rows].tolist()

        def fit_with(groups: list[str] | None) -> CellFit:
            return fit_cells(
                features,
                stage,
                self._distances,
                self._settings,
                stages=self._stages,
                rng=rng,
                groups=groups,
                progress=progress,
            )

        if self._settings.patience is None:
            return fit_with(None), None
        donors = np.asarray(self._cells.donor_ids)[rows].tolist()
        # refused before anything is fitted
        with suppress(PanelError):
            return fit_with(donors), "donor"
        return fit_with(None), "cell"


def _entry(
    kind: AdaptorKind,
    head: Head,
    n_components: int,
    settings: dict[str, Scalar],
    convergence: Convergence | None,
) -> Adaptor:
    """What the card says of a head."""
    by_landmarks = head if isinstance(head, GeodesicHead) else None
    return Adaptor(
        kind=kind,
        n_components=n_components,
        loss=head.loss,
        beta=head.beta,
        parameters={name: value for name, value in settings.items() if name != "n_components"},
        convergence=convergence,
        n_reduced=by_landmarks and len(by_landmarks.weights),
        n_landmarks=by_landmarks and len(by_landmarks.landmarks.places),
        n_pieces=by_landmarks and by_landmarks.n_pieces,
    )

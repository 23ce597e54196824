"""Fitting the cell head and the hybrid head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...cards._errors import BadInputError, PanelError
from ...manifolds._let import LetHead
from ._cells import (
    Features,
    Index,
    Standardised,
    balanced_batches,
    checked_cells,
    held_out_cells,
    nearest_training_cells,
    standardise,
)
from ._losses import (
    centroids,
    cls_loss,
    compact_loss,
    local_loss,
    recon_loss,
    stage_loss,
    topo_loss,
    unit,
)
from ._report import FitReport, Floats, make_report, weighted
from ._settings import TERMS, CellSettings

Parameters: TypeAlias = dict[str, Tensor]
Batch: TypeAlias = tuple[Index, Index | None]

MIN_CELLS = 3
"""Fewest cells that a head is fitted on, as the LET adaptor's fewest anchors."""
_P_OF_RATE = 100


@dataclass(frozen=True, eq=False)
class CellFit:
    """Hold a head fitted on cells.

    Attributes
    ----------
    head
        Used as one fitted on anchors; its ``loss`` is the weighted sum of the terms at its parameters, a mean over one
        epoch of batches of the training cells.
    report
        How the fit went.
    terms
        Mean of each term that makes up this loss, before weighting; those of weight 0 are left out.
    """

    head: LetHead
    report: FitReport
    terms: dict[str, float]


def fit_cells(
    features: Features,
    stage: Sequence[str],
    distances: NDArray[np.floating],
    settings: CellSettings,
    *,
    stages: Sequence[str],
    rng: np.random.Generator,
    groups: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> CellFit:
    """Fit a head on cells: the cell head, or the hybrid head where ``settings`` weigh its terms.

    Parameters
    ----------
    features
        Shape (n_cells, p), any scale, dense or CSR. Published: at most 500 cells of a stage.
    stage
        Stage of each cell.
    distances
        Ruler distances between stages, shape (n_stages, n_stages).
    settings
        Parameters of the fit.
    stages
        Stage of each row of ``distances``; those that no cell has play no part.
    rng
        Draws validation part, start, batches and neighbours. PyTorch's own random state is neither read nor changed.
    groups
        Group of each cell, such as its donor: the validation part is made of whole groups.
    progress
        Called with the number of epochs finished since the last call.

    Returns
    -------
    CellFit

    Raises
    ------
    BadInputError
        If arguments do not fit together, a value is not finite, a stage is unknown, or the loss leaves the finite.
    PanelError
        If there are fewer than two stages, too few cells for ``n_neighbours``, or no validation part can be made.

    Notes
    -----
    ``L = 1.0 L_stage + 0.1 L_local + 0.08 L_recon + 0.4 L_cls + lambda_topo L_topo + lambda_compact L_compact`` with
    the published weights (Kendiukhov, arXiv:2603.10261). Our choice are the terms, each defined in ``_losses``; that
    ``x`` is standardised on the training cells; that ``W`` starts normal with variance ``1 / p``, bias and classifier
    at 0, and beta such that a right angle is the mean distance of two stages; that Adam runs on all of them together;
    and that one of the nearest neighbours of each cell is drawn for each batch. The classifier is dropped.

    A small loss proves nothing: with 1200 features a head learns shuffled stages too. Judge it by what was held out,
    beside a head fitted to shuffled stages.

    Memory beyond the standardised features does not depend on the number of cells, but for their neighbours and 50
    principal components.
    """
    index, ruler = checked_cells(features, stage, distances, stages, groups)
    split_rng, neighbour_rng, fit_rng, last_rng = rng.spawn(4)
    held = np.zeros(0, dtype=np.int64)
    if settings.patience is not None:
        held = held_out_cells(index, settings.validation, groups, split_rng)
    train = np.setdiff1d(np.arange(len(index)), held)
    n_train = len(train)
    least = max(MIN_CELLS, settings.n_neighbours + 1 if settings.local else 0)
    if n_train < least:
        raise PanelError(
            f"{n_train} cells are left to fit on, expected at least {least}.", "Give more cells, or fewer n_neighbours."
        )
    order = np.concatenate([train, held])
    given = standardise(features, order, n_train, floor=settings.scale_floor, dtype=settings.dtype)
    near = None
    if settings.local:
        near = nearest_training_cells(given.rows, n_train, settings.n_neighbours, neighbour_rng)
    objective = _Objective(given, index[order], ruler, near, settings)
    parameters, report = _optimise(objective, n_train, len(held), settings, fit_rng, progress)
    terms = objective.mean_terms(parameters, objective.epoch(slice(0, n_train), last_rng))
    loss = _finite(weighted(terms, settings.weights), report.best_epoch)
    told = {name: float(value) for name, value in zip(TERMS, terms, strict=True) if getattr(settings, name)}
    return CellFit(objective.head(parameters, loss), report, told)


class _Objective:
    """All terms on a batch of cells, as a function of the parameters.

    Inside, distances are divided by their mean over pairs of stages, so that beta is near 1 in any unit.
    """

    def __init__(
        self, given: Standardised, stage: Index, distances: Floats, near: Index | None, settings: CellSettings
    ) -> None:
        self._given, self._labels, self._near, self._settings = given, stage, near, settings
        self._scale = float(distances[np.triu_indices(len(distances), 1)].mean())
        self._power = np.einsum("ij,ij->i", given.rows, given.rows)
        self._distances = torch.from_numpy((distances / self._scale).astype(given.rows.dtype))

    def start(self, rng: np.random.Generator) -> Parameters:
        """Draw parameters."""
        d, p, n_stages = self._settings.n_components, self._given.mean.size, len(self._distances)
        drawn = {
            "weights": rng.standard_normal((d, p)) / np.sqrt(p),
            "bias": np.zeros(p),
            "log_beta": np.array(np.log(2 / np.pi)),
            "class_weights": np.zeros((n_stages, d)),
            "class_bias": np.zeros(n_stages),
        }
        return {
            name: torch.from_numpy(value).to(self._distances.dtype).requires_grad_() for name, value in drawn.items()
        }

    def epoch(self, cells: slice, rng: np.random.Generator) -> list[Batch]:
        """Draw batches of some of the cells, each with a neighbour of each cell where a term needs one."""
        stage = np.unique(self._labels[cells], return_inverse=True)[1]
        size = min(self._settings.batch_size, len(stage))
        drawn = balanced_batches(stage, -(-len(stage) // size), size, rng) + cells.start
        if self._near is None:
            return [(batch, None) for batch in drawn]
        chosen = rng.integers(self._near.shape[1], size=drawn.shape)
        return list(zip(drawn, self._near[drawn, chosen], strict=True))

    def terms(self, parameters: Parameters, batch: Batch) -> dict[str, Tensor]:
        """Terms whose weight is not 0."""
        settings, (cells, partners) = self._settings, batch
        weights, bias, beta = parameters["weights"], parameters["bias"], parameters["log_beta"].exp()
        # gathered by NumPy, which is several times faster here than PyTorch
        rows, stage = torch.from_numpy(self._given.rows[cells]), torch.from_numpy(self._labels[cells])
        latent = rows @ weights.T - weights @ bias
        towards = unit(latent)
        found: dict[str, Tensor] = {}
        if settings.stage or settings.local:
            cosines = towards @ towards.T
        if settings.stage:
            found["stage"] = stage_loss(cosines, stage, self._distances, beta)
        if partners is not None:
            beside = unit(torch.from_numpy(self._given.rows[partners]) @ weights.T - weights @ bias)
            found["local"] = local_loss(
                cosines, (towards * beside).sum(dim=1), torch.from_numpy(cells), settings.temperature
            )
        if settings.recon:
            found["recon"] = recon_loss(latent, rows, torch.from_numpy(self._power[cells]), weights, bias)
        if settings.cls:
            found["cls"] = cls_loss(latent, stage, parameters["class_weights"], parameters["class_bias"])
        if settings.topo or settings.compact:
            mu, count = centroids(latent, stage, len(self._distances))
        if settings.topo:
            found["topo"] = topo_loss(mu, count, self._distances * self._scale, beta * self._scale)
        if settings.compact:
            found["compact"] = compact_loss(latent, stage, mu)
        return found

    def mean_terms(self, parameters: Parameters, batches: list[Batch]) -> Floats:
        """Mean of each term over batches, shape (n_terms,); NaN for those of weight 0."""
        with torch.inference_mode():
            return np.asarray(np.mean([_row(self.terms(parameters, batch)) for batch in batches], axis=0))

    def head(self, parameters: Parameters, loss: float) -> LetHead:
        """Put parameters into the form that is shipped."""
        found = {name: value.detach().numpy().astype(np.float64) for name, value in parameters.items()}
        return LetHead(
            weights=found["weights"],
            bias=found["bias"],
            mean=self._given.mean,
            scale=self._given.scale,
            beta=float(np.exp(found["log_beta"])) * self._scale,
            loss=loss,
        )


def _optimise(
    objective: _Objective,
    n_train: int,
    n_held: int,
    settings: CellSettings,
    rng: np.random.Generator,
    progress: Callable[[int], None] | None,
) -> tuple[Parameters, FitReport]:
    """Run Adam; return the parameters of the best epoch."""
    start_rng, batch_rng, validation_rng = rng.spawn(3)
    parameters = objective.start(start_rng)
    adam = torch.optim.Adam(
        [
            {"params": [parameters["weights"]], "size": np.sqrt(_P_OF_RATE / parameters["weights"].shape[1])},
            {"params": [value for name, value in parameters.items() if name != "weights"], "size": 1.0},
        ]
    )
    # the same batches after each epoch, so that only the parameters change what is compared
    checks = objective.epoch(slice(n_train, n_train + n_held), validation_rng) if n_held else []
    losses: list[Floats] = []
    validation: list[float] = []
    best, kept = 0, parameters
    for epoch in range(settings.epochs):
        for group in adam.param_groups:
            group["lr"] = settings.learning_rate * group["size"] * (1 + np.cos(np.pi * epoch / settings.epochs)) / 2
        rows = []
        for batch in objective.epoch(slice(0, n_train), batch_rng):
            terms = objective.terms(parameters, batch)
            adam.zero_grad()
            total = torch.stack([getattr(settings, name) * value for name, value in terms.items()]).sum()
            torch.autograd.backward(total)
            adam.step()
            rows.append(_row(terms))
        losses.append(np.mean(rows, axis=0))
        _finite(weighted(losses[-1], settings.weights), epoch)
        if checks:
            validation.append(float(weighted(objective.mean_terms(parameters, checks), settings.weights)))
        if not checks or validation[-1] == min(validation):
            best = epoch
        if checks and best == epoch:
            kept = {name: value.detach().clone() for name, value in parameters.items()}
        if progress is not None:
            progress(1)
        if settings.patience is not None and epoch - best >= settings.patience:
            break
    report = make_report(
        losses,
        settings.weights,
        validation,
        best_epoch=best,
        epochs=settings.epochs,
        n_train=n_train,
        n_validation=n_held,
    )
    return kept, report


def _row(terms: Parameters) -> Floats:
    """Values of the terms, shape (n_terms,); NaN for those that were not computed."""
    return np.array([terms[name].item() if name in terms else np.nan for name in TERMS])


def _finite(loss: Floats, epoch: int) -> float:
    """Return a loss, or an error where the fit has run away."""
    if not np.isfinite(loss):
        raise BadInputError(
            f"The loss is {loss} in epoch {epoch + 1}, expected a finite number.", "Set a smaller learning_rate."
        )
    return float(loss)

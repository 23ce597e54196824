"""What each check needs of a user's own panel, and what the panel has: told for every rung, whatever came of it."""

from __future__ import annotations

from ...cards._card import Card
from ...cards._errors import ZooError
from ...cards._own_panel import OwnPanelReport, PanelNeed
from ...manifolds._cell_ids import CellIds
from ...manifolds._manifold import Manifold
from .._artifact_data import head_settings
from .._gate_data import GateData
from ..nulls._permutation import log10_arrangements
from ..refits._holdouts import MIN_FOLDS
from ..refits._refitted import CANNOT_REFIT
from ._own_refitted import PREFIX, fewest
from ._published import NEIGHBOURS, PERMUTATION_P
from ._transfers import MIN_ANCHORS

_ARTIFACT_ALONE = {
    1: "the files of the artifact alone",
    2: "the test vectors of the artifact alone",
    3: "the extraction panel, which travels in the artifact",
    4: "the extraction panel and a negative panel of the artifact",
    6: "the extraction panel and five untrained models of the artifact",
}


def own_needs(manifold: Manifold, report: OwnPanelReport, data: GateData | None, *, through: int) -> list[PanelNeed]:
    """Say what every check up to a rung needs, and what it got.

    Parameters
    ----------
    manifold
        The artifact.
    report
        On the user's panel.
    data
        The panel as gates read it; ``None`` where it has too few anchors.
    through
        Highest rung.

    Returns
    -------
    Rung by rung. Rungs 1 to 4 and 6 are about the artifact's own panels, and say so.
    """
    card, needs = manifold.card, []
    for rung in range(1, through + 1):
        if rung in _ARTIFACT_ALONE:
            got = {4: _negative(card), 6: f"{len(card.untrained)} untrained models"}.get(rung, "it is there")
            needs.append(
                _need(rung, "the rung itself", _ARTIFACT_ALONE[rung], f"{got}; your panel is not asked", enough=None)
            )
        if rung == 3:
            needs += _refitted(card, report, data, _fewest(manifold))
        if rung == 5:
            there = CellIds.read(manifold.tensors) is not None
            ids = "it holds them" if there else "it holds none"
            needs.append(_need(rung, "own_no_shared_cells", "cell ids in the artifact", ids, enough=there))
            needs += _transferred(card, report, data)
    return needs


def _fewest(manifold: Manifold) -> int:
    """Fewest anchors that the head of a manifold is refitted on without a fifth of them."""
    try:
        return fewest(head_settings(manifold))
    except ZooError:
        # the gates say that it cannot be refitted
        return fewest()


def _refitted(card: Card, report: OwnPanelReport, data: GateData | None, few: int) -> list[PanelNeed]:
    """Needs of the gates that are refitted on the user's panel."""
    n = report.n_anchors
    checks = [
        _counted(3, PREFIX + "trustworthiness", 2 * NEIGHBOURS + 1, n, "anchor"),
        _counted(3, PREFIX + "random_holdout", few, n, "anchor"),
        _counted(3, PREFIX + "donor_holdout", MIN_FOLDS, report.n_donors, "donor"),
        _counted(3, PREFIX + "branch_holdout", MIN_FOLDS, report.n_branches, "branch"),
        _counted(3, PREFIX + "study_holdout", MIN_FOLDS, report.n_studies, "study"),
        _arranged(3, PREFIX + "blocked_permutation", data),
    ]
    if not card.extraction.adaptor.fitted_on_anchors:
        return [check.model_copy(update={"got": CANNOT_REFIT, "enough": False}) for check in checks]
    return checks


def _transferred(card: Card, report: OwnPanelReport, data: GateData | None) -> list[PanelNeed]:
    """Needs of the gates of the head as it is."""
    n, stages = report.n_anchors, report.n_stages
    branch = _counted(5, "own_branch_holdout", MIN_FOLDS, report.n_branches, "branch")
    if not card.extraction.adaptor.fitted_on_anchors:
        branch = branch.model_copy(update={"got": CANNOT_REFIT, "enough": False})
    return [
        _need(
            5,
            "own_all",
            f"{MIN_ANCHORS} anchors of 2 stages",
            f"{_number(n, 'anchor')} of {_number(stages, 'stage')}",
            enough=n >= MIN_ANCHORS and stages >= 2,
        ),
        _counted(5, "own_trustworthiness", 2 * NEIGHBOURS + 1, n, "anchor"),
        _counted(5, "own_between_donors", 2, report.n_donors, "donor"),
        branch,
        _arranged(5, "own_permutation", data),
    ]


def _arranged(rung: int, check: str, data: GateData | None) -> PanelNeed:
    """What a permutation within blocks needs."""
    log10 = 0.0 if data is None else log10_arrangements(data.stage, data.blocks)
    needed = 1 / PERMUTATION_P
    return _need(
        rung,
        check,
        f"{needed:.0f} arrangements of stages within study, donor and tissue",
        f"10^{log10:.0f}" if log10 > 4 else f"{10**log10:.0f}",
        enough=round(10 ** min(log10, 300.0), 6) >= needed,
    )


def _counted(rung: int, check: str, least: int, got: int, what: str) -> PanelNeed:
    """A need of so many of something."""
    return _need(rung, check, _number(least, what), _number(got, what), enough=got >= least)


def _need(rung: int, check: str, needed: str, got: str, *, enough: bool | None) -> PanelNeed:
    """One need."""
    return PanelNeed(rung=rung, check=check, needed=needed, got=got, enough=enough)


def _number(n: int, what: str) -> str:
    """A number with its noun."""
    many = {"branch": "branches", "study": "studies"}.get(what, f"{what}s")
    return f"{n} {what if n == 1 else many}"


def _negative(card: Card) -> str:
    """Whether there is a negative panel."""
    return "it is there" if any(panel.role == "negative" for panel in card.panels) else "no negative panel"

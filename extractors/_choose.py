"""Choosing operator, head and number of coordinates on the panel, and what the choice is worth where it saw nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..cards._card import Candidate, Choice, ChoiceRun, Operator
from ..cards._errors import PanelError
from ..gates.refits._holdouts import Fold, HoldoutResult, group_folds, refit_holdouts
from ..manifolds._features import apply_operator
from ..manifolds._recipe import AdaptorRecipe, ChoiceRecipe, OperatorRecipe
from ._interface import Job
from ._operator import read_operator
from ._prepare import Prepared

READ_OVER_CELLS = ("attention_mean", "attention_value", "distilled")
"""Kinds that differ with the cells they are read over."""

Float32 = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Chosen:
    """A job whose recipe names what was chosen.

    Attributes
    ----------
    job
        With operator, head and number of coordinates in its recipe.
    operator
        As ``read_operator`` reads it.
    entry
        What the card says of it.
    choice
        How it was chosen.
    """

    job: Job
    operator: Float32
    entry: Operator
    choice: Choice


def choose(job: Job, recipe: ChoiceRecipe, prepared: Prepared, rng: np.random.Generator) -> Chosen:
    """Choose among the candidates of a recipe, and score the choice on groups that took no part in it.

    Parameters
    ----------
    job
        What is made.
    recipe
        What is open to choice; the job's recipe names the rest.
    prepared
        Model, panel and cells.
    rng
        Draws starts of heads and what operators draw, the same for every candidate and group.

    Raises
    ------
    PanelError
        If the panel has too few donors to score any candidate.

    Notes
    -----
    A candidate's score is that of the donor gate (``gates.refits._holdouts``): heads refitted without each donor,
    Spearman correlation over the pairs that touch it, mean over donors and starts. The best is chosen, the first of
    equals.

    What that is worth is told by leaving out each study (each donor, in a panel of one study): operators are read over
    the cells of the others alone, the rule is followed on their anchors alone, and a head of what it chooses is
    scored on the pairs that touch the study. The rule and its nesting are our choice; the paper compares operators on
    the panel it reports.
    """
    rule = _Rule.of(job, recipe, rng)
    panel = prepared.panel
    by_study = len(set(panel.study)) > 1
    groups = group_folds(panel.study if by_study else panel.donor_ids)
    advance = job.steps("choosing", len(groups) + 1) or (lambda _: None)
    read = [
        read_operator(_with(_apart(job, f"candidate-{place}"), asked), prepared, rule.operator_rng())
        for place, asked in enumerate(rule.operators)
    ]
    operators = [operator for operator, _ in read]
    made = rule.follow(prepared, operators, left_out=None)
    if made.chosen is None:
        raise PanelError(
            f"No candidate can be scored on {len(panel.anchors)} anchors of {len(set(panel.donor_ids))} donors.",
            "Give cells of more donors, or name operator, adaptor and n_components in the recipe.",
        )
    advance(1)
    runs = []
    for number, group in enumerate(groups):
        rest = prepared.without_group(group.name, study=by_study)
        without = list(operators)
        for place, asked in enumerate(rule.operators):
            if asked.kind in READ_OVER_CELLS:
                apart = _apart(job, f"candidate-{place}-without-{number}")
                without[place], _ = read_operator(_with(apart, asked), rest, rule.operator_rng())
        run = rule.follow(rest, without, left_out=group.name)
        if run.chosen is not None:
            place, adaptor = rule.pairs[run.chosen]
            outer = rule.score(prepared, apply_operator(panel.anchors, without[place]), adaptor, [group])
            # a group can be too small to be scored on
            run = run.model_copy(update={"left_out_score": outer.touching if outer.scores else None})
        runs.append(run)
        advance(1)
    told = [run.left_out_score for run in runs if run.left_out_score is not None]
    choice = Choice(
        candidates=rule.candidates,
        left_out_by="study" if by_study else "donor",
        n_starts=rule.n_starts,
        made=made,
        runs=runs,
        left_out_score=float(np.mean(told)) if told else None,
    )
    best, adaptor = rule.pairs[made.chosen]
    operator, entry = read[best]
    return Chosen(_with(job, rule.operators[best], adaptor), operator, entry, choice)


@dataclass(frozen=True, eq=False)
class _Rule:
    """Candidates, and how they are scored."""

    job: Job
    operators: Sequence[OperatorRecipe]
    adaptors: Sequence[AdaptorRecipe]
    """Kinds of head with their parameters, each in every number of coordinates."""
    tells_adaptor: bool
    n_starts: int
    operator_seed: int
    start_seed: int

    @classmethod
    def of(cls, job: Job, recipe: ChoiceRecipe, rng: np.random.Generator) -> _Rule:
        """Fill in what the recipe does not leave open, and draw the seeds."""
        seeds = [int(child.integers(2**31)) for child in rng.spawn(2)]
        operators = recipe.operators or [job.recipe.operator]
        numbers = recipe.n_components or [job.recipe.adaptor.n_components]
        kinds = recipe.adaptors or [job.recipe.adaptor]
        adaptors = [kind.model_copy(update={"n_components": n}) for kind in kinds for n in numbers]
        return cls(job, operators, adaptors, bool(recipe.adaptors), recipe.n_starts, *seeds)

    @property
    def pairs(self) -> list[tuple[int, AdaptorRecipe]]:
        """Place of the operator and adaptor of each candidate."""
        return [(place, adaptor) for place in range(len(self.operators)) for adaptor in self.adaptors]

    @property
    def candidates(self) -> list[Candidate]:
        """As the card calls them."""
        found = []
        for place, adaptor in self.pairs:
            head = {"adaptor": adaptor.kind, "n_neighbours": adaptor.n_neighbours} if self.tells_adaptor else {}
            operator = self.operators[place].model_dump()
            found.append(Candidate(**operator, n_components=adaptor.n_components, **head))
        return found

    def operator_rng(self) -> np.random.Generator:
        """Return the same numbers every time, so that operators differ by their cells alone."""
        return np.random.default_rng(self.operator_seed)

    def score(
        self, prepared: Prepared, features: NDArray[np.float64], adaptor: AdaptorRecipe, folds: list[Fold]
    ) -> HoldoutResult:
        """Refit heads on the features of the anchors, without each fold."""
        return refit_holdouts(
            features,
            prepared.distances,
            folds,
            adaptor.settings(),
            rng=np.random.default_rng(self.start_seed),
            n_starts=self.n_starts,
        )

    def follow(self, prepared: Prepared, operators: list[Float32], *, left_out: str | None) -> ChoiceRun:
        """Score every candidate and take the best, if donors are enough to score any."""
        folds = group_folds(prepared.panel.donor_ids)
        features = [apply_operator(prepared.panel.anchors, operator) for operator in operators]
        results = [self.score(prepared, features[place], adaptor, folds) for place, adaptor in self.pairs]
        scores = [None if result.undecided_because else result.touching for result in results]
        known = [-np.inf if score is None else score for score in scores]
        chosen = int(np.argmax(known)) if max(known) > -np.inf else None
        return ChoiceRun(left_out=left_out, scores=scores, chosen=chosen)


def _apart(job: Job, name: str) -> Job:
    """Give a pass its own place for unfinished state, which belongs to one operator and its cells."""
    return replace(job, work=None if job.work is None else job.work / name)


def _with(job: Job, operator: OperatorRecipe, adaptor: AdaptorRecipe | None = None) -> Job:
    """Name operator and adaptor in the recipe of a job."""
    changed: dict[str, object] = {"operator": operator}
    if adaptor is not None:
        changed["adaptor"] = adaptor
    return replace(job, recipe=job.recipe.model_copy(update=changed))

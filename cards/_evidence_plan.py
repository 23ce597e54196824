"""The plan of the evidence: which tests are a family, and how much is computed, fixed before any of it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ._frozen import Frozen

STANDARD_COMPARISONS = ("raw", "z_scored", "pca", "svd", "gene_correlation", "spectrum_matched", "gene_permuted")
"""Comparisons of rung 6 that no plan can leave out."""
UNTRAINED_COMPARISONS = ("random_init", "shuffled_weights")
"""Comparisons with untrained models that a plan can demand; those of models that travel are made in any case."""
STANDARD_PERMUTATIONS = 1000
STANDARD_BRANCH_PERMUTATIONS = 999
STANDARD_STARTS = 20

FalseDiscovery = Literal["benjamini-hochberg"]
_LEAST = {
    "n_permutations": STANDARD_PERMUTATIONS,
    "n_branch_permutations": STANDARD_BRANCH_PERMUTATIONS,
    "n_starts": STANDARD_STARTS,
}


class EvidencePlan(Frozen):
    """What a recipe fixes of the evidence; stricter than the standard or equal to it, never laxer.

    A field that is not given is the standard's, and so is the whole plan where a card has none. The numbers of
    the standard are our choice.
    """

    comparisons: list[str] = Field(default_factory=lambda: list(STANDARD_COMPARISONS))
    """Comparisons of rung 6: the standard ones in their order, then those that were added. Untrained models that travel
    in the artifact are compared with whether they are named or not; one that is named and does not travel leaves the
    rung open."""
    n_permutations: Annotated[int, Field(json_schema_extra={"minimum": STANDARD_PERMUTATIONS})] = STANDARD_PERMUTATIONS
    """Of labels within blocks, on rungs 3 and 5."""
    n_branch_permutations: Annotated[int, Field(json_schema_extra={"minimum": STANDARD_BRANCH_PERMUTATIONS})] = (
        STANDARD_BRANCH_PERMUTATIONS
    )
    """Of branches among themselves, on rung 4."""
    n_starts: Annotated[int, Field(json_schema_extra={"minimum": STANDARD_STARTS})] = STANDARD_STARTS
    """Starts of the head that scores are averaged over."""
    fdr: FalseDiscovery = "benjamini-hochberg"
    """How p-values are adjusted, over all comparisons of rung 6."""

    @field_validator("comparisons")
    @classmethod
    def _none_left_out(cls, given: list[str]) -> list[str]:
        known = (*STANDARD_COMPARISONS, *UNTRAINED_COMPARISONS)
        strange = [name for name in given if name not in known]
        if strange:
            raise ValueError(f"there is no comparison {strange[0]!r}; there are {', '.join(known)}")
        missing = [name for name in STANDARD_COMPARISONS if name not in given]
        if missing:
            raise ValueError(f"the comparison {missing[0]!r} is left out, which the standard has")
        if len(set(given)) != len(given):
            raise ValueError(f"comparisons must differ, got {given}")
        return [name for name in known if name in given]

    @field_validator(*_LEAST)
    @classmethod
    def _not_laxer(cls, given: int, info: Any) -> int:
        if given < _LEAST[info.field_name]:
            raise ValueError(
                f"{given} is laxer than the standard; a plan may only be stricter than {_LEAST[info.field_name]}"
            )
        return given


class RunPlan(Frozen):
    """What fixes the computation of a validation run, besides the artifact and the software."""

    seed: int = Field(ge=0)
    """``int(artifact_digest[:8], 16)``; everything that is drawn comes from it."""
    through: int = Field(ge=1, le=6)
    """Highest rung that was asked for."""
    n_permutations: int = Field(ge=1)
    n_branch_permutations: int = Field(ge=1)
    n_starts: int = Field(ge=1)
    fdr: FalseDiscovery = "benjamini-hochberg"


def seed_of(digest: str) -> int:
    """Seed of all evidence of an artifact: its digest's first 32 bits, so that nobody can shop for one."""
    return int(digest[:8], 16)

"""Plans of the evidence: as strict as the standard or stricter, and what a run was fixed by."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tiny import tiny_document

from manifoldzoo.cards._card import parse_card
from manifoldzoo.cards._errors import FormatError
from manifoldzoo.cards._evidence_plan import STANDARD_COMPARISONS, EvidencePlan, seed_of

LEAST = {"n_permutations": 1000, "n_branch_permutations": 999, "n_starts": 20}


def test_the_standard():
    plan = EvidencePlan()
    assert tuple(plan.comparisons) == STANDARD_COMPARISONS
    assert {name: getattr(plan, name) for name in LEAST} == LEAST
    assert plan.fdr == "benjamini-hochberg"
    assert EvidencePlan.model_validate_json(plan.model_dump_json()) == plan


@given(st.sampled_from(sorted(LEAST)), st.integers(-10, 3000))
def test_numbers_may_be_stricter_and_never_laxer(name, number):
    if number >= LEAST[name]:
        assert getattr(EvidencePlan(**{name: number}), name) == number
    else:
        with pytest.raises(ValidationError, match=f"{number} is laxer"):
            EvidencePlan(**{name: number})


@pytest.mark.parametrize("left_out", STANDARD_COMPARISONS)
def test_no_standard_comparison_can_be_left_out(left_out):
    with pytest.raises(ValidationError, match=f"'{left_out}' is left out"):
        EvidencePlan(comparisons=[name for name in STANDARD_COMPARISONS if name != left_out])


def test_comparisons_are_added_from_those_that_are_known():
    more = EvidencePlan(comparisons=["random_init", *reversed(STANDARD_COMPARISONS)])
    assert more.comparisons == [*STANDARD_COMPARISONS, "random_init"]
    with pytest.raises(ValidationError, match="no comparison 'coin_toss'"):
        EvidencePlan(comparisons=[*STANDARD_COMPARISONS, "coin_toss"])
    with pytest.raises(ValidationError, match="must differ"):
        EvidencePlan(comparisons=[*STANDARD_COMPARISONS, "raw"])


@pytest.mark.parametrize("change", [{"fdr": "none"}, {"fdr": "bonferroni"}, {"seed": 3}, {"n_starts": 20.5}])
def test_nothing_else_can_be_said(change):
    with pytest.raises(ValidationError, match=next(iter(change))):
        EvidencePlan(**change)


def test_a_card_with_a_laxer_plan_is_refused():
    assert parse_card(tiny_document()).evidence is None
    assert parse_card(tiny_document(evidence={"n_starts": 30})).evidence == EvidencePlan(n_starts=30)
    with pytest.raises(FormatError, match=r"evidence\.n_starts.*5 is laxer"):
        parse_card(tiny_document(evidence={"n_starts": 5}))


def test_the_seed_is_the_beginning_of_the_digest():
    assert seed_of("efa8a3db" + "0" * 56) == 0xEFA8A3DB

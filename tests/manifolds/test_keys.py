from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifoldzoo.cards._errors import BadInputError
from manifoldzoo.cards._names import NAME_PATTERN
from manifoldzoo.manifolds._keys import Keys, keys_for


def test_keys_of_a_manifold_and_of_a_task():
    assert keys_for("cell-cycle") == Keys(obsm="X_cell_cycle", uns="cell_cycle")
    assert keys_for("cell-cycle", "phase") == Keys(
        "X_cell_cycle", "cell_cycle", "cell_cycle_phase", "cell_cycle_phase_proba"
    )


@given(st.from_regex(NAME_PATTERN, fullmatch=True), st.from_regex(r"[a-z0-9]+(_[a-z0-9]+)*", fullmatch=True))
def test_every_manifold_name_gives_plain_keys(name, task):
    name = name.rstrip("\n")
    keys = keys_for(name, task)
    for key in (keys.obsm, keys.uns, keys.obs, keys.obsm_proba):
        assert re.fullmatch(r"[A-Za-z0-9_]+", key)
    assert len({keys.obsm, keys.obs, keys.obsm_proba}) == 3


@pytest.mark.parametrize("name", ["", "cd4/cd8", "a b", "a.b", "é", "a\n", "a\\b", "٣"])
def test_names_that_would_nest_or_break_are_refused(name):
    with pytest.raises(BadInputError) as caught:
        keys_for(name)
    assert repr(name) in str(caught.value)

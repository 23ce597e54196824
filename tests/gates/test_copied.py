"""Copies of anchors are found whatever they are called; anchors of other cells are not copies."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import manifoldzoo as mz
from manifoldzoo.gates.rungs._copied import copied_anchors, copied_record


def anchors(n=12, genes=30, seed=0):
    return np.random.default_rng(seed).random((n, genes)).astype(np.float32) + 0.1


def test_nothing_is_a_copy_of_itself():
    assert copied_anchors(anchors()).shape == (0, 2)


def test_a_copy_within_a_panel_is_found_once():
    values = anchors()
    values[7] = values[2]
    assert copied_anchors(values).tolist() == [[2, 7]]


def test_copies_between_panels_are_found_in_both():
    first, second = anchors(), anchors(seed=1)
    second[[0, 5]] = first[[3, 4]] * np.float32(1 + 1e-6)
    assert copied_anchors(first, second).tolist() == [[3, 0], [4, 5]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_the_unit_does_not_matter(seed, unit):
    values = np.vstack([anchors(seed=seed), anchors(seed=seed)[:3]])
    assert len(copied_anchors(values * unit)) == 3


def test_anchors_that_resemble_each_other_are_no_copies():
    values = anchors()
    assert not len(copied_anchors(values, values * 1.001))


def test_real_anchors_hold_no_copies():
    manifold = mz.load("hematopoietic")
    panels = [values for name, values in manifold.tensors.items() if name.endswith("anchors")]
    assert len(panels) > 1
    assert all(not len(copied_anchors(panel)) for panel in panels)


def test_the_record_counts_and_names_them():
    values = anchors()
    assert copied_record("no_copied_anchors", values).status == "pass"
    values[1] = values[0]
    record = copied_record("no_copied_anchors", values)
    assert (record.status, record.statistic, record.details["pairs"]) == ("fail", 1.0, "0 and 1")

"""Digests of panels: everything that an anchor is moves them, and nothing else does."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifoldzoo.manifolds._digests import anchors_digest, cells_digest

ANCHORS = np.arange(6, dtype=np.float32).reshape(2, 3) / 7
ENTRIES = [{"study": "one", "stage": "a", "n_cells": 5}, {"study": "one", "stage": "b", "n_cells": 9}]
GENES = ("G1", "G2", "G3")


def test_the_anchors_digest_is_what_it_says():
    head = json.dumps({"anchors": ENTRIES, "genes": list(GENES)}, sort_keys=True, separators=(",", ":")).encode()
    raw = b"".join(np.float32(value).astype("<f4").tobytes() for row in ANCHORS for value in row)
    assert anchors_digest(ANCHORS, ENTRIES, GENES) == hashlib.sha256(head + raw).hexdigest()


@pytest.mark.parametrize(
    "same",
    [
        np.asfortranarray(ANCHORS),
        ANCHORS.astype(">f4"),
        ANCHORS.astype(np.float64),
        np.repeat(ANCHORS, 2, axis=1)[:, ::2],
    ],
    ids=["fortran", "big endian", "float64", "strided"],
)
def test_memory_layout_does_not_matter(same):
    assert anchors_digest(same, ENTRIES, GENES) == anchors_digest(ANCHORS, ENTRIES, GENES)


def test_the_order_of_keys_does_not_matter_and_that_of_anchors_does():
    turned = [dict(reversed(entry.items())) for entry in ENTRIES]
    assert anchors_digest(ANCHORS, turned, GENES) == anchors_digest(ANCHORS, ENTRIES, GENES)
    assert anchors_digest(ANCHORS, ENTRIES[::-1], GENES) != anchors_digest(ANCHORS, ENTRIES, GENES)


@pytest.mark.parametrize(
    ("anchors", "entries", "genes"),
    [
        (ANCHORS[::-1], ENTRIES, GENES),
        (np.nextafter(ANCHORS, np.float32(9)), ENTRIES, GENES),
        (ANCHORS, [ENTRIES[0], ENTRIES[1] | {"n_cells": 10}], GENES),
        (ANCHORS, [ENTRIES[0], ENTRIES[1] | {"stage": "c"}], GENES),
        (ANCHORS, ENTRIES, ("G2", "G1", "G3")),
        (ANCHORS, ENTRIES, ("G1,G2", "G3")),
    ],
    ids=["rows", "last bit", "cells", "stage", "gene order", "gene names"],
)
def test_any_change_moves_the_anchors_digest(anchors, entries, genes):
    assert anchors_digest(anchors, entries, genes) != anchors_digest(ANCHORS, ENTRIES, GENES)


@given(st.lists(st.text("abc-:", min_size=1, max_size=4), max_size=8), st.randoms(use_true_random=False))
def test_the_cells_digest_is_that_of_a_multiset(ids, random):
    shuffled = ids.copy()
    random.shuffle(shuffled)
    assert cells_digest(shuffled) == cells_digest(ids)
    assert cells_digest([*ids, "new"]) != cells_digest(ids)


def test_the_cells_digest_is_what_it_says():
    assert cells_digest(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest()

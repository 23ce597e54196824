"""Hashed cell ids: what anybody can tell of own cells, with the same answers as panels compared by name."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_manifold, tiny_manifold_with_everything, tiny_members

from manifoldzoo.cards._errors import FormatError
from manifoldzoo.manifolds._cell_ids import CellIds, CopiedBarcodes, SharedCells, hash_ids, shared_with
from manifoldzoo.manifolds._files import decode_tensors, encode_tensors
from manifoldzoo.manifolds._manifold import Manifold
from manifoldzoo.manifolds._panel_overlap import PanelMembers, Role, check_overlap

NAMES = st.lists(st.text(max_size=6), max_size=20)
# few barcodes, prefixes and suffixes, so that panels share some by all ways there are
CELLS = st.tuples(
    st.sampled_from(["s1", "s2", "s3"]),
    st.sampled_from(["", "L5_"]),
    st.integers(0, 15),
    st.sampled_from(["-1", "-2"]),
)


def members_of(cells) -> PanelMembers:
    named = dict.fromkeys((study, f"{before}{barcode(number)}{after}") for study, before, number, after in cells)
    return PanelMembers(tuple(s for s, _ in named), ("d",) * len(named), tuple(name for _, name in named))


def barcode(number: int) -> str:
    return tiny_members("s", 1, first=number).ids[0].removesuffix("-1")


def renamed(members: PanelMembers, study: str) -> PanelMembers:
    return replace(members, study=(study,) * len(members.study))


class Named:
    def __init__(self, name: str, role: Role, members: PanelMembers) -> None:
        self.name, self.role, self.members = name, role, members


def by_name(first: PanelMembers, second: PanelMembers):
    (pair,) = check_overlap([Named("a", "extraction", first), Named("b", "external", second)]).pairs
    return pair


@given(NAMES)
def test_a_hash_is_the_beginning_of_the_sha256(names):
    expected = sorted({int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names})
    found = hash_ids(names)
    assert found.dtype == np.uint64
    assert [int(one) for one in found] == expected


@given(NAMES, st.randoms())
def test_order_and_repeats_do_not_matter(names, random):
    shuffled = names + names[:3]
    random.shuffle(shuffled)
    assert np.array_equal(hash_ids(shuffled), hash_ids(names))


@given(st.lists(CELLS, max_size=60), st.lists(CELLS, max_size=60))
@settings(deadline=None)
def test_cells_that_are_the_same_are_counted_as_by_name(mine, theirs):
    own, other = members_of(mine), members_of(theirs)
    stored = CellIds.of(other)
    expected = by_name(other, own).n_cells
    assert shared_with(stored, own).n_cells == stored.n_shared(CellIds.of(own)) == expected


@given(st.lists(CELLS, max_size=60), st.lists(CELLS, max_size=60))
@settings(deadline=None)
def test_studies_look_copied_as_by_name(mine, theirs):
    # under studies of other names no cell is the same, so that both compare all barcodes
    own = members_of((f"own {study}", *rest) for study, *rest in mine)
    other = members_of(theirs)
    found = {one.study: (one.n_shared, one.n_smaller) for one in shared_with(CellIds.of(other), own).copied}
    expected: dict[str, tuple[int, int]] = {}
    for alike in by_name(own, other).look_alikes:
        told = (alike.n_shared, alike.n_smaller)
        best = expected.get(alike.studies[0])
        if best is None or told[0] / told[1] > best[0] / best[1]:
            expected[alike.studies[0]] = told
    assert found.keys() == expected.keys()
    for study, (shared, smaller) in found.items():
        assert shared / smaller == expected[study][0] / expected[study][1]


@given(st.lists(CELLS, min_size=1, max_size=60))
@settings(deadline=None)
def test_tensors_give_the_same_ids_again(cells):
    ids = CellIds.of(members_of(cells))
    tensors = ids.tensors("panel.kang")
    assert set(tensors) == {"panel.kang.cells", "panel.kang.barcodes"}
    read = CellIds.read(decode_tensors(encode_tensors(tensors), where="here"), "panel.kang")
    assert np.array_equal(read.cells, ids.cells)
    assert sorted(map(tuple, read.barcodes)) == sorted(map(tuple, ids.barcodes))
    assert CellIds.read(tensors) is None


def test_a_renamed_study_is_found_by_its_barcodes():
    stored = CellIds.of(tiny_members("kang2018", 200))
    own = renamed(tiny_members("kang2018", 50), "mine")
    assert shared_with(stored, own) == SharedCells(0, (CopiedBarcodes("mine", 50, 50),))
    suffixed = replace(own, ids=tuple(f"run1_{name.removesuffix('-1')}-7" for name in own.ids))
    assert shared_with(stored, suffixed).copied == (CopiedBarcodes("mine", 50, 50),)
    assert shared_with(stored, tiny_members("mine", 200, first=150)) == SharedCells(0, ())


def test_a_copy_of_one_study_among_many_is_found():
    many = [tiny_members(f"s{index}", 400, first=1000 * index) for index in range(8)]
    panel = PanelMembers(*(sum((getattr(one, kind) for one in many), ()) for kind in ("study", "donor", "ids")))
    own = renamed(many[5], "mine")
    own = PanelMembers(*(getattr(own, kind) + getattr(many[0], kind)[:3] for kind in ("study", "donor", "ids")))
    found = shared_with(CellIds.of(panel), own)
    assert found == SharedCells(3, (CopiedBarcodes("mine", 400, 400),))


def test_of_several_studies_that_one_looks_like_the_closest_is_told():
    own = tiny_members("mine", 100)
    part, all_ = tiny_members("s1", 100, first=30), tiny_members("s2", 100)
    panel = PanelMembers(*(getattr(part, kind) + getattr(all_, kind) for kind in ("study", "donor", "ids")))
    assert shared_with(CellIds.of(panel), own).copied == (CopiedBarcodes("mine", 100, 100),)


def test_cells_that_are_the_same_are_not_counted_again_as_copies():
    panel = tiny_members("kang2018", 100)
    assert shared_with(CellIds.of(panel), panel) == SharedCells(100, ())


def test_numbers_of_rows_are_no_barcodes():
    panel = PanelMembers(("s",) * 30, ("d",) * 30, tuple(f"cell{index}" for index in range(30)))
    ids = CellIds.of(panel)
    assert (len(ids.cells), ids.barcodes) == (30, ())
    assert set(ids.tensors()) == {"panel.cells"}
    assert CellIds.read(ids.tensors()).barcodes == ()
    assert shared_with(ids, renamed(panel, "mine")) == SharedCells(0, ())


def test_thirty_thousand_cells_take_240_kb_twice():
    tensors = CellIds.of(tiny_members("s", 30_000)).tensors()
    assert {name: array.nbytes for name, array in tensors.items()} == dict.fromkeys(tensors, 240_000)


class TestInAnArtifact:
    @pytest.fixture(scope="class")
    def whole(self) -> Manifold:
        return tiny_manifold_with_everything()

    def test_they_survive_saving(self, whole, tmp_path):
        read = Manifold.read(whole.save(tmp_path / "whole"))
        own, beside = CellIds.read(read.tensors), CellIds.read(read.tensors, "panel.external")
        assert (len(own.cells), len(beside.cells)) == (120, 30)
        assert own.n_shared(beside) == 0
        assert shared_with(own, tiny_members("made", 7)).n_cells == 7

    def test_an_artifact_may_have_none(self):
        assert CellIds.read(tiny_manifold().tensors) is None

    @pytest.mark.parametrize(
        ("name", "change", "match"),
        [
            ("panel.cells", lambda a: a.astype(np.float32), "float32"),
            ("panel.cells", lambda a: a.astype(np.int64), "int64"),
            ("panel.cells", lambda a: a[:, None], "shape"),
            ("panel.cells", lambda a: a[::-1], "not sorted"),
            ("panel.cells", lambda a: np.repeat(a, 2), "not sorted"),
            ("panel.cells", lambda _: None, r"none 'panel\.cells'"),
            ("panel.external.barcodes", lambda a: a.astype(np.uint32), "uint32"),
            ("panel.stranger.cells", lambda _: np.arange(3, dtype=np.uint64), "unknown tensors"),
        ],
    )
    def test_what_is_none_is_refused(self, whole, name, change, match):
        changed = {name: change(whole.tensors.get(name))}
        tensors = {key: array for key, array in {**whole.tensors, **changed}.items() if array is not None}
        with pytest.raises(FormatError, match=match):
            Manifold.build(whole.card, whole.genes, tensors, whole.vectors)

    def test_they_are_part_of_the_identity(self, whole):
        fewer = {**whole.tensors, "panel.cells": whole.tensors["panel.cells"][1:]}
        assert Manifold.build(whole.card, whole.genes, fewer, whole.vectors).digest != whole.digest

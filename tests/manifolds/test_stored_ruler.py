"""Rulers of artifacts: what travels, what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_manifold, tiny_ruler
from tiny_interaction import tiny_interaction, tiny_interactions

from manifoldzoo.cards._errors import FormatError
from manifoldzoo.gates.rungs._intact import valid
from manifoldzoo.manifolds import InteractionRuler, Manifold, StageRuler
from manifoldzoo.manifolds._stored_ruler import ruler_shapes, ruler_tensors, stored_ruler


def test_a_stage_graph_travels_on_the_card_alone():
    manifold = tiny_manifold()
    assert ruler_tensors(tiny_ruler()) == ruler_shapes(manifold.card) == {}
    assert isinstance(manifold.ruler, StageRuler) and manifold.ruler == tiny_ruler()


def test_a_table_travels_as_tensors_and_comes_back_with_its_digest(tmp_path):
    ruler, manifold = tiny_interactions(), tiny_interaction()
    found = ruler_tensors(ruler)
    assert {name: array.shape for name, array in found.items()} == ruler_shapes(manifold.card)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    again = Manifold.read(manifold.save(tmp_path / "saved"))
    assert isinstance(again.ruler, InteractionRuler)
    assert again.ruler.digest == ruler.digest == again.card.ruler.digest and again.digest == manifold.digest
    ids = [stage.id for stage in ruler.stages]
    assert np.array_equal(again.ruler.distances(ids), again.tensors["ruler.distances"])
    assert np.array_equal(again.ruler.directed_distances(ids, ids), again.tensors["ruler.directed"])
    assert len(again.ruler.nulls(np.random.default_rng(0).spawn(9))) == 2


def test_the_first_rung_sees_another_table():
    manifold = tiny_interaction()
    assert valid(manifold).status == "pass"
    directed = manifold.tensors["ruler.directed"].copy()
    directed[0, 1] += 1
    other = InteractionRuler("talk", "1", manifold.ruler.stages, directed, manifold.tensors["ruler.nulls"])
    forged = Manifold.build(manifold.card, manifold.genes, manifold.tensors | ruler_tensors(other), manifold.vectors)
    told = {record.gate: record.status for record in valid(forged).records}
    assert told["ruler_digest"] == "fail"


def test_distances_that_are_not_the_mean_of_both_directions_are_refused():
    manifold = tiny_interaction()
    wrong = manifold.tensors["ruler.distances"].copy()
    wrong[0, 1] = wrong[1, 0] = wrong[0, 1] + 0.5
    with pytest.raises(FormatError, match=r"'ruler\.distances' is not the mean of both directions"):
        stored_ruler(manifold.card, dict(manifold.tensors) | {"ruler.distances": wrong})


@pytest.mark.parametrize("name", ["ruler.distances", "ruler.directed", "ruler.nulls"])
def test_a_table_that_is_missing_or_misshapen_is_refused(name):
    manifold = tiny_interaction()
    parts = (manifold.card, manifold.genes)
    without = {other: array for other, array in manifold.tensors.items() if other != name}
    with pytest.raises(FormatError, match=f"lacks the tensors.*{name}"):
        Manifold.build(*parts, without, manifold.vectors)
    with pytest.raises(FormatError, match=f"{name}.*has the shape"):
        Manifold.build(*parts, without | {name: manifold.tensors[name][..., :-1]}, manifold.vectors)


def test_a_stage_graph_with_tables_is_refused():
    manifold = tiny_manifold()
    with pytest.raises(FormatError, match=r"unknown tensors \['ruler\.directed'"):
        Manifold.build(
            manifold.card, manifold.genes, manifold.tensors | ruler_tensors(tiny_interactions()), manifold.vectors
        )

"""A ruler: seven stages on two arms."""

from __future__ import annotations

from manifoldzoo.manifolds import Edge, Stage, StageRuler

SOURCE = "made up for an example; not for science"


def toy_two_arms() -> StageRuler:
    """Return progenitors from which an erythroid and a monocytic arm of three steps each grow."""
    arms = {
        "erythroid": (
            ("mep", "Megakaryocyte-erythroid progenitor", "CL:0000050"),
            ("erythroid_early", "Early erythroid cell", ""),
            ("erythroid_late", "Late erythroid cell", ""),
        ),
        "monocytic": (
            ("gmp", "Granulocyte-monocyte progenitor", "CL:0000557"),
            ("monoblast", "Monoblast", ""),
            ("monocyte", "Monocyte", ""),
        ),
    }
    stages = [Stage("progenitor", "Stem cell or common myeloid progenitor", "", "progenitor")]
    edges = []
    for branch, entries in arms.items():
        parent = stages[0].id
        for name, label, ontology_id in entries:
            stages.append(Stage(name, label, ontology_id, branch))
            edges.append(Edge(name, parent, SOURCE))
            parent = name
    return StageRuler("toy-two-arms", "0.1.0", tuple(stages), tuple(edges), root="progenitor")

"""Figures: ``import manifoldzoo as mz; mz.pl.embedding(adata, manifold)``. They need the extra ``[plot]``.

Each function draws on the ``ax`` it is given, or in a new pyplot figure that a notebook shows, and returns the Axes.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .gates.report._figure_controls import controls as controls
    from .gates.report._figure_gates import gates as gates
    from .gates.report._figure_holdouts import holdouts as holdouts
    from .gates.report._figure_null import null as null
    from .manifolds.plots._calibration import calibration as calibration
    from .manifolds.plots._confusion import confusion as confusion
    from .manifolds.plots._embedding import embedding as embedding
    from .manifolds.plots._interaction_map import interaction_map as interaction_map
    from .manifolds.plots._sender_receiver import sender_receiver as sender_receiver
    from .manifolds.plots._stage_graph import stage_graph as stage_graph

# the package and not this module, because paths of modules are told from there
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __package__ or "manifoldzoo",
    submod_attrs={
        "gates.report._figure_controls": ["controls"],
        "gates.report._figure_gates": ["gates"],
        "gates.report._figure_holdouts": ["holdouts"],
        "gates.report._figure_null": ["null"],
        "manifolds.plots._calibration": ["calibration"],
        "manifolds.plots._confusion": ["confusion"],
        "manifolds.plots._embedding": ["embedding"],
        "manifolds.plots._interaction_map": ["interaction_map"],
        "manifolds.plots._sender_receiver": ["sender_receiver"],
        "manifolds.plots._stage_graph": ["stage_graph"],
    },
)

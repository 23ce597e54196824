"""Figures of cells, rulers and readouts; each is drawn on an Axes and returns it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._calibration import calibration as calibration
    from ._confusion import confusion as confusion
    from ._embedding import embedding as embedding
    from ._interaction_map import interaction_map as interaction_map
    from ._sender_receiver import sender_receiver as sender_receiver
    from ._stage_graph import stage_graph as stage_graph

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_calibration": ["calibration"],
        "_confusion": ["confusion"],
        "_embedding": ["embedding"],
        "_interaction_map": ["interaction_map"],
        "_sender_receiver": ["sender_receiver"],
        "_stage_graph": ["stage_graph"],
    },
)

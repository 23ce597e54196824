"""The figures that travel with an artifact: its anchors and its ruler."""

from __future__ import annotations

from pathlib import Path

from .._figure import draw_anchors
from .._interaction_ruler import InteractionRuler
from .._manifold import Manifold
from .._ruler import StageRuler
from ._interaction_map import interaction_map
from ._save import save_axes
from ._sender_receiver import sender_receiver
from ._stage_graph import stage_graph


def draw_artifact(manifold: Manifold, folder: Path) -> list[Path]:
    """Draw the anchors of a manifold and its ruler, as files beside the artifact.

    Parameters
    ----------
    manifold
        The manifold.
    folder
        ``figures/`` of the artifact, made if it is not there.

    Returns
    -------
    The files written: ``anchors.png``, and ``stages.png`` of a stage graph or ``interaction_map.png`` and
    ``sender_receiver.png`` of a table of interactions.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    StoreError
        If a file cannot be written.
    """
    written = [draw_anchors(manifold, folder / "anchors.png")]
    ruler = manifold.ruler
    if isinstance(ruler, StageRuler):
        written.append(save_axes(stage_graph(manifold), folder / "stages.png"))
    if isinstance(ruler, InteractionRuler):
        written.append(save_axes(interaction_map(manifold), folder / "interaction_map.png"))
        written.append(save_axes(sender_receiver(manifold)[0], folder / "sender_receiver.png"))
    return written

"""The head atlas: every attention head scored by itself."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._atlas import HeadAtlas as HeadAtlas
    from ._score import HeadScores as HeadScores
    from ._score import score_heads as score_heads

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"_atlas": ["HeadAtlas"], "_score": ["HeadScores", "score_heads"]}
)

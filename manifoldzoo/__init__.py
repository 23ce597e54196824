"""The zoo of algorithms extracted from biological foundation models.

Load a pretrained manifold by name and place cells on it, validate it against gates, extract and publish a new
one. Importing this loads numpy and pydantic; anndata, scipy, scikit-learn and PyTorch wait until they are used.
"""

from typing import TYPE_CHECKING

import lazy_loader

# the two that everybody uses cost a fifth of a second here, once, instead of at the first load
from .manifolds._manifold import Manifold
from .registry._resolve import load

if TYPE_CHECKING:
    from . import pl as pl
    from .cards._card import Card as Card
    from .cards._errors import ZooError as ZooError
    from .cards._errors import ZooWarning as ZooWarning
    from .cards._evidence import EvidenceRun as EvidenceRun
    from .extractors._extract import extract as extract
    from .extractors._reproduce import reproduce as reproduce
    from .extractors._screen import screen as screen
    from .gates._ladder import validate as validate
    from .manifolds._transform_file import transform_file as transform_file
    from .registry._bundle import bundle as bundle
    from .registry._bundle import unbundle as unbundle
    from .registry._catalogue import info as info
    from .registry._catalogue import list_manifolds as list_manifolds
    from .registry._hub_index import refresh_index as refresh_index
    from .registry._lock import lock as lock
    from .registry._publish import publish as publish
    from .registry._verify import verify as verify

__version__ = "0.4.0"

__getattr__, _, _lazy = lazy_loader.attach(
    __name__,
    submodules=["pl"],
    submod_attrs={
        "cards._card": ["Card"],
        "cards._errors": ["ZooError", "ZooWarning"],
        "cards._evidence": ["EvidenceRun"],
        "extractors._extract": ["extract"],
        "extractors._reproduce": ["reproduce"],
        "extractors._screen": ["screen"],
        "gates._ladder": ["validate"],
        "manifolds._transform_file": ["transform_file"],
        "registry._bundle": ["bundle", "unbundle"],
        "registry._catalogue": ["info", "list_manifolds"],
        "registry._hub_index": ["refresh_index"],
        "registry._lock": ["lock"],
        "registry._publish": ["publish"],
        "registry._verify": ["verify"],
    },
)

__all__ = sorted([*_lazy, "Manifold", "load"])


def __dir__() -> list[str]:
    """Public names, for tab completion."""
    return __all__

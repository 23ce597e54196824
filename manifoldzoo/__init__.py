"""The zoo of algorithms extracted from biological foundation models.

Load a pretrained manifold by name and place cells on it, validate it against gates, extract and publish a new
one. Nothing heavy is imported until it is used.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from .cards._card import Card
    from .cards._errors import ZooError, ZooWarning
    from .cards._evidence import EvidenceRun
    from .extractors._extract import extract
    from .gates._ladder import validate
    from .manifolds._manifold import Manifold
    from .manifolds._transform_file import transform_file
    from .registry._bundle import bundle, unbundle
    from .registry._catalogue import info, list_manifolds
    from .registry._hub import refresh_index
    from .registry._lock import lock
    from .registry._publish import publish
    from .registry._resolve import load
    from .registry._verify import verify

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "cards._card": ["Card"],
        "cards._errors": ["ZooError", "ZooWarning"],
        "cards._evidence": ["EvidenceRun"],
        "extractors._extract": ["extract"],
        "gates._ladder": ["validate"],
        "manifolds._manifold": ["Manifold"],
        "manifolds._transform_file": ["transform_file"],
        "registry._bundle": ["bundle", "unbundle"],
        "registry._catalogue": ["info", "list_manifolds"],
        "registry._hub": ["refresh_index"],
        "registry._lock": ["lock"],
        "registry._publish": ["publish"],
        "registry._resolve": ["load"],
        "registry._verify": ["verify"],
    },
)

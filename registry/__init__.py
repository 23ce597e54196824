"""Where it lives: references, stores, integrity, locking and publishing."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._bundle import bundle as bundle
    from ._bundle import unbundle as unbundle
    from ._catalogue import info as info
    from ._catalogue import list_manifolds as list_manifolds
    from ._lock import lock as lock
    from ._publish import Publication as Publication
    from ._publish import publish as publish
    from ._pull import pull as pull
    from ._reference import parse_reference as parse_reference
    from ._resolve import load as load
    from ._resolve import locate as locate
    from ._verify import verify as verify

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_bundle": ["bundle", "unbundle"],
        "_catalogue": ["info", "list_manifolds"],
        "_lock": ["lock"],
        "_publish": ["Publication", "publish"],
        "_pull": ["pull"],
        "_reference": ["parse_reference"],
        "_resolve": ["load", "locate"],
        "_verify": ["verify"],
    },
)

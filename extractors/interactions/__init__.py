"""Rulers of communication: from ligands, receptors and their expression to distances between cell types."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._build import BuiltRuler as BuiltRuler
    from ._build import build_interaction_ruler as build_interaction_ruler
    from ._curated import CuratedPath as CuratedPath
    from ._curated import PathCheck as PathCheck
    from ._curated import read_paths as read_paths
    from ._profiles import Profiles as Profiles
    from ._profiles import read_profiles as read_profiles
    from ._proximity import directed_hops as directed_hops
    from ._proximity import nearest_hops as nearest_hops
    from ._proximity import permuted_receivers as permuted_receivers
    from ._resource import InteractionResource as InteractionResource
    from ._resource import read_resource as read_resource

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_build": ["BuiltRuler", "build_interaction_ruler"],
        "_curated": ["CuratedPath", "PathCheck", "read_paths"],
        "_profiles": ["Profiles", "read_profiles"],
        "_proximity": ["directed_hops", "nearest_hops", "permuted_receivers"],
        "_resource": ["InteractionResource", "read_resource"],
    },
)

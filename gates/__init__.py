"""What is proven: metrics, holdouts, nulls and the evidence ladder."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._holdouts import group_folds as group_folds
    from ._holdouts import random_folds as random_folds
    from ._holdouts import refit_holdouts as refit_holdouts
    from ._ladder import validate as validate
    from ._metrics import angular_distances as angular_distances
    from ._metrics import continuity as continuity
    from ._metrics import distance_spearman as distance_spearman
    from ._metrics import trustworthiness as trustworthiness
    from ._permutation import permutation_test as permutation_test
    from ._published import GateData as GateData
    from ._published import published_gates as published_gates

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_holdouts": ["group_folds", "random_folds", "refit_holdouts"],
        "_ladder": ["validate"],
        "_metrics": ["angular_distances", "continuity", "distance_spearman", "trustworthiness"],
        "_permutation": ["permutation_test"],
        "_published": ["GateData", "published_gates"],
    },
)

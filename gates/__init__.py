"""What is proven: metrics, holdouts, nulls and the evidence ladder."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._gate_data import GateData as GateData
    from ._ladder import validate as validate
    from .metrics import angular_distances as angular_distances
    from .metrics import continuity as continuity
    from .metrics import distance_spearman as distance_spearman
    from .metrics import trustworthiness as trustworthiness
    from .nulls._permutation import permutation_test as permutation_test
    from .refits._holdouts import group_folds as group_folds
    from .refits._holdouts import random_folds as random_folds
    from .refits._holdouts import refit_holdouts as refit_holdouts
    from .rungs._published import published_gates as published_gates

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "refits._holdouts": ["group_folds", "random_folds", "refit_holdouts"],
        "_ladder": ["validate"],
        "metrics": ["angular_distances", "continuity", "distance_spearman", "trustworthiness"],
        "nulls._permutation": ["permutation_test"],
        "_gate_data": ["GateData"],
        "rungs._published": ["published_gates"],
    },
)

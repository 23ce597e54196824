"""What is proven: metrics, holdouts, nulls and the evidence ladder."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._gate_data import GateData as GateData
    from ._ladder import validate as validate
    from ._registered import registered_tests as registered_tests
    from .metrics import angular_distances as angular_distances
    from .metrics import continuity as continuity
    from .metrics import continuity_of_points as continuity_of_points
    from .metrics import distance_kendall as distance_kendall
    from .metrics import distance_pearson as distance_pearson
    from .metrics import distance_spearman as distance_spearman
    from .metrics import effective_dimension as effective_dimension
    from .metrics import geodesic_correlation as geodesic_correlation
    from .metrics import geodesic_distances as geodesic_distances
    from .metrics import pca_margin as pca_margin
    from .metrics import residualised_correlation as residualised_correlation
    from .metrics import shared_labels as shared_labels
    from .metrics import stress as stress
    from .metrics import trustworthiness as trustworthiness
    from .metrics import trustworthiness_of_points as trustworthiness_of_points
    from .nulls._mantel import mantel as mantel
    from .nulls._mantel import partial_mantel as partial_mantel
    from .nulls._permutation import permutation_test as permutation_test
    from .refits._holdouts import group_folds as group_folds
    from .refits._holdouts import random_folds as random_folds
    from .refits._holdouts import refit_holdouts as refit_holdouts
    from .rungs._geometry import geometry_records as geometry_records
    from .rungs._published import published_gates as published_gates

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "refits._holdouts": ["group_folds", "random_folds", "refit_holdouts"],
        "_ladder": ["validate"],
        "_registered": ["registered_tests"],
        "metrics": [
            "angular_distances",
            "continuity",
            "continuity_of_points",
            "distance_kendall",
            "distance_pearson",
            "distance_spearman",
            "effective_dimension",
            "geodesic_correlation",
            "geodesic_distances",
            "pca_margin",
            "residualised_correlation",
            "shared_labels",
            "stress",
            "trustworthiness",
            "trustworthiness_of_points",
        ],
        "nulls._mantel": ["mantel", "partial_mantel"],
        "nulls._permutation": ["permutation_test"],
        "_gate_data": ["GateData"],
        "rungs._geometry": ["geometry_records"],
        "rungs._published": ["published_gates"],
    },
)

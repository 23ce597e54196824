"""Metrics of a latent geometry, exact and on arrays."""

from ._agreement import Pairs as Pairs
from ._agreement import Statistic as Statistic
from ._agreement import all_pairs as all_pairs
from ._agreement import distance_kendall as distance_kendall
from ._agreement import distance_pearson as distance_pearson
from ._agreement import distance_spearman as distance_spearman
from ._distances import Metric as Metric
from ._distances import angular_distances as angular_distances
from ._distances import distances_between as distances_between
from ._distances import euclidean_distances as euclidean_distances
from ._geodesic import geodesic_correlation as geodesic_correlation
from ._geodesic import geodesic_distances as geodesic_distances
from ._neighbourhoods import continuity as continuity
from ._neighbourhoods import trustworthiness as trustworthiness
from ._point_neighbourhoods import continuity_of_points as continuity_of_points
from ._point_neighbourhoods import trustworthiness_of_points as trustworthiness_of_points
from ._residualised import residualised_correlation as residualised_correlation
from ._residualised import shared_labels as shared_labels
from ._shape import effective_dimension as effective_dimension
from ._shape import pca_margin as pca_margin
from ._shape import stress as stress

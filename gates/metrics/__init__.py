"""Metrics of a latent geometry, exact and on arrays."""

from ._agreement import Pairs as Pairs
from ._agreement import all_pairs as all_pairs
from ._agreement import distance_spearman as distance_spearman
from ._distances import angular_distances as angular_distances
from ._distances import euclidean_distances as euclidean_distances
from ._neighbourhoods import continuity as continuity
from ._neighbourhoods import trustworthiness as trustworthiness

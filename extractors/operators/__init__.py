"""Stage 1: gene-by-gene matrices read from a model, joined over heads and layers, and their controls."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._attention import AttentionMean as AttentionMean
    from ._attention import attention_mean as attention_mean
    from ._combine import WeightedHead as WeightedHead
    from ._combine import drift as drift
    from ._combine import mean_operator as mean_operator
    from ._combine import numerical_rank as numerical_rank
    from ._combine import single as single
    from ._combine import top_k as top_k
    from ._controls import apply_control as apply_control
    from ._distilled import Distilled as Distilled
    from ._distilled import distil as distil
    from ._tokens import token_operators as token_operators

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_attention": ["AttentionMean", "attention_mean"],
        "_combine": ["WeightedHead", "drift", "mean_operator", "numerical_rank", "single", "top_k"],
        "_controls": ["apply_control"],
        "_distilled": ["Distilled", "distil"],
        "_tokens": ["token_operators"],
    },
)

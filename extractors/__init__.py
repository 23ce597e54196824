"""How it is made: checkpoints, operators, adaptors, readouts, the extractor interface. Needs [extract]."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._extract import extract as extract
    from ._extract import reference_checkpoint as reference_checkpoint
    from ._interface import Extractor as Extractor
    from .operators._attention import AttentionMean as AttentionMean
    from .operators._attention import attention_mean as attention_mean
    from .operators._combine import drift as drift
    from .operators._combine import mean_operator as mean_operator
    from .operators._combine import single as single

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_extract": ["extract", "reference_checkpoint"],
        "_interface": ["Extractor"],
        "operators._attention": ["AttentionMean", "attention_mean"],
        "operators._combine": ["drift", "mean_operator", "single"],
    },
)

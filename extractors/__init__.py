"""How it is made: checkpoints, operators, adaptors, readouts, the extractor interface. Needs [extract]."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._attention_mean import AttentionMean as AttentionMean
    from ._attention_mean import attention_mean as attention_mean
    from ._extract import extract as extract
    from ._extract import reference_checkpoint as reference_checkpoint
    from ._interface import Extractor as Extractor
    from ._operators import drift as drift
    from ._operators import mean_operator as mean_operator
    from ._operators import single as single

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_attention_mean": ["AttentionMean", "attention_mean"],
        "_extract": ["extract", "reference_checkpoint"],
        "_interface": ["Extractor"],
        "_operators": ["drift", "mean_operator", "single"],
    },
)

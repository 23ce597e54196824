"""How it is made: checkpoints, operators, adaptors, readouts, the extractor interface. Needs [extract]."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from ._extract import extract as extract
    from ._extract import make_job as make_job
    from ._extract import reference_checkpoint as reference_checkpoint
    from ._fit_manifold import fit_manifold as fit_manifold
    from ._interface import Extractor as Extractor
    from ._interface import Job as Job
    from ._prepare import Prepared as Prepared
    from ._prepare import prepare as prepare
    from ._reproduce import Reproduction as Reproduction
    from ._reproduce import reproduce as reproduce
    from ._screen import screen as screen
    from .checkpoints._families import CheckpointReader as CheckpointReader
    from .checkpoints._families import read_checkpoint as read_checkpoint
    from .checkpoints._interface import PADDING as PADDING
    from .checkpoints._interface import Checkpoint as Checkpoint
    from .checkpoints._interface import HeadWeights as HeadWeights
    from .checkpoints._interface import InputScale as InputScale
    from .operators._attention import AttentionMean as AttentionMean
    from .operators._attention import attention_mean as attention_mean
    from .operators._combine import drift as drift
    from .operators._combine import mean_operator as mean_operator
    from .operators._combine import single as single

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "_extract": ["extract", "make_job", "reference_checkpoint"],
        "_fit_manifold": ["fit_manifold"],
        "_interface": ["Extractor", "Job"],
        "_prepare": ["Prepared", "prepare"],
        "_reproduce": ["Reproduction", "reproduce"],
        "_screen": ["screen"],
        "checkpoints._families": ["CheckpointReader", "read_checkpoint"],
        "checkpoints._interface": ["Checkpoint", "HeadWeights", "InputScale", "PADDING"],
        "operators._attention": ["AttentionMean", "attention_mean"],
        "operators._combine": ["drift", "mean_operator", "single"],
    },
)

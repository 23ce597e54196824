"""Reading foundation-model checkpoints, one family a module."""

from ._interface import Checkpoint
from ._scgpt import ScGPTCheckpoint, read_scgpt

__all__ = ["Checkpoint", "ScGPTCheckpoint", "read_scgpt"]

"""An example of a manifoldzoo plugin: a family of checkpoints, an extractor and a ruler."""

from ._coexpression_let import CoexpressionLet
from ._static_embedding import StaticEmbedding, StaticEmbeddingReader
from ._two_arms import toy_two_arms

__all__ = ["CoexpressionLet", "StaticEmbedding", "StaticEmbeddingReader", "toy_two_arms"]

"""The honest comparator of the hematopoietic manifold: its head on expression, without a model."""

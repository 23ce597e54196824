"""The hematopoietic manifold: recipe, stage ruler and label table."""

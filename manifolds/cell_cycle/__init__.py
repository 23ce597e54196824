"""The cell cycle manifold: a ring of phases, and published genes of each by which cells are scored."""
